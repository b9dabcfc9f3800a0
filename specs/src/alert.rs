//! Events that policies' rules match.

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

/// The JSON Schema (draft 2020-12) of an [`Alert`].
pub fn schema() -> schemars::Schema {
    schemars::schema_for!(Alert)
}
