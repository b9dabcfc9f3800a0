//! Kive's KivePolicy, v1 and v2alpha1: traps on files in pods.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Findings, ObjectMeta, RULE_LIMIT, literal, policy, quoted, slug};
use crate::{
    linux::Mode,
    policy::{ContainerSelector, FileMatch, LabelSelector, NamespaceSelector, Rule, TracePolicy, TracePolicySpec},
};

/// Traps on files in pods.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KivePolicy {
    /// `kivebpf.san7o.github.io/v1` or `kivebpf.san7o.github.io/v2alpha1`.
    pub api_version: String,
    /// `KivePolicy`.
    pub kind: String,
    /// Name and namespace of the policy itself; its traps are in any namespace.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// The traps.
    pub spec: KivePolicySpec,
    /// What the operator made of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<serde_json::Map<String, serde_json::Value>>,
}

/// What a policy holds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KivePolicySpec {
    /// The version of the alerts' format.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alert_version: Option<String>,
    /// The traps.
    #[serde(default)]
    pub traps: Vec<KiveTrap>,
}

/// A trap on one file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KiveTrap {
    /// The file, as containers see it.
    #[serde(default)]
    pub path: String,
    /// Whether the file is made where it is missing.
    #[serde(default)]
    pub create: bool,
    /// The mode of the file that is made. Kive takes the number as it stands: 444 is 0674, and 292 is 0444.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
    /// Where alerts are sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub callback: Option<String>,
    /// What alerts of this trap carry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<TrapMetadata>,
    /// In which containers: any of these; none: in no container.
    #[serde(default)]
    pub match_any: Vec<KiveTrapMatch>,
}

/// What alerts of a trap carry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum TrapMetadata {
    /// A text.
    Text(String),
    /// Texts by name.
    Map(BTreeMap<String, String>),
}

/// Which containers; all that is given must hold.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KiveTrapMatch {
    /// The pod's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// The pod's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The pod's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    /// The container's name: exact, or after `glob:` or `regex:`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_name: Option<String>,
    /// Labels of the pod.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
}

/// Traps with the same selectors become rules of one policy.
pub(super) fn convert(document: &KivePolicy, findings: &mut Findings<'_>) -> Vec<TracePolicy> {
    let version = document.api_version.rsplit('/').next().unwrap_or_default();
    if !matches!(version, "v1" | "v2alpha1") {
        findings.warn("apiVersion", format!("{} is no version that is known", super::cut(version)), "read as v2alpha1");
    }
    if document.spec.traps.is_empty() {
        findings.error("spec.traps", "there is no trap", "");
    }
    let wanted: usize = document.spec.traps.iter().map(|trap| trap.match_any.len()).sum();
    if wanted > RULE_LIMIT {
        findings.error("spec.traps", format!("{wanted} rules would be more than {RULE_LIMIT}"), "split the policy");
        return Vec::new();
    }
    let mut specs: Vec<TracePolicySpec> = Vec::new();
    let mut annotations = BTreeMap::new();
    for (at, trap) in document.spec.traps.iter().enumerate() {
        let field = format!("spec.traps[{at}]");
        if trap.path.is_empty() {
            findings.error(&field, "the trap has no path", "");
            continue;
        }
        if let Some(kept) = leftovers(trap, &field, findings) {
            annotations.insert(format!("kivebpf.san7o.github.io/trap-{}", at + 1), kept);
        }
        if trap.match_any.is_empty() {
            findings.warn(&field, "a trap without `matchAny` is in no container", "`matchAny: [{}]` is all containers");
        }
        for (item, which) in trap.match_any.iter().enumerate() {
            let field = format!("{field}.matchAny[{item}]");
            let Some(spec) = selectors(which, &field, findings) else { continue };
            let rule = rule(trap, at, which.pod.as_deref());
            let before = specs.iter_mut().find(|before| {
                (&before.namespaces, &before.pods, &before.containers) == (&spec.namespaces, &spec.pods, &spec.containers)
            });
            if let Some(before) = before {
                let mut rule = rule;
                // A trap that asks for two pods by name is two rules.
                if before.rules.iter().any(|other| other.name == rule.name) {
                    rule.name = format!("{}-{}", rule.name, item + 1);
                }
                if !before.rules.iter().any(|other| other.file == rule.file && other.condition == rule.condition) {
                    before.rules.push(rule);
                }
            } else {
                specs.push(TracePolicySpec { rules: vec![rule], ..spec });
            }
        }
    }
    let several = specs.len() > 1;
    specs
        .into_iter()
        .enumerate()
        .map(|(at, spec)| {
            let name = &document.metadata.name;
            let name = if several { format!("{name}-{}", at + 1) } else { name.clone() };
            policy(&name, annotations.clone(), TracePolicySpec { description: "Traps of a KivePolicy.".to_owned(), ..spec })
        })
        .collect()
}

fn rule(trap: &KiveTrap, at: usize, pod: Option<&str>) -> Rule {
    let path = trap.path.trim_matches('/');
    let mut tags = vec!["kive".to_owned()];
    let mut description = format!("Somebody touches {}.", trap.path);
    match &trap.metadata {
        Some(TrapMetadata::Text(text)) => description.clone_from(text),
        Some(TrapMetadata::Map(texts)) => {
            tags.extend(texts.iter().take(31).map(|(key, value)| format!("{key}={value}")));
        }
        None => {}
    }
    Rule {
        name: format!("trap-{}-{}", at + 1, slug(path)).trim_end_matches('-').to_owned(),
        description,
        message: "{{process.exe}} did {{file.op}} to {{file.path}}".to_owned(),
        tags,
        file: Some(FileMatch { paths: vec![format!("/{}", literal(path))], ..FileMatch::default() }),
        // No selector knows pods by name.
        condition: pod.map(|pod| format!("kubernetes.pod == {}", quoted(pod))),
        ..Rule::default()
    }
}

/// `None` where what can be said of the containers would be all of them, and all are not meant.
fn selectors(which: &KiveTrapMatch, field: &str, findings: &mut Findings<'_>) -> Option<TracePolicySpec> {
    let KiveTrapMatch { pod, namespace, ip, container_name, match_labels } = which;
    if ip.is_some() {
        let field = format!("{field}.ip");
        let message = "events don't tell the pod's address";
        if pod.is_none() && namespace.is_none() && container_name.is_none() && match_labels.is_empty() {
            findings.error(&field, message, "choose the pod by its name or labels");
            return None;
        }
        findings.warn(&field, message, "left out: the other conditions alone choose the pod");
    }
    let containers = container_name.as_ref().map(|name| ContainerSelector { names: vec![container(name)], exclude: Vec::new() });
    let namespaces =
        namespace.as_ref().map(|name| NamespaceSelector { names: vec![name.clone()], ..NamespaceSelector::default() });
    // With no other selector an empty one keeps the rule to pods.
    let pods = LabelSelector { match_labels: match_labels.clone(), match_expressions: Vec::new() };
    let pods = Some(pods).filter(|pods| !pods.match_labels.is_empty() || (containers.is_none() && namespaces.is_none()));
    Some(TracePolicySpec { namespaces, pods, containers, ..TracePolicySpec::default() })
}

/// Kive's regular expressions may match anywhere in the name.
fn container(name: &str) -> String {
    match name.strip_prefix("regex:") {
        Some(regex) => {
            let before = if regex.starts_with('^') { "" } else { ".*" };
            let after = if regex.ends_with('$') { "" } else { ".*" };
            if before.is_empty() && after.is_empty() { name.to_owned() } else { format!("regex:{before}(?:{regex}){after}") }
        }
        None => name.to_owned(),
    }
}

/// What a trap asks for besides watching; as text, to be kept.
fn leftovers(trap: &KiveTrap, field: &str, findings: &mut Findings<'_>) -> Option<String> {
    let mut kept = Vec::new();
    if trap.create {
        findings.warn(&format!("{field}.create"), "a policy makes no files", "make the file yourself, or with the image");
        kept.push("create".to_owned());
    }
    let mode = format!("{field}.mode");
    if let Some((written, value)) = findings.written(&mode).map(str::to_owned).zip(trap.mode) {
        kept.push(format!("mode {written}"));
        // 0444 and 0o444 are octal to the readers that such files are written for.
        if !written.starts_with('0') && value != 0 {
            let meant = u32::from_str_radix(&written, 8).ok().filter(|mode| *mode <= 0o7777);
            let message = match meant {
                Some(meant) => format!("Kive takes {written} for {}; as octal digits it is {}", Mode(value), Mode(meant)),
                None => format!("Kive takes {written} for {}", Mode(value)),
            };
            findings.warn(&mode, message, "kept as it is; no policy needs it");
        }
    }
    if let Some(callback) = &trap.callback {
        findings.warn(&format!("{field}.callback"), "a policy doesn't say where alerts go", "name the receiver when tracing");
        kept.push(format!("callback {callback}"));
    }
    Some(kept).filter(|kept| !kept.is_empty()).map(|kept| kept.join(", "))
}

#[cfg(test)]
mod tests {
    use crate::{
        foreign::{Converted, Kind, convert},
        problem::Level,
        typed::node,
    };

    fn traps(version: &str, traps: &str) -> Converted {
        let text = format!(
            "apiVersion: kivebpf.san7o.github.io/{version}\nkind: KivePolicy\nmetadata: {{name: bait}}\nspec:\n  alertVersion: v1\n  traps: {traps}"
        );
        convert(&node(&text), Kind::KivePolicy)
    }

    #[test]
    fn a_trap_is_a_rule_on_its_file_in_such_containers() {
        let found = traps(
            "v2alpha1",
            "[{path: /etc/bait, metadata: {team: blue}, matchAny: [{namespace: web, containerName: 'glob:app-*', matchLabels: {a: b}, pod: web-0}]}]",
        );
        assert_eq!(found.problems, []);
        let [policy] = found.policies.as_slice() else { panic!("{found:?}") };
        assert_eq!(policy.metadata.name, "bait");
        assert_eq!(policy.spec.namespaces.as_ref().unwrap().names, ["web"]);
        assert_eq!(policy.spec.containers.as_ref().unwrap().names, ["glob:app-*"]);
        assert_eq!(policy.spec.pods.as_ref().unwrap().match_labels["a"], "b");
        let [rule] = policy.spec.rules.as_slice() else { panic!("{policy:?}") };
        assert_eq!(
            (rule.name.as_str(), rule.tags.as_slice()),
            ("trap-1-etc-bait", ["kive".to_owned(), "team=blue".to_owned()].as_slice())
        );
        assert_eq!(rule.file.as_ref().unwrap().paths, ["/etc/bait"]);
        assert_eq!(rule.condition.as_deref(), Some("kubernetes.pod == \"web-0\""));
    }

    #[test]
    fn alternatives_are_policies_and_traps_of_the_same_containers_share_one() {
        let found =
            traps("v1", "[{path: /a, matchAny: [{namespace: x}, {namespace: y}]}, {path: /b, matchAny: [{namespace: y}]}]");
        let rules: Vec<_> = found.policies.iter().map(|p| (p.metadata.name.as_str(), p.spec.rules.len())).collect();
        assert_eq!(rules, [("bait-1", 1), ("bait-2", 2)]);
    }

    #[test]
    fn an_empty_match_is_every_pod_and_no_match_is_none() {
        let every = traps("v1", "[{path: /a, metadata: some words, matchAny: [{}]}]");
        assert!(every.policies[0].spec.pods.is_some());
        assert_eq!(every.policies[0].spec.rules[0].description, "some words");
        let none = traps("v1", "[{path: /a}]");
        assert!(none.policies.is_empty());
        assert_eq!(none.problems[0].field, "spec.traps[0]");
    }

    #[test]
    fn a_mode_is_shown_both_ways() {
        let found = traps("v1", "[{path: /a, create: true, mode: 444, callback: 'http://x', matchAny: [{}]}]");
        let fields: Vec<_> = found.problems.iter().map(|p| p.field.rsplit('.').next().unwrap()).collect();
        assert_eq!(fields, ["create", "mode", "callback"]);
        assert!(
            found.problems[1].message.contains("0674") && found.problems[1].message.contains("0444"),
            "{:?}",
            found.problems[1]
        );
        let kept: Vec<_> = found.policies[0].metadata.annotations.values().collect();
        assert_eq!(kept, ["create, mode 444, callback http://x"]);
    }

    #[test]
    fn a_pod_known_by_its_address_alone_is_an_error_not_every_pod() {
        let found = traps("v1", "[{path: /a, matchAny: [{ip: 10.0.0.1}]}]");
        assert_eq!((found.policies.len(), found.problems[0].level), (0, Level::Error));
        let found = traps("v1", "[{path: /a, matchAny: [{ip: 10.0.0.1, namespace: x}]}]");
        assert_eq!((found.policies.len(), found.problems[0].level), (1, Level::Warning));
    }

    #[test]
    fn regular_expressions_match_anywhere_in_a_name() {
        let found = traps("v1", "[{path: /a, matchAny: [{containerName: 'regex:web|app'}]}]");
        assert_eq!(found.policies[0].spec.containers.as_ref().unwrap().names, ["regex:.*(?:web|app).*"]);
    }
}
