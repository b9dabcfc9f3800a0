//! What a trace of pods shows.

use knark_tests::cluster::{Namespace, Trace, kubectl, nodes};
use serde_json::Value;

fn args_contain(event: &Value, word: &str) -> bool {
    event["type"] == "exec" && event["process"]["args"].as_array().is_some_and(|args| args.iter().any(|arg| arg == word))
}

#[test]
fn events_of_a_pod_bear_its_names() {
    let (ns, nodes) = (Namespace::new(), nodes());
    ns.run_ticker("web", &nodes[0]);
    ns.run("other", &nodes[0], &["/bin/sh", "-c", "while :; do /bin/true other; sleep 0.2; done"]);
    let mut trace = Trace::start(&mut ns.trace(&["web", "-o", "json"]));
    trace.first_tick();
    ns.kubectl(&["exec", "web", "--", "cat", "/etc/hostname"]);

    let exec = trace.event("exec", |e| args_contain(e, "/etc/hostname"));
    assert_eq!(exec["node"]["name"], nodes[0]);
    let kubernetes = &exec["kubernetes"];
    assert_eq!((&kubernetes["namespace"], &kubernetes["pod"]), (&ns.name.as_str().into(), &"web".into()), "{exec}");
    assert_eq!(kubernetes["labels"]["app"], "web");
    assert_eq!(exec["container"]["name"], "main");
    assert_eq!(exec["container"]["image"], "localhost/knark-test:1");
    let file = trace.event("open", |e| e["file"]["path"] == "/etc/hostname" && e["process"]["comm"] == "cat");
    assert_eq!(file["kubernetes"]["pod"], "web");

    assert_eq!(trace.interrupt(), Some(0), "{}", trace.words());
    let events = trace.events();
    assert!(events.iter().all(|e| e["type"] == "summary" || e["kubernetes"]["pod"] == "web"), "{}", trace.words());
    assert_eq!(events.last().map(|e| &e["type"]), Some(&"summary".into()));
    ns.assert_clean();
}

#[test]
fn pods_of_a_selector_are_traced_on_all_their_nodes() {
    let (ns, nodes) = (Namespace::new(), nodes());
    ns.run_ticker("a", &nodes[0]);
    ns.run_ticker("b", &nodes[1]);
    ns.run_ticker("c", &nodes[1]);
    let mut trace = Trace::start(&mut ns.trace(&["-l", "app in (a,b)", "--on", "exec", "-o", "json"]));
    for (pod, node) in [("a", &nodes[0]), ("b", &nodes[1])] {
        let event = trace.event(pod, |e| e["kubernetes"]["pod"] == pod);
        assert_eq!(event["node"]["name"], **node);
    }
    assert_eq!(trace.interrupt(), Some(0), "{}", trace.words());
    // Once each, though the nodes of this cluster share a kernel.
    for event in trace.events().iter().filter(|e| e["type"] == "exec") {
        let node = if event["kubernetes"]["pod"] == "a" { &nodes[0] } else { &nodes[1] };
        assert_eq!(event["node"]["name"], **node, "{event}");
        assert_ne!(event["kubernetes"]["pod"], "c");
    }
}

#[test]
fn a_workload_stands_for_its_pods() {
    let (ns, nodes) = (Namespace::new(), nodes());
    ns.kubectl(&[
        "create",
        "deployment",
        "web",
        "--image",
        "localhost/knark-test:1",
        "--",
        "/bin/sh",
        "-c",
        "while :; do /bin/true w; sleep 0.2; done",
    ]);
    ns.kubectl(&["wait", "--for=condition=Available", "deployment/web", "--timeout=90s"]);
    ns.run_ticker("other", &nodes[0]);
    let mut trace = Trace::start(&mut ns.trace(&["deploy/web", "--on", "exec", "--max-events", "3", "-o", "json"]));
    assert_eq!(trace.end().code(), Some(0), "{}", trace.words());
    let events = trace.events();
    assert_eq!(events.iter().filter(|e| e["type"] == "exec").count(), 3, "{}", trace.words());
    for event in events.iter().filter(|e| e["type"] == "exec") {
        assert_eq!(event["kubernetes"]["owner"]["kind"], "ReplicaSet", "{event}");
        assert!(event["kubernetes"]["pod"].as_str().is_some_and(|pod| pod.starts_with("web-")));
    }
    ns.assert_clean();
}

#[test]
fn a_new_pod_loses_none_of_its_first_events() {
    let (ns, nodes) = (Namespace::new(), nodes());
    ns.run_ticker("old", &nodes[0]);
    let mut trace = Trace::start(&mut ns.trace(&["--on", "exec", "-o", "json"]));
    trace.first_tick();
    // Its first process is the event; what follows keeps the pod from being restarted or noticed late.
    ns.start("new", &nodes[0], &["/bin/sh", "-c", "/bin/true first; /bin/true second"]);
    for word in ["first", "second"] {
        let event = trace.event(word, |e| args_contain(e, word) && e["process"]["comm"] == "true");
        assert_eq!(event["kubernetes"]["pod"], "new");
        assert_eq!(event["container"]["name"], "main");
    }
    let shell = trace.event("the container's own command", |e| e["kubernetes"]["pod"] == "new" && e["process"]["comm"] == "sh");
    assert_eq!(shell["kubernetes"]["labels"]["app"], "new");
    assert_eq!(trace.interrupt(), Some(0), "{}", trace.words());
}

#[test]
fn a_container_of_20_ms_has_its_names() {
    let (ns, nodes) = (Namespace::new(), nodes());
    ns.run_ticker("old", &nodes[0]);
    let mut trace = Trace::start(&mut ns.trace(&["--on", "exec", "-o", "json"]));
    trace.first_tick();
    for name in ["brief-1", "brief-2", "brief-3"] {
        ns.start(name, &nodes[0], &["/bin/true", name]);
    }
    for name in ["brief-1", "brief-2", "brief-3"] {
        let event = trace.event(name, |e| args_contain(e, name));
        assert_eq!((&event["kubernetes"]["pod"], &event["container"]["name"]), (&name.into(), &"main".into()), "{event}");
    }
    assert_eq!(trace.interrupt(), Some(0), "{}", trace.words());
}

#[test]
fn a_pod_on_another_node_gets_a_tracer_and_a_warning() {
    let (ns, nodes) = (Namespace::new(), nodes());
    ns.run_ticker("old", &nodes[0]);
    let mut trace = Trace::start(&mut ns.trace(&["--on", "exec", "-o", "json"]));
    trace.first_tick();
    ns.start("new", &nodes[1], &["/bin/sh", "-c", "while :; do /bin/true late; sleep 0.2; done"]);
    trace.says("its first events are not seen");
    let event = trace.event("the other node's event", |e| args_contain(e, "late"));
    assert_eq!(event["node"]["name"], nodes[1]);
    assert_eq!(trace.interrupt(), Some(0), "{}", trace.words());
    ns.assert_clean();
}

#[test]
fn only_the_chosen_containers_are_traced() {
    let (ns, nodes) = (Namespace::new(), nodes());
    let container = |name: &str| {
        let script = format!("while :; do /bin/true {name}; sleep 0.2; done");
        serde_json::json!({ "name": name, "image": knark_tests::cluster::IMAGE, "command": ["/bin/sh", "-c", script] })
    };
    knark_tests::cluster::apply(&serde_json::json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "two", "namespace": ns.name },
        "spec": { "nodeName": nodes[0], "terminationGracePeriodSeconds": 0, "containers": [container("one"), container("two")] },
    }));
    ns.kubectl(&["wait", "--for=condition=Ready", "pod/two", "--timeout=90s"]);
    let mut trace = Trace::start(&mut ns.trace(&["two", "-c", "two", "--on", "exec", "--max-events", "10", "-o", "json"]));
    assert_eq!(trace.end().code(), Some(0), "{}", trace.words());
    for event in trace.events().iter().filter(|e| e["type"] == "exec") {
        assert_eq!(event["container"]["name"], "two", "{event}");
    }
}

#[test]
fn a_whole_node_has_processes_outside_of_pods() {
    let (ns, nodes) = (Namespace::new(), nodes());
    ns.run_ticker("web", &nodes[0]);
    let mut trace = Trace::start(&mut ns.trace(&[&format!("node/{}", nodes[0]), "--on", "exec", "-o", "json"]));
    let tick = trace.event("an event of a pod", |e| e["kubernetes"]["pod"] == "web" && e["kubernetes"]["namespace"] == *ns.name);
    assert_eq!(tick["kubernetes"]["labels"]["app"], "web");
    // kubectl itself runs on this machine, which is the node.
    kubectl(["version"]);
    trace.event("an event of the host", |e| e["type"] == "exec" && e["kubernetes"].is_null());
    assert_eq!(trace.interrupt(), Some(0), "{}", trace.stderr());
    ns.assert_clean();
}

#[test]
fn a_recording_of_pods_is_replayed() {
    let (ns, nodes) = (Namespace::new(), nodes());
    ns.run_ticker("web", &nodes[0]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rec.knark");
    let file = file.to_str().unwrap();
    let mut trace = Trace::start(&mut ns.trace(&["web", "--on", "exec", "--max-events", "8", "-o", "json", "--record", file]));
    assert_eq!(trace.end().code(), Some(0), "{}", trace.words());
    let mut replay = Trace::start(&mut knark_tests::cluster::knark(&["replay", file, "-o", "json"]));
    assert_eq!(replay.end().code(), Some(0), "{}", replay.words());
    let names = |trace: &Trace| -> Vec<_> {
        let events = trace.events().into_iter().filter(|e| e["type"] == "exec");
        events.map(|e| (e["boot_ns"].clone(), e["kubernetes"].clone())).collect()
    };
    assert_eq!(names(&replay)[..8], names(&trace)[..]);
}
