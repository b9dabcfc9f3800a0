//! What requests to the Kubernetes API carry.

use serde_json::Value;

use crate::event::ApiBody;

/// What a body is about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Subject<'a> {
    /// API group.
    pub group: &'a str,
    /// Resource.
    pub resource: &'a str,
    /// Subresource.
    pub subresource: &'a str,
}

/// What the bytes say.
pub fn read(bytes: &[u8], truncated_from: Option<u64>) -> ApiBody {
    let json = truncated_from.is_none().then(|| serde_json::from_slice(bytes).ok()).flatten();
    let text = json.is_none().then(|| String::from_utf8_lossy(bytes).into_owned());
    ApiBody { json, text, truncated_from }
}

/// Takes out what gives access.
pub fn redact(subject: &Subject<'_>, body: &mut ApiBody) {
    if matches!((subject.resource, subject.subresource), ("secrets" | "tokenreviews", _) | ("serviceaccounts", "token")) {
        *body = ApiBody { text: Some("redacted".to_owned()), ..ApiBody::default() };
    }
}

/// The object's name.
pub fn name(body: &ApiBody) -> Option<&str> {
    body.json.as_ref()?.pointer("/metadata/name").and_then(Value::as_str)
}

/// The object's namespace.
pub fn namespace(body: &ApiBody) -> Option<&str> {
    body.json.as_ref()?.pointer("/metadata/namespace").and_then(Value::as_str)
}

/// As an item of a batch carries it.
pub fn write(body: &ApiBody) -> Vec<u8> {
    match &body.json {
        Some(json) => json.to_string().into_bytes(),
        None => body.text.clone().unwrap_or_default().into_bytes(),
    }
}
