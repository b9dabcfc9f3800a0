use minicbor::bytes::ByteSlice;

use super::*;
use crate::frame::{Api, ApiBody, ApiDecision, ApiStage, ApiUser};

#[test]
fn a_request_is_told_with_all_that_is_known() {
    let groups: Vec<&ByteSlice> = vec![b"dev"[..].into(), b"\xff"[..].into()];
    let api = Api {
        time_ns: 2_000_000_007,
        process: 3,
        stage: ApiStage::Complete,
        request_id: "42-1",
        verb: b"create",
        resource: b"secrets",
        uri: b"/api/v1/namespaces/prod/secrets?dryRun=All?",
        user: Some(ApiUser { name: b"alice", uid: b"", groups }),
        impersonator: Some(ApiUser { name: b"root", ..ApiUser::default() }),
        decision: Some(ApiDecision::Denied),
        code: Some(403),
        received_ns: Some(2_000_000_000),
        request_body: Some(ApiBody { bytes: br#"{"kind":"Secret"}"#, truncated_from: None }),
        response_body: Some(ApiBody { bytes: br#"{"kind":"Sta"#, truncated_from: Some(900) }),
        truncated: vec!["uri"],
        ..Api::default()
    };
    check(
        &[Item::Process(PROCESS), Item::Api(Box::new(api))],
        &[
            ("/type", json!("api")),
            ("/time", json!("2026-01-02T03:04:07.000000007Z")),
            ("/process/pid", json!(42)),
            ("/api/stage", json!("complete")),
            ("/api/request_id", json!("42-1")),
            ("/api/verb", json!("create")),
            ("/api/path", json!("/api/v1/namespaces/prod/secrets")),
            ("/api/query", json!("dryRun=All?")),
            ("/api/user", json!({"name": "alice", "uid": "", "groups": ["dev", "\u{fffd}"]})),
            ("/api/impersonator/name", json!("root")),
            ("/api/decision", json!("denied")),
            ("/api/code", json!(403)),
            ("/api/received", json!("2026-01-02T03:04:07.000000000Z")),
            ("/api/latency_ns", json!(7)),
            ("/api/request_body", json!({"json": {"kind": "Secret"}})),
            ("/api/response_body", json!({"text": "{\"kind\":\"Sta", "truncated_from": 900})),
            ("/api/truncated", json!(["uri"])),
            ("/api/source", Value::Null),
            ("/api/response_bytes", Value::Null),
        ],
    );
}

#[test]
fn what_an_exec_runs_is_decoded() {
    let api = |subresource, uri| Api { subresource, uri, resource: b"pods", ..Api::default() };
    let uri = b"/api/v1/namespaces/prod/pods/web/exec?command=sh&command=-c&command=echo+%22%C3%BC%22%3B&stdin=true&command=";
    let told = |api| [Item::Process(Process { slot: 0, ..PROCESS }), Item::Api(Box::new(api))];
    check(&told(api(b"exec", uri)), &[("/api/command", json!(["sh", "-c", "echo \"ü\";", ""]))]);
    check(&told(api(b"log", uri)), &[("/api/command", Value::Null)]);
}

#[test]
fn notes_are_kept_until_they_are_taken() {
    let mut assembler = Assembler::new(event::Node { name: "n1".into(), clock_offset_ns: 0 }, &HELLO);
    let long = "x".repeat(5000);
    let mut items = vec![Item::Note("an API server has ended"), Item::Note(&long)];
    items.extend(std::iter::repeat_n(Item::Note("again"), 100));
    assembler.feed(&bytes(&items), |event| panic!("{event:?}")).unwrap();
    let notes = assembler.take_notes();
    assert_eq!((notes.len(), notes[0].as_str(), notes[1].len()), (64, "an API server has ended", 1024));
    assert!(assembler.take_notes().is_empty());
}

#[test]
fn the_beginning_of_a_request_has_no_latency() {
    let api = Api { process: 3, stage: ApiStage::Started, time_ns: 9, received_ns: Some(9), ..Api::default() };
    check(
        &[Item::Process(PROCESS), Item::Api(Box::new(api))],
        &[("/api/stage", json!("started")), ("/api/latency_ns", Value::Null), ("/api/user", Value::Null)],
    );
}
