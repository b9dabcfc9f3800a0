//! Requests to the Kubernetes API, whether probes in the API server or its audit log tell of them.

use std::{borrow::Cow, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::length;
pub use crate::frame::{ApiDecision, ApiStage};
use crate::{query, texts::Texts};

/// A request to the Kubernetes API. What isn't known is absent; what doesn't apply to the request is an empty text.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Api {
    /// Whether the request has begun or ended; `time` says when it did. Only long-running ones are told at their beginning:
    /// watch, exec, attach, portforward, proxy, and logs that are followed.
    pub stage: ApiStage,
    /// The same in the events of one request, and in no other's.
    pub request_id: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`, ...; of what is no resource, the HTTP
    /// method in lower case.
    pub verb: String,
    /// The resource's API group; empty for the core group.
    pub group: String,
    /// The group's version, such as `v1`.
    pub version: String,
    /// The resource, such as `pods`; empty where the request isn't about one.
    pub resource: String,
    /// The subresource, such as `exec`.
    pub subresource: String,
    /// The namespace; empty for what has none.
    pub namespace: String,
    /// The object's name; of a create only where the path has it, or else a body: the response's, or the request's.
    pub name: String,
    /// The path that was asked for, without the query.
    pub path: String,
    /// What follows `?` in what was asked for.
    pub query: String,
    /// What an exec is to run, as the query has it.
    #[serde(default, skip_serializing_if = "Texts::is_empty")]
    pub command: Texts,
    /// Nothing was to be changed (`dryRun=All`). A delete says so in its body, so of that it is known only where bodies are asked
    /// for; absent otherwise.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
    /// The HTTP method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Who the request acts as; absent where nobody was authenticated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<ApiUser>,
    /// Who really made it, where it acts as someone else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub impersonator: Option<ApiUser>,
    /// Whether it was allowed; absent where that was not decided or isn't known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<ApiDecision>,
    /// The HTTP status; 101 for sessions such as exec's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<u16>,
    /// From when it came in until it ended, in nanoseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_ns: Option<u64>,
    /// Bytes of the response's body, before compression.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_bytes: Option<u64>,
    /// When it came in: RFC 3339, UTC, nanoseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub received: Option<String>,
    /// The peer's address, without its port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The client as it names itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<String>,
    /// The id that the API server gave it, which its audit log shows too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit_id: Option<String>,
    /// What was sent; only where bodies are asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_body: Option<ApiBody>,
    /// What was answered; only where bodies are asked for, and live only to requests that change something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_body: Option<ApiBody>,
    /// Fields that lack their end, since they were too long; bodies also where a part of them, or all, was lost.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub truncated: Vec<Cow<'static, str>>,
}

/// A user as the API server knows it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ApiUser {
    /// Name.
    pub name: String,
    /// UID; empty where it has none.
    #[serde(default)]
    pub uid: String,
    /// Groups.
    #[serde(default)]
    pub groups: Texts,
}

/// A request's or response's body: `json` where it could be read as that, or as Kubernetes' protobuf; else `text`. Secrets in it
/// read `redacted`, unless they are asked for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ApiBody {
    /// The object. What was protobuf and can't be named has its number: `"#7": [...]`, or is whole in `protobuf`, as base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub json: Option<Value>,
    /// What isn't an object, or isn't whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// How many bytes there were, where this holds fewer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub truncated_from: Option<u64>,
}

impl Api {
    /// Whether what was asked for says that nothing is to be changed: [`dry_run`](Self::dry_run) for whoever makes an event. What
    /// might change something all the same is none.
    pub fn asks_for_dry_run(&self) -> bool {
        /// What is done by these is done, whatever the query says.
        const DONE: [&str; 5] = ["exec", "attach", "portforward", "proxy", "token"];
        /// A query with more than these is none to Go's `net/url` (`urlmaxqueryparams`), and the API server acts without it.
        const PARAMETERS: usize = 10_000;
        let is_whole = || !self.truncated.iter().any(|part| matches!(&**part, "path" | "query"));
        let is_read = || is_whole() && self.query.split('&').count() <= PARAMETERS;
        match self.verb.as_str() {
            _ if DONE.contains(&self.subresource.as_str()) => false,
            "create" | "update" | "patch" => {
                is_read() && query::pairs(&self.query).any(|(key, value)| key == "dryRun" && value == "All")
            }
            // Where there is a body, the API server doesn't look at the query.
            "delete" | "deletecollection" => {
                let body = self.request_body.as_ref().filter(|body| body.truncated_from.is_none());
                let stages = body.and_then(|body| body.json.as_ref()?.get("dryRun")?.as_array());
                stages.is_some_and(|stages| !stages.is_empty() && stages.iter().all(|stage| stage == "All"))
            }
            _ => false,
        }
    }

    /// [`latency_ns`](Self::latency_ns) as people read it, to the microsecond or, of seconds and more, the millisecond: `1ms 954us`.
    pub fn latency(&self) -> Option<String> {
        let ns = self.latency_ns?;
        let shown = Duration::from_micros(if ns < 1_000_000_000 { ns / 1000 } else { ns / 1_000_000 * 1000 });
        Some(humantime::format_duration(shown).to_string())
    }

    /// About how much memory it takes, in bytes.
    pub fn bytes(&self) -> usize {
        let texts = [
            &self.request_id,
            &self.verb,
            &self.group,
            &self.version,
            &self.resource,
            &self.subresource,
            &self.namespace,
            &self.name,
            &self.path,
            &self.query,
        ];
        let optional = [&self.method, &self.received, &self.source, &self.user_agent, &self.audit_id];
        let users = [&self.user, &self.impersonator].into_iter().flatten().map(ApiUser::bytes);
        let bodies = [&self.request_body, &self.response_body].into_iter().flatten().map(ApiBody::bytes);
        size_of::<Self>()
            + texts.into_iter().map(String::len).sum::<usize>()
            + optional.into_iter().map(|text| length(text.as_deref())).sum::<usize>()
            + users.sum::<usize>()
            + bodies.sum::<usize>()
            + self.command.bytes()
            + self.truncated.iter().map(|name| size_of_val(name) + name.len()).sum::<usize>()
    }
}

impl ApiUser {
    fn bytes(&self) -> usize {
        self.name.len() + self.uid.len() + self.groups.bytes()
    }
}

impl ApiBody {
    fn bytes(&self) -> usize {
        length(self.text.as_deref()) + self.json.as_ref().map_or(0, json_bytes)
    }
}

/// About how much memory a value takes. It is as deep as its parser let it be.
fn json_bytes(value: &Value) -> usize {
    let below = match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(json_bytes).sum(),
        Value::Object(fields) => {
            fields.iter().map(|(name, value)| 2 * size_of::<String>() + name.len() + json_bytes(value)).sum()
        }
    };
    size_of::<Value>() + below
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_changes_nothing_is_a_dry_run() {
        let body = |json: Value, truncated_from| Some(ApiBody { json: Some(json), truncated_from, ..ApiBody::default() });
        let all = || json!({ "dryRun": ["All"] });
        for (verb, subresource, query, request_body, want) in [
            ("create", "", "fieldManager=k&dryRun=All", None, true),
            ("patch", "scale", "dryRun=%41ll", None, true),
            ("update", "", "", None, false),
            ("create", "", "x=dryRun=All&dryRun=", None, false),
            // The API server asks the body alone here, if there is one.
            ("delete", "", "dryRun=All", None, false),
            ("delete", "", "dryRun=All", body(json!({ "propagationPolicy": "Background" }), None), false),
            ("delete", "", "", body(all(), None), true),
            ("deletecollection", "", "", body(json!({ "dryRun": [] }), None), false),
            // What is missing may say otherwise.
            ("delete", "", "", body(all(), Some(1 << 20)), false),
            ("create", "exec", "dryRun=All", None, false),
            ("create", "token", "dryRun=All", None, false),
            ("get", "", "dryRun=All", None, false),
        ] {
            let [verb, subresource, query] = [verb, subresource, query].map(str::to_owned);
            let api = Api { verb, subresource, query, request_body, ..Api::default() };
            assert_eq!(api.asks_for_dry_run(), want, "{api:?}");
        }
        // What is cut may be too much for the API server, too.
        let cut = |truncated: &[&str], more: usize| Api {
            verb: "create".to_owned(),
            query: format!("dryRun=All{}", "&a".repeat(more)),
            truncated: truncated.iter().map(|part| (*part).to_owned().into()).collect(),
            ..Api::default()
        };
        for (api, want) in [
            (cut(&["user_agent"], 9_999), true),
            (cut(&[], 10_000), false),
            (cut(&["query"], 0), false),
            (cut(&["path"], 0), false),
        ] {
            assert_eq!(api.asks_for_dry_run(), want);
        }
    }
}
