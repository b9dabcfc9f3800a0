//! Requests to a real API server, compared one by one with its own audit log. As root.
#![expect(clippy::unwrap_used, reason = "a test has no better way to end")]

use std::{
    collections::BTreeMap,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use knark_tests::{
    api_server::{ApiServer, other_versions},
    cluster::{PATIENCE, Trace},
    load,
    program::{plugin, seen, tracer},
    soak::{attach_and_detach, compare},
};
use serde_json::{Value, json};

fn trace() -> Command {
    let mut command = plugin();
    command.env("KNARK_TRACER", tracer()).args(["trace", "--local", "--on", "api", "-o", "json"]);
    command
}

/// Waits until the requests to this server come.
fn await_first(trace: &Trace, server: &ApiServer) {
    let begun = Instant::now();
    while !trace.events().iter().any(|event| is_of(event, server)) {
        assert!(begun.elapsed() < PATIENCE, "no request is seen\n{}", trace.words());
        server.run("admin", ["get", "--raw", "/livez"]);
        thread::sleep(Duration::from_millis(100));
    }
}

/// Other API servers may run on this machine.
fn is_of(event: &Value, server: &ApiServer) -> bool {
    event["type"] == "api" && event["process"]["pid"] == server.pid()
}

/// Makes requests of many kinds, with a last one whose name is `last`.
fn load(server: &ApiServer, last: &str) {
    let admin = |args: &[&str]| server.admin(args);
    admin(&["create", "namespace", "load"]);
    let config_map =
        |n| format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: m{n}, namespace: load}}\ndata: {{k: '{n}'}}\n");
    let config_maps = (0..100).map(config_map).collect::<Vec<_>>().join("---\n");
    let file = server.file("maps.yaml", &config_maps);
    admin(&["create", "-f", file.to_str().unwrap()]);
    // a hundred lists of one each
    admin(&["get", "configmaps", "-n", "load", "--chunk-size", "1", "-o", "name"]);
    admin(&["patch", "configmap", "m1", "-n", "load", "-p", r#"{"data":{"x":"ü"}}"#]);
    admin(&["annotate", "namespace", "load", "a=b"]);
    admin(&["get", "deployments,roles,customresourcedefinitions", "-A"]);
    admin(&["get", "--raw", "/metrics?a=%20b&c=d"]);
    admin(&["create", "deployment", "d", "--image", "x", "-n", "load"]);
    admin(&["scale", "deployment", "d", "-n", "load", "--replicas", "0"]);
    admin(&["get", "secrets", "-n", "load", "--as", "alice", "--as-group", "system:masters"]);
    for (user, args) in [
        ("admin", &["get", "--raw", "/nothing/there"][..]),
        ("admin", &["get", "secrets", "-n", "load", "--as", "alice"]),
        ("admin", &["exec", "-n", "load", "nobody", "--", "true"]),
        ("alice", &["get", "secrets", "-n", "kube-system"]),
        ("bob", &["get", "pods", "--as", "admin"]),
        ("bob", &["delete", "namespace", "load"]),
        ("nobody", &["get", "pods"]),
        ("admin", &["create", "namespace", "load"]),
    ] {
        let output = server.run(user, args);
        assert!(!output.status.success(), "{user} may {args:?}");
    }
    admin(&["delete", "configmaps", "--all", "-n", "load"]);
    admin(&["get", "configmap", last, "-n", "load", "--ignore-not-found"]);
}

/// What an audit log says of a request, in the words of events.
fn of_audit(line: &Value) -> Value {
    let text = |pointer: &str| line.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let (path, query) = text("/requestURI").split_once('?').unwrap_or((text("/requestURI"), ""));
    let user = |user: &Value| json!({ "name": user["username"], "uid": user["uid"].as_str().unwrap_or_default(), "groups": user["groups"].as_array().cloned().unwrap_or_default() });
    let (acts_as, real) = match line.get("impersonatedUser") {
        Some(other) => (user(other), user(&line["user"])["name"].clone()),
        None => (user(&line["user"]), Value::Null),
    };
    let code = line["responseStatus"]["code"].clone();
    json!({
        "verb": line["verb"], "group": text("/objectRef/apiGroup"), "version": text("/objectRef/apiVersion"),
        "resource": text("/objectRef/resource"), "subresource": text("/objectRef/subresource"),
        "namespace": text("/objectRef/namespace"), "name": text("/objectRef/name"), "path": path, "query": query,
        "user": if code == 401 { Value::Null } else { acts_as }, "impersonator": real, "code": code,
        "source": line["sourceIPs"][0], "user_agent": line["userAgent"],
        "denied": code == 403,
    })
}

fn of_event(api: &Value) -> Value {
    let mut same = json!({ "impersonator": api["impersonator"]["name"], "denied": api["decision"] == "denied" });
    for field in [
        "verb",
        "group",
        "version",
        "resource",
        "subresource",
        "namespace",
        "name",
        "path",
        "query",
        "user",
        "code",
        "source",
        "user_agent",
    ] {
        same[field] = api[field].clone();
    }
    same
}

#[test]
fn every_request_is_what_the_audit_log_says() {
    compare_with_audit_log(&ApiServer::start());
}

/// What the probes rely on differs from version to version.
#[test]
fn every_request_to_other_versions_is_what_the_audit_log_says() {
    let programs = other_versions();
    assert!(programs.len() > 1, "{programs:?}");
    for program in programs {
        println!("{}", program.display());
        compare_with_audit_log(&ApiServer::of(&program, "Metadata"));
    }
}

fn compare_with_audit_log(server: &ApiServer) {
    let mut trace = Trace::start(&mut trace());
    await_first(&trace, server);
    load(server, "last");
    let mut watch = server.kubectl("admin").args(["get", "configmaps", "-n", "load", "--watch"]).spawn().unwrap();
    let is_watch = |event: &Value, stage: &str| {
        is_of(event, server)
            && event["api"]["stage"] == stage
            && event["api"]["verb"] == "watch"
            && event["api"]["namespace"] == "load"
    };
    let started = trace.event("start of the watch", |event| is_watch(event, "started"));
    watch.kill().unwrap();
    watch.wait().unwrap();
    let ended = trace.event("end of the watch", |event| is_watch(event, "complete"));
    assert_eq!(started["api"]["request_id"], ended["api"]["request_id"]);
    // The node's two clocks drift by nanoseconds between the two.
    let (begun, received) = (started["time"].as_str().unwrap(), ended["api"]["received"].as_str().unwrap());
    assert_eq!((&begun[..23], &started["api"]["latency_ns"]), (&received[..23], &Value::Null));
    assert_eq!(trace.interrupt(), Some(0), "{}", trace.stderr());

    let events: Vec<Value> = trace.events().into_iter().filter(|event| is_of(event, server)).collect();
    let complete: BTreeMap<String, &Value> = events
        .iter()
        .filter(|event| event["api"]["stage"] == "complete")
        .map(|event| (event["api"]["audit_id"].as_str().unwrap().to_owned(), event))
        .collect();
    let (first, last) = (&events[0]["api"]["received"], &ended["time"]);
    let log = server.audit();
    let mut compared = 0;
    for line in &log {
        let unauthenticated = line["stage"] == "ResponseStarted" && line["responseStatus"]["code"] == 401;
        let received = line["requestReceivedTimestamp"].as_str().unwrap();
        if !(unauthenticated || line["stage"] == "ResponseComplete")
            || received < first.as_str().unwrap()
            || line["stageTimestamp"].as_str() > last.as_str()
        {
            continue;
        }
        let event = complete.get(line["auditID"].as_str().unwrap());
        let api = &event.unwrap_or_else(|| panic!("no event of {line}"))["api"];
        let (mut want, mut got) = (of_audit(line), of_event(api));
        if api["verb"] == "create" {
            // The audit log has it from the answer.
            want["name"] = Value::Null;
            got["name"] = Value::Null;
        }
        assert_eq!(got, want, "{api:#}\n{line:#}");
        let (ours, theirs) = (api["received"].as_str().unwrap(), line["requestReceivedTimestamp"].as_str().unwrap());
        assert_eq!(ours[..17], theirs[..17], "{api:#}\n{line:#}");
        assert!(api["truncated"].is_null() && api["latency_ns"].as_u64().unwrap() > 0, "{api:#}");
        compared += 1;
    }
    assert!(compared > 320, "{compared} of {}", log.len());
    let code = |code: u16| complete.values().filter(|event| event["api"]["code"] == code).count();
    assert!(code(403) >= 3 && code(401) >= 1 && code(404) >= 2 && code(409) == 1 && code(201) >= 102, "{compared}");
    let sums = trace.events().pop().unwrap();
    assert_eq!(sums["summary"]["lost"], 0, "{sums}");
    assert!(same_by_audit_log(server, &complete) > 300);
}

/// The events that the same plugin reads out of the server's audit log are the same, but for what only one side can know
/// (docs/audit-logs.md lists it). How many there were.
fn same_by_audit_log(server: &ApiServer, complete: &BTreeMap<String, &Value>) -> usize {
    let output = plugin().args(["trace", "-o", "json", "--audit-log"]).arg(server.audit_log()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let known_to_both = |event: &Value| {
        let mut api = event["api"].clone();
        let fields = api.as_object_mut().unwrap();
        for field in ["request_id", "received", "latency_ns", "response_bytes", "method"] {
            fields.remove(field);
        }
        if fields["verb"] == "create" {
            fields.remove("name");
        }
        api
    };
    let lines = String::from_utf8(output.stdout).unwrap();
    let read = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let mut compared = 0;
    for event in read.filter(|event| event["api"]["stage"] == "complete") {
        let Some(seen) = complete.get(event["api"]["audit_id"].as_str().unwrap()) else { continue };
        assert_eq!(known_to_both(seen), known_to_both(&event));
        compared += 1;
    }
    compared
}

#[test]
fn traces_that_come_and_go_under_load_lose_nothing() {
    let server = ApiServer::start();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async { load::prepare(&load::connect(&server.url())?).await }).unwrap();
    let (url, over) = (server.url(), AtomicBool::new(false));
    let sessions = thread::scope(|scope| {
        let load = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                runtime.block_on(load::mixed(&url, 600, 8)).unwrap();
            }
        });
        let sessions = attach_and_detach(&server, 500, |sessions| sessions == 3 || load.is_finished());
        over.store(true, Ordering::Relaxed);
        load.join().unwrap();
        sessions.unwrap()
    });
    let compared = compare(&server, &sessions).unwrap();
    assert!(compared.len() == 3 && compared.iter().all(|one| one.made > 100), "{compared:?}");
    let sums: Vec<&Value> = sessions.iter().map(|shown| &shown.summary).collect();
    assert!(compared.iter().all(|one| (one.missing, one.twice, one.lost) == (0, 0, 0)), "{compared:?} {sums:?}");
    // It is the same process, and answers.
    assert_eq!(server.admin(["get", "--raw", "/livez"]), "ok");
}

#[test]
fn a_request_that_times_out_is_told_of() {
    let server = ApiServer::start();
    let mut trace = Trace::start(&mut trace());
    await_first(&trace, &server);
    server.hold(true);
    let output = server.run("admin", ["get", "--raw", "/api/v1/namespaces/default?timeout=1s"]);
    server.hold(false);
    assert!(!output.status.success());
    let event = trace.event("timeout", |event| is_of(event, &server) && event["api"]["query"] == "timeout=1s");
    let api = &event["api"];
    assert!(api["code"].as_u64().is_none_or(|code| code >= 500), "{api:#}");
    assert_eq!((&api["stage"], &api["user"]["name"]), (&"complete".into(), &"admin".into()), "{api:#}");
    assert!((900_000_000..30_000_000_000).contains(&api["latency_ns"].as_u64().unwrap()), "{api:#}");
    assert_eq!(trace.interrupt(), Some(0), "{}", trace.stderr());
}

#[test]
fn a_server_that_starts_anew_is_found_and_the_gap_is_told() {
    let mut server = ApiServer::start();
    let mut trace = Trace::start(&mut trace());
    await_first(&trace, &server);
    let before = server.pid();
    server.restart();
    trace.says(&format!("API server {before} has ended"));
    trace.says(&format!("API server {} (", server.pid()));
    await_first(&trace, &server);
    trace.interrupt();
}

#[test]
fn a_program_of_that_name_alone_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("kube-apiserver");
    std::fs::copy("/bin/sleep", &program).unwrap();
    let mut other = Command::new(&program).arg("600").spawn().unwrap();
    let mut trace = Trace::start(&mut trace());
    let said = trace.says(&format!("API server {} (", other.id()));
    assert!(said.ends_with("it is no Go program whose tables can be read"), "{said}");
    other.kill().unwrap();
    other.wait().unwrap();
    trace.interrupt();
}

#[test]
fn a_target_that_is_not_there_is_refused_where_only_requests_are_traced() {
    let server = ApiServer::start();
    server.admin(["create", "deployment", "web", "--image=i"]);
    for (target, words) in [
        ("pod/nope", "no pod \"nope\" in namespace \"default\""),
        ("deploy/nope", "no deployments.apps \"nope\" in namespace \"default\""),
        // One that is there goes on to look for the API server's node, and this cluster has none.
        ("deploy/web", "no node of this cluster is known to run an API server"),
    ] {
        let mut plugin = plugin();
        plugin.args(["trace", target, "--on", "api", "--insecure-skip-tls-verify", "--token=admin-token", "--server"]);
        let output = plugin.arg(server.url()).env("KUBECONFIG", "/nonexistent/kubeconfig").output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", seen(&output));
        assert!(String::from_utf8_lossy(&output.stderr).contains(words), "{target}: {}", seen(&output));
    }
    // By these ids a trace knows what it asked for itself.
    let audit = server.audit();
    let is_id = |line: &&Value| line["auditID"].as_str().is_some_and(|id| id.len() == 32 && !id.contains('-'));
    let own: Vec<_> = audit.iter().filter(is_id).filter_map(|line| line["requestURI"].as_str()).collect();
    assert!(own.iter().any(|uri| uri.ends_with("/deployments/nope")), "{own:?}");
    assert!(audit.iter().filter(is_id).all(|line| !line["userAgent"].as_str().unwrap_or_default().starts_with("kubectl/")));
}
