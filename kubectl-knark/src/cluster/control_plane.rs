//! The nodes that run API servers.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{Api, ResourceExt as _, api::ListParams};

use super::{client::Cluster, resolve::why_not_ready};

/// Labels of control-plane nodes: kubeadm's, what it was before 1.24, RKE's, and MicroK8s'.
const ROLES: [&str; 4] = [
    "node-role.kubernetes.io/control-plane",
    "node-role.kubernetes.io/master",
    "node-role.kubernetes.io/controlplane",
    "node.kubernetes.io/microk8s-controlplane",
];

/// The nodes whose API servers are traced.
#[derive(Debug, Clone, Default)]
pub enum Servers {
    /// None: nobody asked for requests.
    #[default]
    Nowhere,
    /// These.
    On(BTreeSet<String>),
    /// Every traced node, since nothing tells which of them runs one.
    Anywhere,
}

impl Servers {
    /// Whether the API servers of a node are traced.
    pub fn are_on(&self, node: &str) -> bool {
        match self {
            Self::Nowhere => false,
            Self::On(nodes) => nodes.contains(node),
            Self::Anywhere => true,
        }
    }
}

/// Ready nodes that run an API server as far as labels and static pods tell, and what could not be found out. Managed control
/// planes run on no node.
pub async fn nodes(cluster: &Cluster) -> (BTreeSet<String>, Vec<String>) {
    let (mut found, mut warnings) = (BTreeSet::new(), Vec::new());
    let all = Api::<Node>::all(cluster.client.clone()).list(&ListParams::default()).await;
    match all.map_err(|error| cluster.explain("looking for the nodes of the control plane", error)) {
        Ok(all) => {
            let (ready, others): (Vec<_>, Vec<_>) = all
                .iter()
                .filter(|node| ROLES.iter().any(|role| node.labels().contains_key(*role)))
                .partition(|node| why_not_ready(node).is_none());
            found.extend(ready.iter().map(|node| node.name_any()));
            let others: Vec<_> = others.iter().map(|node| node.name_any()).collect();
            if !others.is_empty() {
                warnings.push(format!(
                    "requests to the API servers of these nodes are not seen, since they are not Ready: {}",
                    others.join(", ")
                ));
            }
        }
        Err(error) => warnings.push(error.to_string()),
    }
    if found.is_empty() {
        // Nodes without such labels may run one all the same.
        let servers = ListParams::default().labels("component=kube-apiserver");
        let pods = Api::<Pod>::namespaced(cluster.client.clone(), "kube-system").list(&servers).await;
        match pods.map_err(|error| cluster.explain("looking for the API servers' pods in kube-system", error)) {
            Ok(pods) => found.extend(pods.into_iter().filter_map(|pod| pod.spec?.node_name)),
            Err(error) => warnings.push(error.to_string()),
        }
    }
    (found, warnings)
}
