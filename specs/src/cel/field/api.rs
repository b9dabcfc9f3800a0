//! The fields of requests to the Kubernetes API.

use super::{Field, List, Object, json, optional, text};
use crate::{
    event::{Api, ApiBody, ApiUser},
    link::Cause,
};

pub(super) fn of_api<'e>(api: &'e Api, name: &str) -> Option<Field<'e>> {
    match name {
        "stage" => text(api.stage.name()),
        "request_id" => text(&api.request_id),
        "verb" => text(&api.verb),
        "group" => text(&api.group),
        "version" => text(&api.version),
        "resource" => text(&api.resource),
        "subresource" => text(&api.subresource),
        "namespace" => text(&api.namespace),
        "name" => text(&api.name),
        "path" => text(&api.path),
        "query" => text(&api.query),
        "command" => (!api.command.is_empty()).then_some(Field::List(List::Texts(&api.command))),
        "dry_run" => Some(Field::Bool(api.dry_run)),
        "method" => optional(api.method.as_ref()),
        "user" => api.user.as_ref().map(|user| Field::Object(Object::ApiUser(user))),
        "impersonator" => api.impersonator.as_ref().map(|user| Field::Object(Object::ApiUser(user))),
        "decision" => api.decision.and_then(|decision| text(decision.name())),
        "code" => api.code.map(|code| Field::Int(code.into())),
        "latency_ns" => api.latency_ns.and_then(number),
        "response_bytes" => api.response_bytes.and_then(number),
        "received" => optional(api.received.as_ref()),
        "source" => optional(api.source.as_ref()),
        "user_agent" => optional(api.user_agent.as_ref()),
        "audit_id" => optional(api.audit_id.as_ref()),
        "request_body" => api.request_body.as_ref().map(|body| Field::Object(Object::ApiBody(body))),
        "response_body" => api.response_body.as_ref().map(|body| Field::Object(Object::ApiBody(body))),
        "truncated" => (!api.truncated.is_empty()).then_some(Field::List(List::Flags(&api.truncated))),
        _ => None,
    }
}

pub(super) fn of_user<'e>(user: &'e ApiUser, name: &str) -> Option<Field<'e>> {
    match name {
        "name" => text(&user.name),
        "uid" => text(&user.uid),
        "groups" => Some(Field::List(List::Texts(&user.groups))),
        _ => None,
    }
}

pub(super) fn of_cause<'e>(cause: &'e Cause, name: &str) -> Option<Field<'e>> {
    match name {
        "request_id" => text(&cause.request_id),
        "user" => text(&cause.user),
        "impersonator" => optional(cause.impersonator.as_ref()),
        "verb" => text(&cause.verb),
        "subresource" => text(&cause.subresource),
        "source" => optional(cause.source.as_ref()),
        "certainty" => text(cause.certainty.name()),
        "others" => (!cause.others.is_empty()).then_some(Field::List(List::Texts(&cause.others))),
        _ => None,
    }
}

pub(super) fn of_body<'e>(body: &'e ApiBody, name: &str) -> Option<Field<'e>> {
    match name {
        "json" => body.json.as_ref().and_then(json::field),
        "text" => optional(body.text.as_ref()),
        "truncated_from" => body.truncated_from.and_then(number),
        _ => None,
    }
}

fn number<'e>(number: u64) -> Option<Field<'e>> {
    i64::try_from(number).ok().map(Field::Int)
}
