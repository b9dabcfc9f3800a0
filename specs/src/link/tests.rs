use serde_json::{Value, json};

use super::*;
use crate::cases;

fn event(partial: &Value) -> Event {
    cases::event(partial.as_object().unwrap()).unwrap()
}

fn exec(id: &str, user: &str, stage: &str, query: &str) -> Event {
    event(&json!({ "api": { "stage": stage, "request_id": id, "verb": "create", "resource": "pods", "subresource": "exec",
        "namespace": "prod", "name": "web", "query": query, "user": { "name": user }, "source": "192.0.2.7" } }))
}

fn process(pid: u32, args: &[&str], ancestors: &Value) -> Event {
    event(&json!({ "kubernetes": { "namespace": "prod", "pod": "web" }, "container": { "name": "app" }, "exec": {},
        "process": { "pid": pid, "exe": "/bin/sh", "args": args, "ancestors": ancestors, "start_boot_ns": pid.to_string() } }))
}

fn outside() -> Value {
    json!([{ "pid": 50, "comm": "runc", "exe": "/memfd:runc_cloned:/proc/self/exe" }, { "pid": 40, "comm": "containerd-shim", "exe": "/usr/bin/containerd-shim-runc-v2" }, { "pid": 1, "comm": "systemd", "exe": "/lib/systemd/systemd" }])
}

const SECOND: i64 = 1_000_000_000;

#[test]
fn a_shell_belongs_to_who_ran_exec_and_so_does_what_it_runs() {
    let mut links = Links::default();
    assert_eq!(
        links.cause(&exec("1", "alice", "started", "command=sh&command=-c&command=a%20b&container=app&stdin=true"), 0),
        None
    );
    let cause = links.cause(&process(100, &["sh", "-c", "a b"], &outside()), SECOND).unwrap();
    let want = Cause {
        request_id: "1".into(),
        user: "alice".into(),
        impersonator: None,
        subresource: "exec".into(),
        source: Some("192.0.2.7".into()),
        certainty: Certainty::Certain,
    };
    assert_eq!(*cause, want);
    let below = json!([{ "pid": 100, "comm": "sh", "exe": "/bin/sh", "start_boot_ns": "100" }]);
    assert_eq!(links.cause(&process(101, &["a", "b"], &below), 2 * SECOND).as_deref(), Some(&want));
    // The pid alone is no identity.
    let other = json!([{ "pid": 100, "comm": "sh", "exe": "/bin/sh", "start_boot_ns": "77" }]);
    assert_eq!(links.cause(&process(102, &["a", "b"], &other), 2 * SECOND), None);
    // It goes on after the session has ended.
    links.cause(&exec("1", "alice", "complete", ""), 3 * SECOND);
    assert_eq!(links.cause(&process(103, &["c"], &below), 4 * SECOND).as_deref(), Some(&want));
    // A process whose parents have ended keeps it, too.
    let grandchild = json!([{ "pid": 103, "comm": "c", "exe": "/bin/sh", "start_boot_ns": "103" }]);
    assert_eq!(links.cause(&process(104, &["d"], &grandchild), 5 * SECOND).as_deref(), Some(&want));
}

#[test]
fn what_could_be_of_several_requests_is_only_likely() {
    let mut links = Links::default();
    for (id, user) in [("1", "alice"), ("2", "bob")] {
        links.cause(&exec(id, user, "started", "command=sh&container=app"), 0);
    }
    let causes = [100, 101].map(|pid| links.cause(&process(pid, &["sh"], &outside()), SECOND).unwrap());
    assert_eq!(
        causes.each_ref().map(|cause| (cause.user.as_str(), cause.certainty)),
        [("alice", Certainty::Likely), ("bob", Certainty::Likely)]
    );
    // Both have led to a process: the third is a probe of the kubelet's, or the like.
    assert_eq!(links.cause(&process(102, &["sh"], &outside()), SECOND), None);
}

#[test]
fn a_request_without_a_container_is_only_likely() {
    let mut links = Links::default();
    links.cause(&exec("1", "alice", "started", "command=sh"), 0);
    assert_eq!(links.cause(&process(100, &["sh"], &outside()), SECOND).unwrap().certainty, Certainty::Likely);
}

#[test]
fn what_was_not_asked_for_has_no_cause() {
    let shim = |pid: u32, name: &str| json!({ "pid": pid, "comm": name, "exe": format!("/usr/bin/{name}") });
    for (args, ancestors, at) in [
        (&["id"][..], outside(), SECOND),
        (&["sh"][..], outside(), 60 * SECOND),
        (&["sh"][..], outside(), -60 * SECOND),
        // A child of a process of the container.
        (&["sh"][..], json!([shim(20, "nginx"), shim(40, "containerd-shim"), shim(1, "systemd")]), SECOND),
        // Processes that call themselves as the runtime does.
        (&["sh"][..], json!([shim(21, "runc"), shim(20, "nginx"), shim(40, "containerd-shim")]), SECOND),
        (
            &["sh"][..],
            json!([shim(22, "runc"), shim(21, "containerd-shim"), shim(20, "nginx"), shim(40, "containerd-shim")]),
            SECOND,
        ),
        (&["sh"][..], json!([]), SECOND),
    ] {
        let mut links = Links::default();
        links.cause(&exec("1", "alice", "started", "command=sh&container=app"), 0);
        assert_eq!(links.cause(&process(100, args, &ancestors), at), None, "{args:?} {ancestors} {at}");
    }
    let mut links = Links::default();
    links.cause(&exec("1", "alice", "started", "command=sh&container=other"), 0);
    assert_eq!(links.cause(&process(100, &["sh"], &outside()), SECOND), None);
}

#[test]
fn a_probe_that_ends_as_the_command_does_is_another_command() {
    let mut links = Links::default();
    links.cause(&exec("1", "alice", "started", "command=psql&command=-U&command=postgres&container=app"), 0);
    let probe = ["pg_isready", "-h", "127.0.0.1", "-U", "postgres"];
    assert_eq!(links.cause(&process(100, &probe, &outside()), SECOND), None);
    let cause = links.cause(&process(101, &["psql", "-U", "postgres"], &outside()), SECOND).unwrap();
    assert_eq!(cause.certainty, Certainty::Certain);
    let mut links = Links::default();
    links.cause(&exec("1", "alice", "started", "command=ls&container=app"), 0);
    assert_eq!(links.cause(&process(100, &["sh", "-c", "ls"], &outside()), SECOND), None);
}

#[test]
fn a_script_keeps_its_cause() {
    let mut links = Links::default();
    links.cause(&exec("1", "alice", "started", "command=entry.sh&command=--now&container=app"), 0);
    let cause = links.cause(&process(100, &["/bin/sh", "/usr/bin/entry.sh", "--now"], &outside()), SECOND).unwrap();
    assert_eq!(cause.certainty, Certainty::Likely);
}

#[test]
fn memory_is_bounded() {
    let mut links = Links::default();
    for number in 0..3 * MOST {
        let id = number.to_string();
        links.cause(&exec(&id, "alice", "started", "command=sh&container=app"), 0);
        links.cause(&process(u32::try_from(number).unwrap() + 2, &["sh"], &outside()), SECOND);
    }
    let processes: usize = links.processes.values().map(HashMap::len).sum();
    assert!(links.requests.len() <= MOST && processes <= MOST && links.order.len() <= MOST);
}
