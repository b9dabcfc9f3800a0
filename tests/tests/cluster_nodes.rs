//! Nodes that fail, restart, or say what they can do. In a file of its own, as it disturbs others.

use std::sync::{Mutex, PoisonError};

use knark_tests::{
    cluster::{Namespace, Trace, cluster, knark, nodes, wait_for},
    program::seen,
};

/// One test at a time: each wants the nodes in a state of its own.
static NODES: Mutex<()> = Mutex::new(());

#[test]
fn a_restarted_kubelet_costs_no_event() {
    let _alone = NODES.lock().unwrap_or_else(PoisonError::into_inner);
    let (ns, nodes) = (Namespace::new(), nodes());
    ns.run_ticker("web", &nodes[1]);
    let mut trace = Trace::start(&mut ns.trace(&["web", "--on", "exec", "-o", "json"]));
    let first = trace.first_tick();
    trace.tick_after(first + 5);
    cluster(&["node-restart-kubelet", &nodes[1]]);
    let then = trace.ticks().last().copied().unwrap();
    trace.tick_after(then + 10);
    assert_eq!(trace.interrupt(), Some(0), "{}", trace.words());
    let ticks = trace.ticks();
    assert!(ticks.windows(2).all(|pair| pair[1] == pair[0] + 1), "ticks are missing: {ticks:?}");
    ns.assert_clean();
}

#[test]
fn a_node_that_is_not_ready_is_refused() {
    let _alone = NODES.lock().unwrap_or_else(PoisonError::into_inner);
    let (ns, nodes) = (Namespace::new(), nodes());
    ns.run("web", &nodes[1], &["/bin/sleep", "1000"]);
    cluster(&["kubelet-stop", &nodes[1]]);
    let restart = Restart(nodes[1].clone());
    wait_for("the node to be NotReady", || {
        let status = ns.kubectl(&["get", "node", &nodes[1], "-o", "jsonpath={.status.conditions[?(@.type=='Ready')].status}"]);
        (status != "True").then_some(())
    });
    for args in [&["web"][..], &["web", "--node", &nodes[1]], &[&format!("node/{}", nodes[1])]] {
        let output = ns.trace(args).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", seen(&output));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(stderr.contains("is not Ready") && stderr.contains("kubectl describe node"), "{stderr}");
        ns.assert_clean();
    }
    drop(restart);
}

/// Starts a node's kubelet again, whatever becomes of the test.
struct Restart(String);

impl Drop for Restart {
    fn drop(&mut self) {
        cluster(&["kubelet-start", &self.0]);
    }
}

#[test]
fn doctor_knows_nodes_and_rights() {
    let _alone = NODES.lock().unwrap_or_else(PoisonError::into_inner);
    let (ns, nodes) = (Namespace::new(), nodes());
    let output = knark(&["doctor", "--tracer-namespace", &ns.name, "-o", "json"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", seen(&output));
    let findings: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let names: Vec<_> =
        findings["nodes"].as_array().unwrap().iter().map(|node| node["node"].as_str().unwrap().to_owned()).collect();
    assert_eq!(names, nodes);
    for node in findings["nodes"].as_array().unwrap() {
        let report = &node["report"];
        assert_eq!((&report["btf"], &report["cgroup"]["driver"]), (&true.into(), &"cgroupfs".into()), "{node}");
        let events = report["events"].as_array().unwrap();
        assert!(events.iter().all(|event| event["available"] == true), "{node}");
        // The first is the control plane.
        assert_eq!(events.iter().any(|event| event["kind"] == "api"), node["node"] == nodes[0].as_str(), "{node}");
    }
    assert!(findings["permissions"].as_array().unwrap().iter().all(|right| right["allowed"] == true));
    ns.assert_clean();

    let output = knark(&["doctor", "--tracer-namespace", &ns.name, "--node", &nodes[0]]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        text.starts_with("NODE ") && text.contains("exec,file,write,map-exec,exit,api") && !text.contains(&nodes[1]),
        "{text}"
    );
    ns.assert_clean();
}
