//! Several API servers on a node, in static pods and as a plain process, of one version and of another.
#![expect(clippy::unwrap_used, reason = "helpers of tests have no better way to end")]

use std::{
    collections::BTreeMap,
    fs, panic,
    path::PathBuf,
    process,
    sync::{Mutex, PoisonError},
    thread::{self, scope},
};

use knark_tests::{
    api_server::other_versions,
    cluster::{Namespace, Trace, cluster, kubeconfig, kubectl, nodes, try_kubectl, wait_for},
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// The test cluster's own, which is no pod.
const OWN_PORT: u16 = 16443;

struct StaticPod {
    node: String,
    port: u16,
}

/// So many API servers are enough for one machine.
static ALONE: Mutex<()> = Mutex::new(());

impl Drop for StaticPod {
    fn drop(&mut self) {
        let stop = || cluster(&["api-server-stop", &self.node, &self.port.to_string()]);
        if thread::panicking() {
            // The others are to be stopped as well.
            let _ = panic::catch_unwind(stop);
        } else {
            stop();
        }
    }
}

impl StaticPod {
    fn start(node: &str, port: u16, version: Option<&str>) -> Self {
        let new = Self { node: node.to_owned(), port };
        let port = port.to_string();
        let words: Vec<&str> = ["api-server-start", node, &port].into_iter().chain(version).collect();
        cluster(&words);
        new
    }

    fn name(&self) -> String {
        format!("kube-apiserver-{}-{}", self.port, self.node)
    }
}

/// Asks the API server at this port, which is the one that shall answer.
fn ask(port: u16, path: &str) -> bool {
    try_kubectl(["--server", &format!("https://127.0.0.1:{port}"), "get", "--raw", path]).status.success()
}

fn is_complete(event: &Value) -> bool {
    event["type"] == "api" && event["api"]["stage"] == "complete"
}

/// Waits until requests to it are shown, and gives the process that they are shown of.
fn await_seen(trace: &Trace, port: u16, but: Option<&Value>) -> Value {
    let query = format!("seen={port}");
    wait_for(&format!("a request at port {port}\n{}", trace.stderr()), || {
        ask(port, &format!("/readyz?{query}"));
        let events = trace.events();
        let found = events.iter().find(|event| event["api"]["query"] == query.as_str() && Some(&event["process"]["pid"]) != but);
        found.cloned()
    })
}

fn audit(port: u16) -> Vec<Value> {
    let folder = kubeconfig("admin").parent().unwrap().to_owned();
    let folder = if port == OWN_PORT { folder } else { folder.join(format!("api-server-{port}")) };
    let log = fs::read_to_string(folder.join("audit.log")).unwrap();
    log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

#[test]
fn requests_to_several_api_servers_of_a_node_are_shown_once() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (ns, node) = (Namespace::new(), nodes().remove(0));
    let other = other_versions().remove(0);
    let folder = other.parent().and_then(|folder| folder.file_name()).unwrap().to_str().unwrap();
    let version = folder.trim_start_matches("kubernetes-");
    // Two containers of one image have one file beneath.
    let pods =
        [(16444, None), (16445, None), (16446, Some(version))].map(|(port, version)| StaticPod::start(&node, port, version));
    let mut trace = Trace::start(&mut ns.trace(&["--on", "api", "-o", "json"]));
    let ports: Vec<u16> = pods.iter().map(|pod| pod.port).chain([OWN_PORT]).collect();
    let first: BTreeMap<u16, Value> = ports.iter().map(|port| (*port, await_seen(&trace, *port, None))).collect();
    for pod in &pods {
        let event = &first[&pod.port];
        assert_eq!(event["kubernetes"]["pod"], pod.name(), "{event:#}");
        assert_eq!(
            (&event["kubernetes"]["namespace"], &event["container"]["name"]),
            (&"kube-system".into(), &"kube-apiserver".into())
        );
        assert_eq!(event["process"]["exe"], "/usr/local/bin/kube-apiserver");
    }
    assert!(first[&OWN_PORT]["kubernetes"].is_null() && first[&OWN_PORT]["container"].is_null(), "{:#}", first[&OWN_PORT]);

    // All at once.
    scope(|scope| {
        for port in &ports {
            scope.spawn(move || {
                let server = format!("https://127.0.0.1:{port}");
                let on = |args: &[&str]| try_kubectl(["--server", &server].iter().chain(args));
                // a list of one object each
                assert!(on(&["get", "clusterroles", "--chunk-size", "1", "-o", "name"]).status.success());
                let role = format!("by-{port}-{}", process::id());
                assert!(on(&["create", "clusterrole", &role, "--verb", "get", "--resource", "pods"]).status.success());
                assert!(on(&["delete", "clusterrole", &role]).status.success());
            });
        }
    });
    for port in &ports {
        assert!(ask(*port, &format!("/readyz?last={port}")));
    }
    let last: BTreeMap<u16, Value> = ports
        .iter()
        .map(|port| (*port, trace.event("the last", |event| event["api"]["query"] == format!("last={port}"))))
        .collect();
    assert_eq!(trace.interrupt(), Some(0), "{}", trace.stderr());
    let events = trace.events();
    let sums = events.last().unwrap();
    assert_eq!(sums["summary"]["lost"], 0, "{sums}");

    let mut by_id: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for event in events.iter().filter(|event| is_complete(event)) {
        by_id.entry(event["api"]["audit_id"].as_str().unwrap()).or_default().push(event);
    }
    assert!(by_id.values().all(|same| same.len() == 1), "{:#?}", by_id.values().find(|same| same.len() != 1));
    for port in ports {
        let (from, to) = (first[&port]["time"].as_str().unwrap(), last[&port]["time"].as_str());
        let log = audit(port);
        let within = |line: &&Value| {
            let ends = line["stage"] == "ResponseComplete" && line["stageTimestamp"].as_str() < to;
            ends && line["requestReceivedTimestamp"].as_str().unwrap() > from
        };
        let mut compared = 0;
        for line in log.iter().filter(within) {
            let event = by_id.get(line["auditID"].as_str().unwrap()).unwrap_or_else(|| panic!("no event of {line:#}"))[0];
            let of = |event: &Value| [&event["process"]["pid"], &event["container"]["id"]].map(Clone::clone);
            assert_eq!(of(event), of(&first[&port]), "{line:#}");
            assert_eq!(event["api"]["code"], line["responseStatus"]["code"], "{line:#}");
            compared += 1;
        }
        assert!(compared > 60, "{compared} of {} at port {port}", log.len());
    }
    ns.assert_clean();
}

#[test]
fn an_api_server_whose_container_starts_anew_is_found_and_the_gap_is_told() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (ns, node) = (Namespace::new(), nodes().remove(0));
    let pod = StaticPod::start(&node, 16447, None);
    let mut trace = Trace::start(&mut ns.trace(&["--on", "api", "-o", "json"]));
    let before = await_seen(&trace, pod.port, None);
    let pid = before["process"]["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).unwrap();
    assert_eq!(fs::read_link(format!("/proc/{pid}/exe")).unwrap(), PathBuf::from("/usr/local/bin/kube-apiserver"));
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    trace.says(&format!("API server {pid} has ended"));
    let after = await_seen(&trace, pod.port, Some(&before["process"]["pid"]));
    trace.says(&format!("API server {} (", after["process"]["pid"]));
    assert_eq!(after["kubernetes"], before["kubernetes"]);
    assert_ne!(after["container"]["id"], before["container"]["id"]);
    let restarts = "jsonpath={.status.containerStatuses[0].restartCount}";
    wait_for("the restart to be counted", || {
        (kubectl(["get", "pod", &pod.name(), "-n", "kube-system", "-o", restarts]) == "1").then_some(())
    });
    assert_eq!(trace.interrupt(), Some(0), "{}", trace.stderr());
    ns.assert_clean();
}
