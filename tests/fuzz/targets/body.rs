//! Any bytes as a body: a value of bounded size, and nothing secret of a Secret.
#![no_main]

use knark_specs::body::{Subject, read, redact, write};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

const SECRETS: Subject<'_> = Subject { group: "", resource: "secrets", subresource: "" };
/// What must not be seen, and the same in base64.
const SECRET: [&str; 2] = ["Zq7#correct-horse", "WnE3I2NvcnJlY3QtaG9yc2U="];

fuzz_target!(|bytes: &[u8]| {
    let Some((how, bytes)) = bytes.split_first() else { return };
    let subject = match how % 5 {
        0 => SECRETS,
        1 => Subject { group: "", resource: "pods", subresource: "" },
        2 => Subject { group: "", resource: "serviceaccounts", subresource: "token" },
        3 => Subject { group: "example.com", resource: "things", subresource: "" },
        _ => Subject::default(),
    };
    let mut body = read(bytes, (how & 0x80 != 0).then_some(1 << 20));
    let whole = write(&body);
    assert!(whole.len() <= 17 * bytes.len() + (64 << 10));
    // Numbers with fractions may differ in their last digit.
    let again = read(&whole, body.truncated_from);
    assert_eq!((again.json.is_some(), &again.text), (body.json.is_some(), &body.text));
    // The inputs are made by looking at what they are compared with.
    let is_known = |bytes: &[u8]| SECRET.iter().any(|secret| String::from_utf8_lossy(bytes).contains(secret));
    if !is_known(&whole) && !is_known(bytes) {
        hides_what_is_planted(&body.json);
        hides_what_follows(bytes);
    }
    redact(&subject, &mut body);
    assert!(write(&body).len() <= 10 * whole.len() + 8);
    let once = body.clone();
    redact(&subject, &mut body);
    assert_eq!(body, once);
});

/// In JSON.
fn hides_what_is_planted(json: &Option<Value>) {
    let Some(Value::Object(fields)) = json else { return };
    for (place, planted) in [("data", json!({ "key": SECRET[1] })), ("stringData", json!({ "key": [{ "deeper": SECRET[0] }] }))] {
        let mut fields = fields.clone();
        fields.insert(place.to_owned(), planted);
        shows_no_secret(&Value::Object(fields).to_string().into_bytes());
    }
}

/// In protobuf, after whatever fields.
fn hides_what_follows(fields: &[u8]) {
    let field = |number: u8, bytes: &[u8]| {
        let length = u32::try_from(bytes.len()).unwrap_or_default();
        let varint: Vec<u8> = (0..5).map(|at| (length >> (7 * at)) as u8 & 0x7f | if at < 4 { 0x80 } else { 0 }).collect();
        [&[number << 3 | 2][..], &varint, bytes].concat()
    };
    let entry = [field(1, b"key"), field(2, SECRET[0].as_bytes())].concat();
    let raw = [fields, &field(2, &entry)].concat();
    let meta = [field(1, b"v1"), field(2, b"Secret")].concat();
    shows_no_secret(&[b"k8s\0", &field(1, &meta)[..], &field(2, &raw)].concat());
}

fn shows_no_secret(bytes: &[u8]) {
    for end in [bytes.len(), bytes.len() - bytes.len().min(20)] {
        let mut body = read(&bytes[..end], (end < bytes.len()).then_some(bytes.len() as u64));
        redact(&SECRETS, &mut body);
        // As base64: fields that are damaged may take what follows for something else, such as a name.
        let shown = String::from_utf8(write(&body)).expect("a body is text");
        assert!(!shown.contains(SECRET[1]), "{shown}");
        assert!(bytes.starts_with(b"k8s\0") || !shown.contains(SECRET[0]), "{shown}");
    }
}
