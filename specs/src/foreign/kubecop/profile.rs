//! ApplicationProfile: what a workload was seen to do. Whatever else it does is worth knowing.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    foreign::{Findings, ObjectMeta, cut, policy, quoted},
    frame::FileOp,
    policy::{
        ContainerSelector, Exception, ExecMatch, FileMatch, LabelSelector, NamespaceSelector, Rule, Severity, TracePolicy,
        TracePolicySpec,
    },
};

/// What a workload was seen to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApplicationProfile {
    /// `kubescape.io/v1`.
    pub api_version: String,
    /// `ApplicationProfile`.
    pub kind: String,
    /// Its name is the workload's kind and name, such as `deployment-web`.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What it did.
    pub spec: ApplicationProfileSpec,
}

/// What a workload did, container by container.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ApplicationProfileSpec {
    /// Its containers.
    pub containers: Vec<ContainerProfile>,
}

/// What a container did.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ContainerProfile {
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// Programs.
    #[serde(default)]
    pub execs: Option<Vec<ExecCalls>>,
    /// Files.
    #[serde(default)]
    pub opens: Option<Vec<OpenCalls>>,
    /// Syscalls.
    #[serde(default)]
    pub syscalls: Option<Vec<String>>,
    /// Capabilities, by syscall.
    #[serde(default)]
    pub capabilities: Option<Vec<serde_json::Map<String, Value>>>,
    /// Names that it looked up.
    #[serde(default)]
    pub dns: Option<Vec<serde_json::Map<String, Value>>>,
    /// Connections.
    #[serde(default)]
    pub network_activity: Option<serde_json::Map<String, Value>>,
}

/// A program that was executed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ExecCalls {
    /// Its path.
    #[serde(default)]
    pub path: String,
    /// Its arguments.
    #[serde(default)]
    pub args: Option<Vec<String>>,
    /// Its environment.
    #[serde(default)]
    pub envs: Option<Vec<String>>,
}

/// A file that was opened.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OpenCalls {
    /// Its path.
    #[serde(default)]
    pub path: String,
    /// Flags of the opens, such as `O_RDONLY`.
    #[serde(default)]
    pub flags: Option<Vec<String>>,
}

/// One policy for each container.
pub(in crate::foreign) fn convert(profile: &ApplicationProfile, findings: &mut Findings<'_>) -> Vec<TracePolicy> {
    let ObjectMeta { name, namespace, labels, annotations } = &profile.metadata;
    for (key, value) in labels.iter().chain(annotations) {
        if value == "true" && (key.ends_with("/partial") || key.ends_with("/failed")) {
            findings.warn(
                "metadata",
                format!("{} says that the profile is not whole", cut(key)),
                "much that is usual will match",
            );
        }
    }
    let workload = workload(name);
    if workload.is_none() {
        let message = format!("{} names no workload", cut(name));
        findings.warn(
            "metadata.name",
            message,
            "it applies to all pods of its namespace; profiles are called such as `deployment-web`",
        );
    }
    let namespaces =
        namespace.as_ref().map(|name| NamespaceSelector { names: vec![name.clone()], ..NamespaceSelector::default() });
    if profile.spec.containers.is_empty() {
        findings.error("spec.containers", "there is no container", "");
    }
    let mut policies = Vec::new();
    for (at, container) in profile.spec.containers.iter().enumerate() {
        let field = format!("spec.containers[{at}]");
        left_out(container, &field, findings);
        let mut lists = BTreeMap::new();
        let rules: Vec<_> =
            [unexpected_exec(container, &field, &mut lists, findings), unexpected_open(container, &field, &mut lists, findings)]
                .into_iter()
                .flatten()
                .map(|rule| Rule { condition: workload.clone(), ..rule })
                .collect();
        if rules.is_empty() {
            continue;
        }
        let names: Vec<_> = Some(container.name.clone()).filter(|name| !name.is_empty()).into_iter().collect();
        let spec = TracePolicySpec {
            description: format!("What isn't in the profile of container {} of {name}.", container.name),
            namespaces: namespaces.clone(),
            pods: Some(LabelSelector::default()),
            containers: Some(ContainerSelector { names, exclude: Vec::new() }),
            lists,
            rules,
            ..TracePolicySpec::default()
        };
        policies.push(policy(&format!("{name}-{}", container.name), BTreeMap::new(), spec));
    }
    policies
}

/// Which pods are the workload's, as a condition; a Deployment's belong to one of its ReplicaSets.
fn workload(name: &str) -> Option<String> {
    let (kind, name) = name.split_once('-').filter(|(_, name)| !name.is_empty())?;
    let owned =
        |kind: &str, rest: String| Some(format!("has(kubernetes.owner) && kubernetes.owner.kind == {} && {rest}", quoted(kind)));
    let exactly = |kind| owned(kind, format!("kubernetes.owner.name == {}", quoted(name)));
    match kind {
        "pod" => Some(format!("kubernetes.pod == {}", quoted(name))),
        "deployment" => owned("ReplicaSet", format!("kubernetes.owner.name.startsWith({})", quoted(&format!("{name}-")))),
        "cronjob" => owned("Job", format!("kubernetes.owner.name.startsWith({})", quoted(&format!("{name}-")))),
        "replicaset" => exactly("ReplicaSet"),
        "daemonset" => exactly("DaemonSet"),
        "statefulset" => exactly("StatefulSet"),
        "job" => exactly("Job"),
        _ => None,
    }
}

/// What no policy can say.
fn left_out(container: &ContainerProfile, field: &str, findings: &mut Findings<'_>) {
    let ContainerProfile { syscalls, capabilities, dns, network_activity, .. } = container;
    for (key, given, what) in [
        ("syscalls", syscalls.as_ref().is_some_and(|all| !all.is_empty()), "syscalls"),
        ("capabilities", capabilities.as_ref().is_some_and(|all| !all.is_empty()), "uses of capabilities"),
        ("dns", dns.as_ref().is_some_and(|all| !all.is_empty()), "look-ups of names"),
        ("networkActivity", network_activity.as_ref().is_some_and(|all| !all.is_empty()), "connections"),
    ] {
        if given {
            findings.warn(&format!("{field}.{key}"), format!("{what} as such are no events"), "left out");
        }
    }
}

fn unexpected_exec(
    container: &ContainerProfile,
    field: &str,
    lists: &mut BTreeMap<String, Vec<String>>,
    findings: &mut Findings<'_>,
) -> Option<Rule> {
    let mut paths: Vec<_> =
        container.execs.iter().flatten().map(|exec| exec.path.clone()).filter(|path| !path.is_empty()).collect();
    paths.sort_unstable();
    paths.dedup();
    if paths.is_empty() {
        findings.warn(field, "the profile has no executions", "there is no rule on them: it would match all");
        return None;
    }
    lists.insert("execs".to_owned(), paths);
    Some(Rule {
        name: "unexpected-exec".to_owned(),
        description: "A program was executed that isn't in the profile.".to_owned(),
        severity: Severity::Critical,
        message: "{{exec.filename}} is not in the profile of {{container.name}}".to_owned(),
        tags: vec!["kubecop-r0001".to_owned()],
        exec: Some(ExecMatch::default()),
        // A profile holds the names that programs were called by, before symbolic links.
        except: vec![Exception {
            condition: Some("exec.filename in lists.execs || process.exe in lists.execs".to_owned()),
            ..Exception::default()
        }],
        ..Rule::default()
    })
}

fn unexpected_open(
    container: &ContainerProfile,
    field: &str,
    lists: &mut BTreeMap<String, Vec<String>>,
    findings: &mut Findings<'_>,
) -> Option<Rule> {
    // More exceptions than these would be more than a rule holds.
    const MOST: usize = 90;
    let mut flags_of: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for open in container.opens.iter().flatten().filter(|open| !open.path.is_empty()) {
        flags_of.entry(&open.path).or_default().extend(open.flags.iter().flatten().map(String::as_str));
    }
    if flags_of.is_empty() {
        findings.warn(field, "the profile has no opens", "there is no rule on them: it would match all");
        return None;
    }
    let mut paths_of: BTreeMap<Vec<&str>, Vec<String>> = BTreeMap::new();
    for (path, mut flags) in flags_of {
        flags.sort_unstable();
        flags.dedup();
        paths_of.entry(flags).or_default().push(path.to_owned());
    }
    if paths_of.len() > MOST {
        findings.warn(
            &format!("{field}.opens"),
            "there are too many combinations of flags",
            "any flags are allowed for every path",
        );
        paths_of = BTreeMap::from([(Vec::new(), paths_of.into_values().flatten().collect())]);
    }
    let mut except = Vec::new();
    for (at, (flags, paths)) in paths_of.into_iter().enumerate() {
        let list = format!("opens{}", at + 1);
        let known = format!("file.path in lists.{list}");
        let condition = if flags.is_empty() {
            known
        } else {
            // O_LARGEFILE comes from the C library and says nothing.
            let flags: Vec<_> = flags.iter().copied().chain(["O_LARGEFILE"]).map(quoted).collect();
            format!("{known} && file.flags.all(flag, flag in [{}])", flags.join(", "))
        };
        lists.insert(list, paths);
        except.push(Exception { condition: Some(condition), ..Exception::default() });
    }
    Some(Rule {
        name: "unexpected-open".to_owned(),
        description: "A file was opened that isn't in the profile, or in another way.".to_owned(),
        severity: Severity::Medium,
        message: "{{process.exe}} opened {{file.path}}, which is not in the profile of {{container.name}}".to_owned(),
        tags: vec!["kubecop-r0002".to_owned()],
        file: Some(FileMatch { ops: vec![FileOp::Open, FileOp::WriteOpen, FileOp::Create], ..FileMatch::default() }),
        except,
        ..Rule::default()
    })
}

#[cfg(test)]
mod tests {
    use crate::{
        foreign::{Converted, Kind, convert},
        typed::node,
    };

    fn profile(name: &str, container: &str) -> Converted {
        let text = format!(
            "{{apiVersion: kubescape.io/v1, kind: ApplicationProfile, metadata: {{name: {name}, namespace: shop}}, spec: {{containers: [{container}]}}}}"
        );
        convert(&node(&text), Kind::ApplicationProfile)
    }

    #[test]
    fn what_is_not_in_a_profile_matches() {
        let found = profile(
            "deployment-web",
            "{name: nginx, execs: [{path: /usr/sbin/nginx, args: [a]}], opens: [{path: /etc/passwd, flags: [O_RDONLY]}, {path: /b, flags: [O_RDONLY]}, {path: /c}]}",
        );
        assert_eq!(found.problems, []);
        let spec = &found.policies[0].spec;
        assert_eq!(found.policies[0].metadata.name, "deployment-web-nginx");
        assert_eq!(spec.namespaces.as_ref().unwrap().names, ["shop"]);
        assert_eq!(spec.containers.as_ref().unwrap().names, ["nginx"]);
        assert_eq!(spec.lists["execs"], ["/usr/sbin/nginx"]);
        assert_eq!((spec.lists["opens1"].as_slice(), spec.lists["opens2"].len()), (["/c".to_owned()].as_slice(), 2));
        let [exec, open] = spec.rules.as_slice() else { panic!("{spec:?}") };
        assert!(exec.condition.as_ref().unwrap().ends_with("kubernetes.owner.name.startsWith(\"web-\")"));
        assert_eq!(
            open.except[1].condition.as_deref(),
            Some("file.path in lists.opens2 && file.flags.all(flag, flag in [\"O_RDONLY\", \"O_LARGEFILE\"])")
        );
    }

    #[test]
    fn what_no_policy_can_say_is_said_in_its_place() {
        let found = profile(
            "pod-a",
            "{name: x, execs: [{path: /a}], opens: [], syscalls: [read], dns: [{dnsName: a.}], networkActivity: {incoming: [{port: 1}]}}",
        );
        let fields: Vec<_> = found.problems.iter().map(|p| p.field.trim_start_matches("spec.containers[0]")).collect();
        assert_eq!(fields, [".syscalls", ".dns", ".networkActivity", ""]);
        assert_eq!(found.policies[0].spec.rules[0].condition.as_deref(), Some("kubernetes.pod == \"a\""));
    }

    #[test]
    fn a_profile_of_nothing_known_is_for_all_pods_of_its_namespace() {
        let found = profile("strange", "{name: x, execs: [{path: /a}], opens: [{path: /b}]}");
        assert_eq!(
            (found.problems[0].field.as_str(), found.policies[0].spec.rules[0].condition.as_deref()),
            ("metadata.name", None)
        );
    }
}
