//! Names of the API's resources.

/// What the API server of the table's version serves; see `tests/api-resources.sh`.
const TABLE: &str = include_str!("../packs/api-resources.txt");

/// The API server's own short names.
const SHORT_NAMES: [(&str, &str); 27] = [
    ("cm", "configmaps"),
    ("cs", "componentstatuses"),
    ("ep", "endpoints"),
    ("ev", "events"),
    ("limits", "limitranges"),
    ("ns", "namespaces"),
    ("no", "nodes"),
    ("pvc", "persistentvolumeclaims"),
    ("pv", "persistentvolumes"),
    ("po", "pods"),
    ("rc", "replicationcontrollers"),
    ("quota", "resourcequotas"),
    ("sa", "serviceaccounts"),
    ("svc", "services"),
    ("crd", "customresourcedefinitions"),
    ("ds", "daemonsets"),
    ("deploy", "deployments"),
    ("rs", "replicasets"),
    ("sts", "statefulsets"),
    ("hpa", "horizontalpodautoscalers"),
    ("cj", "cronjobs"),
    ("csr", "certificatesigningrequests"),
    ("ing", "ingresses"),
    ("netpol", "networkpolicies"),
    ("pdb", "poddisruptionbudgets"),
    ("pc", "priorityclasses"),
    ("sc", "storageclasses"),
];

/// A resource's name for its short one, or its singular, as kubectl takes them.
pub fn full_name(name: String) -> String {
    let full = SHORT_NAMES.iter().find(|(short, _)| *short == name).map(|(_, full)| *full);
    match full {
        Some(full) => full.to_owned(),
        None if name.ends_with("ss") || name.ends_with("sh") => name + "es",
        None if name.ends_with("cy") || name.ends_with("ty") => name.trim_end_matches('y').to_owned() + "ies",
        None if name.ends_with('s') => name,
        None => name + "s",
    }
}

/// Whether Kubernetes itself has a resource of this name, in any group.
pub fn is_built_in(name: &str) -> bool {
    let names = TABLE.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split(' ').nth(2));
    names.map(|name| name.split_once('/').map_or(name, |(name, _)| name)).any(|known| known == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_what_is_served() {
        for (name, want) in [
            ("po", "pods"),
            ("secret", "secrets"),
            ("netpol", "networkpolicies"),
            ("networkpolicy", "networkpolicies"),
            ("ingress", "ingresses"),
            ("deploy", "deployments"),
            ("pods", "pods"),
        ] {
            assert_eq!(full_name(name.to_owned()), want);
            assert!(is_built_in(want) && is_built_in(name) == (name == want), "{name}");
        }
        assert!(SHORT_NAMES.iter().all(|(_, full)| is_built_in(full)));
    }
}
