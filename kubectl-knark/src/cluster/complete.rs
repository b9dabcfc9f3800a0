//! Names for the shell's completion. Whatever goes wrong, there are just none.

use std::{ffi::OsStr, time::Duration};

use clap::{CommandFactory as _, FromArgMatches as _};
use clap_complete::CompletionCandidate;
use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet},
    batch::v1::Job,
    core::v1::{Namespace, Node, Pod, ReplicationController, Service},
};
use kube::{Api, Resource, api::ListParams, config::Kubeconfig, core::NamespaceResourceScope};
use serde::de::DeserializeOwned;

use super::{
    client::{Cluster, ConnectionFlags},
    kubeconfig,
};
use crate::cli::Cli;

/// A user waits for this with a finger on the Tab key.
const PATIENCE: Duration = Duration::from_secs(3);
/// More than this nobody reads.
const AT_MOST: u32 = 500;
/// What can stand before the slash.
const TYPES: [&str; 9] = ["pod", "deploy", "rs", "sts", "ds", "job", "rc", "svc", "node"];

/// Candidates for a TARGET: names of pods, and types; after a slash, names of that type.
pub fn targets(word: &OsStr) -> Vec<CompletionCandidate> {
    let word = word.to_string_lossy().into_owned();
    let Some((kind, _)) = word.split_once('/') else {
        let types = TYPES.into_iter().map(|kind| format!("{kind}/"));
        return candidates(&word, types.chain(ask(async |cluster| named::<Pod>(&cluster).await)));
    };
    let kind = kind.to_owned();
    let names = ask(async |cluster| match kind.as_str() {
        "pod" | "pods" | "po" => named::<Pod>(&cluster).await,
        "deploy" | "deployment" | "deployments" => named::<Deployment>(&cluster).await,
        "rs" | "replicaset" | "replicasets" => named::<ReplicaSet>(&cluster).await,
        "sts" | "statefulset" | "statefulsets" => named::<StatefulSet>(&cluster).await,
        "ds" | "daemonset" | "daemonsets" => named::<DaemonSet>(&cluster).await,
        "job" | "jobs" => named::<Job>(&cluster).await,
        "rc" | "replicationcontroller" | "replicationcontrollers" => named::<ReplicationController>(&cluster).await,
        "svc" | "service" | "services" => named::<Service>(&cluster).await,
        "node" | "nodes" | "no" => list(Api::<Node>::all(cluster.client)).await,
        _ => Vec::new(),
    });
    candidates(&word, names.into_iter().map(|name| format!("{kind}/{name}")))
}

/// Candidates for `--node`.
pub fn nodes(word: &OsStr) -> Vec<CompletionCandidate> {
    candidates(&word.to_string_lossy(), ask(async |cluster| list(Api::<Node>::all(cluster.client)).await))
}

/// Candidates for `-n`.
pub fn namespaces(word: &OsStr) -> Vec<CompletionCandidate> {
    candidates(&word.to_string_lossy(), ask(async |cluster| list(Api::<Namespace>::all(cluster.client)).await))
}

/// Candidates for `--context`.
pub fn contexts(word: &OsStr) -> Vec<CompletionCandidate> {
    from_kubeconfig(word, |config| config.contexts.into_iter().map(|context| context.name).collect())
}

/// Candidates for `--cluster`.
pub fn clusters(word: &OsStr) -> Vec<CompletionCandidate> {
    from_kubeconfig(word, |config| config.clusters.into_iter().map(|cluster| cluster.name).collect())
}

/// Candidates for `--user`.
pub fn users(word: &OsStr) -> Vec<CompletionCandidate> {
    from_kubeconfig(word, |config| config.auth_infos.into_iter().map(|user| user.name).collect())
}

fn from_kubeconfig(word: &OsStr, names: impl FnOnce(Kubeconfig) -> Vec<String>) -> Vec<CompletionCandidate> {
    let config = kubeconfig::load(typed().kubeconfig.as_deref()).unwrap_or_default();
    candidates(&word.to_string_lossy(), names(config))
}

fn candidates(word: &str, names: impl IntoIterator<Item = String>) -> Vec<CompletionCandidate> {
    names.into_iter().filter(|name| name.starts_with(word)).map(CompletionCandidate::new).collect()
}

/// The connection flags that stand on the command line so far.
fn typed() -> ConnectionFlags {
    let words = std::env::args_os().filter(|word| word != "__complete" && word != "--");
    let matches = Cli::command().ignore_errors(true).try_get_matches_from(words).ok();
    let flags =
        matches.as_ref().and_then(|matches| matches.subcommand()).map(|(_, matches)| ConnectionFlags::from_arg_matches(matches));
    flags.and_then(Result::ok).unwrap_or_default()
}

fn ask(question: impl AsyncFnOnce(Cluster) -> Vec<String>) -> Vec<String> {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return Vec::new() };
    let answer = async {
        match typed().connect().await {
            Ok(cluster) => question(cluster).await,
            Err(_) => Vec::new(),
        }
    };
    let names = runtime.block_on(async { tokio::time::timeout(PATIENCE, answer).await.unwrap_or_default() });
    runtime.shutdown_background();
    names
}

async fn named<K>(cluster: &Cluster) -> Vec<String>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    list(Api::<K>::namespaced(cluster.client.clone(), &cluster.namespace)).await
}

async fn list<K>(api: Api<K>) -> Vec<String>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let listed = api.list_metadata(&ListParams::default().limit(AT_MOST)).await;
    listed.map(|listed| listed.items.iter().map(kube::ResourceExt::name_any).collect()).unwrap_or_default()
}
