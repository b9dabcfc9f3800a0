//! One audit event, and the request that it tells of.

use jiff::Timestamp;
use serde::{Deserialize, de::IgnoredAny};
use serde_json::value::RawValue;

use crate::{
    body::{self, Subject},
    frame::{Api, ApiBody, ApiDecision, ApiStage, ApiUser, BODY_BYTES_AT_MOST, Bodies, Item},
    redact,
};

/// Longer texts are cut, in bytes.
const TEXT_AT_MOST: usize = 16 << 10;
/// Longer names of groups are cut, in bytes.
const GROUP_AT_MOST: usize = 1 << 10;
/// Of more groups, the rest is left out.
const GROUPS_AT_MOST: usize = 256;
/// Of what is no audit event, so much is quoted, in bytes.
const QUOTE_AT_MOST: usize = 300;

/// A request as an audit event tells of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Record {
    stage: ApiStage,
    request_id: String,
    time_ns: u64,
    received_ns: u64,
    verb: String,
    object: Object,
    uri: String,
    method: String,
    user: Option<User>,
    impersonator: Option<User>,
    decision: Option<ApiDecision>,
    code: Option<u16>,
    source: String,
    user_agent: String,
    audit_id: String,
    request_body: Option<Body>,
    response_body: Option<Body>,
    truncated: Vec<&'static str>,
}

/// Why something is no audit event. What it quotes is cut.
#[derive(Debug, thiserror::Error)]
pub enum NoRecord {
    /// Not JSON, or none that an event could be.
    #[error("this is no audit event: {0}")]
    Json(String),
    /// Another kind of object.
    #[error("this is no audit event, but an object of the kind {0:?}")]
    Kind(String),
    /// Of another version.
    #[error("audit events of the version {0:?} are not known here, only those of audit.k8s.io/v1")]
    Version(String),
    /// It lacks what every event has.
    #[error("this is no audit event: it has no {0}")]
    Missing(&'static str),
    /// Its time makes no sense.
    #[error("the audit event's {0} is no time of this age: {1:?}")]
    Time(&'static str, String),
    /// A stage that isn't known.
    #[error("the audit event is of the stage {0:?}, which is not known here")]
    Stage(String),
}

/// What an event says, bodies as `B`. (k8s.io/apiserver/pkg/apis/audit/v1, `Event`.)
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Event<B> {
    kind: String,
    api_version: String,
    #[serde(rename = "auditID")]
    audit_id: String,
    stage: String,
    #[serde(rename = "requestURI")]
    request_uri: String,
    verb: String,
    user: User,
    impersonated_user: Option<User>,
    #[serde(rename = "sourceIPs")]
    source_ips: Option<Vec<String>>,
    user_agent: String,
    object_ref: Option<Object>,
    response_status: Option<Status>,
    request_object: Option<B>,
    response_object: Option<B>,
    request_received_timestamp: String,
    stage_timestamp: String,
    annotations: Option<Annotations>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
struct User {
    username: String,
    uid: String,
    groups: Option<Vec<String>>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Object {
    api_group: String,
    api_version: String,
    resource: String,
    subresource: String,
    namespace: String,
    name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    code: i32,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Annotations {
    #[serde(rename = "authorization.k8s.io/decision")]
    decision: String,
}

/// A body as it is written: its values would take many times its length.
#[derive(Debug, Default, Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Option<&'a RawValue>);

#[derive(Debug, Clone, PartialEq)]
struct Body {
    bytes: Vec<u8>,
    truncated_from: Option<u64>,
}

/// Reads one event. `None`: it tells nothing that another one doesn't, or is what is left of a list. Bodies are left out unless
/// they are wanted.
///
/// # Errors
/// It isn't an audit event.
pub fn parse(json: &[u8], bodies: Option<Bodies>) -> Result<Option<Record>, NoRecord> {
    match bodies {
        Some(bodies) => read::<Text<'_>>(json, |text, subject| Body::of(text, subject, bodies)),
        None => read::<IgnoredAny>(json, |_, _| None),
    }
}

fn read<'a, B: Deserialize<'a> + Default>(
    json: &'a [u8],
    body: impl Fn(&B, &Subject<'_>) -> Option<Body>,
) -> Result<Option<Record>, NoRecord> {
    let event: Event<B> = serde_json::from_slice(json).map_err(|error| NoRecord::Json(quoted(error.to_string())))?;
    // The events of a list have neither.
    if !matches!(event.api_version.as_str(), "" | "audit.k8s.io/v1") {
        let is_audit = event.api_version.starts_with("audit.k8s.io/");
        return Err(if is_audit { NoRecord::Version(quoted(event.api_version)) } else { NoRecord::Kind(quoted(event.kind)) });
    }
    match event.kind.as_str() {
        "EventList" => return Ok(None),
        "Event" | "" => {}
        _ => return Err(NoRecord::Kind(quoted(event.kind))),
    }
    for (name, text) in [("auditID", &event.audit_id), ("stage", &event.stage), ("requestURI", &event.request_uri)] {
        if text.is_empty() {
            return Err(NoRecord::Missing(name));
        }
    }
    let code = event.response_status.as_ref().and_then(|status| u16::try_from(status.code).ok()).filter(|code| *code > 0);
    let stage = match (event.stage.as_str(), code) {
        ("RequestReceived", _) => return Ok(None),
        // Of a request that nobody was authenticated for, nothing follows.
        ("ResponseStarted", Some(401)) if event.user.username.is_empty() => ApiStage::Complete,
        // One that was refused wasn't long-running after all; its end is told as well.
        ("ResponseStarted", Some(400..)) => return Ok(None),
        ("ResponseStarted", _) => ApiStage::Started,
        ("ResponseComplete" | "Panic", _) => ApiStage::Complete,
        _ => return Err(NoRecord::Stage(quoted(event.stage))),
    };
    let received_ns = time("requestReceivedTimestamp", &event.request_received_timestamp)?;
    let stage_ns = time("stageTimestamp", &event.stage_timestamp)?;
    let object = event.object_ref.unwrap_or_default();
    let (user, impersonator) = users(event.user, event.impersonated_user);
    let decision = event.annotations.unwrap_or_default().decision;
    let mut record = Record {
        stage,
        // Clients may choose the audit id of their requests.
        request_id: format!("{}-{received_ns}", event.audit_id),
        time_ns: if stage == ApiStage::Started { received_ns } else { stage_ns },
        received_ns,
        method: method(&event.verb, &object, code).to_owned(),
        verb: event.verb,
        object,
        uri: String::from_utf8_lossy(&redact::uri(event.request_uri.as_bytes())).into_owned(),
        user,
        impersonator,
        decision: None,
        code: None,
        // Those before the last are what the client, or a proxy before it, says of itself.
        source: event.source_ips.unwrap_or_default().pop().unwrap_or_default(),
        user_agent: event.user_agent,
        audit_id: event.audit_id,
        request_body: None,
        response_body: None,
        truncated: Vec::new(),
    };
    if stage == ApiStage::Complete {
        record.code = code;
        record.decision = match (decision.as_str(), code) {
            ("allow", _) => Some(ApiDecision::Allowed),
            // A user who may not act as another is refused before what was asked for is decided upon.
            ("forbid", _) | ("", Some(403)) => Some(ApiDecision::Denied),
            ("", Some(401)) => Some(ApiDecision::Unauthenticated),
            _ => None,
        };
        let Object { api_group: group, resource, subresource, .. } = &record.object;
        let subject = Subject { group, resource, subresource };
        record.request_body = event.request_object.as_ref().and_then(|text| body(text, &subject));
        record.response_body = event.response_object.as_ref().and_then(|text| body(text, &subject));
        for (field, body) in [("request_body", &record.request_body), ("response_body", &record.response_body)] {
            record.truncated.extend(body.as_ref().and_then(|body| body.truncated_from).map(|_| field));
        }
    }
    record.bound();
    Ok(Some(record))
}

impl Record {
    /// When it happened, in nanoseconds since the epoch.
    pub fn time_ns(&self) -> u64 {
        self.time_ns
    }

    /// As an item of a batch, about the process of slot 0. Its times are counted from the epoch.
    pub fn item(&self) -> Item<'_> {
        let Object { api_group, api_version, resource, subresource, namespace, name } = &self.object;
        Item::Api(Box::new(Api {
            time_ns: self.time_ns,
            process: 0,
            stage: self.stage,
            request_id: &self.request_id,
            verb: self.verb.as_bytes(),
            group: api_group.as_bytes(),
            version: api_version.as_bytes(),
            resource: resource.as_bytes(),
            subresource: subresource.as_bytes(),
            namespace: namespace.as_bytes(),
            name: name.as_bytes(),
            uri: self.uri.as_bytes(),
            method: self.method.as_bytes(),
            user: self.user.as_ref().map(User::item),
            impersonator: self.impersonator.as_ref().map(User::item),
            decision: self.decision,
            code: self.code,
            received_ns: Some(self.received_ns),
            response_bytes: None,
            source: self.source.as_bytes(),
            user_agent: self.user_agent.as_bytes(),
            audit_id: self.audit_id.as_bytes(),
            request_body: self.request_body.as_ref().map(Body::item),
            response_body: self.response_body.as_ref().map(Body::item),
            truncated: self.truncated.clone(),
        }))
    }

    /// Cuts what is too long.
    fn bound(&mut self) {
        let cut = &mut self.truncated;
        if shorten(&mut self.uri, TEXT_AT_MOST) {
            cut.push(if self.uri.contains('?') { "query" } else { "path" });
        }
        for (name, text) in [
            ("verb", &mut self.verb),
            ("group", &mut self.object.api_group),
            ("version", &mut self.object.api_version),
            ("resource", &mut self.object.resource),
            ("subresource", &mut self.object.subresource),
            ("namespace", &mut self.object.namespace),
            ("name", &mut self.object.name),
            ("method", &mut self.method),
            ("source", &mut self.source),
            ("user_agent", &mut self.user_agent),
            ("audit_id", &mut self.audit_id),
            ("request_id", &mut self.request_id),
        ] {
            if shorten(text, TEXT_AT_MOST) {
                cut.push(name);
            }
        }
        for (name, user) in [("user", &mut self.user), ("impersonator", &mut self.impersonator)] {
            if user.as_mut().is_some_and(User::bound) {
                cut.push(name);
            }
        }
    }
}

impl User {
    /// Whether one who was authenticated as this acts as somebody else by acting as `user`.
    fn is_other_than(&self, user: &Self) -> bool {
        let groups = |user: &Self| user.groups.clone().unwrap_or_default();
        let others = groups(user);
        self.username != user.username || self.uid != user.uid || groups(self).iter().any(|group| !others.contains(group))
    }

    fn bound(&mut self) -> bool {
        let groups = self.groups.get_or_insert_default();
        let mut cut = groups.len() > GROUPS_AT_MOST;
        groups.truncate(GROUPS_AT_MOST);
        for group in groups {
            cut |= shorten(group, GROUP_AT_MOST);
        }
        cut |= shorten(&mut self.username, TEXT_AT_MOST);
        cut | shorten(&mut self.uid, TEXT_AT_MOST)
    }

    fn item(&self) -> ApiUser<'_> {
        let groups = self.groups.iter().flatten().map(|group| group.as_bytes().into()).collect();
        ApiUser { name: self.username.as_bytes(), uid: self.uid.as_bytes(), groups }
    }
}

impl Body {
    fn of(text: &Text<'_>, subject: &Subject<'_>, wanted: Bodies) -> Option<Self> {
        let bytes = text.0?.get().as_bytes();
        let kept = &bytes[..bytes.len().min(wanted.limit.min(BODY_BYTES_AT_MOST) as usize)];
        let truncated_from = (kept.len() < bytes.len()).then(|| u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        if wanted.show_secrets {
            return Some(Self { bytes: kept.to_vec(), truncated_from });
        }
        let mut read = body::read(kept, truncated_from);
        body::redact(subject, &mut read);
        let (bytes, truncated_from) = body::shown(&read);
        Some(Self { bytes, truncated_from })
    }

    fn item(&self) -> ApiBody<'_> {
        ApiBody { bytes: &self.bytes, truncated_from: self.truncated_from }
    }
}

/// Who it acts as, and who really made it where that is somebody else.
fn users(real: User, acts_as: Option<User>) -> (Option<User>, Option<User>) {
    match acts_as {
        Some(user) => {
            let impersonator = real.is_other_than(&user).then_some(real);
            (Some(user), impersonator)
        }
        None if real.username.is_empty() => (None, None),
        None => (Some(real), None),
    }
}

/// The HTTP method, which the log doesn't tell; empty where the verb leaves a doubt.
fn method(verb: &str, object: &Object, code: Option<u16>) -> &'static str {
    let doubtful = object.subresource == "proxy" || code == Some(405);
    match verb {
        "create" | "post" => "POST",
        "update" | "put" => "PUT",
        "patch" => "PATCH",
        "delete" | "deletecollection" => "DELETE",
        "head" => "HEAD",
        "options" => "OPTIONS",
        // Of a resource it may be HEAD, which is refused where nothing else answers.
        "get" | "list" | "watch" if object.resource.is_empty() || !doubtful => "GET",
        _ => "",
    }
}

fn time(field: &'static str, text: &str) -> Result<u64, NoRecord> {
    if text.is_empty() {
        return Err(NoRecord::Missing(field));
    }
    let time: Option<Timestamp> = text.parse().ok();
    // Later ones than 2262 don't fit the clock of events.
    let nanoseconds = time.and_then(|time| i64::try_from(time.as_nanosecond()).ok()).and_then(|time| u64::try_from(time).ok());
    nanoseconds.ok_or_else(|| NoRecord::Time(field, quoted(text.to_owned())))
}

fn quoted(mut text: String) -> String {
    if shorten(&mut text, QUOTE_AT_MOST) {
        text.push('…');
    }
    text
}

fn shorten(text: &mut String, most: usize) -> bool {
    let is_long = text.len() > most;
    text.truncate(text.floor_char_boundary(most));
    is_long
}
