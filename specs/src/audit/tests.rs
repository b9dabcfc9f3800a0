//! Lines of a real API server of v1.34, its own requests left out.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{
    assemble::Assembler,
    event::{self, Api, ApiDecision, ApiStage, What},
    frame::{BODY_BYTES_AT_MOST, Bodies, Hello},
};

const WHOLE: Option<Bodies> = Some(Bodies { limit: BODY_BYTES_AT_MOST, show_secrets: false });
const LOG: &str = include_str!("tests/audit.log");

fn events(records: &[Record]) -> Vec<Api> {
    let hello = Hello {
        version: String::new(),
        kernel: String::new(),
        arch: String::new(),
        probes: Vec::new(),
        realtime_offset_ns: 0,
        hostname: String::new(),
        portable: Vec::new(),
    };
    let mut items = minicbor::to_vec(process()).unwrap();
    for record in records {
        minicbor::encode(record.item(), &mut items).unwrap();
    }
    let mut events = Vec::new();
    let mut assembler = Assembler::new(event::Node { name: "n".into(), clock_offset_ns: 0 }, &hello);
    let fed = assembler.feed(&items, |event| {
        assert_eq!(event.process.comm, "kube-apiserver");
        let What::Api { api } = event.what else { panic!("{:?}", event.what) };
        events.push((*api, event.time));
        true
    });
    fed.unwrap();
    let ended = |(api, time): &(Api, String)| (api.stage == ApiStage::Started) == (api.received.as_ref() == Some(time));
    assert!(events.iter().all(ended), "{events:?}");
    events.into_iter().map(|(api, _)| api).collect()
}

fn record(event: &Value) -> Record {
    parse(event.to_string().as_bytes(), WHOLE).unwrap().unwrap()
}

fn event() -> Value {
    json!({
        "kind": "Event", "apiVersion": "audit.k8s.io/v1", "auditID": "a", "stage": "ResponseComplete",
        "requestURI": "/api/v1/pods", "verb": "list", "user": {"username": "u"}, "responseStatus": {"code": 200},
        "requestReceivedTimestamp": "2026-01-02T03:04:05.000001Z", "stageTimestamp": "2026-01-02T03:04:06.000003Z",
    })
}

/// What a splitter finds, in pieces of this many bytes: objects as text, damage as its words.
fn split(bytes: &[u8], step: usize) -> Vec<(u64, String)> {
    let (mut splitter, mut found) = (Splitter::default(), Vec::new());
    let mut each = |piece: Piece<'_>| {
        found.push(match piece {
            Piece::Object { line, json } => (line, String::from_utf8_lossy(json).into_owned()),
            Piece::Damage { line, why } => (line, why.to_string()),
        });
    };
    bytes.chunks(step).for_each(|bytes| splitter.push(bytes, &mut each));
    splitter.end(&mut each);
    found
}

fn check(text: &str, want: &[(u64, &str)]) {
    for step in [1, 2, 7, text.len().max(1)] {
        let found = split(text.as_bytes(), step);
        let found: Vec<_> = found.iter().map(|(line, text)| (*line, text.as_str())).collect();
        assert_eq!(found, want, "{text:?} in pieces of {step}");
    }
}

const CUT: &str = "its end is missing";
const RUBBISH: &str = "this is not JSON";

#[test]
fn a_real_log_tells_its_requests() {
    let records: Vec<_> = LOG.lines().filter_map(|line| parse(line.as_bytes(), None).unwrap()).collect();
    let events = events(&records);
    let told: Vec<_> = events
        .iter()
        .map(|api| {
            let Api { verb, group, resource, subresource, namespace, name, path, .. } = api;
            let user = api.user.as_ref().map_or("-", |user| user.name.as_str());
            let what = if resource.is_empty() { path.clone() } else { format!("{resource}.{group}/{subresource}") };
            let code = api.code.map_or("started".to_owned(), |code| code.to_string());
            let decision = api.decision.map_or("-", ApiDecision::name);
            let method = api.method.as_deref().unwrap_or("-");
            format!("{user} {method} {verb} {what} {namespace}/{name} {code} {decision}")
        })
        .collect();
    let want = include_str!("tests/told.txt");
    assert_eq!(told.join("\n"), want.trim_end());
}

#[test]
fn all_that_an_event_says_is_there() {
    let line = LOG.lines().find(|line| line.contains("impersonatedUser") && line.contains("ResponseComplete")).unwrap();
    let api = events(&[parse(line.as_bytes(), WHOLE).unwrap().unwrap()]).remove(0);
    let body = api.response_body.clone().unwrap().json.unwrap();
    assert_eq!((&body["kind"], &body["code"]), (&json!("Status"), &json!(403)));
    let want = json!({
        "stage": "complete", "request_id": "de4a7d2c-131d-498e-aadd-d7b93e4bd867-1795274687714729000", "verb": "list",
        "group": "", "version": "v1", "resource": "pods", "subresource": "", "namespace": "prod", "name": "",
        "path": "/api/v1/namespaces/prod/pods", "query": "limit=500", "method": "GET",
        "user": {"name": "alice", "uid": "", "groups": ["dev", "system:authenticated"]},
        "impersonator": {"name": "admin", "uid": "admin-1", "groups": ["system:masters", "system:authenticated"]},
        "decision": "denied", "code": 403, "latency_ns": 837_000, "received": "2026-11-21T15:24:47.714729000Z",
        "source": "127.0.0.1", "user_agent": "kubectl/v1.32.4 (linux/amd64) kubernetes/4cb5f07",
        "audit_id": "de4a7d2c-131d-498e-aadd-d7b93e4bd867",
    });
    assert_eq!(serde_json::to_value(Api { response_body: None, ..api }).unwrap(), want);
}

#[test]
fn the_beginning_and_the_end_of_a_watch_belong_together() {
    let watch: Vec<_> = LOG.lines().filter(|line| line.contains("\"verb\":\"watch\"")).collect();
    let records: Vec<_> = watch.iter().filter_map(|line| parse(line.as_bytes(), WHOLE).unwrap()).collect();
    let events = events(&records);
    assert_eq!(events.iter().map(|api| api.stage).collect::<Vec<_>>(), [ApiStage::Started, ApiStage::Complete]);
    assert_eq!(events[0].request_id, events[1].request_id);
    assert_eq!((events[0].code, events[0].decision, events[0].latency_ns), (None, None, None));
    assert!(events[1].latency_ns > Some(500_000_000));
}

#[test]
fn an_id_that_a_client_chose_twice_makes_two_requests() {
    let mut later = event();
    later["requestReceivedTimestamp"] = json!("2026-01-02T03:04:05.000002Z");
    let (one, two) = (record(&event()), record(&later));
    let (one, two) = (minicbor::to_vec(one.item()).unwrap(), minicbor::to_vec(two.item()).unwrap());
    let mut seen = Seen::default();
    assert_eq!([&one, &two, &one, &two].map(|item| seen.is_new(item)), [true, true, false, false]);
    let events = events(&[record(&event()), record(&later)]);
    assert_ne!(events[0].request_id, events[1].request_id);
}

#[test]
fn what_is_known_again_is_bounded() {
    let mut seen = Seen::default();
    assert!((0..=REMEMBERED).all(|at| seen.is_new(&at.to_le_bytes())));
    assert!(!seen.is_new(&1_usize.to_le_bytes()));
    assert!(seen.is_new(&0_usize.to_le_bytes()), "the first was forgotten");
}

#[test]
fn bodies_are_shown_where_asked_for() {
    let body = |event: &Value| events(&[record(event)]).remove(0).request_body;
    let mut event = event();
    event["objectRef"] = json!({"resource": "configmaps"});
    event["requestObject"] = json!({"data": {"a": "b"}});
    assert_eq!(body(&event).unwrap().json.unwrap(), event["requestObject"]);
    assert_eq!(events(&[parse(event.to_string().as_bytes(), None).unwrap().unwrap()])[0].request_body, None);
    event["requestObject"] = json!("x".repeat(3 << 20));
    let cut = body(&event).unwrap();
    assert_eq!((cut.truncated_from, cut.text.map(|text| text.len())), (Some((3 << 20) + 2), Some(1 << 20)));
    let numbers = format!("[{}0]", "1000000, ".repeat(1 << 18));
    let text = super::tests::event().to_string().replacen(
        '{',
        &format!("{{\"objectRef\":{{\"resource\":\"pods\"}},\"responseObject\": {numbers},\"requestObject\": null,"),
        1,
    );
    let api = events(&[parse(text.as_bytes(), WHOLE).unwrap().unwrap()]).remove(0);
    let cut = api.response_body.unwrap();
    assert_eq!((cut.truncated_from, cut.text.as_deref()), (Some(numbers.len() as u64), Some(&numbers[..1 << 20])));
    assert_eq!(api.request_body, None);
    assert_eq!(api.truncated, ["response_body"]);
}

#[test]
fn secrets_in_bodies_are_shown_only_where_asked_for() {
    let mut event = event();
    let mut check = |resource: &str, subresource: &str, body: Value, want: Value| {
        event["objectRef"] = json!({"resource": resource, "subresource": subresource, "apiVersion": "v1"});
        event["requestObject"] = body.clone();
        event["responseObject"] = body.clone();
        let line = event.to_string();
        let shown = Some(Bodies { show_secrets: true, ..WHOLE.unwrap() });
        for (bodies, want) in [(WHOLE, &want), (shown, &body)] {
            let api = events(&[parse(line.as_bytes(), bodies).unwrap().unwrap()]).remove(0);
            for body in [api.request_body, api.response_body] {
                assert_eq!(body.unwrap().json.as_ref(), Some(want), "{resource}");
            }
        }
    };
    let secret = json!({"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "a"}, "data": {"password": "c2VjcmV0"}});
    let redacted = json!({"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "a"}, "data": {"password": "redacted"}});
    check("secrets", "", secret.clone(), redacted.clone());
    check("secrets", "", json!({"data": {"password": "c2VjcmV0"}}), json!({"data": {"password": "redacted"}}));
    check("configmaps", "", secret, redacted);
    check("configmaps", "", json!({"data": {"password": "x"}}), json!({"data": {"password": "x"}}));
    check("serviceaccounts", "token", json!({"status": {"token": "x"}}), json!({"status": {"token": "redacted"}}));
    check("tokenreviews", "", json!({"spec": {"token": "x"}}), json!({"spec": {"token": "redacted"}}));
}

#[test]
fn a_secret_that_is_cut_is_left_out_whole() {
    let mut event = event();
    event["objectRef"] = json!({"resource": "secrets"});
    event["requestObject"] = json!({"data": {"a": "x".repeat(2 << 20)}});
    let cut = events(&[record(&event)]).remove(0).request_body.unwrap();
    assert_eq!((cut.text.as_deref(), cut.truncated_from), (Some("redacted"), Some((2 << 20) + 17)));
}

#[test]
fn what_is_longer_without_its_secrets_fits_into_a_message() {
    let mut event = event();
    event["objectRef"] = json!({"resource": "secrets"});
    let body = json!({"data": vec![0; 200_000]});
    (event["requestObject"], event["responseObject"]) = (body.clone(), body);
    let record = record(&event);
    assert!(minicbor::to_vec(record.item()).unwrap().len() < crate::packet::MAX_MESSAGE);
    let api = events(&[record]).remove(0);
    assert_eq!(api.truncated, ["request_body", "response_body"]);
    for body in [api.request_body, api.response_body] {
        let (text, from) = body.map(|body| (body.text.unwrap(), body.truncated_from)).unwrap();
        assert_eq!((text.len(), from), (crate::body::SHOWN_AT_MOST, Some(200_000 * 11 + 10)));
        assert!(text.starts_with("{\"data\":[\"redacted\",\"redacted\""));
    }
}

#[test]
fn long_texts_are_cut_and_said_to_be() {
    let mut event = event();
    event["requestURI"] = json!(format!("/x?{}", "ä".repeat(10_000)));
    event["user"] = json!({"username": "u", "groups": vec!["g".repeat(2000); 1000]});
    let api = events(&[record(&event)]).remove(0);
    assert_eq!(api.truncated, ["query", "user"]);
    assert_eq!((api.path.as_str(), api.query.len()), ("/x", (16 << 10) - 4));
    let groups = api.user.unwrap().groups;
    assert_eq!((groups.len(), groups.get(255).unwrap().len()), (256, 1024));
    assert!(minicbor::to_vec(record(&event).item()).unwrap().len() < 1 << 20);
}

#[test]
fn what_is_no_audit_event_says_why() {
    let wrong = |change: fn(&mut Value)| {
        let mut event = event();
        change(&mut event);
        parse(event.to_string().as_bytes(), WHOLE).unwrap_err().to_string()
    };
    for (error, mark) in [
        (wrong(|event| event["apiVersion"] = json!("audit.k8s.io/v1beta1")), "v1beta1"),
        (wrong(|event| event["apiVersion"] = json!("v1")), "\"Event\""),
        (wrong(|event| event["kind"] = json!("Policy")), "\"Policy\""),
        (wrong(|event| event["auditID"] = json!("")), "auditID"),
        (wrong(|event| event["stage"] = json!("Later")), "\"Later\""),
        (wrong(|event| event["stageTimestamp"] = json!("yesterday")), "yesterday"),
        (wrong(|event| event["stageTimestamp"] = json!("1969-01-01T00:00:00Z")), "1969"),
        (wrong(|event| event["verb"] = json!(7)), "verb"),
        (wrong(|event| *event = json!({})), "auditID"),
        (wrong(|event| *event = json!([])), "no audit event"),
    ] {
        assert!(error.contains(mark) || mark == "verb" && error.contains("invalid type"), "{mark}: {error}");
    }
    assert_eq!(parse(br#"{"kind":"EventList","apiVersion":"audit.k8s.io/v1","items":[]}"#, WHOLE).unwrap(), None);
}

#[test]
fn what_is_no_audit_event_is_not_quoted_at_length() {
    let long = "ä\u{1b}".repeat(1 << 20);
    for field in ["apiVersion", "kind", "stage", "stageTimestamp", "responseStatus"] {
        let mut event = event();
        event[field] = json!(long);
        if field == "apiVersion" {
            event[field] = json!(format!("audit.k8s.io/{long}"));
        }
        let error = parse(event.to_string().as_bytes(), WHOLE).unwrap_err().to_string();
        assert!(error.contains('…') && error.len() < 2000, "{field}: {} bytes", error.len());
    }
}

#[test]
fn objects_are_found_in_lines_and_over_lines() {
    check("{\"a\":1}\n{\"b\":\"}{\\\"\"}\n", &[(1, "{\"a\":1}"), (2, "{\"b\":\"}{\\\"\"}")]);
    check("{\n  \"a\": {\n    \"b\": []\n  }\n}\n{}", &[(1, "{\n  \"a\": {\n    \"b\": []\n  }\n}"), (6, "{}")]);
    check("{}{}\r\n\n\0\0{}", &[(1, "{}"), (1, "{}"), (3, "{}")]);
}

#[test]
fn a_list_gives_its_events() {
    let list = "{\"kind\":\"EventList\",\"items\":[{\"a\":[1]},{\"b\":{}}]}";
    let shell = "{\"kind\":\"EventList\",\"items\":[]}";
    check(list, &[(1, "{\"a\":[1]}"), (1, "{\"b\":{}}"), (1, shell)]);
    check("{\n\"items\": [\n{\"a\":1},\n{\"b\":2}\n]\n}\n", &[(3, "{\"a\":1}"), (4, "{\"b\":2}"), (4, "{\n\"items\": []\n}")]);
    check("{\"x\":{\"items\":[{}]}}", &[(1, "{\"x\":{\"items\":[{}]}}")]);
}

#[test]
fn damage_ends_where_an_object_begins_a_line() {
    check("{\"a\":\"b\n{\"c\":1}\n", &[(1, CUT), (2, "{\"c\":1}")]);
    check("{\"a\":{\"b\":1\n{\"c\":1}\n", &[(1, CUT), (2, "{\"c\":1}")]);
    check("I0102 {\"a\":1}\n{\"c\":1}\n", &[(1, RUBBISH), (2, "{\"c\":1}")]);
    check("{\"c\":1}]}\n{}", &[(1, "{\"c\":1}"), (1, RUBBISH), (2, "{}")]);
    check("{\"a\":[", &[(1, CUT)]);
    check("{\"items\":[{\"a\":1},{\"b\"", &[(1, "{\"a\":1}"), (1, CUT)]);
    check("{\"items\":[{\"a\":1},{\"b\":\n{\"c\":1}", &[(1, "{\"a\":1}"), (1, CUT), (2, "{\"c\":1}")]);
}

#[test]
fn what_is_too_long_is_passed_over() {
    let long = format!("{{\"a\":\"{}\"}}\n{{}}", "x".repeat(17 << 20));
    assert_eq!(split(long.as_bytes(), 65_536), [(1, "it is longer than 16 MiB".to_owned()), (2, "{}".to_owned())]);
    let list = format!("{{\"items\":[{{\"a\":\"{}\"}},{{\"b\":1}}]}}", "x".repeat(17 << 20));
    let want = [(1, "it is longer than 16 MiB"), (1, "{\"b\":1}"), (1, "{\"items\":[]}")].map(|(at, text)| (at, text.to_owned()));
    assert_eq!(split(list.as_bytes(), 65_536), want);
}

#[test]
fn files_come_in_the_order_in_which_they_were_written() {
    let names = [
        "audit.log",
        "audit-2026-01-02T03-04-05.678.log.gz",
        "audit-2026-01-02T03-04-06.000.log",
        "kube.json.2.gz",
        "kube.json.10.gz",
        "kube.json.1",
        "kube.json",
        "old.log-20260102.zst",
        "old.log-20260101",
        "README",
        "policy.yaml",
        ".log",
    ];
    let series = series(names);
    let told: Vec<_> = series.iter().map(|series| (series.live.as_str(), series.has_live, series.rotated.join(" "))).collect();
    assert_eq!(
        told,
        [
            ("audit.log", true, "audit-2026-01-02T03-04-05.678.log.gz audit-2026-01-02T03-04-06.000.log".to_owned()),
            ("kube.json", true, "kube.json.10.gz kube.json.2.gz kube.json.1".to_owned()),
            ("old.log", false, "old.log-20260101 old.log-20260102.zst".to_owned()),
        ]
    );
}

#[test]
fn a_file_that_is_being_compressed_is_one_file() {
    let names = [
        "audit.log",
        "audit-2026-01-02T03-04-05.678.log.gz",
        "audit-2026-01-02T03-04-05.678.log",
        "audit.log.2.gz",
        "audit.log.2.zst",
    ];
    let [series] = series(names).try_into().unwrap();
    assert_eq!(series.rotated, ["audit.log.2.gz", "audit.log.2.zst", "audit-2026-01-02T03-04-05.678.log"]);
}

fn any_piece(bytes: &[u8], step: usize) -> (usize, usize) {
    let (mut splitter, mut good, mut bad) = (Splitter::default(), 0, 0);
    let mut each = |piece: Piece<'_>| match piece {
        Piece::Object { json, .. } => match parse(json, WHOLE) {
            Ok(Some(record)) => {
                let item = minicbor::to_vec(record.item()).unwrap();
                assert!(crate::frame::items(&item).all(|item| item.is_ok()));
                good += 1;
            }
            Ok(None) => {}
            Err(_) => bad += 1,
        },
        Piece::Damage { .. } => bad += 1,
    };
    bytes.chunks(step).for_each(|bytes| splitter.push(bytes, &mut each));
    splitter.end(&mut each);
    (good, bad)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damage_never_panics_and_never_reaches_far(
        changes in prop::collection::vec((0..LOG.len(), any::<u8>()), 1..20), step in 1_usize..5000
    ) {
        let (whole, _) = any_piece(LOG.as_bytes(), step);
        let mut bytes = LOG.as_bytes().to_vec();
        for (at, byte) in &changes {
            bytes[*at] = *byte;
        }
        let (good, bad) = any_piece(&bytes, step);
        // A change spoils the line that it is in, and the one that it is joined to; made anything but an event, it may not show.
        prop_assert!(good + 2 * changes.len() >= whole, "{good} of {whole}, {bad} bad");
    }

    #[test]
    fn a_log_that_is_cut_lacks_its_last_line_only(end in 0..LOG.len(), step in 1_usize..5000) {
        let cut = &LOG.as_bytes()[..end];
        let complete = cut.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let (good, bad) = any_piece(cut, step);
        let (want, _) = any_piece(&cut[..complete], step);
        prop_assert!(good == want || good == want + 1);
        let is_whole = serde_json::from_slice::<serde_json::Value>(&cut[complete..]).is_ok();
        prop_assert_eq!(bad, usize::from(end > complete && !is_whole));
    }

    #[test]
    fn anything_at_all_is_taken(bytes in prop::collection::vec(any::<u8>(), 0..4000), step in 1_usize..500) {
        any_piece(&bytes, step);
    }

    #[test]
    fn brackets_and_quotes_are_taken(text in "[{}\\[\\],:\"\\\\a\n ]|items{0,400}", step in 1_usize..50) {
        any_piece(text.as_bytes(), step);
        any_piece(format!("{{\"items\":[{text}").as_bytes(), step);
    }
}
