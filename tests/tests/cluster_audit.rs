//! Audit logs that lie on nodes: the same events as of the same files here, and nothing left behind.
#![expect(clippy::unwrap_used, reason = "helpers of tests have no better way to end")]

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use knark_tests::{
    audit::line,
    cluster::{Namespace, Proxy, Trace, knark, kubeconfig, kubectl, nodes, wait_for},
    program::{plugin, seen},
};
use rustix::process::Signal;
use serde_json::{Value, json};

/// So much of it is copied at most, in bytes: it grows with the cluster's age.
const COPIED: usize = 4 << 20;

/// The audit log of the test cluster's own API server.
fn own_log() -> PathBuf {
    kubeconfig("admin").with_file_name("audit.log")
}

fn on_node(path: &Path) -> String {
    format!("node:{}", path.display())
}

/// `kubectl knark trace` of audit logs, its pods in this namespace. No namespace is chosen among requests.
fn trace(ns: &Namespace, args: &[&str]) -> Command {
    let mut command = knark(&["trace", "--tracer-namespace", &ns.name, "-o", "json"]);
    command.args(args);
    command
}

/// The events without the names of their nodes, and the sums.
fn told(output: &Output) -> (Vec<Value>, Value) {
    let mut values: Vec<Value> =
        output.stdout.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect();
    let sums = values.pop().unwrap_or_else(|| panic!("{}", seen(output)));
    for value in &mut values {
        value["node"]["name"].take();
    }
    (values, sums["summary"].clone())
}

/// The same log here.
fn told_here(path: &Path, args: &[&str]) -> (Vec<Value>, Value) {
    let output =
        plugin().args(["trace", "-o", "json", "--audit-log"]).arg(path).args(args).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{}", seen(&output));
    told(&output)
}

fn append(path: &Path, text: &str) {
    File::options().append(true).create(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[track_caller]
fn shows(trace: &Trace, path: &str) -> Value {
    trace.event(path, |event| event["api"]["path"] == path)
}

#[test]
fn the_log_of_the_api_server_is_the_same_there_as_here() {
    let (ns, folder) = (Namespace::new(), tempfile::tempdir().unwrap());
    // A copy stands still, and is of a real API server all the same: old and new, with bodies.
    let log = fs::read(own_log()).unwrap();
    let log = &log[log.len().saturating_sub(COPIED)..];
    let log = &log[log.iter().position(|byte| *byte == b'\n').unwrap() + 1..];
    let whole = log.iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
    let cut = log[..whole / 2].iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
    fs::write(folder.path().join("audit-2026-01-02T03-04-05.678.log.gz"), gzip(&log[..cut])).unwrap();
    fs::write(folder.path().join("audit.log"), &log[cut..whole]).unwrap();
    let record = folder.path().join("rec.knark");
    let live = folder.path().join("audit.log");
    for (path, args, least) in
        [(folder.path(), &["--bodies"][..], 100), (&live, &["--since", "1000years"], 50), (&live, &["--since", "0s"], 0)]
    {
        let output = trace(&ns, &["--audit-log", &on_node(path)]).args(args).arg("--record").arg(&record).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", seen(&output));
        let (events, sums) = told(&output);
        let (here, here_sums) = told_here(path, args);
        assert!(events.len() >= least, "{}", seen(&output));
        assert!(events == here, "{} events there, {} here", events.len(), here.len());
        assert_eq!((&sums["filtered"], &sums["lost"]), (&here_sums["filtered"], &json!(0)));
        assert_eq!(sums["nodes"][0]["node"], "knark-0");
        let names = r#""node":{"name":"knark-0","#;
        let lines = String::from_utf8_lossy(&output.stdout);
        assert_eq!(lines.lines().filter(|line| line.contains(names)).count(), events.len(), "{lines}");
        let replayed = plugin().args(["replay", "-o", "json"]).arg(&record).output().unwrap();
        assert!(told(&replayed).0 == events, "{}", seen(&replayed));
        fs::remove_file(&record).unwrap();
        ns.assert_clean();
    }
}

#[test]
fn a_log_on_a_node_is_followed_over_rotation_and_a_cut_connection() {
    let (ns, folder) = (Namespace::new(), tempfile::tempdir().unwrap());
    let path = folder.path().join("audit.log");
    append(&path, &line("/1", 1));
    let server = kubectl(["config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}"]);
    let proxy = Proxy::to(server.trim_start_matches("https://").parse().unwrap());
    let address = format!("https://{}", proxy.address);
    let mut trace = Trace::start(&mut trace(&ns, &["--audit-log", &on_node(&path), "--follow", "--server", &address]));
    shows(&trace, "/1");
    let second = line("/2", 2);
    append(&path, &second[..40]);
    append(&path, &second[40..]);
    shows(&trace, "/2");
    // As the API server does it.
    let full = folder.path().join("audit-2026-01-02T03-04-05.000.log");
    fs::rename(&path, &full).unwrap();
    append(&full, &line("/3", 3));
    append(&path, &line("/4", 4));
    shows(&trace, "/3");
    shows(&trace, "/4");
    proxy.cut();
    append(&path, &line("/5", 5));
    fs::rename(&path, folder.path().join("audit-2026-01-02T03-04-06.000.log")).unwrap();
    append(&path, &line("/6", 6));
    proxy.mend();
    shows(&trace, "/5");
    shows(&trace, "/6");
    assert_eq!(trace.interrupt(), Some(0), "{}", trace.words());
    let events = trace.events();
    let paths: Vec<_> = events.iter().filter_map(|event| event["api"]["path"].as_str()).collect();
    assert_eq!(paths, ["/1", "/2", "/3", "/4", "/5", "/6"], "{}", trace.words());
    assert_eq!(events.last().unwrap()["summary"]["lost"], 0);
    ns.assert_clean();
}

#[test]
fn the_api_server_is_followed_beside_what_a_pod_executes() {
    let (ns, node) = (Namespace::new(), nodes().remove(0));
    ns.run_ticker("web", &node);
    let log = on_node(&own_log());
    let mut trace =
        Trace::start(&mut ns.trace(&["web", "--on", "exec,api", "-o", "json", "--audit-log", &log, "--follow", "--since", "0s"]));
    trace.first_tick();
    let name = format!("seen-{}", ns.name);
    wait_for("a request in the log", || {
        ns.kubectl(&["get", "configmap", &name, "--ignore-not-found"]);
        trace.events().iter().any(|event| event["api"]["name"] == name.as_str()).then_some(())
    });
    assert_eq!(trace.interrupt(), Some(0), "{}", trace.words());
    ns.assert_clean();
}

#[test]
fn ctrl_c_before_anything_streams_leaves_nothing() {
    let (ns, log) = (Namespace::new(), on_node(&own_log()));
    // An image that is no tracer's: nothing streams, whether the signal comes before its failure or after.
    let image = ["--image", "localhost/knark-test:1", "--image-pull-policy", "Never"];
    let mut trace = Trace::start(trace(&ns, &["--audit-log", &log]).args(image));
    wait_for("the tracer's Job", || (!ns.leftovers().is_empty()).then_some(()));
    trace.signal(Signal::INT);
    let status = trace.end().code();
    assert!(matches!(status, Some(130 | 1)), "{status:?}: {}", trace.words());
    ns.assert_clean();
}

#[test]
fn a_killed_plugin_leaves_nothing_for_long() {
    let (ns, folder) = (Namespace::new(), tempfile::tempdir().unwrap());
    let path = folder.path().join("audit.log");
    append(&path, &line("/1", 1));
    let mut trace = Trace::start(&mut trace(&ns, &["--audit-log", &on_node(&path), "--follow"]));
    shows(&trace, "/1");
    let pods = ns.tracers();
    assert_eq!(pods.len(), 1, "{pods:?}");
    let pod: Value = serde_json::from_str(&ns.kubectl(&["get", "pod", &pods[0], "-o", "json"])).unwrap();
    let spec = &pod["spec"];
    assert_eq!(
        (&spec["hostPID"], &spec["hostNetwork"], &spec["automountServiceAccountToken"]),
        (&Value::Null, &Value::Null, &json!(false))
    );
    assert_eq!(spec["containers"][0]["securityContext"]["capabilities"], json!({"drop": ["ALL"]}));
    assert_eq!(spec["volumes"].as_array().map(Vec::len), Some(1), "{spec:#}");
    trace.signal(Signal::KILL);
    trace.end();
    let phase = |pod: &str| ns.kubectl(&["get", "pod", pod, "--ignore-not-found", "-o", "jsonpath={.status.phase}"]);
    wait_for("the tracer's own end", || (phase(&pods[0]) != "Running").then_some(()));
    wait_for("the Job's removal", || ns.leftovers().is_empty().then_some(()));
}

#[test]
fn a_deleted_pod_is_no_end_in_silence() {
    let (ns, folder) = (Namespace::new(), tempfile::tempdir().unwrap());
    let path = folder.path().join("audit.log");
    append(&path, &line("/1", 1));
    let mut trace = Trace::start(&mut trace(&ns, &["--audit-log", &on_node(&path), "--follow"]));
    shows(&trace, "/1");
    let pod = ns.tracers().remove(0);
    ns.kubectl(&["delete", "pod", &pod, "--grace-period=0", "--force"]);
    trace.says("reading the audit log");
    assert_eq!(trace.end().code(), Some(1), "{}", trace.words());
    assert_ne!(trace.events().last().unwrap()["summary"]["lost"], 0, "{}", trace.words());
    ns.assert_clean();
}

#[test]
fn what_can_not_be_read_is_said_with_what_to_do() {
    let (ns, folder) = (Namespace::new(), tempfile::tempdir().unwrap());
    let at = |name: &str| on_node(&folder.path().join(name));
    fs::write(folder.path().join("secret"), line("/secret", 1)).unwrap();
    std::os::unix::fs::symlink(folder.path().join("secret"), folder.path().join("link.log")).unwrap();
    fs::create_dir(folder.path().join("empty")).unwrap();
    fs::create_dir(folder.path().join("two")).unwrap();
    for name in ["a.log", "b.log"] {
        fs::write(folder.path().join("two").join(name), line("/x", 1)).unwrap();
    }
    for (place, status, marks) in [
        (at("none.log"), 1, &["there is none on this node", "--audit-log-path", "knark-0"][..]),
        (at("none/audit.log"), 1, &["there is no folder", "--audit-log-path", "knark-0"]),
        (at("link.log"), 1, &["symbolic link"]),
        (at("empty"), 1, &["holds no audit logs"]),
        (at("two"), 1, &["a.log, b.log"]),
        ("node:audit.log".to_owned(), 2, &["begins with /"]),
        ("node:/var/../etc/audit.log".to_owned(), 2, &["has no .."]),
    ] {
        let output = trace(&ns, &["--audit-log", &place]).output().unwrap();
        assert_eq!(output.status.code(), Some(status), "{place}: {}", seen(&output));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(marks.iter().all(|mark| said.contains(mark)), "{place}: {}", seen(&output));
        assert!(!seen(&output).contains("/secret\""), "{}", seen(&output));
        ns.assert_clean();
    }
    let output = plugin().args(["trace", "--local", "--audit-log", "node:/var/log/audit.log"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", seen(&output));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--local"), "{}", seen(&output));
}

#[test]
fn the_rights_that_doctor_prints_are_enough() {
    let (ns, folder) = (Namespace::new(), tempfile::tempdir().unwrap());
    let path = folder.path().join("audit.log");
    fs::write(&path, line("/1", 1)).unwrap();
    let alice = |path: &Path| {
        let mut command = trace(&ns, &["--audit-log", &on_node(path), "--node", "knark-1"]);
        command.env("KUBECONFIG", kubeconfig("alice")).output().unwrap()
    };
    let refused = alice(&path);
    assert_eq!(refused.status.code(), Some(1), "{}", seen(&refused));
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("\"alice\" cannot create") && said.contains("doctor --rbac"), "{}", seen(&refused));
    let rbac = knark(&["doctor", "--rbac", "-n", &ns.name, "--tracer-namespace", &ns.name]).output().unwrap();
    let file = folder.path().join("rbac.yaml");
    fs::write(&file, &rbac.stdout).unwrap();
    kubectl(["apply", "-f", file.to_str().unwrap()]);
    ns.kubectl(&["create", "rolebinding", "knark-tracers", "--role=knark-tracers", "--user=alice"]);
    let (events, sums) = told(&alice(&path));
    assert_eq!((events.len(), &sums["nodes"][0]["node"]), (1, &json!("knark-1")));
    let missing = alice(Path::new("/nonexistent/audit.log"));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("there is no folder"), "{}", seen(&missing));
    ns.assert_clean();
}
