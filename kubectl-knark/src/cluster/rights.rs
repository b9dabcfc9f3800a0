//! What a user must be allowed to do, and whether this one is.

use std::fmt::Write as _;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use kube::{Api, api::PostParams};
use serde::Serialize;

use super::{client::Cluster, error::ApiError};

/// How many questions are asked at once.
const AT_ONCE: usize = 8;

/// Where a right is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In the namespace of the tracer pods.
    Tracers,
    /// In the namespaces of the traced pods.
    Targets,
    /// In the whole cluster.
    Cluster,
}

struct Need {
    place: Place,
    group: &'static str,
    resource: &'static str,
    verbs: &'static [&'static str],
    /// What can't be done without it; `None`: nothing can.
    only_for: Option<&'static str>,
}

const fn need(place: Place, group: &'static str, resource: &'static str, verbs: &'static [&'static str]) -> Need {
    Need { place, group, resource, verbs, only_for: None }
}

const fn only(
    for_: &'static str,
    place: Place,
    group: &'static str,
    resource: &'static str,
    verbs: &'static [&'static str],
) -> Need {
    Need { place, group, resource, verbs, only_for: Some(for_) }
}

const NEEDS: [Need; 15] = [
    need(Place::Tracers, "batch", "jobs", &["create", "delete"]),
    // Created in a dry run alone, so that admission is asked before anything is made.
    need(Place::Tracers, "", "pods", &["create", "list", "watch"]),
    // Websockets ask for get, and newer API servers for create as well.
    need(Place::Tracers, "", "pods/exec", &["get", "create"]),
    only("ending faster", Place::Tracers, "", "pods", &["delete"]),
    only("why the pod of --audit-log node:PATH, or a Job's, doesn't start", Place::Tracers, "", "events", &["list"]),
    only("cleanup", Place::Tracers, "batch", "jobs", &["list"]),
    need(Place::Targets, "", "pods", &["list", "watch"]),
    only("targets such as deploy/web", Place::Targets, "apps", "deployments", &["get"]),
    only("targets such as rs/web", Place::Targets, "apps", "replicasets", &["get"]),
    only("targets such as sts/web", Place::Targets, "apps", "statefulsets", &["get"]),
    only("targets such as ds/web", Place::Targets, "apps", "daemonsets", &["get"]),
    only("targets such as job/web", Place::Targets, "batch", "jobs", &["get"]),
    only("targets such as svc/web or rc/web", Place::Targets, "", "services", &["get"]),
    only("targets such as svc/web or rc/web", Place::Targets, "", "replicationcontrollers", &["get"]),
    only(
        "--node-selector, -A, --on api, --audit-log node:PATH, and messages about nodes",
        Place::Cluster,
        "",
        "nodes",
        &["get", "list"],
    ),
];

/// A right, and whether the user has it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Right {
    /// The verb.
    pub verb: &'static str,
    /// The resource, as `kubectl auth can-i` takes it.
    pub resource: String,
    /// Where; `None`: in the whole cluster.
    pub namespace: Option<String>,
    /// Whether the user has it.
    pub allowed: bool,
    /// What needs it; `None`: every trace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub only_for: Option<&'static str>,
}

/// Asks the API server about each of them.
pub async fn check(cluster: &Cluster, tracers: &str, targets: &str) -> Result<Vec<Right>, ApiError> {
    let questions = NEEDS.iter().flat_map(|need| need.verbs.iter().map(move |verb| (need, *verb)));
    stream::iter(questions)
        .map(|(need, verb)| async move {
            let namespace = match need.place {
                Place::Tracers => Some(tracers.to_owned()),
                Place::Targets => Some(targets.to_owned()),
                Place::Cluster => None,
            };
            let allowed = is_allowed(cluster, need, verb, namespace.clone()).await?;
            let group = if need.group.is_empty() { String::new() } else { format!(".{}", need.group) };
            Ok(Right { verb, resource: format!("{}{group}", need.resource), namespace, allowed, only_for: need.only_for })
        })
        .buffered(AT_ONCE)
        .try_collect()
        .await
}

async fn is_allowed(cluster: &Cluster, need: &Need, verb: &str, namespace: Option<String>) -> Result<bool, ApiError> {
    let (resource, subresource) = need.resource.split_once('/').map_or((need.resource, None), |(r, s)| (r, Some(s.to_owned())));
    let attributes = ResourceAttributes {
        group: Some(need.group.to_owned()),
        resource: Some(resource.to_owned()),
        subresource,
        verb: Some(verb.to_owned()),
        namespace,
        ..ResourceAttributes::default()
    };
    let spec = SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..SelfSubjectAccessReviewSpec::default() };
    let review = SelfSubjectAccessReview { spec, ..SelfSubjectAccessReview::default() };
    let asked = Api::<SelfSubjectAccessReview>::all(cluster.client.clone()).create(&PostParams::default(), &review).await;
    let review = asked.map_err(|error| cluster.explain("asking what you may do", error))?;
    Ok(review.status.is_some_and(|status| status.allowed))
}

/// The smallest Roles, as YAML for `kubectl apply`.
pub fn yaml(tracers: &str, targets: &str, all_namespaces: bool) -> String {
    let mut text = format!(
        "# What `kubectl knark trace` needs, for `kubectl apply -f -`. Bind it by\n\
         #   kubectl create rolebinding knark-tracers -n {tracers} --role knark-tracers --user NAME\n"
    );
    let targets_kind = if all_namespaces { "ClusterRole" } else { "Role" };
    if all_namespaces {
        text.push_str("#   kubectl create clusterrolebinding knark-targets --clusterrole knark-targets --user NAME\n");
    } else {
        let _ = writeln!(text, "#   kubectl create rolebinding knark-targets -n {targets} --role knark-targets --user NAME");
    }
    text.push_str("#   kubectl create clusterrolebinding knark-nodes --clusterrole knark-nodes --user NAME\n");
    text.push_str(
        "# Whoever may create pods with hostPID in a namespace controls its nodes: this is a right for administrators.\n",
    );
    role(&mut text, "Role", "knark-tracers", Some(tracers), Place::Tracers);
    role(&mut text, targets_kind, "knark-targets", (!all_namespaces).then_some(targets), Place::Targets);
    role(&mut text, "ClusterRole", "knark-nodes", None, Place::Cluster);
    text
}

fn role(text: &mut String, kind: &str, name: &str, namespace: Option<&str>, place: Place) {
    let namespace = namespace.map(|namespace| format!("\n  namespace: {namespace}")).unwrap_or_default();
    let _ = write!(
        text,
        "---\napiVersion: rbac.authorization.k8s.io/v1\nkind: {kind}\nmetadata:\n  name: {name}{namespace}\nrules:\n"
    );
    for need in NEEDS.iter().filter(|need| need.place == place) {
        if let Some(only_for) = need.only_for {
            let _ = writeln!(text, "# only for {only_for}");
        }
        let _ = writeln!(
            text,
            "- apiGroups: [\"{}\"]\n  resources: [\"{}\"]\n  verbs: [\"{}\"]",
            need.group,
            need.resource,
            need.verbs.join("\", \"")
        );
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::rbac::v1::{ClusterRole, Role};

    use super::*;

    #[test]
    fn the_roles_are_valid_yaml() {
        let text = yaml("kube-system", "prod", false);
        let documents: Vec<_> = text.split("---\n").skip(1).collect();
        let [tracers, targets, nodes] = documents[..] else { panic!("{text}") };
        let tracers: Role = serde_yaml::from_str(tracers).unwrap();
        let targets: Role = serde_yaml::from_str(targets).unwrap();
        let nodes: ClusterRole = serde_yaml::from_str(nodes).unwrap();
        assert_eq!(targets.metadata.namespace.as_deref(), Some("prod"));
        assert_eq!((nodes.metadata.name.as_deref(), nodes.metadata.namespace), (Some("knark-nodes"), None));
        let granted = tracers.rules.unwrap();
        assert!(granted.iter().any(|rule| rule.resources.as_ref().unwrap() == &["pods/exec"] && rule.verbs == ["get", "create"]));
        assert!(yaml("a", "b", true).contains("kind: ClusterRole\nmetadata:\n  name: knark-targets\nrules:"));
    }
}
