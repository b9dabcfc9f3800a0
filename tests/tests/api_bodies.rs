//! What requests to a real API server carry and are answered, compared with its own audit log. As root.
#![expect(clippy::unwrap_used, reason = "a test has no better way to end")]

use std::{
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
    command.env("KNARK_TRACER", tracer()).args(["trace", "--local", "--on", "api", "--mutations", "-o", "json", "--bodies"]).args(flags);
    Trace::start(&mut command)
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

/// The request about that resource and name.
fn request(trace: &Trace, server: &ApiServer, verb: &str, resource: &str, name: &str) -> Value {
    let event = trace.event(&format!("{verb} {resource} {name}"), |event| {
        let api = &event["api"];
        is_of(event, server) && api["verb"] == verb && api["resource"] == resource && api["name"] == name && api["code"].as_u64() < Some(300)
    });
    event["api"].clone()
}

#[test]
fn what_a_request_carries_is_shown() {
    let server = ApiServer::auditing("RequestResponse");
    let mut trace = trace(&[]);
    await_first(&trace, &server);
    let file = server.file("thin.json", &json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "thin"}, "data": {"a": "b"}}).to_string());
    server.admin(["create", "--raw", "/api/v1/namespaces/default/configmaps", "-f", file.to_str().unwrap()]);
    let api = request(&trace, &server, "create", "configmaps", "thin");
    println!("{api:#}");
    assert_eq!(api["response_body"]["json"]["data"], json!({"a": "b"}), "{api:#}");
    assert_eq!(trace.interrupt(), Some(0), "{}", trace.stderr());
}
