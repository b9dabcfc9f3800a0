//! Objects that Kubernetes' own code made (`tests/samples.txt`, which `tests/api-fields.sh` writes), and hostile ones.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const SAMPLES: &str = include_str!("tests/samples.txt");
const SECRETS: Subject<'_> = Subject { group: "", resource: "secrets", subresource: "" };
const PASSWORD: &str = "correct horse battery";

/// Kind, protobuf, and JSON.
fn samples() -> impl Iterator<Item = (&'static str, Vec<u8>, Value)> {
    SAMPLES.lines().map(|line| {
        let [_, kind, protobuf, json] = line.splitn(4, ' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
        (kind, STANDARD.decode(protobuf).unwrap(), serde_json::from_str(json).unwrap())
    })
}

/// A field with bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut length = bytes.len();
    let mut out = vec![number << 3 | 2];
    while length >= 0x80 {
        out.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
        length >>= 7;
    }
    out.push(u8::try_from(length).unwrap());
    [out, bytes.to_vec()].concat()
}

fn object(version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let meta = [field(1, version.as_bytes()), field(2, kind.as_bytes())].concat();
    [protobuf::PREFIX, &field(1, &meta), &field(2, raw), &[0x1a, 0, 0x22, 0]].concat()
}

/// A Secret whose data, annotation and unknown field hold the password.
fn secret() -> Vec<u8> {
    let entry = |key: &str, value: &str| [field(1, key.as_bytes()), field(2, value.as_bytes())].concat();
    let applied = format!("{{\"kind\":\"Secret\",\"data\":{{\"p\":\"{PASSWORD}\"}}}}");
    let metadata = [field(1, b"db"), field(3, b"prod"), field(5, b"uid-1"), field(12, &entry("last-applied", &applied))].concat();
    let parts = [
        field(1, &metadata),
        field(2, &entry("password", PASSWORD)),
        field(3, b"Opaque"),
        field(4, &entry("string", PASSWORD)),
        field(15, PASSWORD.as_bytes()),
    ];
    object("v1", "Secret", &parts.concat())
}

fn shown(subject: &Subject<'_>, json: &Value) -> Value {
    let mut body = read(json.to_string().as_bytes(), None);
    redact(subject, &mut body);
    assert_eq!(body.text, None);
    let once = body.clone();
    redact(subject, &mut body);
    assert_eq!(body, once, "what was redacted stays so");
    body.json.unwrap()
}

fn text(subject: &Subject<'_>, bytes: &[u8], truncated_from: Option<u64>) -> String {
    let mut body = read(bytes, truncated_from);
    redact(subject, &mut body);
    String::from_utf8(write(&body)).unwrap()
}

fn holds_password(text: &str) -> bool {
    text.contains(PASSWORD) || text.contains(&STANDARD.encode(PASSWORD))
}

/// Whether all that one value says, the other says too; what is zero or absent says nothing.
fn is_part(part: &Value, whole: &Value) -> bool {
    match (part, whole) {
        (Value::Object(part), Value::Object(whole)) => {
            part.iter().all(|(name, part)| is_part(part, whole.get(name).unwrap_or(&Value::Null)))
        }
        (Value::Array(part), Value::Array(whole)) => {
            part.len() <= whole.len() && part.iter().zip(whole).all(|(part, whole)| is_part(part, whole))
        }
        (Value::Object(part), Value::Null) => part.values().all(|part| is_part(part, &Value::Null)),
        (Value::Null, _) => true,
        (part, whole) => part == whole || ["\"\"", "0", "false", "\"0\"", "\"0s\"", "[]"].contains(&part.to_string().as_str()),
    }
}

#[test]
fn protobuf_is_shown_as_the_api_servers_own_json() {
    for (kind, bytes, want) in samples() {
        let body = read(&bytes, None);
        assert_eq!((body.json.as_ref(), &body.text, body.truncated_from), (Some(&want), &None, None), "{kind}");
        assert_eq!(read(&write(&body), None), body, "{kind}");
    }
}

#[test]
fn protobuf_without_its_end_is_shown_as_far_as_it_goes() {
    for (kind, bytes, whole) in samples() {
        let length = bytes.len() as u64;
        for end in protobuf::PREFIX.len()..bytes.len() {
            let body = read(&bytes[..end], Some(length));
            assert_eq!(body.truncated_from, Some(length));
            let json = body.json.as_ref().unwrap();
            assert!(json.get("protobuf").is_some() || is_part(json, &whole), "{kind} until {end}: {json}");
            assert_eq!(read(&write(&body), body.truncated_from), body, "{kind} until {end}");
        }
        let nearly = read(&bytes[..bytes.len() - 5], None);
        assert_eq!(nearly.truncated_from, Some(length - 5), "{kind}: what is damaged is said to be");
    }
}

#[test]
fn json_and_text_are_taken_as_they_are() {
    assert_eq!(read(b"{\"a\": 1}", None).json, Some(json!({"a": 1})));
    // As frames carry a protobuf that was cut.
    assert_eq!(read(b"{\"a\": 1}", Some(9)).json, Some(json!({"a": 1})));
    for (bytes, cut, want) in
        [(&b"{\"a\": "[..], Some(9), "{\"a\": "), (b"1", Some(3), "1"), (b"a: b\n", None, "a: b\n"), (b"", None, "")]
    {
        let body = read(bytes, cut);
        assert_eq!((body.json, body.text.as_deref(), body.truncated_from), (None, Some(want), cut));
    }
    assert_eq!(read(b"{\"a\": \"\xff\"}", None).json, Some(json!({"a": "\u{fffd}"})));
    assert_eq!(read(&[b"[".repeat(500), b"]".repeat(500)].concat(), None).json, None);
}

#[test]
fn objects_are_named() {
    let body = read(&secret(), None);
    assert_eq!((name(&body), namespace(&body), uid(&body)), (Some("db"), Some("prod"), Some("uid-1")));
    let generated = read(br#"{"metadata": {"generateName": "a-", "name": ""}}"#, None);
    assert_eq!((name(&generated), name(&read(b"x", None))), (None, None));
}

#[test]
fn what_has_no_name_here_is_not_lost() {
    let pod = [field(1, &field(1, b"a")), vec![0x18, 7], field(15, b"new"), field(15, b"er"), vec![0x7d, 1, 0, 0, 0]].concat();
    let json = read(&object("v1", "Pod", &pod), None).json.unwrap();
    assert_eq!((&json["metadata"]["name"], &json["#3"], &json["#15"]), (&json!("a"), &json!([7]), &json!(["bmV3", "ZXI=", 1])));
    let unknown = read(&object("example.com/v1", "Thing", b"\x0a\x01a"), None);
    assert_eq!(unknown.json.unwrap(), json!({"apiVersion": "example.com/v1", "kind": "Thing", "protobuf": "CgFh"}));
    // A label with a third field.
    let entry = [field(1, b"a"), field(2, b"b"), field(3, b"c")].concat();
    let labelled = read(&object("v1", "Pod", &field(1, &field(11, &entry))), None);
    assert_eq!((labelled.truncated_from.is_some(), &labelled.json.unwrap()["metadata"]["labels"]["a"]), (true, &json!("b")));
    // Each group has options of its own, which are the same.
    let options = read(&object("policy/v1", "DeleteOptions", &[0x08, 30]), None);
    assert_eq!(options.json.unwrap(), json!({"apiVersion": "policy/v1", "kind": "DeleteOptions", "gracePeriodSeconds": 30}));
    let encoded = [object("v1", "Pod", b"{\"a\":1}"), field(4, b"application/json")].concat();
    assert_eq!(read(&encoded, None).json.unwrap(), json!({"a": 1}));
    let packed = [object("v1", "Pod", b"\x1f\x8b"), field(3, b"gzip")].concat();
    assert_eq!(
        read(&packed, None).json.unwrap(),
        json!({"apiVersion": "v1", "kind": "Pod", "protobuf": "H4s=", "contentEncoding": "gzip"})
    );
}

#[test]
fn parts_of_a_message_are_joined_and_numbers_may_be_packed() {
    let parts = [field(1, &field(1, b"a")), field(1, &field(3, b"b"))].concat();
    let json = read(&object("v1", "ConfigMap", &parts), None).json.unwrap();
    assert_eq!(json["metadata"], json!({"name": "a", "namespace": "b"}));
    // PodSecurityContext.supplementalGroups
    let pod = |groups: &[u8]| object("v1", "Pod", &field(2, &field(14, groups)));
    for groups in [&[0x20, 5, 0x20, 6][..], &field(4, &[5, 6])] {
        let json = read(&pod(groups), None).json.unwrap();
        assert_eq!(json["spec"]["securityContext"]["supplementalGroups"], json!([5, 6]));
    }
}

#[test]
fn hostile_bodies_stay_small_and_shallow() {
    // A schema in a schema in ...: CustomResourceDefinition.spec.validation.openAPIV3Schema.not.not...
    let mut schema = field(12, b"x");
    for _ in 0..5000 {
        schema = {
            let length = schema.len();
            let mut tag = vec![0xea, 0x01];
            tag.extend(&field(1, &schema)[1..]);
            assert!(tag.len() > length);
            tag
        };
    }
    let versions = field(7, &field(4, &field(1, &schema)));
    let deep = read(&object("apiextensions.k8s.io/v1", "CustomResourceDefinition", &field(2, &versions)), None);
    let text = write(&deep);
    assert!(text.len() < 200_000, "{}", text.len());
    assert!(serde_json::from_slice::<Value>(&text).is_ok(), "whoever reads JSON can read it");
    // Envelopes in envelopes.
    let mut list = object("v1", "List", b"");
    for _ in 0..2000 {
        list = object("v1", "WatchEvent", &field(2, &field(1, &list)));
    }
    assert!(serde_json::from_slice::<Value>(&write(&read(&list, None))).is_ok());
    // Many empty objects, each of which JSON makes much of.
    let pods = field(2, b"").repeat(32 << 10);
    let body = read(&object("v1", "PodList", &pods), None);
    let length = write(&body).len();
    assert!(length <= 17 * pods.len() + (64 << 10), "{length}");
    assert_eq!(body.truncated_from, Some(object("v1", "PodList", &pods).len() as u64));
    // What takes more room in JSON than in protobuf.
    let controls = read(&object("v1", "Pod", &field(1, &field(1, &vec![1; 64 << 10]))), None);
    assert!(write(&controls).len() < 500_000);
}

/// About how much memory values take, in bytes: at least so much is allocated for each.
fn memory(value: &Value) -> usize {
    let size = size_of::<Value>();
    match value {
        Value::Array(values) => values.iter().map(|value| size + memory(value)).sum(),
        // A node of the tree has room for eleven.
        Value::Object(fields) => {
            let nodes = fields.len().div_ceil(11) * 11 * (size + size_of::<String>());
            nodes + fields.iter().map(|(name, value)| name.len() + memory(value)).sum::<usize>()
        }
        Value::String(text) => text.len(),
        _ => 0,
    }
}

#[test]
fn hostile_bodies_take_little_memory() {
    // Of `env`, of labels, of fields that nobody knows, of JSON in protobuf: each is an object, or many a list.
    let pod = |part: &[u8]| object("v1", "Pod", &field(2, &field(2, &part.repeat((1 << 20) / part.len()))));
    let json = format!("[{}{{\"\":0}}]", "{\"\":0},".repeat(1 << 17));
    let revision = object("apps/v1", "ControllerRevision", &field(2, &field(1, json.as_bytes())));
    let labels = field(11, &[field(1, b"a"), field(2, b"b")].concat()).repeat(100_000);
    let pods = field(2, &field(1, &field(11, &field(1, b"a")))).repeat(1 << 17);
    for bytes in [
        pod(&[0x3a, 0]),
        pod(&[0x78, 1]),
        pod(&[0x3a, 2, 0x78, 1]),
        object("v1", "Pod", &field(1, &labels)),
        object("v1", "PodList", &pods),
        revision,
        json.clone().into_bytes(),
        "[0,".repeat(1 << 19).into_bytes(),
        format!("[{}0]", "0,".repeat(1 << 19)).into_bytes(),
    ] {
        let body = read(&bytes, None);
        let taken = body.json.as_ref().map_or(0, memory);
        assert!(taken < 40 << 20, "{taken} of {}", bytes.len());
        let again = read(&write(&body), body.truncated_from);
        assert_eq!((again.json.is_some(), &again.text), (body.json.is_some(), &body.text));
    }
    let body = read(json.as_bytes(), None);
    let front = body.text.unwrap();
    assert!(json.starts_with(&front) && front.len() > 100_000);
    assert_eq!(body.truncated_from, Some(json.len() as u64));
    let body = read(&pod(&[0x3a, 0]), None);
    let shown = body.json.unwrap()["spec"]["containers"][0]["env"].as_array().map(Vec::len);
    assert!(shown.is_some_and(|shown| shown > 10_000) && body.truncated_from.is_some(), "{shown:?}");
}

#[test]
fn hostile_texts_are_looked_through_once() {
    // Looked through anew at every `kind`, these would take minutes.
    for part in ["kind", "kind:", "kind\"", "::", "password", "\\\""] {
        let text = part.repeat((1 << 20) / part.len());
        let json = json!({"kind": "ConfigMap", "data": {"a": text}});
        for subject in [Subject::default(), Subject { group: "example.com", resource: "things", subresource: "" }] {
            assert_eq!(shown(&subject, &json), json);
        }
    }
}

#[test]
fn nothing_secret_is_left_of_a_secret_wherever_it_is_cut() {
    let secret = secret();
    let shown: Value = serde_json::from_str(&text(&SECRETS, &secret, None)).unwrap();
    let want = json!({
        "kind": "Secret", "apiVersion": "v1", "type": "Opaque", "data": {"password": "redacted"}, "stringData": {"string": "redacted"},
        "metadata": {"name": "db", "namespace": "prod", "uid": "uid-1", "annotations": {"last-applied": "redacted"}}, "#15": ["redacted"],
    });
    assert_eq!(shown, want);
    let json = read(&secret, None).json.unwrap().to_string();
    assert!(holds_password(&json));
    let unknown = object("v9", "Secret", PASSWORD.as_bytes());
    for subject in [SECRETS, Subject::default(), Subject { resource: "pods", ..Subject::default() }] {
        for bytes in [secret.as_slice(), json.as_bytes(), &unknown] {
            for end in 0..=bytes.len() {
                let cut = (end < bytes.len()).then_some(bytes.len() as u64);
                let text = text(&subject, &bytes[..end], cut);
                // Until the kind comes, a cut JSON could be anything.
                let is_told = subject.resource != "pods" || cut.is_none() || bytes != json.as_bytes();
                assert!(!holds_password(&text) || !is_told, "{subject:?} until {end}: {text}");
            }
        }
    }
}

#[test]
fn secrets_within_others_are_left_out_where_they_are_cut_before_their_kind() {
    let secret = json!({"apiVersion": "v1", "data": {"a": PASSWORD}, "kind": "Secret", "metadata": {"name": "a"}});
    let work = json!({"apiVersion": "example.com/v1", "kind": "Work", "spec": {"manifests": [{"apiVersion": "v1", "kind": "Pod"}, secret]}});
    let quoted = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": secret.to_string()}});
    for (whole, resource) in [(&work, "works"), (&quoted, "configmaps"), (&work, ""), (&quoted, "")] {
        let whole = whole.to_string();
        for end in 0..whole.len() {
            let mut body = read(&whole.as_bytes()[..end], Some(whole.len() as u64));
            let subject = Subject { resource, ..Subject::default() };
            redact(&subject, &mut body);
            assert!(!holds_password(body.text.as_deref().unwrap()), "{body:?}");
            let once = body.clone();
            redact(&subject, &mut body);
            assert_eq!(body, once);
        }
    }
    let front = work.to_string();
    let front = &front[..front.find("horse").unwrap()];
    let kept = &front[..front.rfind("\"apiVersion").unwrap()];
    let works = Subject { group: "example.com", resource: "works", subresource: "" };
    assert_eq!(text(&works, front.as_bytes(), Some(999)), format!("{kept}redacted"));
}

#[test]
fn patches_of_secrets_are_redacted() {
    let patch = json!({
        "data": {"a": PASSWORD, "gone": null, "$patch": "replace"}, "stringData": {"b": {"deep": [PASSWORD, 1]}}, "type": "Opaque",
        "metadata": {"labels": {"app": "x"}, "annotations": {"a": PASSWORD}, "other": PASSWORD}, "immutable": true,
        "Data": PASSWORD, "kind": {"data": PASSWORD},
    });
    assert_eq!(
        shown(&SECRETS, &patch),
        json!({
            "data": {"a": "redacted", "gone": null, "$patch": "redacted"}, "stringData": {"b": {"deep": ["redacted", "redacted"]}},
            "metadata": {"labels": {"app": "x"}, "annotations": {"a": "redacted"}, "other": "redacted"}, "immutable": true,
            "type": "Opaque", "Data": "redacted", "kind": {"data": "redacted"},
        })
    );
    let patch = json!([
        {"op": "add", "path": "/data/a", "value": PASSWORD},
        {"op": "replace", "path": "/data", "value": {"a": PASSWORD}},
        {"op": "replace", "path": "", "value": {"kind": "Secret", "data": {"a": PASSWORD}}},
        {"op": "add", "path": "/metadata/labels/app", "value": "x"},
        {"op": "add", "path": "/metadata/annotations/a", "value": PASSWORD},
        {"op": "add", "path": "/metadata", "value": {"name": "a", "annotations": {"a": PASSWORD}}},
        {"op": "replace", "path": "/type", "value": "Opaque"},
        {"op": "move", "from": "/data/a", "path": "/data/b"},
        {"op": "add", "path": 7, "value": PASSWORD},
        PASSWORD,
    ]);
    assert_eq!(
        shown(&SECRETS, &patch),
        json!([
            {"op": "add", "path": "/data/a", "value": "redacted"},
            {"op": "replace", "path": "/data", "value": {"a": "redacted"}},
            {"op": "replace", "path": "", "value": {"kind": "Secret", "data": {"a": "redacted"}}},
            {"op": "add", "path": "/metadata/labels/app", "value": "x"},
            {"op": "add", "path": "/metadata/annotations/a", "value": "redacted"},
            {"op": "add", "path": "/metadata", "value": {"name": "a", "annotations": {"a": "redacted"}}},
            {"op": "replace", "path": "/type", "value": "Opaque"},
            {"op": "move", "from": "/data/a", "path": "/data/b"},
            {"op": "add", "path": "redacted", "value": "redacted"},
            "redacted",
        ])
    );
    // Where nobody knows what is patched.
    for patch in [patch, json!({"data": {"a": PASSWORD}}), json!({"stringData": {"a": PASSWORD}})] {
        assert!(!holds_password(&shown(&Subject::default(), &patch).to_string()));
    }
}

#[test]
fn what_is_answered_about_secrets_is_redacted() {
    let of = |name: &str| json!({"metadata": {"name": name}, "data": {"a": PASSWORD}});
    let list = json!({"kind": "SecretList", "apiVersion": "v1", "metadata": {"continue": "x"}, "items": [of("a"), of("b")]});
    let want = |name: &str| json!({"metadata": {"name": name}, "data": {"a": "redacted"}});
    for subject in [SECRETS, Subject::default()] {
        assert_eq!(shown(&subject, &list)["items"], json!([want("a"), want("b")]));
        assert_eq!(shown(&subject, &list)["metadata"]["continue"], "x");
    }
    let event = json!({"type": "ADDED", "object": {"kind": "Secret", "metadata": {}, "data": {"a": PASSWORD}}});
    assert_eq!(shown(&SECRETS, &event)["object"]["data"]["a"], "redacted");
    assert_eq!(shown(&Subject::default(), &event)["object"]["data"]["a"], "redacted");
    let status = |reason: &str| {
        json!({"kind": "Status", "status": "Failure", "reason": reason, "code": 400, "message": PASSWORD,
            "details": {"name": "db", "causes": [{"message": PASSWORD}]}})
    };
    let quiet = shown(&SECRETS, &status("NotFound"));
    assert_eq!((&quiet["message"], &quiet["details"]["causes"][0]["message"]), (&json!(PASSWORD), &json!("redacted")));
    for who in ["admission webhook \"a.b.c\" denied the request", "ValidatingAdmissionPolicy 'a' with binding 'b' denied request"]
    {
        let denied = json!({"kind": "Status", "reason": "Forbidden", "message": format!("{who}: {PASSWORD}")});
        assert_eq!(shown(&SECRETS, &denied)["message"], "redacted");
    }
    let bad = shown(&SECRETS, &status("BadRequest"));
    assert!(!holds_password(&bad.to_string()));
    assert_eq!((&bad["reason"], &bad["details"]["name"]), (&json!("BadRequest"), &json!("db")));
    let options =
        json!({"kind": "DeleteOptions", "propagationPolicy": "Background", "preconditions": {"uid": "u"}, "dryRun": ["All"]});
    assert_eq!(shown(&SECRETS, &options), options);
    assert_eq!(text(&SECRETS, b"data: {a: b}", None), "redacted");
    assert_eq!(text(&SECRETS, b"", None), "");
}

#[test]
fn secrets_in_other_objects_are_redacted() {
    let pods = Subject { resource: "pods", ..Subject::default() };
    let list = json!({"kind": "List", "items": [
        {"kind": "Secret", "metadata": {"name": "a", "annotations": {"x": PASSWORD}}, "stringData": {"a": PASSWORD}},
        {"kind": "ConfigMap", "metadata": {"name": "a", "annotations": {"x": "y"}}, "data": {"a": "b"}},
        {"kind": "TokenReview", "spec": {"token": PASSWORD}},
    ]});
    let got = shown(&pods, &list);
    assert_eq!(got["items"][0]["stringData"]["a"], "redacted");
    assert_eq!(got["items"][1], list["items"][1]);
    assert!(!holds_password(&got.to_string()));
    let reference = json!({"kind": "Secret", "name": "a", "namespace": "b"});
    assert_eq!(shown(&pods, &reference), reference);
    let manifest = format!("kind: Secret\nstringData: {{a: {PASSWORD}}}");
    let quoted = serde_json::to_string(&json!({"data": {"a": PASSWORD}, "kind": "Secret"})).unwrap();
    let twice = serde_json::to_string(&json!({ "x": quoted })).unwrap();
    for text_of_one in [&manifest, &quoted, &twice] {
        let map = json!({"kind": "ConfigMap", "data": {"a": text_of_one, "b": "kind: Pod"}});
        assert_eq!(shown(&pods, &map), json!({"kind": "ConfigMap", "data": {"a": "redacted", "b": "kind: Pod"}}));
        assert_eq!(text(&Subject::default(), format!("{text_of_one} and").as_bytes(), None), "redacted");
    }
    for harmless in ["a kind of Secret", "kind: SecretStore", "mankind", "kind", "kind:"] {
        assert_eq!(text(&pods, harmless.as_bytes(), None), harmless);
    }
}

#[test]
fn tokens_are_redacted() {
    let of_account = Subject { group: "", resource: "serviceaccounts", subresource: "token" };
    let reviews = Subject { group: "authentication.k8s.io", resource: "tokenreviews", subresource: "" };
    let request = json!({"kind": "TokenRequest", "spec": {"audiences": ["a"]}, "status": {"token": PASSWORD}});
    let review = json!({"kind": "TokenReview", "metadata": {"annotations": {"a": PASSWORD}}, "spec": {"token": PASSWORD},
        "status": {"user": {"username": "alice"}}, "#9": [PASSWORD]});
    for subject in [of_account, reviews, Subject::default()] {
        let (request, review) = (shown(&subject, &request), shown(&subject, &review));
        assert_eq!((&request["status"]["token"], &request["spec"]["audiences"]), (&json!("redacted"), &json!(["a"])));
        assert_eq!((&review["spec"]["token"], &review["status"]["user"]["username"]), (&json!("redacted"), &json!("alice")));
        assert!(!holds_password(&review.to_string()));
    }
    let in_protobuf = object("authentication.k8s.io/v1", "TokenReview", &field(2, &field(1, PASSWORD.as_bytes())));
    assert!(holds_password(&read(&in_protobuf, None).json.unwrap().to_string()));
    for end in 4..=in_protobuf.len() {
        for subject in [reviews, Subject::default()] {
            assert!(!holds_password(&text(&subject, &in_protobuf[..end], None)));
        }
    }
    assert_eq!(text(&of_account, b"{\"status", Some(99)), "redacted");
}

#[test]
fn custom_resources_hide_what_is_called_a_secret() {
    let custom = Subject { group: "example.com", resource: "databases", subresource: "" };
    let database = |password: &str, applied: &str| {
        json!({"apiVersion": "example.com/v1", "kind": "Database", "metadata": {"annotations": {"applied": applied}},
            "spec": {"adminPassword": password, "secretName": "a", "tokenRef": {"name": "b"}, "tokensLeft": 3}})
    };
    let applied = json!({"spec": {"adminPassword": PASSWORD}}).to_string();
    for subject in [custom, Subject::default()] {
        assert_eq!(shown(&subject, &database(PASSWORD, &applied)), database("redacted", "redacted"));
    }
    let patch = |password| json!([{"op": "add", "path": "/spec/adminPassword", "value": password}, {"op": "add", "path": "/a", "value": "b"}]);
    assert_eq!(shown(&custom, &patch(PASSWORD)), patch("redacted"));
    assert_eq!(text(&custom, &applied.as_bytes()[..applied.len() - 1], Some(99)), "redacted");
    assert_eq!(text(&custom, b"{\"spec\": {\"a\": ", Some(99)), "{\"spec\": {\"a\": ");
    let held = |secret: Value, list: Value| {
        json!({"apiVersion": "example.com/v1", "kind": "Database", "spec": {
            "password": secret, "credentials": [list, {"value": list}], "api_keys": {"values": [list], "name": "a"},
            "token": {"valueFrom": {"key": "a"}}, "tokenSecretRef": {"name": "x"}, "secretRef": {"name": "x"}, "passwordSecret": true,
            "imagePullSecrets": [{"name": "x"}], "secret": null, "deep": [{"passwd": {"deeper": {"value": "shown"}}}],
        }})
    };
    for subject in [custom, Subject::default()] {
        assert_eq!(shown(&subject, &held(json!(123_456), json!("u:p"))), held(json!("redacted"), json!("redacted")));
    }
    let within = |value: Value| {
        json!([{"op": "add", "path": "/spec/passwords/0", "value": value}, {"op": "add", "path": "/spec/password/value", "value": value},
            {"op": "add", "path": "/spec/tokenRef", "value": {"name": "a"}}, {"op": "add", "path": "/spec/token", "value": {"name": "a"}}])
    };
    assert_eq!(shown(&custom, &within(json!(PASSWORD))), within(json!("redacted")));
    let embedded = json!({"secret": {"kind": "Secret", "metadata": {}, "data": {"a": PASSWORD}}});
    assert_eq!(shown(&custom, &embedded)["secret"]["data"]["a"], "redacted");
    // YAML, CBOR, and YAML that isn't JSON in spite of its braces.
    for obscure in ["spec:\n  adminPassword: hunter2\n", "\u{fffd}\u{fffd}\u{fffd}dspec", "{adminPassword: hunter2}", "a: b"] {
        assert_eq!(text(&custom, obscure.as_bytes(), None), "redacted");
    }
    assert_eq!(text(&custom, b"{adminPassword: hunter2, b: ", Some(99)), "redacted");
    for (values, is_secret) in [
        ("db:\n  adminPassword: hunter2", true),
        ("- token: x", true),
        ("'api-key' : x", true),
        ("{a: 1, private_key: x}", true),
        ("password:\n  hunter2", true),
        ("{\\\"token\\\": 1}", true),
        ("tokens are: many", false),
        ("passwords: [a]", true),
        ("image: app/token:v1", false),
        ("{\"a\": \"api\", \"key\": 1}", false),
        ("tokenRef: {name: x}", false),
        ("http://a:8080", false),
    ] {
        let chart =
            |values: &str| json!({"apiVersion": "helm.cattle.io/v1", "kind": "HelmChart", "spec": {"valuesContent": values}});
        assert_eq!(shown(&Subject::default(), &chart(values)), chart(if is_secret { "redacted" } else { values }), "{values}");
    }
    // What the API itself has is known: a pod's environment and a ConfigMap's data are shown.
    let maps = Subject { group: "", resource: "configmaps", subresource: "" };
    let map = json!({"kind": "ConfigMap", "data": {"password": "x"}});
    assert_eq!(shown(&maps, &map), map);
}

#[test]
fn what_is_passed_on_is_left_out() {
    let proxy = Subject { group: "", resource: "services", subresource: "proxy" };
    for bytes in [&b"{\"a\": 1}"[..], b"a=b", &secret()] {
        assert_eq!(text(&proxy, bytes, None), "redacted");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_protobuf_is_taken(at in 0..SAMPLES.lines().count(), changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20)) {
        let (_, mut bytes, _) = samples().nth(at).unwrap();
        for (place, byte) in changes {
            let place = protobuf::PREFIX.len() + place.index(bytes.len() - protobuf::PREFIX.len());
            bytes[place] = byte;
        }
        let mut body = read(&bytes, None);
        prop_assert!(write(&body).len() <= 17 * bytes.len() + (64 << 10));
        prop_assert!(read(&write(&body), body.truncated_from).json.is_some());
        redact(&SECRETS, &mut body);
    }

    #[test]
    fn anything_at_all_is_taken(bytes in prop::collection::vec(any::<u8>(), 0..500), kind in "Secret|Pod|CustomResourceDefinition|Event") {
        for bytes in [bytes.clone(), object("v1", &kind, &bytes), [protobuf::PREFIX, &bytes].concat()] {
            let mut body = read(&bytes, None);
            redact(&Subject::default(), &mut body);
            redact(&SECRETS, &mut body);
        }
    }
}
