//! The formats of the systems that came before this one, read as they are and turned into policies.
//!
//! What a policy can't say is a [`Problem`] at the place that asks for it, never left out in silence.

pub mod forensics;
pub mod kive;
pub mod kube_knark;
pub mod kubecop;

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, schema_for};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    policy::{Metadata, Severity, TracePolicy, TracePolicySpec},
    problem::{Level, Problem},
    structure::suggest,
    typed,
    yaml::{Node, Value},
};

/// As many rules as a policy holds; documents that stand for more are refused.
const RULE_LIMIT: usize = 2_000;

/// A format of another system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// kube-knark's specs of API calls.
    KubeKnarkApi,
    /// kube-knark's specs of commands that change files.
    KubeKnarkFilesystem,
    /// Kive's traps.
    KivePolicy,
    /// KubeCop's bindings of its rules to pods.
    RuntimeRuleAlertBinding,
    /// KubeCop's record of what a workload does.
    ApplicationProfile,
    /// kube-forensics' order to capture a pod.
    PodCheckpoint,
}

/// What came of a document.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Converted {
    /// Policies that say the same, as far as policies can.
    pub policies: Vec<TracePolicy>,
    /// What they can't say, and what is wrong with the document.
    pub problems: Vec<Problem>,
}

/// A Kubernetes object's metadata, as far as it is used. What else the API server adds is read over.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ObjectMeta {
    /// The object's name.
    #[serde(default)]
    pub name: String,
    /// Its namespace, where it is in one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::KubeKnarkApi,
        Self::KubeKnarkFilesystem,
        Self::KivePolicy,
        Self::RuntimeRuleAlertBinding,
        Self::ApplicationProfile,
        Self::PodCheckpoint,
    ];

    /// Its name: for Kubernetes objects their kind.
    pub fn name(self) -> &'static str {
        match self {
            Self::KubeKnarkApi => "kube-knark API spec",
            Self::KubeKnarkFilesystem => "kube-knark filesystem spec",
            Self::KivePolicy => "KivePolicy",
            Self::RuntimeRuleAlertBinding => "RuntimeRuleAlertBinding",
            Self::ApplicationProfile => "ApplicationProfile",
            Self::PodCheckpoint => "PodCheckpoint",
        }
    }

    /// The JSON Schema (draft 2020-12) of a document.
    pub fn schema(self) -> Schema {
        match self {
            Self::KubeKnarkApi | Self::KubeKnarkFilesystem => schema_for!(kube_knark::Spec),
            Self::KivePolicy => schema_for!(kive::KivePolicy),
            Self::RuntimeRuleAlertBinding => schema_for!(kubecop::RuntimeRuleAlertBinding),
            Self::ApplicationProfile => schema_for!(kubecop::ApplicationProfile),
            Self::PodCheckpoint => schema_for!(forensics::PodCheckpoint),
        }
    }
}

/// The format that a document is in; `None` for what is none of them.
pub fn detect(node: &Node) -> Option<Kind> {
    let text = |key| node.get(key).and_then(Node::text);
    let group = text("apiVersion").and_then(|version| version.split_once('/')).map(|(group, _)| group);
    match (group, text("kind")) {
        (Some("kivebpf.san7o.github.io"), Some("KivePolicy")) => Some(Kind::KivePolicy),
        (Some("kubescape.io"), Some("RuntimeRuleAlertBinding")) => Some(Kind::RuntimeRuleAlertBinding),
        (Some("kubescape.io" | "spdx.softwarecomposition.kubescape.io"), Some("ApplicationProfile")) => {
            Some(Kind::ApplicationProfile)
        }
        (Some("forensics.orkaproj.io" | "forensics.keikoproj.io"), Some("PodCheckpoint")) => Some(Kind::PodCheckpoint),
        (None, None) if node.get("spec").is_some() => node.get("categories").map(detect_spec),
        _ => None,
    }
}

/// Either of kube-knark's specs, by its first entry.
fn detect_spec(categories: &Node) -> Kind {
    let entry = categories
        .items()
        .iter()
        .filter_map(|category| category.get("sub_category"))
        .find_map(|sub_category| ["api", "fs"].into_iter().find_map(|key| sub_category.get(key)?.items().first()));
    match entry {
        Some(entry) if entry.get("commands").is_some() => Kind::KubeKnarkFilesystem,
        _ => Kind::KubeKnarkApi,
    }
}

/// The policies that a document stands for.
pub fn convert(node: &Node, source_kind: Kind) -> Converted {
    match source_kind {
        Kind::KubeKnarkApi | Kind::KubeKnarkFilesystem => with(&kube_knark::texts(node), kube_knark::convert),
        Kind::KivePolicy => with(node, kive::convert),
        Kind::RuntimeRuleAlertBinding => with(node, kubecop::convert_binding),
        Kind::ApplicationProfile => with(node, kubecop::convert_profile),
        Kind::PodCheckpoint => with(node, forensics::check),
    }
}

fn with<T: DeserializeOwned + JsonSchema>(
    node: &Node,
    convert: impl FnOnce(&T, &mut Findings<'_>) -> Vec<TracePolicy>,
) -> Converted {
    match typed::read(node) {
        Ok(document) => {
            let mut findings = Findings { node, problems: Vec::new() };
            let policies = convert(&document, &mut findings);
            Converted { policies, problems: findings.problems }
        }
        Err(problems) => Converted { policies: Vec::new(), problems },
    }
}

/// Problems found in a document, each at the place of its field.
struct Findings<'a> {
    node: &'a Node,
    problems: Vec<Problem>,
}

impl Findings<'_> {
    fn warn(&mut self, field: &str, message: impl Into<String>, help: &str) {
        self.add(Level::Warning, field, message.into(), help);
    }

    fn error(&mut self, field: &str, message: impl Into<String>, help: &str) {
        self.add(Level::Error, field, message.into(), help);
    }

    fn add(&mut self, level: Level, field: &str, message: String, help: &str) {
        let problem = Problem { level, ..Problem::error(self.node.find(field).span.clone(), field, message) };
        self.problems.push(if help.is_empty() { problem } else { problem.help(help) });
    }

    /// The number as it was written, where a field holds one.
    fn written(&self, field: &str) -> Option<&str> {
        match &self.node.find(field).value {
            Value::Number(text) => Some(text),
            _ => None,
        }
    }

    /// A severity by another system's name for it; medium, and a warning, where there is no such.
    fn severity(&mut self, field: &str, name: &str, names: &[(&str, Severity)]) -> Severity {
        if let Some((_, severity)) = names.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)) {
            return *severity;
        }
        let all: Vec<_> = names.iter().map(|(known, _)| *known).collect();
        let like = suggest(name, &all);
        let help = match like {
            Some(known) => format!("taken for `{known}`"),
            None => format!("taken for medium; there are {}", all.join(", ")),
        };
        self.warn(field, format!("no severity is called {}", cut(name)), &help);
        names.iter().find(|(known, _)| Some(*known) == like).map_or(Severity::Medium, |(_, severity)| *severity)
    }
}

/// A user's text, short enough for a message.
fn cut(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("`{}...`", &text[..end]),
        None => format!("`{text}`"),
    }
}

/// A policy by this name; its name is made of whatever is allowed in one.
fn policy(name: &str, annotations: BTreeMap<String, String>, spec: TracePolicySpec) -> TracePolicy {
    let mut name = slug(name);
    if name.is_empty() {
        "converted".clone_into(&mut name);
    }
    TracePolicy {
        api_version: crate::policy::PolicyVersion::default(),
        kind: crate::policy::TracePolicyKind::default(),
        metadata: Metadata { name, annotations, ..Metadata::default() },
        spec,
    }
}

/// What a text has of small letters, digits and hyphens, 100 at most.
fn slug(text: &str) -> String {
    let mut slug = String::new();
    for c in text.chars().take(400) {
        if c.is_ascii_alphanumeric() {
            slug.push(c.to_ascii_lowercase());
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
    }
    slug.truncate(100);
    slug.trim_end_matches('-').to_owned()
}

/// The name itself, or with a number where another has it already.
fn unique<T>(names: &BTreeMap<String, T>, name: &str) -> String {
    if !names.contains_key(name) {
        return name.to_owned();
    }
    // One of so many numbers is free.
    let numbered = (2..names.len() + 3).map(|number| format!("{name}-{number}"));
    numbered.into_iter().find(|name| !names.contains_key(name)).unwrap_or_default()
}

/// A path that stands for itself, as a glob.
fn literal(path: &str) -> String {
    let mut glob = String::with_capacity(path.len());
    for c in path.chars() {
        match c {
            '*' | '?' | '[' | '{' => glob.extend(['[', c, ']']),
            '\\' => glob.push_str("\\\\"),
            c => glob.push(c),
        }
    }
    glob
}

/// A text as CEL writes it.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{Kind, convert, detect, literal, slug};
    use crate::{
        policy::{compile::compile, document},
        problem::Level,
        typed::node,
    };

    #[test]
    fn a_document_tells_its_format() {
        for (text, want) in [
            ("{apiVersion: kivebpf.san7o.github.io/v1, kind: KivePolicy}", Some(Kind::KivePolicy)),
            ("{apiVersion: kivebpf.san7o.github.io/v2alpha1, kind: KivePolicy}", Some(Kind::KivePolicy)),
            ("{apiVersion: kubescape.io/v1, kind: RuntimeRuleAlertBinding}", Some(Kind::RuntimeRuleAlertBinding)),
            ("{apiVersion: kubescape.io/v1, kind: ApplicationProfile}", Some(Kind::ApplicationProfile)),
            ("{apiVersion: forensics.orkaproj.io/v1alpha1, kind: PodCheckpoint}", Some(Kind::PodCheckpoint)),
            ("{spec: a, categories: [{sub_category: {api: [{uri: /}]}}]}", Some(Kind::KubeKnarkApi)),
            ("{spec: a, categories: [{sub_category: {fs: [{commands: [chmod]}]}}]}", Some(Kind::KubeKnarkFilesystem)),
            ("{spec: a, categories: [{sub_category: {api: [{commands: [chmod]}]}}]}", Some(Kind::KubeKnarkFilesystem)),
            ("{apiVersion: knark.dev/v1alpha1, kind: TracePolicy, spec: {}}", None),
            ("{apiVersion: v1, kind: Pod, spec: {}}", None),
            ("[]", None),
            ("7", None),
        ] {
            assert_eq!(detect(&node(text)), want, "{text}");
        }
    }

    #[test]
    fn every_format_has_a_schema_and_survives_nonsense() {
        for kind in Kind::ALL {
            assert!(kind.schema().get("properties").is_some());
            for text in ["7", "[]", "{}", "{spec: 7}", "{spec: {traps: {}}}", "text"] {
                let converted = convert(&node(text), kind);
                assert!(converted.policies.is_empty() && converted.problems.iter().any(|p| p.level == Level::Error), "{text}");
            }
        }
    }

    #[test]
    fn names_are_made_of_what_names_allow() {
        assert_eq!(slug("Change kube-apiserver.yaml's  mode!"), "change-kube-apiserver-yaml-s-mode");
        assert_eq!(slug("/*?"), "");
        assert_eq!(slug(&"a/".repeat(500)).len(), 99);
    }

    #[test]
    fn a_path_that_looks_like_a_glob_stands_for_itself() {
        assert_eq!(literal("/a*b/[c]/{d}?"), "/a[*]b/[[]c]/[{]d}[?]");
    }

    #[test]
    fn what_was_converted_is_a_policy() {
        for (text, count) in [
            (
                "{spec: k8s, categories: [{name: A b, sub_category: {name: c, fs: [{name: 'Ä!', commands: [chmod, u+s, '*/cni/*'], severity: major}], \
                 api: [{name: x, uri: /api/v1/namespaces/a/pods/b/exec, method: POST, severity: info, node: master}]}}]}",
                1,
            ),
            (
                "{apiVersion: kivebpf.san7o.github.io/v1, kind: KivePolicy, metadata: {name: a, labels: {a.b/c: d}}, spec: {traps: [\
                 {path: '/a*', mode: 444, create: true, metadata: {a: b}, matchAny: [{}, {pod: a}, {pod: b}, {namespace: c, containerName: 'regex:x'}]}]}}",
                2,
            ),
            (
                "{apiVersion: kubescape.io/v1, kind: RuntimeRuleAlertBinding, metadata: {name: all}, spec: {rules: [{ruleTags: [signature, \
                 escape, crypto, whitelisted, mount, ssh]}]}}",
                1,
            ),
            (
                "{apiVersion: kubescape.io/v1, kind: ApplicationProfile, metadata: {name: job-a, namespace: b}, spec: {containers: [\
                 {name: c, execs: [{path: /a, args: null}], opens: [{path: /b, flags: [O_RDONLY]}]}, {name: d, execs: [{path: /a}], opens: null}]}}",
                2,
            ),
        ] {
            let document = node(text);
            let converted = convert(&document, detect(&document).unwrap());
            assert!(converted.problems.iter().all(|p| p.level == Level::Warning), "{:#?}", converted.problems);
            assert_eq!(converted.policies.len(), count, "{text}");
            for policy in converted.policies {
                let parsed = document::parse(&serde_json::to_string(&policy).unwrap());
                assert_eq!(parsed.problems, []);
                let (_, problems) = compile(&[(&parsed.policies[0].value, &parsed.policies[0].node)], &BTreeMap::new());
                assert!(problems.concat().iter().all(|problem| problem.level == Level::Warning), "{problems:?}");
                assert_eq!(parsed.policies[0].value, policy);
            }
        }
    }

    #[test]
    fn a_problem_stands_at_its_place() {
        let text = "apiVersion: kubescape.io/v1\nkind: RuntimeRuleAlertBinding\nmetadata: {name: a}\nspec:\n  rules:\n  - ruleID: R0003\n";
        let converted = convert(&node(text), Kind::RuntimeRuleAlertBinding);
        assert_eq!(&text[converted.problems[0].span.clone()], "R0003");
    }
}
