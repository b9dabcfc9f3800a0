//! What the targets mean in this cluster: which pods, on which nodes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::{
    api::{
        apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet},
        batch::v1::Job,
        core::v1::{Namespace, Node, Pod, ReplicationController, Service},
    },
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use knark_specs::policy::matcher::Policies;
use kube::{
    Api, Resource, ResourceExt as _,
    api::ListParams,
    core::{NamespaceResourceScope, Selector, SelectorExt as _},
};
use serde::de::DeserializeOwned;

use super::{
    client::Cluster,
    error::ApiError,
    manifest,
    target::{Kind, NodeChoice, Rule},
};

/// How many nodes are asked about at once.
const AT_ONCE: usize = 16;

/// Targets that mean nothing in this cluster.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// The API server's word.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// No such pod.
    #[error("no pod {name:?} in namespace {namespace:?}{hint}: `kubectl get pods -n {namespace}` lists them")]
    NoPod {
        /// Its name.
        name: String,
        /// Where it was looked for.
        namespace: String,
        /// What may have been meant.
        hint: String,
    },
    /// No such workload.
    #[error("no {resource} {name:?} in namespace {namespace:?}: `kubectl get {resource} -n {namespace}` lists them")]
    NoWorkload {
        /// Its resource.
        resource: &'static str,
        /// Its name.
        name: String,
        /// Where it was looked for.
        namespace: String,
    },
    /// No such namespace.
    #[error("no namespace {0:?}: `kubectl get namespaces` lists them, -n chooses one")]
    NoNamespace(String),
    /// A service or workload that selects nothing.
    #[error("{resource} {name:?} has no selector, so no pods belong to it: name the pods, or select them by -l")]
    NoSelector {
        /// Its resource.
        resource: &'static str,
        /// Its name.
        name: String,
    },
    /// `-c` names nothing.
    #[error("no container {wanted:?} in {pod}: it has {known}")]
    NoContainer {
        /// As given.
        wanted: String,
        /// A pod that was looked at.
        pod: String,
        /// What it has.
        known: String,
    },
    /// No such node.
    #[error("no node {0:?}: `kubectl get nodes` lists them")]
    NoNode(String),
    /// `--node-selector` matches nothing.
    #[error("no node matches --node-selector {0:?}: `kubectl get nodes --show-labels` shows their labels")]
    NoNodeMatches(String),
    /// The policies' `nodes` match nothing.
    #[error(
        "no node matches `nodes` of the policies: `kubectl get nodes --show-labels` shows their labels, --node chooses others"
    )]
    NoNodeCovered,
    /// Nothing can be started there.
    #[error(
        "node {node} is not Ready ({why}), no tracer can be started there: `kubectl describe node {node}` says more, --node chooses others"
    )]
    NotReady {
        /// Its name.
        node: String,
        /// Its own words.
        why: String,
    },
}

/// A rule with its selector looked up.
#[derive(Debug, Clone, PartialEq)]
pub enum Matcher {
    /// Every pod.
    All,
    /// By name.
    Name(String),
    /// By labels.
    Labels(Selector),
    /// By what policies are about.
    Policies(Covered),
}

/// What policies are about.
#[derive(Debug, Clone)]
pub struct Covered(pub Arc<Policies>);

impl PartialEq for Covered {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Matcher {
    /// Whether it names this pod.
    pub fn matches(&self, pod: &Pod) -> bool {
        match self {
            Self::All => true,
            Self::Name(name) => pod.metadata.name.as_ref() == Some(name),
            Self::Labels(selector) => selector.matches(pod.labels()),
            Self::Policies(Covered(policies)) => {
                policies.covers_pod(pod.metadata.namespace.as_deref().unwrap_or_default(), pod.labels())
            }
        }
    }
}

/// Whether a pod is a tracer, of this session or another; those are never traced by way of pods.
pub fn is_tracer(labels: &BTreeMap<String, String>) -> bool {
    labels.contains_key(manifest::SESSION)
}

/// Looks up the selectors of workloads.
pub async fn matchers(cluster: &Cluster, rules: Vec<Rule>) -> Result<Vec<Matcher>, ResolveError> {
    stream::iter(rules)
        .map(|rule| async {
            match rule {
                Rule::All => Ok(Matcher::All),
                Rule::Pod(name) => Ok(Matcher::Name(name)),
                Rule::Labels(selector) => Ok(Matcher::Labels(selector)),
                Rule::Workload(kind, name) => workload(cluster, kind, name).await.map(Matcher::Labels),
            }
        })
        .buffered(AT_ONCE)
        .try_collect()
        .await
}

async fn workload(cluster: &Cluster, kind: Kind, name: String) -> Result<Selector, ResolveError> {
    let plain = |map: Option<BTreeMap<String, String>>| map.filter(|map| !map.is_empty()).map(Selector::from_iter);
    let full = |selector: Option<LabelSelector>| selector.and_then(|selector| Selector::try_from(selector).ok());
    let selector = match kind {
        Kind::Deployment => full(get::<Deployment>(cluster, kind, &name).await?.spec.map(|s| s.selector)),
        Kind::ReplicaSet => full(get::<ReplicaSet>(cluster, kind, &name).await?.spec.map(|s| s.selector)),
        Kind::StatefulSet => full(get::<StatefulSet>(cluster, kind, &name).await?.spec.map(|s| s.selector)),
        Kind::DaemonSet => full(get::<DaemonSet>(cluster, kind, &name).await?.spec.map(|s| s.selector)),
        Kind::Job => full(get::<Job>(cluster, kind, &name).await?.spec.and_then(|s| s.selector)),
        Kind::ReplicationController => {
            plain(get::<ReplicationController>(cluster, kind, &name).await?.spec.and_then(|s| s.selector))
        }
        Kind::Service => plain(get::<Service>(cluster, kind, &name).await?.spec.and_then(|s| s.selector)),
    };
    selector.filter(|selector| !selector.selects_all()).ok_or(ResolveError::NoSelector { resource: kind.resource(), name })
}

async fn get<K>(cluster: &Cluster, kind: Kind, name: &str) -> Result<K, ResolveError>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let namespace = &cluster.namespace;
    match Api::<K>::namespaced(cluster.client.clone(), namespace).get(name).await {
        Ok(object) => Ok(object),
        Err(error) => {
            let error = cluster.explain(format!("looking up {}/{name}", kind.resource()), error);
            if !error.is_not_found() {
                return Err(error.into());
            }
            check_namespace(cluster).await?;
            Err(ResolveError::NoWorkload { resource: kind.resource(), name: name.to_owned(), namespace: namespace.clone() })
        }
    }
}

/// Says that the namespace doesn't exist, where that can be told.
pub async fn check_namespace(cluster: &Cluster) -> Result<(), ResolveError> {
    let found = Api::<Namespace>::all(cluster.client.clone()).get_opt(&cluster.namespace).await;
    // A user without the right to look at namespaces gets the more general message.
    if let Ok(None) = found { Err(ResolveError::NoNamespace(cluster.namespace.clone())) } else { Ok(()) }
}

/// Checks what was named against what is there: each pod named, and a container of each name.
pub async fn check_pods(cluster: &Cluster, rules: &[Matcher], containers: &[String], wanted: &[Pod]) -> Result<(), ResolveError> {
    for rule in rules {
        let Matcher::Name(name) = rule else { continue };
        if !wanted.iter().any(|pod| pod.metadata.name.as_ref() == Some(name)) {
            check_namespace(cluster).await?;
            let hint = if ["deploy", "deployment", "sts", "ds", "rs", "svc", "job", "node"].contains(&name.as_str()) {
                format!(" (a target is written {name}/NAME)")
            } else {
                String::new()
            };
            return Err(ResolveError::NoPod { name: name.clone(), namespace: cluster.namespace.clone(), hint });
        }
    }
    let Some(example) = wanted.first() else { return Ok(()) };
    for container in containers {
        if !wanted.iter().any(|pod| container_names(pod).contains(container)) {
            let known = container_names(example).into_iter().collect::<Vec<_>>().join(", ");
            return Err(ResolveError::NoContainer {
                wanted: container.clone(),
                pod: format!("pod {}", example.name_any()),
                known,
            });
        }
    }
    Ok(())
}

fn container_names(pod: &Pod) -> BTreeSet<String> {
    let Some(spec) = &pod.spec else { return BTreeSet::new() };
    let init = spec.init_containers.iter().flatten().map(|c| c.name.clone());
    let ephemeral = spec.ephemeral_containers.iter().flatten().map(|c| c.name.clone());
    spec.containers.iter().map(|c| c.name.clone()).chain(init).chain(ephemeral).collect()
}

/// The nodes of `--node` and `--node-selector`: all must exist and be Ready.
pub async fn chosen_nodes(cluster: &Cluster, choice: &NodeChoice) -> Result<BTreeSet<String>, ResolveError> {
    let mut names = choice.names.clone();
    if let Some(selector) = &choice.selector {
        let matching = list_nodes(cluster, ListParams::default().labels_from(selector)).await?;
        if matching.is_empty() {
            return Err(ResolveError::NoNodeMatches(selector.to_string()));
        }
        names.extend(matching.iter().map(kube::ResourceExt::name_any));
    }
    match problems(cluster, &names).await?.into_iter().find_map(|(_, problem)| problem) {
        Some(problem) => Err(problem),
        None => Ok(names),
    }
}

/// All nodes that are Ready, and the names of the others.
pub async fn all_nodes(cluster: &Cluster) -> Result<(BTreeSet<String>, Vec<String>), ResolveError> {
    let (ready, others): (Vec<_>, Vec<_>) =
        list_nodes(cluster, ListParams::default()).await?.into_iter().partition(|node| why_not_ready(node).is_none());
    let name = |node: &Node| node.name_any();
    Ok((ready.iter().map(name).collect(), others.iter().map(name).collect()))
}

/// The nodes that policies are about and that are Ready, and the names of those that aren't.
pub async fn covered_nodes(cluster: &Cluster, policies: &Policies) -> Result<(BTreeSet<String>, Vec<String>), ResolveError> {
    let nodes = list_nodes(cluster, ListParams::default()).await?;
    let covered = nodes.iter().filter(|node| policies.covers_node(node.labels()));
    let (ready, others): (Vec<_>, Vec<_>) = covered.partition(|node| why_not_ready(node).is_none());
    if ready.is_empty() && others.is_empty() {
        return Err(ResolveError::NoNodeCovered);
    }
    Ok((ready.iter().map(|node| node.name_any()).collect(), others.iter().map(|node| node.name_any()).collect()))
}

/// The labels of all nodes.
pub async fn node_labels(cluster: &Cluster) -> Result<NamedLabels, ResolveError> {
    let nodes = list_nodes(cluster, ListParams::default()).await?;
    Ok(nodes.iter().map(|node| (node.name_any(), node.labels().clone())).collect())
}

/// The labels of all namespaces.
pub async fn namespace_labels(cluster: &Cluster) -> Result<NamedLabels, ResolveError> {
    let listed = Api::<Namespace>::all(cluster.client.clone()).list(&ListParams::default()).await;
    let listed = listed.map_err(|error| cluster.explain("listing namespaces, by whose labels a policy selects", error))?;
    Ok(listed.items.into_iter().map(|namespace| (namespace.name_any(), namespace.labels().clone())).collect())
}

/// Labels of objects, by the objects' names.
pub type NamedLabels = BTreeMap<String, BTreeMap<String, String>>;

async fn list_nodes(cluster: &Cluster, params: ListParams) -> Result<Vec<Node>, ResolveError> {
    let listed = Api::<Node>::all(cluster.client.clone()).list(&params).await;
    Ok(listed.map_err(|error| cluster.explain("listing nodes", error))?.items)
}

/// What keeps a tracer from each of these nodes. A user who may not look at nodes learns it later.
pub async fn problems(cluster: &Cluster, names: &BTreeSet<String>) -> Result<Vec<(String, Option<ResolveError>)>, ResolveError> {
    stream::iter(names)
        .map(|name| async move { Ok((name.clone(), problem(cluster, name).await?)) })
        .buffered(AT_ONCE)
        .try_collect()
        .await
}

/// What keeps a tracer from this node, likewise.
pub async fn problem(cluster: &Cluster, name: &str) -> Result<Option<ResolveError>, ResolveError> {
    let node = Api::<Node>::all(cluster.client.clone()).get_opt(name).await;
    match node.map_err(|error| cluster.explain(format!("looking up node {name}"), error)) {
        Ok(None) => Ok(Some(ResolveError::NoNode(name.to_owned()))),
        Ok(Some(node)) => Ok(why_not_ready(&node).map(|why| ResolveError::NotReady { node: name.to_owned(), why })),
        Err(error) if error.is_forbidden() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Why nothing can be started on this node.
pub fn why_not_ready(node: &Node) -> Option<String> {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    let Some(ready) = conditions.into_iter().flatten().find(|condition| condition.type_ == "Ready") else {
        return Some("it has never reported".to_owned());
    };
    (ready.status != "True").then(|| ready.message.clone().or(ready.reason.clone()).unwrap_or_else(|| ready.status.clone()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(status: &str) -> Node {
        serde_json::from_value(json!({ "status": { "conditions": [
            { "type": "MemoryPressure", "status": "False" },
            { "type": "Ready", "status": status, "reason": "NodeStatusUnknown", "message": "Kubelet stopped posting node status." },
        ] } }))
        .unwrap()
    }

    #[test]
    fn a_node_says_why_it_is_not_ready() {
        assert_eq!(why_not_ready(&node("True")), None);
        assert_eq!(why_not_ready(&node("Unknown")).unwrap(), "Kubelet stopped posting node status.");
        assert!(why_not_ready(&Node::default()).is_some());
    }

    #[test]
    fn containers_of_all_kinds_can_be_named() {
        let pod: Pod = serde_json::from_value(json!({ "spec": {
            "containers": [{ "name": "web" }], "initContainers": [{ "name": "init" }], "ephemeralContainers": [{ "name": "debug" }],
        } }))
        .unwrap();
        assert_eq!(container_names(&pod).into_iter().collect::<Vec<_>>(), ["debug", "init", "web"]);
    }
}
