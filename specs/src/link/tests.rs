use serde_json::{Value, json};

use super::*;
use crate::{cases, event::Ancestor};

mod creation;

/// Of a pod whose container can be fed, and is not probed.
fn cause(links: &mut Links, event: &Event, at: i64) -> Option<Arc<Cause>> {
    let fed = PodContainer { stdin: true, ..PodContainer::default() };
    links.cause(event, at, Some(&pod(&[("app", fed)])))
}

fn event(partial: &Value) -> Event {
    cases::event(partial.as_object().unwrap()).unwrap()
}

fn exec(id: &str, user: &str, stage: &str, query: &str) -> Event {
    event(&json!({ "api": { "stage": stage, "request_id": id, "verb": "create", "resource": "pods", "subresource": "exec",
        "namespace": "prod", "name": "web", "query": query, "user": { "name": user }, "source": "192.0.2.7" } }))
}

fn session(subresource: &str, id: &str, stage: &str, query: &str) -> Event {
    event(&json!({ "api": { "stage": stage, "request_id": id, "verb": "get", "resource": "pods", "subresource": subresource,
        "namespace": "prod", "name": "web", "query": query, "user": { "name": "bob" } } }))
}

/// Of a pod, with more fields of the request.
fn creation(id: &str, user: &str, more: &Value) -> Event {
    let mut api = json!({ "stage": "complete", "request_id": id, "verb": "create", "resource": "pods", "namespace": "prod",
        "code": 201, "latency_ns": 1000, "user": { "name": user } });
    api.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    event(&json!({ "api": api }))
}

/// A container's first process, of a pod of this name; pod and process began at these times, in seconds, and the event is of the
/// latter.
fn first(pod: &str, container: &str, pod_began: i64, began: i64) -> Event {
    let (shim, began) = ((pod_began * SECOND).to_string(), (began * SECOND).to_string());
    let ancestors = json!([{ "pid": 40, "comm": "containerd-shim", "exe": "/usr/bin/containerd-shim-runc-v2", "start_boot_ns": shim },
                           { "pid": 1, "comm": "systemd", "exe": "/lib/systemd/systemd" }]);
    // Two that begin at once are two.
    let pid = if (pod, container) == ("web", "app") { 100 } else { 1000 + (pod.len() * 100 + container.len()) };
    event(&json!({ "kubernetes": { "namespace": "prod", "pod": pod, "pod_uid": format!("uid-{pod}") }, "boot_ns": began,
        "container": { "name": container, "id": format!("{pod}-{container}") }, "exec": {},
        "process": { "pid": pid, "exe": "/bin/app", "ancestors": ancestors, "start_boot_ns": began } }))
}

/// What came of it: the user and the certainty. Nodes booted at the epoch.
fn of(links: &mut Links, event: &Event) -> Option<(String, Certainty)> {
    of_known(links, event, None)
}

fn of_known(links: &mut Links, event: &Event, pod: Option<&Pod>) -> Option<(String, Certainty)> {
    let at = i64::try_from(event.boot_ns).unwrap();
    sure(links.cause(event, at, pod))
}

fn sure(cause: Option<Arc<Cause>>) -> Option<(String, Certainty)> {
    cause.map(|cause| (cause.user.clone(), cause.certainty))
}

/// A pod's spec, by container.
fn pod(containers: &[(&str, PodContainer)]) -> Pod {
    let containers = containers.iter().map(|(name, container)| ((*name).to_owned(), container.clone())).collect();
    Pod { containers: Some(containers), ..Pod::default() }
}

#[expect(clippy::unnecessary_wraps, reason = "it is compared with what may be none")]
fn likely(user: &str) -> Option<(String, Certainty)> {
    Some((user.to_owned(), Certainty::Likely))
}

#[expect(clippy::unnecessary_wraps, reason = "it is compared with what may be none")]
fn certain(user: &str) -> Option<(String, Certainty)> {
    Some((user.to_owned(), Certainty::Certain))
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
        cause(&mut links, &exec("1", "alice", "started", "command=sh&command=-c&command=a%20b&container=app&stdin=true"), 0),
        None
    );
    let found = cause(&mut links, &process(100, &["sh", "-c", "a b"], &outside()), SECOND).unwrap();
    let want = Cause {
        request_id: "1".into(),
        user: "alice".into(),
        impersonator: None,
        verb: "create".into(),
        subresource: "exec".into(),
        source: Some("192.0.2.7".into()),
        certainty: Certainty::Certain,
        others: Texts::default(),
    };
    assert_eq!(*found, want);
    let below = json!([{ "pid": 100, "comm": "sh", "exe": "/bin/sh", "start_boot_ns": "100" }]);
    assert_eq!(cause(&mut links, &process(101, &["a", "b"], &below), 2 * SECOND).as_deref(), Some(&want));
    // The pid alone is no identity.
    let other = json!([{ "pid": 100, "comm": "sh", "exe": "/bin/sh", "start_boot_ns": "77" }]);
    assert_eq!(cause(&mut links, &process(102, &["a", "b"], &other), 2 * SECOND), None);
    // It goes on after the session has ended.
    cause(&mut links, &exec("1", "alice", "complete", ""), 3 * SECOND);
    assert_eq!(cause(&mut links, &process(103, &["c"], &below), 4 * SECOND).as_deref(), Some(&want));
    // A process whose parents have ended keeps it, too.
    let grandchild = json!([{ "pid": 103, "comm": "c", "exe": "/bin/sh", "start_boot_ns": "103" }]);
    assert_eq!(cause(&mut links, &process(104, &["d"], &grandchild), 5 * SECOND).as_deref(), Some(&want));
}

#[test]
fn what_could_be_of_several_requests_is_only_likely() {
    let mut links = Links::default();
    for (id, user) in [("1", "alice"), ("2", "bob")] {
        cause(&mut links, &exec(id, user, "started", "command=sh&container=app"), 0);
    }
    let causes = [100, 101].map(|pid| cause(&mut links, &process(pid, &["sh"], &outside()), SECOND).unwrap());
    assert_eq!(
        causes.each_ref().map(|cause| (cause.user.as_str(), cause.certainty)),
        [("alice", Certainty::Likely), ("bob", Certainty::Likely)]
    );
    assert_eq!(causes.each_ref().map(|cause| cause.others.iter().collect::<Vec<_>>()), [["bob"], ["alice"]]);
    // Both have led to a process: the third is a probe of the kubelet's, or the like.
    assert_eq!(cause(&mut links, &process(102, &["sh"], &outside()), SECOND), None);
}

#[test]
fn parameters_that_the_api_server_does_not_take_are_none() {
    let mut links = Links::default();
    cause(&mut links, &exec("1", "alice", "started", "command=sh&command=;&command=%zz&container=other;&container=app"), 0);
    assert_eq!(cause(&mut links, &process(100, &["sh"], &outside()), SECOND).unwrap().certainty, Certainty::Certain);
}

#[test]
fn a_request_without_a_container_is_only_likely() {
    let mut links = Links::default();
    cause(&mut links, &exec("1", "alice", "started", "command=sh"), 0);
    assert_eq!(cause(&mut links, &process(100, &["sh"], &outside()), SECOND).unwrap().certainty, Certainty::Likely);
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
        cause(&mut links, &exec("1", "alice", "started", "command=sh&container=app"), 0);
        assert_eq!(cause(&mut links, &process(100, args, &ancestors), at), None, "{args:?} {ancestors} {at}");
    }
    let mut links = Links::default();
    cause(&mut links, &exec("1", "alice", "started", "command=sh&container=other"), 0);
    assert_eq!(cause(&mut links, &process(100, &["sh"], &outside()), SECOND), None);
}

#[test]
fn a_probe_that_ends_as_the_command_does_is_another_command() {
    let mut links = Links::default();
    cause(&mut links, &exec("1", "alice", "started", "command=psql&command=-U&command=postgres&container=app"), 0);
    let probe = ["pg_isready", "-h", "127.0.0.1", "-U", "postgres"];
    assert_eq!(cause(&mut links, &process(100, &probe, &outside()), SECOND), None);
    let found = cause(&mut links, &process(101, &["psql", "-U", "postgres"], &outside()), SECOND).unwrap();
    assert_eq!(found.certainty, Certainty::Certain);
    let mut links = Links::default();
    cause(&mut links, &exec("1", "alice", "started", "command=ls&container=app"), 0);
    assert_eq!(cause(&mut links, &process(100, &["sh", "-c", "ls"], &outside()), SECOND), None);
}

#[test]
fn a_script_keeps_its_cause() {
    let mut links = Links::default();
    cause(&mut links, &exec("1", "alice", "started", "command=entry.sh&command=--now&container=app"), 0);
    let found = cause(&mut links, &process(100, &["/bin/sh", "/usr/bin/entry.sh", "--now"], &outside()), SECOND).unwrap();
    assert_eq!(found.certainty, Certainty::Likely);
}

#[test]
fn memory_is_bounded() {
    let mut links = Links::default();
    for number in 0..MOST + 100 {
        let id = number.to_string();
        cause(&mut links, &exec(&id, "alice", "started", "command=sh&container=app"), 0);
        cause(&mut links, &process(u32::try_from(number).unwrap() + 2, &["sh"], &outside()), SECOND);
    }
    for number in 0..MOST + 100 {
        let id = number.to_string();
        cause(&mut links, &session("attach", &id, "started", "stdin=true"), 0);
        cause(&mut links, &creation(&id, "alice", &json!({})), 0);
    }
    assert!(links.attached.len() <= MOST && links.creations.len() <= MOST);
    assert!(links.execs.len() <= MOST && links.begun.len() <= MOST);
}

#[test]
fn what_goes_on_is_not_forgotten_for_what_came_later() {
    let mut links = Links::default();
    cause(&mut links, &creation("1", "alice", &json!({ "name": "web" })), 10 * SECOND);
    assert_eq!(of(&mut links, &first("web", "app", 11, 15)), certain("alice"));
    cause(&mut links, &exec("2", "bob", "started", "command=sh&container=app"), 20 * SECOND);
    let found = |links: &mut Links, event: &Event| links.cause(event, 20 * SECOND, None).map(|cause| cause.user.clone());
    assert_eq!(found(&mut links, &process(7, &["sh"], &outside())).as_deref(), Some("bob"));
    let shell = json!([{ "pid": 7, "comm": "sh", "exe": "/bin/sh", "start_boot_ns": "7" }]);
    let main = json!([{ "pid": 100, "comm": "app", "exe": "/bin/app", "start_boot_ns": (15 * SECOND).to_string() }]);
    let (mut child, mut other) = (process(0, &["ls"], &shell), process(0, &["ls"], &main));
    for pid in 1000..u32::try_from(MOST).unwrap() + 1100 {
        Arc::make_mut(&mut child.process).pid = pid;
        Arc::make_mut(&mut other.process).pid = pid;
        assert_eq!(found(&mut links, &child).as_deref(), Some("bob"));
        Arc::make_mut(&mut other.process).start_boot_ns = 1;
        assert_eq!(found(&mut links, &other).as_deref(), Some("alice"));
    }
    assert_eq!((links.begun.len(), links.made.len()), (MOST, 1));
}

#[test]
fn a_query_that_is_cut_asks_for_anything_that_begins_so() {
    let cut = |subresource: &str, query: &str| {
        let mut event = session(subresource, "1", "started", query);
        let What::Api { api } = &mut event.what else { panic!("a request") };
        api.truncated.push("query".into());
        event
    };
    for (query, args, want) in [
        ("command=sh&command=-c&command=ec", &["sh", "-c", "echo"][..], likely("bob")),
        ("command=sh&command=-c&command=ec", &["ash", "-c", "echo"][..], None),
        ("command=ec", &["echo"][..], likely("bob")),
        ("command=run.sh&comm", &["/bin/sh", "/run.sh", "a", "b"][..], likely("bob")),
        ("", &["echo"][..], likely("bob")),
        // That is the beginning of another name.
        ("command=sh&container=ap", &["sh"][..], likely("bob")),
        ("command=sh&container=other&std", &["sh"][..], None),
    ] {
        let mut links = Links::default();
        cause(&mut links, &cut("exec", query), 0);
        assert_eq!(sure(cause(&mut links, &process(100, args, &outside()), SECOND)), want, "{query} {args:?}");
    }
    let main = json!({ "pid": 30, "comm": "sh", "exe": "/bin/sh", "start_boot_ns": "30" });
    let shim = json!({ "pid": 20, "comm": "containerd-shim", "exe": "/usr/bin/containerd-shim-runc-v2" });
    for (query, want) in [("container=app&std", likely("bob")), ("container=app&stdin=False&t", None)] {
        let mut links = Links::default();
        cause(&mut links, &cut("attach", query), 0);
        assert_eq!(sure(cause(&mut links, &process(100, &["id"], &json!([main, shim])), 0)), want, "{query}");
    }
}

#[test]
fn a_session_that_has_ended_may_yet_lead_to_its_process() {
    let failed = |code: u16| {
        let mut event = exec("1", "alice", "complete", "");
        let What::Api { api } = &mut event.what else { panic!("a request") };
        api.code = Some(code);
        event
    };
    for (code, at, want) in [(101, 1, certain("alice")), (101, 10, likely("alice")), (101, 40, None), (404, 1, None)] {
        let mut links = Links::default();
        cause(&mut links, &exec("1", "alice", "started", "command=sh&container=app"), 0);
        cause(&mut links, &failed(code), SECOND / 2);
        assert_eq!(sure(cause(&mut links, &process(100, &["sh"], &outside()), at * SECOND)), want, "{code} {at}");
    }
    // Another asks for the same when that one's process may be late, or may just have been seen.
    for is_seen in [false, true] {
        let mut links = Links::default();
        cause(&mut links, &exec("1", "alice", "started", "command=sh&container=app"), 0);
        if is_seen {
            assert_eq!(sure(cause(&mut links, &process(99, &["sh"], &outside()), 0)), certain("alice"));
        }
        cause(&mut links, &failed(101), SECOND);
        cause(&mut links, &exec("2", "bob", "started", "command=sh&container=app"), 2 * SECOND);
        let want = if is_seen { ["bob"].as_slice() } else { &["alice", "bob"] };
        for (pid, user) in (100..).zip(want) {
            assert_eq!(sure(cause(&mut links, &process(pid, &["sh"], &outside()), 3 * SECOND)), likely(user), "{pid}");
        }
        // What was long ago is over.
        cause(&mut links, &exec("3", "carol", "started", "command=sh&container=app"), 60 * SECOND);
        assert_eq!(sure(cause(&mut links, &process(110, &["sh"], &outside()), 61 * SECOND)), certain("carol"));
    }
}

#[test]
fn a_process_that_was_there_before_does_not_pass_as_the_runtime() {
    let shim = json!({ "pid": 40, "comm": "containerd-shim", "exe": "/usr/bin/containerd-shim-runc-v2" });
    let below = |comm: &str, exe: &str, began: i64| {
        let above = json!({ "pid": 50, "comm": comm, "exe": exe, "start_boot_ns": (began * SECOND).to_string() });
        let shell = process(100, &["sh"], &json!([above, shim]));
        Event { boot_ns: (51 * SECOND).unsigned_abs(), ..shell }
    };
    let real = below("runc", "/usr/bin/runc", 51);
    let mut alone = real.clone();
    Arc::make_mut(&mut alone.process).ancestors.remove(0);
    for (event, want, next) in [
        (below("crunchy", "/app/crunchy", 51), None, certain("alice")),
        (below("runc", "/app/main", 1), likely("alice"), certain("alice")),
        (below("app", "/app/runc", 1), likely("alice"), certain("alice")),
        (alone, likely("alice"), certain("alice")),
        (below("runc:[2:INIT]", "/memfd:runc_cloned:/proc/self/exe", 50), certain("alice"), None),
        (below("crun", "/usr/bin/crun", 51), certain("alice"), None),
    ] {
        let mut links = Links::default();
        cause(&mut links, &exec("1", "alice", "started", "command=sh&container=app"), 50 * SECOND);
        let mut found = |event: &Event| cause(&mut links, event, 51 * SECOND).map(|cause| (cause.user.clone(), cause.certainty));
        assert_eq!(found(&event), want, "{:?}", event.process.ancestors);
        let mut real = real.clone();
        Arc::make_mut(&mut real.process).pid = 101;
        assert_eq!(found(&real), next, "{:?}", event.process.ancestors);
    }
}

#[test]
fn a_busy_session_does_not_push_out_another() {
    let mut links = Links::default();
    let shell = |pid: u32| json!([{ "pid": pid, "comm": "sh", "exe": "/bin/sh", "start_boot_ns": pid.to_string() }]);
    for (pid, user) in [(7, "alice"), (8, "bob")] {
        cause(&mut links, &exec(user, user, "started", &format!("command={user}&container=app")), 0);
        assert_eq!(sure(cause(&mut links, &process(pid, &[user], &outside()), SECOND)), certain(user));
    }
    let mut busy = process(0, &["ls"], &shell(8));
    for pid in 1000..u32::try_from(2 * MOST).unwrap() + 1000 {
        let process = Arc::make_mut(&mut busy.process);
        (process.pid, process.start_boot_ns) = (pid, u64::from(pid));
        assert_eq!(sure(cause(&mut links, &busy, SECOND)), certain("bob"));
        // Each begins the next, which alone is asked for then.
        Arc::make_mut(&mut busy.process).ancestors =
            vec![Ancestor { pid, comm: "sh".into(), exe: "/bin/sh".into(), start_boot_ns: u64::from(pid) }];
    }
    assert_eq!(links.begun.len(), MOST);
    assert_eq!(sure(cause(&mut links, &process(9, &["id"], &shell(7)), SECOND)), certain("alice"));
}

#[test]
fn what_a_probe_runs_as_well_is_only_likely() {
    let probe = |command: &[&str]| PodContainer {
        commands: vec![command.iter().map(|word| (*word).to_owned()).collect()],
        ..PodContainer::default()
    };
    for (spec, want) in [
        (Some(pod(&[("app", probe(&["cat", "/healthy"]))])), Certainty::Likely),
        (Some(pod(&[("app", probe(&["cat", "/other"])), ("other", probe(&["cat", "/healthy"]))])), Certainty::Certain),
        (None, Certainty::Likely),
    ] {
        let mut links = Links::default();
        cause(&mut links, &exec("1", "alice", "started", "command=cat&command=%2Fhealthy&container=app"), 0);
        let mut found = |pid: u32| {
            let found = links.cause(&process(pid, &["cat", "/healthy"], &outside()), SECOND, spec.as_ref());
            found.map(|cause| cause.certainty)
        };
        assert_eq!(found(100), Some(want));
        // If that was the probe, this is the session's.
        assert_eq!(found(101), Some(Certainty::Likely).filter(|_| want == Certainty::Likely));
    }
}

#[test]
fn a_row_of_ancestors_that_is_not_whole_shows_no_runtime() {
    let mut links = Links::default();
    cause(&mut links, &exec("1", "alice", "started", "command=sh&container=app"), 0);
    let mut shell = process(100, &["sh"], &outside());
    Arc::make_mut(&mut shell.process).ancestors_cut = true;
    assert_eq!(cause(&mut links, &shell, SECOND), None);
}

#[test]
fn what_a_main_process_begins_while_somebody_feeds_it_is_likely_typed() {
    let main = json!({ "pid": 30, "comm": "sh", "exe": "/bin/sh", "start_boot_ns": "30" });
    let shim = json!({ "pid": 20, "comm": "containerd-shim", "exe": "/usr/bin/containerd-shim-runc-v2" });
    let below = json!([main, shim]);
    let mut links = Links::default();
    let process =
        |pid: u32, args: &[&str], ancestors: &Value| Event { boot_ns: SECOND.unsigned_abs(), ..process(pid, args, ancestors) };
    let typed = |pid: u32| process(pid, &["id"], &json!([main, shim]));
    let found = |links: &mut Links, event: &Event| links.cause(event, SECOND, None).map(|cause| cause.subresource.clone());
    assert_eq!(found(&mut links, &typed(100)), None);
    for no_input in ["container=app&stdout=true", "container=app&stdin=false", "container=other&stdin=true"] {
        cause(&mut links, &session("attach", "0", "started", no_input), 0);
        assert_eq!(found(&mut links, &typed(101)), None, "{no_input}");
    }
    cause(&mut links, &session("attach", "1", "started", "container=app&stdin=true&tty=true"), 0);
    let attach = cause(&mut links, &typed(102), SECOND).unwrap();
    assert_eq!((&*attach.user, &*attach.subresource, attach.certainty), ("bob", "attach", Certainty::Likely));
    // The process itself, one that the runtime began later, and what that one begins.
    assert_eq!(found(&mut links, &process(30, &["sh"], &json!([shim]))), None);
    let probe = json!({ "pid": 60, "comm": "sh", "exe": "/bin/sh", "start_boot_ns": "60" });
    assert_eq!(found(&mut links, &process(61, &["id"], &json!([probe, shim]))), None);
    let late = json!({ "pid": 60, "comm": "sh", "exe": "/bin/sh", "start_boot_ns": (5 * SECOND).to_string() });
    assert_eq!(found(&mut links, &process(62, &["id"], &json!([late, shim]))), None);
    // It goes on after the session's end, and what is begun then is nobody's.
    cause(&mut links, &session("attach", "1", "complete", ""), 2 * SECOND);
    let child = json!([{ "pid": 102, "comm": "id", "exe": "/bin/id", "start_boot_ns": "102" }, main, shim]);
    assert_eq!(found(&mut links, &process(103, &["x"], &child)).as_deref(), Some("attach"));
    for (pid, at, want) in [(104, 4, Some("attach")), (105, 6, None)] {
        let late = Event { boot_ns: (at * SECOND).unsigned_abs(), ..typed(pid) };
        let found = cause(&mut links, &late, at * SECOND);
        assert_eq!(found.map(|cause| cause.subresource.clone()).as_deref(), want, "{at}");
    }
    // A container that can't be fed.
    cause(&mut links, &session("attach", "2", "started", "container=app&stdin=true"), 0);
    let spec = pod(&[("app", PodContainer::default())]);
    assert_eq!(links.cause(&process(105, &["id"], &below), SECOND, Some(&spec)), None);
}

#[test]
fn who_feeds_a_container_counts_more_than_who_made_it() {
    let mut links = Links::default();
    cause(&mut links, &creation("1", "alice", &json!({ "name": "web" })), 10 * SECOND);
    let main = first("web", "app", 11, 15);
    assert_eq!(of(&mut links, &main), certain("alice"));
    let mut ancestors = main.process.ancestors.clone();
    ancestors
        .insert(0, Ancestor { pid: 100, comm: "sh".into(), exe: "/bin/sh".into(), start_boot_ns: main.process.start_boot_ns });
    let child = |pid: u32, what: &str| {
        let process = json!({ "pid": pid, "ancestors": ancestors, "start_boot_ns": (20 * SECOND).to_string() });
        event(&json!({ "kubernetes": { "namespace": "prod", "pod": "web" }, "container": { "name": "app" }, "process": process,
            "boot_ns": (20 * SECOND).to_string(), what: {} }))
    };
    assert_eq!(of(&mut links, &child(101, "exec")), certain("alice"));
    cause(&mut links, &session("attach", "2", "started", "container=app&stdin=true"), 19 * SECOND);
    // It is a copy of the main process until it executes something.
    assert_eq!(of(&mut links, &child(102, "file")), certain("alice"));
    for what in ["exec", "file"] {
        assert_eq!(of(&mut links, &child(102, what)), likely("bob"), "{what}");
    }
}
