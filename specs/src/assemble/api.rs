//! Requests to the Kubernetes API out of a batch.

use crate::{
    body,
    event::{Api, ApiUser, What},
    frame, query,
    texts::Texts,
};

/// The event that an item tells of; `received` is the time at which the request came in.
pub(super) fn of(item: &frame::Api<'_>, received: Option<String>) -> What {
    let mut uri = item.uri.splitn(2, |byte| *byte == b'?');
    let mut part = || text(uri.next().unwrap_or_default());
    let mut api = Api {
        stage: item.stage,
        request_id: item.request_id.to_owned(),
        verb: text(item.verb),
        group: text(item.group),
        version: text(item.version),
        resource: text(item.resource),
        subresource: text(item.subresource),
        namespace: text(item.namespace),
        name: text(item.name),
        path: part(),
        query: part(),
        command: Texts::default(),
        dry_run: false,
        method: optional(item.method),
        user: item.user.as_ref().map(user),
        impersonator: item.impersonator.as_ref().map(user),
        decision: item.decision,
        code: item.code,
        latency_ns: latency(item),
        response_bytes: item.response_bytes,
        received,
        source: optional(item.source),
        user_agent: optional(item.user_agent),
        audit_id: optional(item.audit_id),
        request_body: item.request_body.as_ref().map(|body| body::read(body.bytes, body.truncated_from)),
        response_body: item.response_body.as_ref().map(|body| body::read(body.bytes, body.truncated_from)),
        truncated: item.truncated.iter().map(|name| (*name).to_owned().into()).collect(),
    };
    if api.subresource == "exec" {
        api.command = query::pairs(&api.query).filter(|(name, _)| name == "command").map(|(_, word)| word).collect();
    }
    api.dry_run = api.asks_for_dry_run();
    What::Api { api: Box::new(api) }
}

fn latency(item: &frame::Api<'_>) -> Option<u64> {
    item.received_ns
        .filter(|_| item.stage == frame::ApiStage::Complete)
        .map(|received_ns| item.time_ns.saturating_sub(received_ns))
}

fn user(user: &frame::ApiUser<'_>) -> ApiUser {
    let groups: Texts = user.groups.iter().map(|group| String::from_utf8_lossy(group)).collect();
    ApiUser { name: text(user.name), uid: text(user.uid), groups }
}

fn optional(bytes: &[u8]) -> Option<String> {
    (!bytes.is_empty()).then(|| text(bytes))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
