//! RuntimeRuleAlertBinding: which of KubeCop's rules apply to which pods.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    foreign::{Findings, ObjectMeta, cut, policy},
    policy::{ExecMatch, LabelSelector, NamespaceSelector, Origin, ProcessMatch, Rule, Severity, TracePolicy, TracePolicySpec},
    structure::suggest,
};

/// Which of KubeCop's rules apply to which pods.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RuntimeRuleAlertBinding {
    /// `kubescape.io/v1`.
    pub api_version: String,
    /// `RuntimeRuleAlertBinding`.
    pub kind: String,
    /// Its name, and its namespace where it is for one alone.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// The pods and the rules.
    pub spec: RuntimeRuleAlertBindingSpec,
}

/// Pods and rules.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RuntimeRuleAlertBindingSpec {
    /// Only pods in namespaces with such labels; empty: all.
    #[serde(default)]
    pub namespace_selector: LabelSelector,
    /// Only pods with such labels; empty: all.
    #[serde(default)]
    pub pod_selector: LabelSelector,
    /// The rules.
    #[serde(default)]
    pub rules: Vec<BoundRule>,
}

/// A rule, or some: exactly one of `ruleName`, `ruleID` and `ruleTags` says which.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BoundRule {
    /// A rule's name, such as `Exec from mount`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule_name: Option<String>,
    /// A rule's id, such as `R1004`.
    #[serde(default, rename = "ruleID", skip_serializing_if = "Option::is_none")]
    pub rule_id: Option<String>,
    /// All rules with any of these tags.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule_tags: Option<Vec<String>>,
    /// How bad a match is, instead of the rule's own severity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub severity: Option<String>,
    /// What the rule can be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters: Option<serde_json::Map<String, serde_json::Value>>,
}

/// One of KubeCop's rules.
struct Known {
    id: &'static str,
    name: &'static str,
    tags: &'static [&'static str],
    severity: Severity,
    /// What a policy can't see of it; empty for nothing.
    missing: &'static str,
}

const KNOWN: [Known; 14] = {
    use Severity::{Critical, High, Medium};
    const fn known(
        id: &'static str,
        name: &'static str,
        tags: &'static [&'static str],
        severity: Severity,
        missing: &'static str,
    ) -> Known {
        Known { id, name, tags, severity, missing }
    }
    [
        known(
            "R0001",
            "Unexpected process launched",
            &["exec", "whitelisted"],
            Critical,
            "it needs a profile: convert the ApplicationProfile",
        ),
        known(
            "R0002",
            "Unexpected file access",
            &["open", "whitelisted"],
            Medium,
            "it needs a profile: convert the ApplicationProfile",
        ),
        known(
            "R0003",
            "Unexpected system call",
            &["syscall", "whitelisted"],
            Medium,
            "it needs a profile, and syscalls as such are no events",
        ),
        known(
            "R0004",
            "Unexpected capability used",
            &["capabilities", "whitelisted"],
            High,
            "it needs a profile, and uses of capabilities are no events",
        ),
        known(
            "R0005",
            "Unexpected domain request",
            &["dns", "whitelisted"],
            Medium,
            "it needs a profile, and look-ups of names are no events",
        ),
        known(
            "R0006",
            "Unexpected Service Account Token Access",
            &["open", "token", "whitelisted"],
            High,
            "it needs a profile; the pack `credentials` has a rule on tokens that needs none",
        ),
        known(
            "R0007",
            "Kubernetes Client Executed",
            &["exec", "whitelisted"],
            Critical,
            "connections to the API server aren't seen, and clients match though a profile may have allowed them",
        ),
        known("R1000", "Exec from malicious source", &["exec", "signature"], Critical, ""),
        known("R1001", "Exec Binary Not In Base Image", &["exec", "signature"], Critical, ""),
        known(
            "R1002",
            "Kernel Module Load",
            &["syscall", "signature"],
            Critical,
            "the syscalls are no events: the programs that load modules are watched for",
        ),
        known("R1003", "Malicious SSH Connection", &["ssh", "signature"], High, "connections are no events"),
        known(
            "R1004",
            "Exec from mount",
            &["exec", "signature", "mount"],
            Medium,
            "events don't tell a pod's volumes: the folders where they are usually mounted are watched",
        ),
        known(
            "R1006",
            "Unshare System Call usage",
            &["syscall", "escape", "unshare"],
            High,
            "the syscall is no event: the program unshare is watched for",
        ),
        known(
            "R1007",
            "Crypto Miner detected",
            &["network", "crypto", "miners", "dns", "syscall"],
            High,
            "connections and look-ups of names are no events: miners are known by name and arguments",
        ),
    ]
};

const SEVERITIES: [(&str, Severity); 5] = [
    ("CRITICAL", Severity::Critical),
    ("HIGH", Severity::High),
    ("MEDIUM", Severity::Medium),
    ("LOW", Severity::Low),
    ("INFO", Severity::Info),
];

/// One policy of all rules that there are events for.
pub(in crate::foreign) fn convert(binding: &RuntimeRuleAlertBinding, findings: &mut Findings<'_>) -> Vec<TracePolicy> {
    let mut rules: BTreeMap<&str, Rule> = BTreeMap::new();
    if binding.spec.rules.is_empty() {
        findings.error("spec.rules", "there is no rule", "");
    }
    for (at, bound) in binding.spec.rules.iter().enumerate() {
        let field = format!("spec.rules[{at}]");
        let severity = bound.severity.as_ref().map(|name| findings.severity(&format!("{field}.severity"), name, &SEVERITIES));
        if bound.parameters.as_ref().is_some_and(|parameters| !parameters.is_empty()) {
            findings.warn(&format!("{field}.parameters"), "no rule that can be converted has parameters", "left out");
        }
        for (known, field) in chosen(bound, &field, findings) {
            let rule = rule(known);
            let level = if rule.is_some() { "converted as far as possible" } else { "left out" };
            if !known.missing.is_empty() {
                findings.warn(&field, format!("{} ({}): {}", known.id, known.name, known.missing), level);
            }
            if let Some(rule) = rule {
                // Bound twice, it takes the higher severity rather than alert twice.
                let severity = severity.unwrap_or(known.severity);
                let entry = rules.entry(known.id).or_insert(Rule { severity, ..rule });
                entry.severity = entry.severity.max(severity);
            }
        }
    }
    if rules.is_empty() {
        return Vec::new();
    }
    let RuntimeRuleAlertBindingSpec {
        namespace_selector: LabelSelector { match_labels, match_expressions }, pod_selector, ..
    } = binding.spec.clone();
    let names: Vec<_> = binding.metadata.namespace.iter().cloned().collect();
    let namespaces = NamespaceSelector { names, exclude: Vec::new(), match_labels, match_expressions };
    let spec = TracePolicySpec {
        description: "Rules of a RuntimeRuleAlertBinding.".to_owned(),
        namespaces: Some(namespaces).filter(|given| *given != NamespaceSelector::default()),
        pods: Some(pod_selector),
        rules: rules.into_values().collect(),
        ..TracePolicySpec::default()
    };
    vec![policy(&binding.metadata.name, BTreeMap::new(), spec)]
}

/// The rules that are meant, each with the field that names it.
fn chosen(bound: &BoundRule, field: &str, findings: &mut Findings<'_>) -> Vec<(&'static Known, String)> {
    let BoundRule { rule_name, rule_id, rule_tags, .. } = bound;
    let (key, found, what): (_, Vec<_>, _) = match (rule_name, rule_id, rule_tags) {
        (Some(name), None, None) => {
            // Two names of the same rule.
            let name = if name == "Crypto Miners" { "Crypto Miner detected" } else { name };
            ("ruleName", KNOWN.iter().filter(|known| known.name.eq_ignore_ascii_case(name)).collect(), name.to_owned())
        }
        (None, Some(id), None) => ("ruleID", KNOWN.iter().filter(|known| known.id == id).collect(), id.clone()),
        (None, None, Some(tags)) => (
            "ruleTags",
            KNOWN.iter().filter(|known| known.tags.iter().any(|tag| tags.iter().any(|given| given == tag))).collect(),
            tags.join(", "),
        ),
        _ => {
            findings.error(field, "exactly one of `ruleName`, `ruleID` and `ruleTags` is needed", "");
            return Vec::new();
        }
    };
    let field = format!("{field}.{key}");
    if found.is_empty() {
        let names: Vec<_> = match key {
            "ruleTags" => KNOWN.iter().flat_map(|known| known.tags).copied().collect(),
            "ruleID" => KNOWN.iter().map(|known| known.id).collect(),
            _ => KNOWN.iter().map(|known| known.name).collect(),
        };
        let help = suggest(&what, &names).map(|like| format!("did you mean `{like}`?")).unwrap_or_default();
        findings.error(&field, format!("no rule of KubeCop is called {}", cut(&what)), &help);
    }
    found.into_iter().map(|known| (known, field.clone())).collect()
}

/// The rule as a policy has it; `None` where there are no events for it.
fn rule(known: &Known) -> Option<Rule> {
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let comms = |names: &[&str]| Some(ProcessMatch { comms: texts(names), ..ProcessMatch::default() });
    let paths = |paths: &[&str]| Some(ExecMatch { paths: texts(paths), from: Vec::new() });
    let any = Some(ExecMatch::default());
    let (process, exec) = match known.id {
        "R0007" => (comms(&["kubectl", "kubeadm", "kubelet", "containerd", "ctr", "crictl", "docker", "runc"]), any),
        "R1000" => (None, paths(&["/dev/shm/", "/run/", "/var/run/", "/proc/self/"])),
        "R1001" => (None, Some(ExecMatch { paths: Vec::new(), from: vec![Origin::UpperLayer] })),
        "R1002" => (comms(&["insmod", "modprobe"]), any),
        "R1004" => (None, paths(&["/mnt/", "/data/", "/media/", "/run/secrets/", "/var/run/secrets/"])),
        "R1006" => (comms(&["unshare"]), any),
        "R1007" => {
            let args = texts(&["glob:*stratum+tcp://*", "glob:*stratum+ssl://*", "glob:--donate-level*", "glob:--randomx-*"]);
            (Some(ProcessMatch { args, ..ProcessMatch::default() }), any)
        }
        _ => return None,
    };
    Some(Rule {
        name: known.id.to_ascii_lowercase(),
        description: format!("{}.", known.name),
        message: "{{process.exe}} was executed in {{kubernetes.namespace}}/{{kubernetes.pod}}".to_owned(),
        tags: texts(&["kubecop", &format!("kubecop-{}", known.id.to_ascii_lowercase())]),
        process,
        exec,
        ..Rule::default()
    })
}

#[cfg(test)]
mod tests {
    use crate::{
        foreign::{Converted, Kind, convert},
        policy::{Operator, Severity},
        problem::Level,
        typed::node,
    };

    fn binding(spec: &str) -> Converted {
        let text = format!("apiVersion: kubescape.io/v1\nkind: RuntimeRuleAlertBinding\nmetadata: {{name: Mine}}\nspec: {spec}");
        convert(&node(&text), Kind::RuntimeRuleAlertBinding)
    }

    #[test]
    fn rules_that_need_no_profile_become_a_policy() {
        let found = binding(
            "{namespaceSelector: {matchExpressions: [{key: kubernetes.io/metadata.name, operator: NotIn, values: [kube-system]}]}, \
             podSelector: {matchLabels: {app: web}}, \
             rules: [{ruleName: Exec from malicious source}, {ruleID: R1001, severity: low}]}",
        );
        assert_eq!(found.problems, []);
        let spec = &found.policies[0].spec;
        assert_eq!(spec.namespaces.as_ref().unwrap().match_expressions[0].operator, Operator::NotIn);
        assert_eq!(spec.pods.as_ref().unwrap().match_labels["app"], "web");
        let rules: Vec<_> = spec.rules.iter().map(|rule| (rule.name.as_str(), rule.severity)).collect();
        assert_eq!(rules, [("r1000", Severity::Critical), ("r1001", Severity::Low)]);
    }

    #[test]
    fn rules_without_events_are_said_at_their_line() {
        let found = binding("{rules: [{ruleID: R0001}, {ruleID: R1003}, {ruleID: R1004}]}");
        let fields: Vec<_> = found.problems.iter().map(|p| (p.level, p.field.as_str())).collect();
        let want = ["spec.rules[0].ruleID", "spec.rules[1].ruleID", "spec.rules[2].ruleID"];
        assert_eq!(fields, want.map(|field| (Level::Warning, field)));
        let rules: Vec<_> = found.policies[0].spec.rules.iter().map(|rule| rule.name.as_str()).collect();
        assert_eq!(rules, ["r1004"]);
        assert!(found.policies[0].spec.pods.is_some(), "an empty selector is all pods, and no process outside of any");
    }

    #[test]
    fn a_rule_bound_twice_is_one_with_the_higher_severity() {
        let found = binding("{rules: [{ruleID: R1001, severity: low}, {ruleTags: [signature], severity: high}]}");
        let rule = found.policies[0].spec.rules.iter().find(|rule| rule.name == "r1001").unwrap();
        assert_eq!(rule.severity, Severity::High);
    }

    #[test]
    fn mistakes_have_advice() {
        let found = binding("{rules: [{ruleName: Exec from mounts}, {ruleID: R1001, ruleName: x}, {}, {ruleTags: [none]}]}");
        assert_eq!(found.problems[0].help.as_deref(), Some("did you mean `Exec from mount`?"));
        assert_eq!(found.problems.len(), 4);
        assert!(found.policies.is_empty());
    }
}
