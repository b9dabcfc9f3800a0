//! Keeping up with pods: a verdict on each one in the scope, and what the API server knows of those that are wanted.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    pin::Pin,
    sync::Arc,
    time::Instant,
};

use futures::{Stream, StreamExt as _};
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use knark_specs::frame::{self, PodContainer, PodVerdict};
use kube::{
    Api, ResourceExt as _,
    runtime::{WatchStreamExt as _, watcher},
};
use tokio::sync::{mpsc, watch};

use super::{
    client::Cluster,
    error::ApiError,
    outage::Outage,
    resolve::{Matcher, is_tracer},
};
use crate::source::Input;

/// What is known of all pods of the scope, by UID as the API server has it.
pub type Known = Arc<BTreeMap<String, Placed>>;

/// A verdict, and where it matters.
#[derive(Debug, Clone, PartialEq)]
pub struct Placed {
    verdict: PodVerdict,
    node: Option<String>,
}

/// The verdicts for one node's tracer. A pod that has no node yet has no verdict either: its events would be held, not lost.
/// Pods of other nodes are unwanted, which matters where nodes share a kernel.
pub fn verdicts(known: &Known, node: &str) -> Arc<BTreeMap<String, PodVerdict>> {
    let verdict = |pod: &Placed| {
        let here = pod.node.as_ref()? == node;
        let PodVerdict { uid, wanted, containers } = pod.verdict.clone();
        Some((uid.clone(), PodVerdict { uid, wanted: wanted && here, containers }))
    };
    Arc::new(known.values().filter_map(verdict).collect())
}

/// While the pipeline is busy this much of what it shall be told waits; then the watch does.
const UNTOLD: usize = 4096;

/// Which pods to keep up with.
#[derive(Debug, Clone)]
pub struct Scope {
    /// Only pods of this namespace; `None`: of all.
    pub namespace: Option<String>,
    /// Only pods of this node; `None`: of all.
    pub node: Option<String>,
    /// Which of them are wanted: those that any of these matches.
    pub wanted: Vec<Matcher>,
    /// Only these containers of them; empty: all.
    pub containers: Vec<String>,
}

/// A wanted pod runs, or is about to, on this node.
#[derive(Debug)]
pub struct Landed {
    /// The node.
    pub node: String,
    /// The pod.
    pub pod: String,
}

type Events = Pin<Box<dyn Stream<Item = Result<watcher::Event<Pod>, watcher::Error>> + Send>>;

/// A watch that has seen all pods of its scope once.
pub struct Pods {
    scope: Scope,
    events: Events,
    known: Known,
    /// What of it [`Self::publish`] has passed on.
    published: Known,
    /// The wanted pods that `out` was told of, by UID as the API server has it.
    told: BTreeMap<String, frame::Pod>,
    /// On which node each wanted pod was last, by UID.
    landed: BTreeMap<String, String>,
    initial: Vec<Pod>,
}

impl Pods {
    /// Lists the pods of the scope.
    pub async fn list(cluster: &Cluster, scope: Scope) -> Result<Self, ApiError> {
        let client = cluster.client.clone();
        let api = scope.namespace.as_ref().map_or_else(|| Api::all(client.clone()), |name| Api::namespaced(client.clone(), name));
        let config = watcher::Config::default();
        let config = match &scope.node {
            Some(node) => config.fields(&format!("spec.nodeName={node}")),
            None => config,
        };
        let mut events: Events = Box::pin(watcher(api, config).default_backoff());
        let mut pods = Self {
            scope,
            events: Box::pin(futures::stream::empty()),
            known: Known::default(),
            published: Known::default(),
            told: BTreeMap::new(),
            landed: BTreeMap::new(),
            initial: Vec::new(),
        };
        loop {
            match events.next().await {
                Some(Ok(watcher::Event::InitApply(pod))) => pods.initial.push(pod),
                Some(Ok(watcher::Event::InitDone)) | None => break,
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(explain(cluster, "listing pods", error)),
            }
        }
        pods.events = events;
        Ok(pods)
    }

    /// The wanted ones among those that exist now.
    pub fn wanted(&self) -> Vec<Pod> {
        self.initial.iter().filter(|pod| self.is_wanted(pod)).cloned().collect()
    }

    /// Tells of the pods as they come and go, until nobody listens.
    pub async fn follow(
        mut self,
        cluster: Cluster,
        known: watch::Sender<Known>,
        out: mpsc::Sender<Input>,
        landed: mpsc::Sender<Landed>,
    ) {
        let mut inputs = VecDeque::new();
        let mut outage = Outage::default();
        for pod in std::mem::take(&mut self.initial) {
            self.apply(&pod, &mut inputs);
        }
        self.publish(&known);
        let mut listed: Option<BTreeSet<String>> = None;
        loop {
            // Verdicts go out even while nobody reads what the trace shows.
            let event = tokio::select! {
                permit = out.reserve(), if !inputs.is_empty() => {
                    let Ok(permit) = permit else { return };
                    if let Some(input) = inputs.pop_front() {
                        permit.send(input);
                    }
                    continue;
                }
                event = self.events.next(), if inputs.len() < UNTOLD => event,
            };
            let Some(event) = event else { return };
            let event = match event {
                Ok(event) => event,
                // The watcher tries again by itself.
                Err(error) => {
                    let error = explain(&cluster, "watching pods", error);
                    if outage.is_news(&error, Instant::now()) {
                        let text = format!("pods that come and go from now on may be missed, or lack their labels: {error}");
                        inputs.push_back(Input::Warning(text));
                    }
                    continue;
                }
            };
            outage.note(&event);
            let news = match event {
                watcher::Event::Apply(pod) => self.apply(&pod, &mut inputs),
                watcher::Event::Delete(pod) => {
                    self.forget(&pod.uid().unwrap_or_default(), &mut inputs);
                    None
                }
                // The watch was lost and begins anew: what isn't listed again is gone.
                watcher::Event::Init => {
                    listed = Some(BTreeSet::new());
                    None
                }
                watcher::Event::InitApply(pod) => {
                    listed.get_or_insert_default().insert(pod.uid().unwrap_or_default());
                    self.apply(&pod, &mut inputs)
                }
                watcher::Event::InitDone => {
                    let listed = listed.take().unwrap_or_default();
                    let gone: Vec<_> = self.known.keys().filter(|uid| !listed.contains(*uid)).cloned().collect();
                    for uid in gone {
                        self.forget(&uid, &mut inputs);
                    }
                    None
                }
            };
            if listed.is_none() {
                self.publish(&known);
            }
            if let Some(news) = news {
                let _ = landed.send(news).await;
            }
        }
    }

    fn is_wanted(&self, pod: &Pod) -> bool {
        !is_tracer(pod.labels()) && self.scope.wanted.iter().any(|rule| rule.matches(pod))
    }

    /// Takes over a pod's state; says when it is wanted and its node is news.
    fn apply(&mut self, pod: &Pod, inputs: &mut VecDeque<Input>) -> Option<Landed> {
        let uid = pod.uid()?;
        let wanted = self.is_wanted(pod);
        let cgroup_uid = cgroup_uid(pod, &uid);
        let containers = if wanted { self.scope.containers.clone() } else { Vec::new() };
        let verdict = PodVerdict { uid: cgroup_uid.clone(), wanted, containers };
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
        let placed = Placed { verdict, node };
        if self.known.get(&uid) != Some(&placed) {
            Arc::make_mut(&mut self.known).insert(uid.clone(), placed);
        }
        if !wanted {
            return None;
        }
        let described = describe(pod, cgroup_uid);
        if self.told.get(&uid) != Some(&described) {
            inputs.push_back(Input::Pod(described.clone()));
            self.told.insert(uid.clone(), described);
        }
        // One that is being deleted starts nothing any more.
        let node = node_of(pod).filter(|_| pod.metadata.deletion_timestamp.is_none())?;
        let before = self.landed.insert(uid, node.clone());
        let pod = format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any());
        (before.as_ref() != Some(&node)).then_some(Landed { node, pod })
    }

    fn forget(&mut self, uid: &str, inputs: &mut VecDeque<Input>) {
        Arc::make_mut(&mut self.known).remove(uid);
        self.landed.remove(uid);
        let Some(frame::Pod { uid, name, .. }) = self.told.remove(uid) else { return };
        inputs.push_back(Input::PodGone { uid });
        if self.scope.wanted.contains(&Matcher::Name(name.clone())) {
            let text = format!("pod {name} was deleted; if another of that name starts, it is traced (Ctrl-C ends the trace)");
            inputs.push_back(Input::Warning(text));
        }
    }

    /// Brings what all watches know up to date with what this one does.
    fn publish(&mut self, all: &watch::Sender<Known>) {
        if Arc::ptr_eq(&self.published, &self.known) {
            return;
        }
        let before = std::mem::replace(&mut self.published, Arc::clone(&self.known));
        all.send_modify(|all| {
            let all = Arc::make_mut(all);
            before.keys().filter(|uid| !self.known.contains_key(*uid)).for_each(|uid| drop(all.remove(uid)));
            let news = self.known.iter().filter(|(uid, placed)| before.get(*uid) != Some(placed));
            all.extend(news.map(|(uid, placed)| (uid.clone(), placed.clone())));
        });
    }
}

/// The node of a pod that runs or is about to.
pub fn node_of(pod: &Pod) -> Option<String> {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    if matches!(phase, Some("Succeeded" | "Failed")) {
        return None;
    }
    pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).filter(|node| !node.is_empty())
}

fn explain(cluster: &Cluster, doing: &str, error: watcher::Error) -> ApiError {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => cluster.explain(doing, error),
        watcher::Error::WatchError(status) => cluster.explain(doing, kube::Error::Api(status)),
        watcher::Error::NoResourceVersion => {
            ApiError::Other { doing: doing.to_owned(), message: "the API server's list has no resource version".to_owned() }
        }
    }
}

/// A mirror pod's cgroup bears the UID of the static pod behind it, which kubelet derives from its file.
fn cgroup_uid(pod: &Pod, uid: &str) -> String {
    let annotations = pod.annotations();
    match (annotations.get("kubernetes.io/config.mirror"), annotations.get("kubernetes.io/config.hash")) {
        (Some(_), Some(hash)) => hash.clone(),
        _ => uid.to_owned(),
    }
}

fn describe(pod: &Pod, uid: String) -> frame::Pod {
    let owner = pod.owner_references().iter().find(|owner| owner.controller == Some(true));
    let spec = pod.spec.as_ref();
    let regular = spec
        .into_iter()
        .flat_map(|spec| &spec.containers)
        .chain(spec.into_iter().flat_map(|spec| spec.init_containers.iter().flatten()));
    let regular = regular.map(|c| (c.name.clone(), c.image.clone().unwrap_or_default()));
    let ephemeral = spec.into_iter().flat_map(|spec| spec.ephemeral_containers.iter().flatten());
    let ephemeral = ephemeral.map(|c| (c.name.clone(), c.image.clone().unwrap_or_default()));
    frame::Pod {
        uid,
        labels: pod.labels().clone(),
        owner_kind: owner.map(|owner| owner.kind.clone()).unwrap_or_default(),
        owner_name: owner.map(|owner| owner.name.clone()).unwrap_or_default(),
        namespace: pod.namespace().unwrap_or_default(),
        name: pod.name_any(),
        images: regular.chain(ephemeral).collect(),
        containers: spec.map(|spec| containers(spec).collect()),
    }
}

/// What tells where processes of containers come from, by the container's name.
fn containers(spec: &PodSpec) -> impl Iterator<Item = (String, PodContainer)> {
    let init = spec.init_containers.iter().flatten();
    let regular = spec.containers.iter().chain(init).map(|container| {
        let probes = [&container.liveness_probe, &container.readiness_probe, &container.startup_probe];
        let probes = probes.into_iter().flatten().filter_map(|probe| probe.exec.as_ref());
        let hooks = container.lifecycle.iter().flat_map(|lifecycle| [&lifecycle.post_start, &lifecycle.pre_stop]);
        let hooks = hooks.flatten().filter_map(|hook| hook.exec.as_ref());
        let commands = probes.chain(hooks).filter_map(|action| action.command.clone()).collect();
        (container.name.clone(), PodContainer { ephemeral: false, stdin: container.stdin == Some(true), commands })
    });
    let ephemeral = spec.ephemeral_containers.iter().flatten().map(|container| {
        let stdin = container.stdin == Some(true);
        (container.name.clone(), PodContainer { ephemeral: true, stdin, commands: Vec::new() })
    });
    regular.chain(ephemeral)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cluster::selector;

    fn pod(uid: &str, name: &str, labels: &serde_json::Value, annotations: &serde_json::Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": { "uid": uid, "name": name, "namespace": "prod", "labels": labels, "annotations": annotations,
                          "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-1", "uid": "r", "controller": true }] },
            "spec": { "nodeName": "n1", "containers": [{ "name": "web", "image": "nginx" }] },
        }))
        .unwrap()
    }

    fn pods(wanted: Vec<Matcher>) -> Pods {
        let scope = Scope { namespace: None, node: None, wanted, containers: vec!["web".into()] };
        Pods {
            scope,
            events: Box::pin(futures::stream::empty()),
            known: Known::default(),
            published: Known::default(),
            told: BTreeMap::new(),
            landed: BTreeMap::new(),
            initial: Vec::new(),
        }
    }

    #[test]
    fn every_pod_gets_a_verdict() {
        let mut pods = pods(vec![Matcher::Labels(selector::parse("app=web").unwrap())]);
        let (sender, receiver) = watch::channel(Known::default());
        let mut inputs = VecDeque::new();
        let landed = pods.apply(&pod("u1", "web", &json!({ "app": "web" }), &json!({})), &mut inputs).unwrap();
        assert_eq!((landed.node.as_str(), landed.pod.as_str()), ("n1", "prod/web"));
        assert!(pods.apply(&pod("u2", "db", &json!({ "app": "db" }), &json!({})), &mut inputs).is_none());
        assert!(
            pods.apply(&pod("u3", "knark", &json!({ "app": "web", "knark.dev/session": "x" }), &json!({})), &mut inputs)
                .is_none()
        );
        pods.publish(&sender);
        let verdicts = super::verdicts(&receiver.borrow(), "n1");
        assert!(super::verdicts(&receiver.borrow(), "n2").values().all(|verdict| !verdict.wanted));
        assert_eq!(
            verdicts.values().map(|v| (v.uid.as_str(), v.wanted)).collect::<Vec<_>>(),
            [("u1", true), ("u2", false), ("u3", false)]
        );
        assert_eq!(verdicts["u1"].containers, ["web"]);
        let [Input::Pod(told)] = inputs.make_contiguous() else { panic!("{inputs:?}") };
        assert_eq!((told.owner_kind.as_str(), told.images["web"].as_str()), ("ReplicaSet", "nginx"));
    }

    #[test]
    fn a_pod_lands_once_on_a_node() {
        let mut pods = pods(vec![Matcher::All]);
        let mut inputs = VecDeque::new();
        let mut web = pod("u1", "web", &json!({}), &json!({}));
        let node = web.spec.as_mut().unwrap().node_name.take();
        assert!(pods.apply(&web, &mut inputs).is_none());
        web.spec.as_mut().unwrap().node_name = node;
        assert!(pods.apply(&web, &mut inputs).is_some());
        web.metadata.labels = Some([("a".to_owned(), "b".to_owned())].into());
        assert!(pods.apply(&web, &mut inputs).is_none());
        let mut leaving = pod("u2", "db", &json!({}), &json!({}));
        leaving.metadata.deletion_timestamp = serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
        assert!(pods.apply(&leaving, &mut inputs).is_none());
    }

    #[test]
    fn what_is_run_in_containers_and_which_can_be_fed_is_known() {
        let exec = |word: &str| json!({ "exec": { "command": ["cat", word] } });
        let pod: Pod = serde_json::from_value(json!({ "spec": {
            "containers": [{ "name": "app", "stdin": true, "livenessProbe": exec("live"), "readinessProbe": { "httpGet": { "port": 80 } },
                             "startupProbe": exec("start"), "lifecycle": { "postStart": exec("begin"), "preStop": exec("end") } }],
            "initContainers": [{ "name": "init" }],
            "ephemeralContainers": [{ "name": "debugger", "stdin": true }],
        } }))
        .unwrap();
        let known = describe(&pod, "u1".into()).containers.unwrap();
        let commands = ["live", "start", "begin", "end"].map(|word| vec!["cat".to_owned(), word.to_owned()]).to_vec();
        let want = [
            ("app", PodContainer { ephemeral: false, stdin: true, commands }),
            ("debugger", PodContainer { ephemeral: true, stdin: true, commands: Vec::new() }),
            ("init", PodContainer::default()),
        ];
        assert_eq!(known, want.map(|(name, container)| (name.to_owned(), container)).into());
    }

    #[test]
    fn watches_share_what_is_known() {
        let (all, known) = watch::channel(Known::default());
        let (mut one, mut other) = (pods(vec![Matcher::All]), pods(vec![Matcher::All]));
        let mut inputs = VecDeque::new();
        one.apply(&pod("u1", "web", &json!({}), &json!({})), &mut inputs);
        other.apply(&pod("u2", "db", &json!({}), &json!({})), &mut inputs);
        one.publish(&all);
        other.publish(&all);
        one.forget("u1", &mut inputs);
        one.publish(&all);
        assert_eq!(known.borrow().keys().collect::<Vec<_>>(), ["u2"]);
    }

    #[test]
    fn nothing_is_told_twice() {
        let mut pods = pods(vec![Matcher::All]);
        let mut inputs = VecDeque::new();
        let web = pod("u1", "web", &json!({}), &json!({}));
        pods.apply(&web, &mut inputs);
        pods.apply(&web, &mut inputs);
        assert_eq!(inputs.len(), 1);
        pods.forget("u1", &mut inputs);
        pods.forget("u1", &mut inputs);
        assert!(matches!(&inputs.make_contiguous()[1..], [Input::PodGone { uid }] if uid == "u1"));
    }

    #[test]
    fn a_mirror_pod_goes_by_its_hash() {
        let annotations = json!({ "kubernetes.io/config.mirror": "abc", "kubernetes.io/config.hash": "abc" });
        assert_eq!(cgroup_uid(&pod("u1", "etcd", &json!({}), &annotations), "u1"), "abc");
    }
}
