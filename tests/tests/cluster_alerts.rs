//! Alerts on pods of the real cluster, as Kubernetes Events.

use knark_tests::cluster::{Namespace, Trace, nodes, wait_for};
use serde_json::Value;

const POLICY: &str = "
apiVersion: knark.dev/v1alpha1
kind: TracePolicy
metadata: {name: bait}
spec:
  rules:
  - {name: true-run, severity: high, exec: {}, message: '{{process.exe}} was run'}
";

#[test]
fn a_pod_has_an_event_for_what_a_rule_matches_in_it() {
    let (ns, nodes, folder) = (Namespace::new(), nodes(), tempfile::tempdir().unwrap());
    let policy = folder.path().join("policy.yaml");
    std::fs::write(&policy, POLICY).unwrap();
    ns.run_ticker("web", &nodes[1]);
    let mut trace = Trace::start(&mut ns.trace(&[
        "web",
        "-f",
        policy.to_str().unwrap(),
        "--alert-to",
        "events",
        "--alert-key",
        "rule",
        "-o",
        "json",
    ]));
    let first = trace.first_tick();
    let events = wait_for("an Event", || {
        let selector = "involvedObject.kind=Pod,involvedObject.name=web,reason=TrueRun";
        let events: Value =
            serde_json::from_str(&ns.kubectl(&["get", "events", "--field-selector", selector, "-o", "json"])).unwrap();
        events["items"].as_array().filter(|events| !events.is_empty()).cloned()
    });
    let event = &events[0];
    assert_eq!((&event["type"], &event["reportingComponent"]), (&"Warning".into(), &"knark.dev/kubectl-knark".into()), "{event}");
    let message = event["message"].as_str().unwrap();
    assert!(message.starts_with("[high] ") && message.ends_with(" was run in container main (policy bait)"), "{message}");
    let uid = ns.kubectl(&["get", "pod", "web", "-o", "jsonpath={.metadata.uid}"]);
    assert_eq!(event["involvedObject"]["uid"], Value::from(uid));
    trace.tick_after(first + 3);
    assert_eq!(trace.interrupt(), Some(0), "{}", trace.words());
    // The repeats are one more.
    trace.says("alerts to events: 2 delivered");
    ns.assert_clean();
}
