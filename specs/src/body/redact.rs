//! What gives access is taken out of bodies: names and shape stay, so that it is seen what was done to what.

use serde_json::{Map, Value};

use super::{Subject, fields, unfinished};
use crate::{event::ApiBody, redact::GONE};

/// Fields of Secrets, and of what else is sent and answered where Secrets are asked for, that hold no secret.
const OPEN: [&str; 11] = [
    "apiVersion",
    "kind",
    "type",
    "immutable",
    // metav1.Status
    "status",
    "reason",
    "code",
    // metav1.DeleteOptions
    "gracePeriodSeconds",
    "propagationPolicy",
    "orphanDependents",
    "dryRun",
];
/// Fields of metav1.ObjectMeta and ListMeta that hold no secret. Annotations may: kubectl keeps whole Secrets in one.
const OPEN_METADATA: [&str; 16] = [
    "name",
    "generateName",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "labels",
    "ownerReferences",
    "finalizers",
    "managedFields",
    "selfLink",
    "continue",
    "remainingItemCount",
];
/// Reasons of a metav1.Status whose message quotes nothing that was sent.
const QUIET: [&str; 10] = [
    "NotFound",
    "AlreadyExists",
    "Forbidden",
    "Unauthorized",
    "Conflict",
    "Gone",
    "Expired",
    "Timeout",
    "TooManyRequests",
    "MethodNotAllowed",
];
/// What messages say whose reason, and words, are somebody else's choice: those of webhooks and policies for admission.
const FOREIGN: [&str; 3] = ["admission webhook", "ValidatingAdmissionPolicy", "MutatingAdmissionPolicy"];
/// In custom resources, what fields hold that are called so: what stands last in the name, in lower case and one word, also with an
/// `s` behind it.
const CALLED: [&str; 9] =
    ["token", "password", "passwd", "passphrase", "secret", "apikey", "accesskey", "privatekey", "credential"];

/// What only Secrets themselves have, and no references to them.
const WHOLE: [&str; 4] = ["metadata", "data", "stringData", "protobuf"];

/// Takes out what gives access; `subject` is what the request is about.
///
/// - Of Secrets, all but type, labels and the like: the keys of what they hold stay. Also where other objects hold them, and of
///   patches.
/// - Tokens in requests for tokens and in their reviews.
/// - All that is passed on to pods, services and nodes, whose meaning is theirs alone.
/// - In custom resources, texts and numbers of fields that are called as secrets are (`token`, `password`, ...), in lists as well,
///   and what is `value` or `values` in them. References stay: `password: {name: a, key: b}`.
/// - Of a JSON that is cut, an object within it whose kind is in what is missing.
/// - What can't be read of these, as a whole; so any text in which an object calls itself a Secret.
pub fn redact(subject: &Subject<'_>, body: &mut ApiBody) {
    let (is_secret, is_token, is_proxied) =
        (subject.resource == "secrets", is_about_tokens(subject), subject.subresource == "proxy");
    let walk = Walk { is_custom: is_custom(subject, body) };
    if let Some(text) = &mut body.text
        && !text.is_empty()
    {
        let is_cut = body.truncated_from.is_some();
        let kept = unfinished::object(text).filter(|_| is_cut).unwrap_or(text.len());
        // In the part that is there, nothing may say what it is.
        let is_riddle = subject.resource.is_empty() && is_cut && !kinds(&text[..kept]).any(|(_, whole)| whole);
        // What isn't JSON, such as YAML and CBOR, can't be searched for names with certainty.
        let is_cut_json = is_cut && text.trim_ascii_start().starts_with(['{', '[']);
        let is_obscure = walk.is_custom && !is_cut_json;
        if is_secret || is_token || is_proxied || is_riddle || is_obscure || walk.holds_secret(text) {
            GONE.clone_into(text);
        } else if kept < text.len() {
            text.truncate(kept);
            text.push_str(GONE);
        }
    }
    let Some(json) = &mut body.json else { return };
    if is_proxied {
        body.json = None;
        body.text = Some(GONE.to_owned());
    } else if is_secret || subject.resource.is_empty() && may_be_secret(json) {
        secret(json);
    } else if is_token {
        token(json);
    } else {
        walk.walk(json);
    }
}

fn is_about_tokens(subject: &Subject<'_>) -> bool {
    matches!((subject.resource, subject.subresource), ("tokenreviews", _) | ("serviceaccounts", "token"))
}

fn is_custom(subject: &Subject<'_>, body: &ApiBody) -> bool {
    if !subject.resource.is_empty() {
        return !fields::knows_group(subject.group);
    }
    let version = body.json.as_ref().and_then(|json| json.get("apiVersion")?.as_str());
    version.is_some_and(|version| !fields::knows_group(version.split_once('/').map_or("", |(group, _)| group)))
}

/// Whether this looks like a patch of a Secret, where nobody knows what it patches.
fn may_be_secret(json: &Value) -> bool {
    let has = |name| json.get(name).is_some();
    json.is_array() || !has("kind") && (has("data") || has("stringData"))
}

/// A Secret, a list of them, a watch's event about one, a patch of one, or a status about one.
fn secret(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            hide_quotes(fields);
            let is_status = is_status(fields);
            for (name, value) in fields {
                match (name.as_str(), value) {
                    ("metadata", value) => metadata(value),
                    ("object", value) => secret(value),
                    ("items", Value::Array(items)) => items.iter_mut().for_each(secret),
                    ("message" | "details", value) if is_status => hide_unknown(value),
                    ("preconditions", value) => hide_unknown(value),
                    (name, value) if OPEN.contains(&name) && !value.is_object() => {}
                    (_, value) => hide(value),
                }
            }
        }
        Value::Array(operations) => operations.iter_mut().for_each(operation),
        other => hide(other),
    }
}

/// Of a JSON patch (RFC 6902) of a Secret.
fn operation(value: &mut Value) {
    let Value::Object(fields) = value else { return hide(value) };
    let path = fields.get("path").and_then(Value::as_str).map(str::to_owned);
    for (name, value) in fields {
        match (name.as_str(), path.as_deref().map(|path| path.split('/').skip(1).collect::<Vec<_>>()).as_deref()) {
            ("op" | "path" | "from", _) if value.is_string() => {}
            ("value", Some([])) => secret(value),
            ("value", Some(["metadata"])) => metadata(value),
            ("value", Some(["metadata", name, ..])) if OPEN_METADATA.contains(name) => hide_unknown(value),
            ("value", Some([name])) if OPEN.contains(name) => {}
            _ => hide(value),
        }
    }
}

fn metadata(value: &mut Value) {
    let Value::Object(fields) = value else { return hide(value) };
    for (name, value) in fields {
        if OPEN_METADATA.contains(&name.as_str()) { hide_unknown(value) } else { hide(value) }
    }
}

/// A request for a token, or a review of one.
fn token(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            hide_quotes(fields);
            for (name, value) in fields {
                // Annotations as those of Secrets.
                let is_hidden = name.eq_ignore_ascii_case("token") || name == "annotations" || is_unknown(name);
                if is_hidden { hide(value) } else { token(value) }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(token),
        _ => {}
    }
}

/// The message of a status may quote what was sent.
fn hide_quotes(fields: &mut Map<String, Value>) {
    if !is_status(fields) {
        return;
    }
    let text = |name| fields.get(name).and_then(Value::as_str).unwrap_or_default();
    let is_foreign = FOREIGN.iter().any(|word| text("message").contains(word));
    if is_foreign || !QUIET.contains(&text("reason")) {
        fields.get_mut("message").into_iter().for_each(hide);
    }
    fields.get_mut("details").and_then(|details| details.get_mut("causes")).into_iter().for_each(hide);
}

fn is_status(fields: &Map<String, Value>) -> bool {
    fields.get("kind").is_some_and(|kind| kind == "Status")
}

/// What came of protobuf and has no name here could be anything.
fn hide_unknown(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                if is_unknown(name) { hide(value) } else { hide_unknown(value) }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(hide_unknown),
        _ => {}
    }
}

fn is_unknown(name: &str) -> bool {
    name == "protobuf" || name.starts_with('#')
}

/// Everything but names and shape.
fn hide(value: &mut Value) {
    match value {
        // It says that something is to go.
        Value::Null => {}
        Value::Array(values) => values.iter_mut().for_each(hide),
        Value::Object(fields) => fields.values_mut().for_each(hide),
        other => *other = GONE.into(),
    }
}

/// Goes through what is about something else.
struct Walk {
    is_custom: bool,
}

impl Walk {
    fn walk(&self, value: &mut Value) {
        match value {
            Value::Object(fields) => match fields.get("kind").and_then(Value::as_str) {
                Some("Secret") if WHOLE.iter().any(|name| fields.contains_key(*name)) => secret(value),
                Some("SecretList") => secret(value),
                Some("TokenRequest" | "TokenReview") => token(value),
                _ => self.fields(fields),
            },
            Value::Array(values) => values.iter_mut().for_each(|value| self.walk(value)),
            Value::String(text) if self.holds_secret(text) => GONE.clone_into(text),
            _ => {}
        }
    }

    fn fields(&self, fields: &mut Map<String, Value>) {
        let patched = fields.get("path").and_then(Value::as_str);
        let is_patched = patched.is_some_and(|path| path.split('/').any(is_called_secret));
        for (name, value) in fields {
            if self.is_custom && (is_called_secret(name) || name == "value" && is_patched) {
                self.called_secret(value);
            } else {
                self.walk(value);
            }
        }
    }

    /// What a field holds that is called as secrets are: itself, or where it is.
    fn called_secret(&self, value: &mut Value) {
        match value {
            Value::Null | Value::Bool(_) => {}
            Value::Array(values) => values.iter_mut().for_each(|value| self.called_secret(value)),
            Value::Object(fields) => {
                for name in ["value", "values"] {
                    fields.get_mut(name).into_iter().for_each(hide);
                }
                self.walk(value);
            }
            other => hide(other),
        }
    }

    /// Whether a text has a secret in it, as manifests in annotations and ConfigMaps may.
    fn holds_secret(&self, text: &str) -> bool {
        calls_itself_secret(text) || self.is_custom && text.contains(':') && names_secret(text)
    }
}

fn is_called_secret(name: &str) -> bool {
    let name: String = name.chars().filter(char::is_ascii_alphanumeric).map(|letter| letter.to_ascii_lowercase()).collect();
    let one = name.strip_suffix('s').unwrap_or(&name);
    CALLED.iter().any(|called| one.ends_with(called))
}

/// Whether it says something like `kind: Secret`.
fn calls_itself_secret(text: &str) -> bool {
    kinds(text).any(|(kind, _)| ["Secret", "SecretList", "TokenRequest", "TokenReview"].contains(&kind))
}

/// What follows `kind:`, however it is quoted, and whether it is there to its end.
fn kinds(text: &str) -> impl Iterator<Item = (&str, bool)> {
    text.match_indices("kind").filter_map(|(at, word)| {
        let rest = &text[at + word.len()..];
        let kind = rest.trim_start_matches(|letter: char| !letter.is_alphanumeric());
        let between = &rest[..rest.len() - kind.len()];
        let is_field = between.len() <= 32 && between.contains(':');
        // Of fields alone: what follows one isn't looked through again for the next.
        is_field.then(|| {
            let end = kind.find(|letter: char| !letter.is_alphanumeric());
            (&kind[..end.unwrap_or(kind.len())], end.is_some())
        })
    })
}

/// Whether JSON or YAML in it has a field that is called as secrets are.
fn names_secret(text: &str) -> bool {
    let mut parts = text.split(':').peekable();
    std::iter::from_fn(|| Some((parts.next()?, *parts.peek()?))).any(|(before, after)| {
        let is_quoted = before.trim_end().ends_with(['"', '\'']);
        let before = before.trim_end_matches(|letter: char| !letter.is_alphanumeric());
        let name = if is_quoted {
            before.rsplit(['"', '\'']).next()
        } else {
            before.rsplit(|letter: char| letter.is_whitespace() || "{[,".contains(letter)).next()
        };
        // In YAML, a colon without quotes before it and a space behind it is part of a text, as in `app/token:v1`.
        let is_field = is_quoted || after.is_empty() || after.starts_with(char::is_whitespace);
        is_field && name.is_some_and(is_called_secret)
    })
}
