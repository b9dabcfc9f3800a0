//! Policies: what a user writes, as the API server would keep it.
//!
//! The types are the language: their JSON Schema is what `schema policy` prints, what the CRD is made of, and what the
//! structural stage of validation checks.

pub mod begun;
pub mod compile;
mod conditions;
pub mod document;
mod facts;
mod invariant;
pub mod matcher;
pub mod pattern;
mod pushdown;
pub mod schema;
mod selector;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use selector::{ContainerSelector, LabelSelector, NamespaceSelector, Operator, Requirement};

use crate::{frame::FileOp, linux::Mode};

/// `apiVersion` of the project's own kinds.
pub const API_VERSION: &str = "knark.dev/v1alpha1";

/// What Kubernetes takes for the name of an object (RFC 1123's subdomains).
const NAME_PATTERN: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
const NAME_WORDS: &str = "lower-case letters, digits, `-` and `.`, a letter or digit at each end";

/// What to watch for: rules over the events of some nodes, pods and containers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TracePolicy {
    /// `knark.dev/v1alpha1`.
    pub api_version: PolicyVersion,
    /// `TracePolicy`.
    pub kind: TracePolicyKind,
    /// Name, labels, annotations.
    pub metadata: Metadata,
    /// What to watch for, and where.
    pub spec: TracePolicySpec,
}

/// A named list of texts that policies share: a matcher's item `$NAME` stands for all of its items.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TraceList {
    /// `knark.dev/v1alpha1`.
    pub api_version: PolicyVersion,
    /// `TraceList`.
    pub kind: TraceListKind,
    /// Its name is what policies refer to.
    pub metadata: Metadata,
    /// What it holds.
    pub spec: TraceListSpec,
}

/// What a [`TraceList`] holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TraceListSpec {
    /// What the list is for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Paths, executables, names: whatever the matchers that refer to it hold.
    #[schemars(length(max = 10_000))]
    pub items: Vec<String>,
}

/// The only version so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PolicyVersion {
    /// `knark.dev/v1alpha1`.
    #[default]
    #[serde(rename = "knark.dev/v1alpha1")]
    V1Alpha1,
}

/// The kind's name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TracePolicyKind {
    /// `TracePolicy`.
    #[default]
    TracePolicy,
}

/// The kind's name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TraceListKind {
    /// `TraceList`.
    #[default]
    TraceList,
}

/// An object's metadata. What the API server adds is read over.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Metadata {
    /// The object's name.
    #[schemars(length(min = 1, max = 253), regex(pattern = NAME_PATTERN), extend("patternErrorMessage" = NAME_WORDS))]
    pub name: String,
    /// Labels.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub labels: std::collections::BTreeMap<String, String>,
    /// Annotations.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub annotations: std::collections::BTreeMap<String, String>,
}

/// What a policy watches for, and where.
///
/// Where more than one selector is given, all must hold. A process outside of any pod is watched only if none of
/// `namespaces`, `pods` and `containers` is given.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TracePolicySpec {
    /// What the policy is for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Only nodes with such labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<LabelSelector>,
    /// Only pods in such namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<NamespaceSelector>,
    /// Only pods with such labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<LabelSelector>,
    /// Only such containers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub containers: Option<ContainerSelector>,
    /// Lists of this policy's own, by name: a matcher's item `$NAME` stands for all items of the list.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub lists: std::collections::BTreeMap<String, Vec<String>>,
    /// What to watch for; each rule by itself.
    #[schemars(length(min = 1, max = 2_000))]
    pub rules: Vec<Rule>,
}

/// What to watch for. Exactly one of `exec`, `file` and `api` says which events; all other conditions must hold as well.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rule {
    /// Its name, unique in the policy.
    #[schemars(length(min = 1, max = 128), regex(pattern = NAME_PATTERN), extend("patternErrorMessage" = NAME_WORDS))]
    pub name: String,
    /// What it is for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// How bad a match is.
    #[serde(default)]
    pub severity: Severity,
    /// What to say of a match: text with fields of the event in double braces, such as `{{process.exe}} opened {{file.path}}`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 2048))]
    pub message: String,
    /// Words to sort matches by, such as `mitre-t1059`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub tags: Vec<String>,
    /// Where more is said: numbers of a benchmark, links.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub references: Vec<String>,
    /// Only what such processes do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<ProcessMatch>,
    /// Executions of programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<ExecMatch>,
    /// Operations on files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<FileMatch>,
    /// Requests to the Kubernetes API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api: Option<ApiMatch>,
    /// A CEL expression over the event as `-o json` shows it; it must be true.
    #[serde(default, rename = "where", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub condition: Option<String>,
    /// Not what any of these describes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub except: Vec<Exception>,
}

/// What a rule leaves out; all conditions of one exception must hold.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("minProperties" = 1))]
pub struct Exception {
    /// What such processes do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<ProcessMatch>,
    /// Such executions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<ExecMatch>,
    /// Such operations on files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<FileMatch>,
    /// Such requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api: Option<ApiMatch>,
    /// Events for which this CEL expression is true.
    #[serde(default, rename = "where", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub condition: Option<String>,
}

/// How bad a match is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Worth a look.
    Low,
    /// Worth a look today.
    #[default]
    Medium,
    /// Worth a look now.
    High,
    /// Worth waking somebody.
    Critical,
}

impl Severity {
    /// The name as JSON shows it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

/// Who does it. Where more than one condition is given, all must hold; of the items of one, any.
///
/// A path is a glob over whole paths: `*` and `?` stop at `/`, `**` doesn't, `[...]` and `{a,b}` are sets; one that ends in
/// `/` stands for all below that folder. Any other text is exact, or begins with `glob:` or `regex:`;
/// these are patterns of the whole text.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("minProperties" = 1))]
pub struct ProcessMatch {
    /// Executables, as paths.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1_000))]
    pub exes: Vec<String>,
    /// Names of the process, as `ps -o comm` shows them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1_000))]
    pub comms: Vec<String>,
    /// Any argument is one of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1_000))]
    pub args: Vec<String>,
    /// The arguments contain these in this order, others between them or not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub args_in_order: Vec<String>,
    /// Effective user ids: a number, or a range such as `1000-65533`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1_000))]
    pub uids: Vec<IdRange>,
    /// Effective group ids.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1_000))]
    pub gids: Vec<IdRange>,
    /// Executables of any ancestor, as paths.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1_000))]
    pub ancestors: Vec<String>,
}

/// A program is executed; `process` describes it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExecMatch {
    /// The executable as the kernel resolved it, or the script; as paths.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1_000))]
    pub paths: Vec<String>,
    /// Where the executable comes from: any of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<Origin>,
}

/// Where an executable comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// The container's writable layer: it isn't part of the image.
    UpperLayer,
    /// Memory only (memfd_create).
    Memfd,
    /// A file that was deleted before it was executed.
    Deleted,
}

/// Something is done to a file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FileMatch {
    /// What is done; empty: anything but `write` and `map-exec`, which are watched only where they are named. Of an exception:
    /// anything.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ops: Vec<FileOp>,
    /// The file, or the other name of a rename or link (not what a symbolic link says); as paths.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1_000))]
    pub paths: Vec<String>,
    /// Whether a file of `paths` counts under its other names, too: hard links, bind mounts, paths in other mount namespaces.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub same_file: bool,
    /// The mode that a chmod or an open that made the file gives has any of these properties that the old one, as far as it is
    /// known, had not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub becomes: Vec<ModeProperty>,
    /// That mode allows something that this one doesn't, such as `"0600"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub looser_than: Option<Mode>,
    /// The new owner or group is another one; of a file that an open made, whom it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner_other_than: Option<Owner>,
    /// Flags of an open, such as `O_TRUNC`: any of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub flags: Vec<String>,
    /// Names of extended attributes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub xattrs: Vec<String>,
    /// Whether it worked.
    #[serde(default)]
    pub result: ResultMatch,
}

/// A property of a mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ModeProperty {
    /// Others may write (0002).
    WorldWritable,
    /// Others may read (0004).
    WorldReadable,
    /// The group may write (0020).
    GroupWritable,
    /// Anyone may execute it (any of 0111).
    Executable,
    /// Runs as its owner (4000).
    Setuid,
    /// Runs as its group (2000).
    Setgid,
}

/// An owner; absent parts don't matter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("minProperties" = 1))]
pub struct Owner {
    /// User id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Group id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
}

/// Whether something worked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ResultMatch {
    /// It doesn't matter.
    #[default]
    Any,
    /// It worked.
    Success,
    /// It was refused, or failed otherwise.
    Failure,
}

/// A request to the Kubernetes API. Texts are exact, or begin with `glob:` or `regex:`; those of one condition are
/// alternatives.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ApiMatch {
    /// Verbs as RBAC has them: get, list, watch, create, update, patch, delete, deletecollection, or a custom one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub verbs: Vec<String>,
    /// API groups; `""` is the core group.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// Resources, such as `pods`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<String>,
    /// Subresources, such as `exec`; `""` is the resource itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subresources: Vec<String>,
    /// Namespaces; `""` is a request outside of any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<String>,
    /// Names of objects.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// Users, after impersonation.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub users: Vec<String>,
    /// Any of the user's groups.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub user_groups: Vec<String>,
    /// HTTP status codes: a number, or a range such as `400-499`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub codes: Vec<IdRange>,
}

/// A number, or a range of numbers such as `1000-65533`, both ends included; one that ends before it begins holds none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdRange {
    /// The first.
    pub first: u32,
    /// The last.
    pub last: u32,
}

impl IdRange {
    /// Whether the number is in it.
    pub fn contains(self, id: u32) -> bool {
        (self.first..=self.last).contains(&id)
    }
}

impl Serialize for IdRange {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.first == self.last {
            serializer.serialize_u32(self.first)
        } else {
            serializer.collect_str(&format_args!("{}-{}", self.first, self.last))
        }
    }
}

impl<'de> Deserialize<'de> for IdRange {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(u32),
            Text(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Number(id) => Ok(Self { first: id, last: id }),
            Written::Text(text) => text.parse().map_err(serde::de::Error::custom),
        }
    }
}

/// What a text that should be an [`IdRange`] is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("neither a number nor a range such as 1000-65533")]
pub struct NoIdRange;

impl std::str::FromStr for IdRange {
    type Err = NoIdRange;

    /// What the schema's pattern lets through: numbers of up to ten digits, those past the last id taken for the last one.
    fn from_str(text: &str) -> Result<Self, NoIdRange> {
        let id = |digits: &str| {
            let is_number = (1..=10).contains(&digits.len()) && digits.bytes().all(|digit| digit.is_ascii_digit());
            let id = digits.parse().ok().filter(|_| is_number).map(|id: u64| u32::try_from(id).unwrap_or(u32::MAX));
            id.ok_or(NoIdRange)
        };
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        Ok(Self { first: id(first)?, last: id(last)? })
    }
}

impl JsonSchema for IdRange {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "IdRange".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "anyOf": [
                { "type": "integer", "minimum": 0, "maximum": 4_294_967_295_u32 },
                { "type": "string", "pattern": "^[0-9]{1,10}(-[0-9]{1,10})?$", "patternErrorMessage": "a number, or a range such as 1000-65533" },
            ],
            "x-kubernetes-int-or-string": true,
        })
    }
}
