//! kube-knark's specs: calls of the Kubernetes API, and commands that change files.

mod call;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Findings, RULE_LIMIT, cut, policy, quoted, slug, unique};
use crate::{
    frame::FileOp,
    linux::Mode,
    policy::{ExecMatch, FileMatch, ModeProperty, ProcessMatch, ResultMatch, Rule, Severity, TracePolicy, TracePolicySpec},
    yaml::{Entry, Node, Value},
};

/// A spec file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// What it is called.
    pub spec: String,
    /// What it holds.
    #[serde(default)]
    pub categories: Vec<Category>,
}

/// A category.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Category {
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// Its only part.
    pub sub_category: SubCategory,
}

/// A part of a category.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SubCategory {
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// API calls; commands as well, in older files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub api: Vec<Call>,
    /// Commands.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fs: Vec<Call>,
}

/// An API call, or a command that changes files.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Call {
    /// Its name.
    pub name: String,
    /// What it does.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Of an API call: the path, with names in braces for what varies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
    /// Of an API call: the method of HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Of a command: the program and arguments, others between them or not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub commands: Vec<String>,
    /// CRITICAL, MAJOR, MINOR or INFO.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub severity: String,
    /// Without a meaning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<serde_json::Value>,
}

const SEVERITIES: [(&str, Severity); 5] = [
    ("CRITICAL", Severity::Critical),
    ("MAJOR", Severity::High),
    ("WARNING", Severity::Medium),
    ("MINOR", Severity::Low),
    ("INFO", Severity::Info),
];

/// The document as kube-knark's own reader takes it: every value is a text, and what is empty isn't there.
pub(super) fn texts(node: &Node) -> Node {
    let value = match &node.value {
        Value::Null => Value::Null,
        Value::Bool(value) => Value::Text(value.to_string()),
        Value::Number(text) | Value::Text(text) => Value::Text(text.clone()),
        Value::List(items) => Value::List(items.iter().map(texts).collect()),
        Value::Map(entries) => Value::Map(
            entries
                .iter()
                .filter(|entry| entry.value.value != Value::Null)
                .map(|entry| Entry { value: texts(&entry.value), ..entry.clone() })
                .collect(),
        ),
    };
    Node { span: node.span.clone(), value }
}

/// One policy of all entries.
pub(super) fn convert(spec: &Spec, findings: &mut Findings<'_>) -> Vec<TracePolicy> {
    let mut rules: BTreeMap<String, (usize, Rule)> = BTreeMap::new();
    for (at, category) in spec.categories.iter().enumerate() {
        let part = &category.sub_category;
        let mut tags: Vec<_> = ["kube-knark".to_owned(), slug(&category.name), slug(&part.name)].into();
        tags.retain(|tag| !tag.is_empty());
        tags.dedup();
        let entries = [("api", &part.api), ("fs", &part.fs)];
        let entries = entries.into_iter().flat_map(|(key, entries)| entries.iter().enumerate().map(move |entry| (key, entry)));
        for (key, (item, entry)) in entries {
            let field = format!("categories[{at}].sub_category.{key}[{item}]");
            if rules.len() >= RULE_LIMIT {
                findings.error(&field, format!("there are more than {RULE_LIMIT} rules"), "split the file");
                return Vec::new();
            }
            let severity = if entry.severity.is_empty() {
                findings.warn(&field, "there is no severity", "taken for medium");
                Severity::Medium
            } else {
                findings.severity(&format!("{field}.severity"), &entry.severity, &SEVERITIES)
            };
            let plain = Rule {
                description: if entry.description.is_empty() { entry.name.clone() } else { entry.description.clone() },
                severity,
                tags: tags.clone(),
                ..Rule::default()
            };
            for (suffix, rule) in converted(entry, &plain, &field, findings) {
                let same = rules.values().find(|(_, other)| {
                    (&other.api, &other.file, &other.process, &other.condition)
                        == (&rule.api, &rule.file, &rule.process, &rule.condition)
                });
                if let Some((_, other)) = same {
                    let message = format!("it asks for the same as `{}` before", other.name);
                    findings.warn(&field, message, "left out; a resource's versions are one");
                    continue;
                }
                let base = Some(slug(&entry.name)).filter(|base| !base.is_empty()).unwrap_or_else(|| "entry".to_owned());
                let name = unique(&rules, &[base.as_str(), suffix].concat());
                rules.insert(name.clone(), (rules.len(), Rule { name, ..rule }));
            }
        }
    }
    if rules.is_empty() {
        findings.error("categories", "there is no entry that can be used", "");
        return Vec::new();
    }
    let mut rules: Vec<_> = rules.into_values().collect();
    rules.sort_by_key(|(at, _)| *at);
    let rules = rules.into_iter().map(|(_, rule)| rule).collect();
    let first = spec.categories.first().map_or("", |category| category.name.as_str());
    let name = format!("kube-knark {} {first}", spec.spec);
    let spec =
        TracePolicySpec { description: format!("kube-knark's spec `{}`.", spec.spec), rules, ..TracePolicySpec::default() };
    vec![policy(&name, BTreeMap::new(), spec)]
}

/// An entry's rules, each with what its name ends in.
fn converted(entry: &Call, plain: &Rule, field: &str, findings: &mut Findings<'_>) -> Vec<(&'static str, Rule)> {
    match (&entry.uri, entry.commands.as_slice()) {
        (Some(uri), []) => match call::request(uri, entry.method.as_deref().unwrap_or("GET"), field, findings) {
            Some((api, condition)) => vec![("", Rule { api: Some(api), condition, ..plain.clone() })],
            None => Vec::new(),
        },
        (None, [program, arguments @ ..]) => {
            let mut rules = vec![("-command", command(program, arguments, plain))];
            rules.extend(effect(program, arguments, plain, field, findings).map(|rule| ("-effect", rule)));
            rules
        }
        _ => {
            findings.error(field, "an entry has either `uri` or `commands`", "");
            Vec::new()
        }
    }
}

/// The program, run with these arguments in this order.
fn command(program: &str, arguments: &[String], plain: &Rule) -> Rule {
    let name = program.rsplit('/').next().unwrap_or(program);
    let arguments = arguments.iter().map(|argument| match glob(argument) {
        Some(glob) => format!("glob:{glob}"),
        None => argument.clone(),
    });
    Rule {
        message: "{{process.exe}} was run".to_owned(),
        process: Some(ProcessMatch {
            exes: vec![format!("/**/{}", super::literal(name))],
            args_in_order: arguments.collect(),
            ..ProcessMatch::default()
        }),
        exec: Some(ExecMatch::default()),
        ..plain.clone()
    }
}

/// What the program does to the file, whoever does it.
fn effect(program: &str, arguments: &[String], plain: &Rule, field: &str, findings: &mut Findings<'_>) -> Option<Rule> {
    let name = program.rsplit('/').next().unwrap_or(program);
    let ops = match name {
        "chmod" => vec![FileOp::Chmod],
        "chown" | "chgrp" => vec![FileOp::Chown],
        "rm" | "unlink" | "rmdir" => vec![FileOp::Unlink, FileOp::Rmdir],
        "mv" => vec![FileOp::Rename],
        "ln" => vec![FileOp::Link, FileOp::Symlink],
        "mkdir" => vec![FileOp::Mkdir],
        "truncate" => vec![FileOp::Truncate],
        "cp" | "tee" | "touch" | "vi" | "vim" | "nano" => vec![FileOp::Create, FileOp::WriteOpen],
        "cat" | "head" | "tail" | "less" => vec![FileOp::Open],
        "setfattr" | "setfacl" => vec![FileOp::Setxattr],
        _ => {
            let message = format!("what {} does to files isn't known", cut(name));
            findings.warn(&format!("{field}.commands"), message, "only the command itself is watched for");
            return None;
        }
    };
    let paths: Vec<_> = arguments.iter().filter(|argument| argument.contains('/')).map(|path| whole(path)).collect();
    if paths.is_empty() {
        findings.warn(&format!("{field}.commands"), "it names no path", "only the command itself is watched for");
        return None;
    }
    let mut file = FileMatch { ops, paths, result: ResultMatch::Success, ..FileMatch::default() };
    let mut condition = None;
    // The first that is neither an option nor a path is what the file becomes.
    if let Some((at, value)) = arguments.iter().enumerate().find(|(_, a)| !a.starts_with('-') && !a.contains('/')) {
        let field = format!("{field}.commands[{}]", at + 1);
        match name {
            "chmod" => match u32::from_str_radix(value, 8).ok().filter(|mode| *mode <= 0o7777) {
                Some(mode) => condition = Some(format!("file.mode == {}", quoted(&Mode(mode).to_string()))),
                None => file.becomes = symbolic(value, &field, findings),
            },
            "chown" => condition = owner(value, &field, findings),
            _ => {}
        }
    }
    let message = match name {
        "chmod" => "{{process.exe}} made {{file.path}} {{file.mode}}",
        "chown" | "chgrp" => "{{process.exe}} gave {{file.path}} to {{file.uid}}:{{file.gid}}",
        _ => "{{process.exe}} did {{file.op}} to {{file.path}}",
    };
    Some(Rule { message: message.to_owned(), file: Some(file), condition, ..plain.clone() })
}

fn symbolic(value: &str, field: &str, findings: &mut Findings<'_>) -> Vec<ModeProperty> {
    let becomes = match value {
        "o+w" | "a+w" | "+w" | "go+w" => ModeProperty::WorldWritable,
        "o+r" | "a+r" | "+r" | "go+r" => ModeProperty::WorldReadable,
        "g+w" => ModeProperty::GroupWritable,
        "+x" | "a+x" | "u+x" | "ugo+x" => ModeProperty::Executable,
        "u+s" | "+s" => ModeProperty::Setuid,
        "g+s" => ModeProperty::Setgid,
        _ => {
            findings.warn(field, format!("the mode {} isn't understood", cut(value)), "every change of the mode is watched for");
            return Vec::new();
        }
    };
    vec![becomes]
}

/// Owners are numbers to the kernel.
fn owner(value: &str, field: &str, findings: &mut Findings<'_>) -> Option<String> {
    let (user, group) = value.split_once(':').unwrap_or((value, ""));
    let mut conditions = Vec::new();
    for (name, key) in [(user, "file.uid"), (group, "file.gid")] {
        match name {
            "" => {}
            "root" => conditions.push(format!("{key} == 0")),
            id if id.parse::<u32>().is_ok() => conditions.push(format!("{key} == {id}")),
            name => findings.warn(
                field,
                format!("the number of {} isn't known here", cut(name)),
                "write its number; any owner is watched for",
            ),
        }
    }
    Some(conditions).filter(|all| !all.is_empty()).map(|all| all.join(" && "))
}

/// The argument as a glob, where it is meant as one: a `*` that is a whole component stands for any number of them.
fn glob(argument: &str) -> Option<String> {
    argument
        .contains(['*', '?'])
        .then(|| argument.split('/').map(|part| if part == "*" { "**" } else { part }).collect::<Vec<_>>().join("/"))
}

/// The path as the kernel shows it: whole, though the command may have been given a part of it.
fn whole(path: &str) -> String {
    let glob = glob(path).unwrap_or_else(|| super::literal(path));
    if glob.starts_with('/') {
        glob
    } else if glob.starts_with("**/") {
        format!("/{glob}")
    } else {
        format!("/**/{}", glob.trim_start_matches("./"))
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        foreign::{Converted, Kind, convert},
        frame::FileOp,
        policy::{Rule, Severity},
        typed::node,
    };

    fn entry(key: &str, entry: &str) -> Converted {
        let text =
            format!("spec: mine\ncategories:\n- name: Some Files\n  sub_category:\n    name: config\n    {key}:\n    - {entry}");
        convert(&node(&text), Kind::KubeKnarkApi)
    }

    fn rules(found: &Converted) -> &[Rule] {
        found.policies.first().map_or(&[], |policy| &policy.spec.rules)
    }

    #[test]
    fn a_command_is_watched_for_itself_and_for_what_it_does() {
        let found = entry("fs", "{name: Open up, commands: [chmod, 777, /etc/kubernetes/admin.conf], severity: MAJOR}");
        let [command, effect] = rules(&found) else { panic!("{found:?}") };
        assert_eq!((command.name.as_str(), command.severity), ("open-up-command", Severity::High));
        assert_eq!(command.tags, ["kube-knark", "some-files", "config"]);
        let process = command.process.as_ref().unwrap();
        assert_eq!(process.exes, ["/**/chmod"]);
        assert_eq!(process.args_in_order, ["777", "/etc/kubernetes/admin.conf"]);
        let file = effect.file.as_ref().unwrap();
        assert_eq!(
            (file.ops.as_slice(), file.paths.as_slice()),
            ([FileOp::Chmod].as_slice(), ["/etc/kubernetes/admin.conf".to_owned()].as_slice())
        );
        assert_eq!(effect.condition.as_deref(), Some("file.mode == \"0777\""));
    }

    #[test]
    fn globs_are_meant_as_globs() {
        for (written, path, argument) in [
            ("*/cni/*", "/**/cni/**", "glob:**/cni/**"),
            ("/etc/kubernetes/pki/*", "/etc/kubernetes/pki/**", "glob:/etc/kubernetes/pki/**"),
            ("/etc/*.conf", "/etc/*.conf", "glob:/etc/*.conf"),
            ("/etc/plain", "/etc/plain", "/etc/plain"),
            ("manifests/a.yaml", "/**/manifests/a.yaml", "manifests/a.yaml"),
        ] {
            let found = entry("api", &format!("{{name: a, commands: [chown, '{written}'], severity: minor}}"));
            let [command, effect] = rules(&found) else { panic!("{found:?}") };
            assert_eq!(command.process.as_ref().unwrap().args_in_order, [argument]);
            assert_eq!(effect.file.as_ref().unwrap().paths, [path]);
            assert_eq!(effect.severity, Severity::Low);
        }
    }

    #[test]
    fn owners_are_numbers() {
        let found = entry("fs", "{name: a, commands: [chown, 'root:1000', /x], severity: INFO}");
        assert_eq!(rules(&found)[1].condition.as_deref(), Some("file.uid == 0 && file.gid == 1000"));
        let found = entry("fs", "{name: a, commands: [chown, 'etcd:etcd', /x], severity: INFO}");
        assert_eq!((rules(&found)[1].condition.as_deref(), found.problems.len()), (None, 2));
    }

    #[test]
    fn a_misspelt_severity_is_taken_for_the_nearest() {
        let found = entry("fs", "{name: a, commands: [chmod, /x], severity: CRITIAL}");
        assert_eq!(rules(&found)[0].severity, Severity::Critical);
        assert_eq!(found.problems[0].field, "categories[0].sub_category.fs[0].severity");
        assert_eq!(found.problems[0].help.as_deref(), Some("taken for `CRITICAL`"));
    }

    #[test]
    fn a_command_of_unknown_effect_is_watched_for_alone() {
        let found = entry("fs", "{name: a, commands: [frob, /x], severity: INFO}");
        assert_eq!((rules(&found).len(), found.problems.len()), (1, 1));
    }

    #[test]
    fn versions_of_one_resource_are_one_rule() {
        let found = entry(
            "api",
            "{name: a, uri: /apis/batch/v1/cronjobs, method: GET, severity: INFO}\n    - {name: a, uri: /apis/batch/v1beta1/cronjobs, method: GET, severity: INFO}",
        );
        assert_eq!((rules(&found).len(), found.problems.len()), (1, 1));
        assert_eq!(found.problems[0].field, "categories[0].sub_category.api[1]");
    }
}
