//! Events that policies' rules match, and how receivers are told of them.
//!
//! - [`receiver`]: who is told, as users write it.
//! - [`repeats`]: which matches are told, and which only counted.
//! - [`subject`]: what an alert is about, in a few words.
//! - [`alertmanager`], [`csv`], [`kive`], [`kubecop`], [`kubernetes`], [`otlp`], [`syslog`]: alerts as others want them.

pub mod alertmanager;
pub mod csv;
pub mod kive;
pub mod kubecop;
pub mod kubernetes;
pub mod otlp;
pub mod receiver;
pub mod repeats;
pub mod subject;
pub mod syslog;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{event::Event, policy::Severity};

/// An event and the rules that it matches: what `-o json` shows where policies are given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Alert {
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
    /// The rules that match it, the most severe first.
    #[schemars(length(min = 1))]
    pub matches: Vec<Match>,
}

/// A rule that matches an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Match {
    /// The policy's name.
    pub policy: String,
    /// The rule's name.
    pub rule: String,
    /// How bad it is.
    pub severity: Severity,
    /// The rule's message, its fields filled in; the rule's description where it has none.
    pub message: String,
    /// The rule's tags.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// The rule's references.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub references: Vec<String>,
}

/// What a receiver is told: one rule's match, and how often it was. As JSON it is the event, with `matches` and `alert`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Notice {
    /// What happened; of the rules that it matches, the one that this is about.
    #[serde(flatten)]
    pub event: Event,
    /// That rule, and no other.
    #[schemars(length(min = 1, max = 1))]
    pub matches: [Match; 1],
    /// How often.
    pub alert: Repeated,
}

/// How often something matched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Repeated {
    /// What the repeats have in common: the values of the fields that `--alert-key` names, in its order.
    pub key: Vec<String>,
    /// How many events it stands for: 1 for what is told at once; for what is told after a cool-down, all since then.
    pub count: u64,
    /// When the first of them was: RFC 3339, UTC, nanoseconds. The event itself is the last one.
    pub first_time: String,
}

impl Notice {
    /// The rule that matched.
    pub fn rule(&self) -> &Match {
        &self.matches[0]
    }
}

/// The object that a webhook is sent.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Alerts<'n> {
    /// `knark.dev/v1alpha1`.
    pub api_version: &'static str,
    /// `Alerts`.
    pub kind: &'static str,
    /// The alerts, the oldest first.
    pub alerts: Vec<&'n Notice>,
}

impl<'n> Alerts<'n> {
    /// The object for these.
    pub fn of(notices: &[&'n Notice]) -> Self {
        Self { api_version: crate::event::SCHEMA, kind: "Alerts", alerts: notices.to_vec() }
    }
}

/// The JSON Schema (draft 2020-12) of an [`Alert`].
pub fn schema() -> schemars::Schema {
    schemars::schema_for!(Alert)
}

/// The JSON Schema (draft 2020-12) of a [`Notice`].
pub fn notice_schema() -> schemars::Schema {
    schemars::schema_for!(Notice)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A notice of a rule for this event, of which only what matters is given.
    pub(super) fn notice(event: &Value) -> Notice {
        let mut event = crate::cases::event(event.as_object().unwrap()).unwrap();
        event.time = "2026-01-02T03:04:05.123456789Z".into();
        let rule = Match {
            policy: "bait".into(),
            rule: "shadow-read".into(),
            severity: Severity::High,
            message: "cat read /etc/shadow".into(),
            tags: vec!["T1003".into()],
            references: vec!["https://attack.mitre.org/techniques/T1003/".into()],
        };
        let repeated = Repeated { key: vec!["bait".into()], count: 3, first_time: "2026-01-02T03:04:01.000000000Z".into() };
        Notice { event, matches: [rule], alert: repeated }
    }

    /// A read of a file in a container.
    pub(super) fn read() -> Notice {
        notice(&json!({
            "node": { "name": "knark-1" },
            "kubernetes": { "namespace": "prod", "pod": "web-0", "pod_uid": "u-1" },
            "container": { "id": "c0ffee", "name": "app", "image": "app:1" },
            "process": { "pid": 7, "ppid": 1, "uid": 1000, "gid": 100, "comm": "cat", "exe": "/bin/cat", "args": ["cat", "a b"], "cwd": "/" },
            "file": { "op": "open", "path": "/etc/shadow", "flags": ["O_RDONLY"], "inode": "12" },
        }))
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        let notice = read();
        let text = serde_json::to_string(&notice).unwrap();
        assert_eq!(serde_json::from_str::<Notice>(&text).unwrap(), notice);
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["matches"][0]["rule"], "shadow-read");
        assert_eq!(value["alert"], json!({ "key": ["bait"], "count": 3, "first_time": "2026-01-02T03:04:01.000000000Z" }));
        assert_eq!(value["file"]["path"], "/etc/shadow");
    }
}
