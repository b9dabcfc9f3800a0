//! Bodies of requests to the Kubernetes API and of its answers: JSON and Kubernetes' protobuf as JSON, without secrets.
//!
//! - `protobuf`: Kubernetes' protobuf as the JSON that the API server would give, by the table of `fields`.
//! - `memory`: how much of it the values of a body may take.
//! - `redact`: what gives access is taken out.

mod fields;
mod memory;
mod protobuf;
mod redact;
mod scalar;
mod unfinished;
mod wire;

use serde_json::Value;

use crate::event::ApiBody;
pub use redact::redact;

/// What is read out of a body, and rid of secrets, may be longer than that itself. More of it isn't sent, in bytes: two bodies fit
/// into a message.
pub const SHOWN_AT_MOST: usize = 3 << 19;

/// What a request is about. All empty: it isn't known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Subject<'a> {
    /// API group; empty for the core group.
    pub group: &'a str,
    /// Resource, such as `secrets`.
    pub resource: &'a str,
    /// Subresource, such as `token`.
    pub subresource: &'a str,
}

/// What bytes say: `json` of an object or a list in JSON, and of Kubernetes' protobuf as far as it goes; `text` of all else.
/// `truncated_from`: how many bytes there were, where these are fewer. What comes of protobuf is up to 16 times as long as these
/// bytes, and 64 KiB; where that doesn't do, or they are damaged, what is missing is as if it had been cut. So is what would take
/// more than about 32 MiB of memory, beside the length of its texts.
pub fn read(bytes: &[u8], truncated_from: Option<u64>) -> ApiBody {
    let length = || u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    if let Some(envelope) = bytes.strip_prefix(protobuf::PREFIX) {
        let (json, is_cut) = protobuf::decode(envelope);
        return ApiBody { json: Some(json), text: None, truncated_from: truncated_from.or_else(|| is_cut.then(length)) };
    }
    // As Go reads JSON.
    let whole = String::from_utf8_lossy(bytes);
    let text = memory::fitting(&whole);
    let truncated_from = truncated_from.or_else(|| (text.len() < whole.len()).then(length));
    // Other values than these seem to be whole wherever they are cut.
    let may_be_json = truncated_from.is_none() || text.trim_ascii_start().starts_with(['{', '[']);
    let json: Option<Value> = may_be_json.then(|| serde_json::from_str(text).ok()).flatten();
    let text = json.is_none().then(|| text.to_owned());
    ApiBody { json, text, truncated_from }
}

/// The bytes that [`read`] makes the same body of, together with its `truncated_from`.
pub fn write(body: &ApiBody) -> Vec<u8> {
    match (&body.json, &body.text) {
        (Some(json), _) => json.to_string().into_bytes(),
        (None, text) => text.clone().unwrap_or_default().into_bytes(),
    }
}

/// What [`write`] gives and `truncated_from`, cut to [`SHOWN_AT_MOST`].
pub fn shown(body: &ApiBody) -> (Vec<u8>, Option<u64>) {
    let (mut bytes, mut truncated_from) = (write(body), body.truncated_from);
    if bytes.len() > SHOWN_AT_MOST {
        truncated_from = truncated_from.or_else(|| u64::try_from(bytes.len()).ok());
        bytes.truncate(SHOWN_AT_MOST);
    }
    (bytes, truncated_from)
}

/// The object's name.
pub fn name(body: &ApiBody) -> Option<&str> {
    metadata(body, "name")
}

/// The object's namespace.
pub fn namespace(body: &ApiBody) -> Option<&str> {
    metadata(body, "namespace")
}

/// The object's UID.
pub fn uid(body: &ApiBody) -> Option<&str> {
    metadata(body, "uid")
}

fn metadata<'b>(body: &'b ApiBody, field: &str) -> Option<&'b str> {
    body.json.as_ref()?.get("metadata")?.get(field)?.as_str().filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests;
