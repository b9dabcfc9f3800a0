//! What requests to a real API server carry and are answered, compared with its own audit log. As root.
#![expect(clippy::unwrap_used, reason = "a test has no better way to end")]

use std::{
    fmt::Write as _,
    fs,
    os::unix::fs::PermissionsExt as _,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use knark_tests::{
    api_server::ApiServer,
    cluster::{PATIENCE, Trace},
    program::{plugin, tracer},
};
use serde_json::{Value, json};

fn trace(flags: &[&str]) -> Trace {
    let mut command: Command = plugin();
    let common = ["trace", "--local", "--on", "api", "--mutations", "-o", "json", "--bodies"];
    Trace::start(command.env("KNARK_TRACER", tracer()).args(common).args(flags))
}

/// Other API servers may run on this machine.
fn is_of(event: &Value, server: &ApiServer) -> bool {
    event["type"] == "api" && event["process"]["pid"] == server.pid()
}

/// Waits until the requests to this server come.
fn await_first(trace: &Trace, server: &ApiServer) {
    let begun = Instant::now();
    while !trace.events().iter().any(|event| is_of(event, server)) {
        assert!(begun.elapsed() < PATIENCE, "no request is seen\n{}", trace.words());
        server.run("admin", ["label", "namespace", "default", "a=b", "--overwrite"]);
        thread::sleep(Duration::from_millis(100));
    }
}

/// The first request of this verb about what has that name, which succeeded.
fn request(trace: &Trace, server: &ApiServer, verb: &str, name: &str) -> Value {
    let event = trace.event(&format!("{verb} {name}"), |event| {
        let api = &event["api"];
        is_of(event, server) && api["verb"] == verb && api["name"] == name && api["code"].as_u64() < Some(300)
    });
    event["api"].clone()
}

/// Sends an object as JSON.
fn send(server: &ApiServer, path: &str, object: &Value) {
    let file = server.file("object.json", &object.to_string());
    server.admin(["create", "--raw", path, "-f", file.to_str().unwrap()]);
}

fn config_map(name: &str, value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": value}})
}

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// Without what is null, which the audit log shows of some objects.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| (name.clone(), without_nulls(value)))
            .collect(),
        Value::Array(items) => items.iter().map(without_nulls).collect(),
        other => other.clone(),
    }
}

#[test]
fn bodies_are_what_the_audit_log_says() {
    let server = ApiServer::auditing("RequestResponse");
    let mut trace = trace(&[]);
    await_first(&trace, &server);
    let admin = |args: &[&str]| server.admin(args);
    send(&server, CONFIG_MAPS, &config_map("sent", "ü"));
    let made = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "made-"}});
    send(&server, CONFIG_MAPS, &made);
    // By kubectl, as protobuf.
    admin(&["create", "configmap", "typed", "--from-literal=a=b"]);
    admin(&["create", "deployment", "d", "--image", "x"]);
    for (kind, patch) in [
        ("merge", r#"{"data":{"m":"1"}}"#),
        ("strategic", r#"{"data":{"s":"2"}}"#),
        ("json", r#"[{"op":"add","path":"/data/j","value":"3"}]"#),
    ] {
        admin(&["patch", "configmap", "sent", "--type", kind, "-p", patch]);
    }
    admin(&["scale", "deployment", "d", "--replicas", "2"]);
    admin(&["delete", "configmap", "sent", "--grace-period", "5", "--wait=false"]);
    admin(&["delete", "configmaps", "--all", "--wait=false"]);
    admin(&["create", "configmap", "last"]);
    let last = request(&trace, &server, "create", "last");
    assert_eq!(last["response_body"]["json"]["kind"], "ConfigMap", "{last:#}");
    assert_eq!(trace.interrupt(), Some(0), "{}", trace.stderr());

    let log = server.audit();
    let (mut requests, mut responses) = (0, 0);
    let mut kinds = Vec::new();
    for event in trace.events().iter().filter(|event| is_of(event, &server)) {
        let api = &event["api"];
        let of_audit = |line: &&Value| line["auditID"] == api["audit_id"] && line["stage"] == "ResponseComplete";
        let Some(line) = log.iter().find(of_audit) else { panic!("the audit log has no {api:#}") };
        assert!(api["truncated"].is_null(), "{api:#}");
        let (ours, theirs) = (api["name"].as_str().unwrap(), line["objectRef"]["name"].as_str());
        // The log has it as it was sent, so not one that was made.
        assert!(theirs.unwrap_or_default() == ours || theirs.is_none() && ours.starts_with("made-"), "{api:#}\n{line:#}");
        // The log has the object as it was decoded, with its defaults; what was sent is all in there.
        let (sent, got) = (&api["request_body"]["json"], &api["response_body"]["json"]);
        if api["verb"] == "patch" {
            assert_eq!(sent, &line["requestObject"], "{api:#}");
            requests += 1;
        } else if !sent.is_null() {
            for field in ["apiVersion", "kind", "data", "metadata"] {
                let (ours, theirs) = (without_nulls(&sent[field]), without_nulls(&line["requestObject"][field]));
                let is_in = |(name, value): (&String, &Value)| &theirs[name] == value || name == "creationTimestamp";
                let same = ours.as_object().map_or(ours == theirs, |fields| fields.iter().all(is_in));
                assert!(same || ours.is_null(), "{field}: {api:#}\n{line:#}");
            }
            requests += 1;
        }
        if api["code"].as_u64() < Some(300) && !got.is_null() && api["verb"] != "deletecollection" {
            assert_eq!(without_nulls(got), without_nulls(&line["responseObject"]), "{api:#}");
            responses += 1;
            kinds.push(got["kind"].as_str().unwrap_or_default().to_owned());
        }
    }
    assert!(requests >= 11 && responses >= 10, "{requests} and {responses}");
    assert!(kinds.iter().any(|kind| kind == "Deployment") && kinds.iter().any(|kind| kind == "Scale"), "{kinds:?}");
    let events = trace.events();
    let named = |event: &&Value| event["api"]["name"].as_str().is_some_and(|name| name.starts_with("made-") && name.len() > 5);
    assert!(events.iter().any(|event| named(&event)));
    assert_eq!(events.last().unwrap()["summary"]["lost"], 0);
}

#[test]
fn secrets_stay_on_the_node_unless_asked_for() {
    let server = ApiServer::start();
    let value = "aGlkZGVuLXRoaW5n";
    for (flags, shown) in [(&[][..], false), (&["--show-secrets"][..], true)] {
        let record = tempfile::tempdir().unwrap();
        let file = record.path().join("rec.knark");
        let mut trace = trace(&[flags, &["--record", file.to_str().unwrap()]].concat());
        await_first(&trace, &server);
        let name = format!("s-{shown}");
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": {"password": value}});
        send(&server, "/api/v1/namespaces/default/secrets", &secret);
        let typed = format!("typed-{shown}");
        server.admin(["create", "secret", "generic", &typed, "--from-literal=password=hidden-thing"]);
        request(&trace, &server, "create", &name);
        let api = request(&trace, &server, "create", &typed);
        assert_eq!(trace.interrupt(), Some(0), "{}", trace.stderr());
        let said: String = trace.events().iter().fold(String::new(), |mut all, event| {
            let _ = writeln!(all, "{event}");
            all
        });
        let replayed = plugin().args(["replay", "-o", "json"]).arg(&file).output().unwrap();
        for text in [said, String::from_utf8(replayed.stdout).unwrap()] {
            assert!(text.contains(&typed));
            assert_eq!(text.contains(value) || text.contains("hidden-thing"), shown, "{api:#}");
        }
        assert_eq!(api["response_body"]["json"]["metadata"]["name"], typed, "{api:#}");
        assert_eq!(api["response_body"]["json"]["data"]["password"] == value, shown, "{api:#}");
    }
}

#[test]
fn a_body_beyond_the_limit_is_cut_and_said_to_be() {
    let server = ApiServer::start();
    let mut trace = trace(&["--body-limit", "20Ki"]);
    await_first(&trace, &server);
    send(&server, CONFIG_MAPS, &config_map("short", "v"));
    send(&server, CONFIG_MAPS, &config_map("fits", &"x".repeat(15_000)));
    send(&server, CONFIG_MAPS, &config_map("long", &"x".repeat(30_000)));
    send(&server, CONFIG_MAPS, &config_map("last", "v"));
    request(&trace, &server, "create", "last");
    let fits = request(&trace, &server, "create", "fits");
    assert!(fits["truncated"].is_null() && fits["request_body"]["truncated_from"].is_null(), "{fits:#}");
    assert_eq!(fits["response_body"]["json"]["data"]["k"].as_str().unwrap().len(), 15_000);
    // The name is in neither part, or in the one that is there.
    let long = trace.event("the cut one", |event| is_of(event, &server) && event["api"]["truncated"].is_array());
    let api = &long["api"];
    assert_eq!(api["truncated"], json!(["request_body", "response_body"]));
    for body in ["request_body", "response_body"] {
        assert!(api[body]["truncated_from"].as_u64() > Some(30_000), "{}", api[body]);
        let kept = api[body].to_string().len();
        assert!((20_000..24_000).contains(&kept), "{kept}");
    }
    assert_eq!(trace.interrupt(), Some(0), "{}", trace.stderr());
}

#[test]
fn policies_look_into_bodies_where_these_are_asked_for() {
    let server = ApiServer::start();
    let mut trace = trace(&["--pack", "sensitive-api"]);
    await_first(&trace, &server);
    let spec = json!({"hostPID": true, "restartPolicy": "Never", "containers": [{"name": "c", "image": "x"}]});
    let job = json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j"}, "spec": {"template": {"spec": spec}},
    });
    send(&server, "/apis/batch/v1/namespaces/default/jobs", &job);
    let alert = trace.event("the alert", |event| is_of(event, &server) && event.to_string().contains("privileged-workload"));
    assert!(alert.to_string().contains("create of jobs default/j, which shares what is its node's: 201"), "{alert:#}");
    assert_eq!(trace.interrupt(), Some(0), "{}", trace.stderr());
    assert!(!trace.stderr().contains("--bodies"), "{}", trace.stderr());

    let mut command = plugin();
    command.env("KNARK_TRACER", tracer()).args(["trace", "--local", "--pack", "sensitive-api", "-o", "json"]);
    let mut trace = Trace::start(&mut command);
    trace.says(
        "warning: without --bodies, rules and exceptions that look into bodies never match: privileged-pod, privileged-workload",
    );
    trace.interrupt();
}

#[test]
fn bodies_of_requests_at_once_are_not_mixed() {
    let server = ApiServer::start();
    // Room for all bodies, however busy this machine is.
    let mut trace = trace(&["--ring-buffer", "64Mi"]);
    await_first(&trace, &server);
    let many = |thread: usize| {
        let of = |n: usize| {
            let name = format!("m-{thread}-{n}");
            config_map(&name, &format!("{name}-{}", name.repeat(100 * (n % 50))))
        };
        let list = json!({"apiVersion": "v1", "kind": "List", "items": (0..50).map(of).collect::<Vec<_>>()});
        let file = server.file(&format!("many-{thread}.json"), &list.to_string());
        server.admin(["create", "-f", file.to_str().unwrap()]);
    };
    thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || many(thread));
        }
    });
    send(&server, CONFIG_MAPS, &config_map("last", "v"));
    request(&trace, &server, "create", "last");
    assert_eq!(trace.interrupt(), Some(0), "{}", trace.stderr());
    let mut seen = 0;
    for event in trace.events().iter().filter(|event| is_of(event, &server)) {
        let api = &event["api"];
        let Some(name) = api["name"].as_str().filter(|name| name.starts_with("m-") && api["verb"] == "create") else { continue };
        for body in ["request_body", "response_body"] {
            let object = &api[body]["json"];
            let value = object["data"]["k"].as_str().unwrap_or_else(|| panic!("{api:#}"));
            assert!(object["metadata"]["name"] == name && value.starts_with(&format!("{name}-")), "{api:#}");
        }
        seen += 1;
    }
    assert_eq!(seen, 200);
    assert_eq!(trace.events().last().unwrap()["summary"]["lost"], 0);
}

#[test]
fn a_server_whose_bodies_cannot_be_seen_is_traced_without_them() {
    let mut program = fs::read(ApiServer::program()).unwrap();
    // It is stripped: this is the name in its table of functions.
    let name = b"endpoints/handlers.limitedReadBodyWithRecordMetric\0";
    let at = program.windows(name.len()).position(|bytes| bytes == name).unwrap();
    program[at + name.len() - 2] = b'X';
    let folder = tempfile::tempdir().unwrap();
    let other = folder.path().join("kube-apiserver");
    fs::write(&other, program).unwrap();
    fs::set_permissions(&other, fs::Permissions::from_mode(0o755)).unwrap();

    let server = ApiServer::of(&other, "None");
    let mut trace = trace(&[]);
    await_first(&trace, &server);
    // At once, or later where it takes long to find out.
    let said = trace.says("lacks the function k8s.io/apiserver/pkg/endpoints/handlers.limitedReadBodyWithRecordMetri");
    assert!(said.contains(&format!("API server {} (", server.pid())), "{said}");
    let event = trace.event("a request", |event| is_of(event, &server));
    let api = &event["api"];
    assert!(api["request_body"].is_null() && api["response_body"].is_null() && api["audit_id"].is_string(), "{api:#}");
    assert_eq!(trace.interrupt(), Some(0), "{}", trace.stderr());
}
