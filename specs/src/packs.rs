//! The policies that are shipped, as the texts that `policy show` prints.

/// A shipped set of policies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pack {
    /// What `--pack` calls it.
    pub name: &'static str,
    /// What it is for, in a line.
    pub intent: &'static str,
    /// Its documents, in YAML: TracePolicies, and the TraceLists that they refer to.
    pub text: &'static str,
}

/// All packs, by name.
pub const ALL: [Pack; 7] = [
    Pack {
        name: "cis-control-plane",
        intent: "files of the control plane whose mode or owner leaves what CIS 1.1.1 to 1.1.21 ask for",
        text: include_str!("../packs/cis-control-plane.yaml"),
    },
    Pack {
        name: "cis-node",
        intent: "files of the kubelet and the proxy whose mode or owner leaves what CIS 4.1.1 to 4.1.10 ask for",
        text: include_str!("../packs/cis-node.yaml"),
    },
    Pack {
        name: "container-escape",
        intent: "ways out of a container: runtime sockets, the host's devices, kernel helpers, cgroups, namespaces, runc",
        text: include_str!("../packs/container-escape.yaml"),
    },
    Pack {
        name: "credentials",
        intent: "reads of tokens, keys, password hashes, kubeconfigs and cloud credentials by programs that have no need to",
        text: include_str!("../packs/credentials.yaml"),
    },
    Pack {
        name: "execution",
        intent: "programs that should not run: out of scratch folders or memory, shells below servers, tools of intruders",
        text: include_str!("../packs/execution.yaml"),
    },
    Pack {
        name: "persistence",
        intent: "changes that let a program come back: cron, systemd, preloads, login keys, shell profiles, sudo, PAM",
        text: include_str!("../packs/persistence.yaml"),
    },
    Pack {
        name: "sensitive-api",
        intent: "requests to the Kubernetes API: secrets, access rights, sessions in pods, tokens, deletions, any other change and read",
        text: include_str!("../packs/sensitive-api.yaml"),
    },
];

/// All packs, by name.
pub fn all() -> &'static [Pack] {
    &ALL
}

/// The pack of a name.
pub fn get(name: &str) -> Option<Pack> {
    ALL.into_iter().find(|pack| pack.name == name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{all, get};
    use crate::policy::{Rule, TracePolicy, document};

    fn policies(text: &str) -> Vec<TracePolicy> {
        let parsed = document::parse(text);
        assert_eq!(parsed.problems, []);
        parsed.policies.into_iter().map(|policy| policy.value).collect()
    }

    fn rules() -> Vec<(&'static str, Rule)> {
        all()
            .iter()
            .flat_map(|pack| policies(pack.text).into_iter().flat_map(|policy| policy.spec.rules).map(|rule| (pack.name, rule)))
            .collect()
    }

    #[test]
    fn every_pack_is_found_by_its_name_and_holds_what_it_is_called() {
        for pack in all() {
            assert_eq!(get(pack.name), Some(*pack));
            for policy in policies(pack.text) {
                assert!(policy.metadata.name.starts_with(pack.name), "{}", policy.metadata.name);
                assert!(!policy.spec.description.is_empty());
            }
        }
        assert_eq!(get("nothing"), None);
    }

    #[test]
    fn every_rule_says_what_it_is_and_asks_for_one_kind_of_event() {
        for (pack, rule) in rules() {
            let Rule { name, description, message, tags, references, exec, file, api, .. } = &rule;
            assert!(
                !description.is_empty() && !message.is_empty() && !tags.is_empty() && !references.is_empty(),
                "{pack}/{name}"
            );
            let kinds = [exec.is_some(), file.is_some(), api.is_some()];
            assert_eq!(kinds.iter().filter(|given| **given).count(), 1, "{pack}/{name}");
        }
    }

    #[test]
    fn no_two_rules_of_a_pack_share_a_name() {
        let rules = rules();
        let names: BTreeSet<_> = rules.iter().map(|(pack, rule)| (pack, &rule.name)).collect();
        assert_eq!(names.len(), rules.len());
    }

    #[test]
    fn every_list_that_a_rule_names_is_there_and_every_list_is_used() {
        for pack in all() {
            for policy in policies(pack.text) {
                let text = serde_json::to_string(&policy.spec.rules).unwrap();
                let named: BTreeSet<_> = text
                    .split("\"$")
                    .skip(1)
                    .filter_map(|rest| rest.split('"').next())
                    .chain(text.split("lists.").skip(1).map(|rest| {
                        rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '_').next().unwrap_or_default()
                    }))
                    .collect();
                let given: BTreeSet<_> = policy.spec.lists.keys().map(String::as_str).collect();
                assert_eq!(named, given, "{}", policy.metadata.name);
            }
        }
    }

    #[test]
    fn every_regular_expression_is_one() {
        for pack in all() {
            for policy in policies(pack.text) {
                let mut rest = vec![serde_json::to_value(&policy.spec).unwrap()];
                while let Some(value) = rest.pop() {
                    match value {
                        serde_json::Value::Object(fields) => rest.extend(fields.into_iter().map(|(_, value)| value)),
                        serde_json::Value::Array(items) => rest.extend(items),
                        serde_json::Value::String(text) => {
                            if let Some(pattern) = text.strip_prefix("regex:") {
                                regex::Regex::new(pattern).unwrap();
                            }
                        }
                        _ => {}
                    }
                }
            }
        }
    }
}
