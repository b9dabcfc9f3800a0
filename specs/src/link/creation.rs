//! Containers that somebody had made: those of a pod that was created, and those put into a pod that runs (`kubectl debug`).

use std::collections::{BTreeSet, VecDeque};

use super::{CLOCKS, Cause, Certainty};
use crate::{
    body,
    event::{Api, ApiBody, ApiStage, Container, Kubernetes},
};

/// How long after its request a pod, or a container that was put into one, may begin where little else tells which request's it
/// is, in nanoseconds: nodes may be busy, and images are pulled.
const LATEST: i64 = 300_000_000_000;
/// More containers of a pod aren't told apart.
const CONTAINERS: usize = 256;
/// Longer texts in bodies name nothing.
const NAME: usize = 253;

/// Controllers by the kind of owner that their pods have.
const CONTROLLERS: [(&str, &str); 5] = [
    ("ReplicaSet", "system:serviceaccount:kube-system:replicaset-controller"),
    ("DaemonSet", "system:serviceaccount:kube-system:daemon-set-controller"),
    ("StatefulSet", "system:serviceaccount:kube-system:statefulset-controller"),
    ("Job", "system:serviceaccount:kube-system:job-controller"),
    ("ReplicationController", "system:serviceaccount:kube-system:replication-controller"),
];
/// All of them, where they share one identity.
const ALL_CONTROLLERS: &str = "system:kube-controller-manager";

/// A request that makes containers.
#[derive(Debug)]
pub(super) struct Creation {
    pub(super) cause: Cause,
    namespace: String,
    /// The pod, as far as it is known.
    name: Option<String>,
    /// The pod's, where it is known: of what was created, also from a pod that had the name in time.
    uid: Option<String>,
    /// Of containers that were put into a pod that runs, their names, as far as they are known; `None`: the pod itself is new.
    added: Option<Vec<String>>,
    /// When the request came in, and when it ended, by the plugin's clock (ns since the epoch).
    from: i64,
    until: i64,
    /// The UID of the pod that is held for the one.
    taken_for: Option<String>,
    /// Containers of which the first process was seen.
    begun: BTreeSet<String>,
}

/// A container's first process, and where it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct First<'e> {
    pub(super) pod: &'e Kubernetes,
    pub(super) container: &'e Container,
    /// Whether it was put into the pod when that ran, where the pod's spec is known.
    pub(super) is_added: Option<bool>,
    /// When it began, by the plugin's clock.
    pub(super) began: i64,
    /// When the pod did; where each container has a shim of its own, when that began.
    pub(super) pod_began: i64,
}

impl Creation {
    /// `None`: it makes no containers.
    pub(super) fn of(api: &Api, at: i64) -> Option<Self> {
        let puts_into = match (api.subresource.as_str(), api.verb.as_str()) {
            ("", "create") => false,
            // What is applied is created where it isn't there.
            ("", "patch" | "update") if api.code == Some(201) => false,
            ("ephemeralcontainers", "patch" | "update") => true,
            _ => return None,
        };
        let has_failed = api.code.is_some_and(|code| !(200..300).contains(&code));
        let is_trial = api.dry_run;
        let cause = Cause::of(api);
        // What a kubelet creates mirrors a pod that runs already.
        if api.stage != ApiStage::Complete || has_failed || is_trial || cause.user.starts_with("system:node:") {
            return None;
        }
        let [sent, got] = [&api.request_body, &api.response_body].map(Option::as_ref);
        let in_path = Some(&api.name).filter(|name| !name.is_empty() && !api.truncated.iter().any(|field| field == "name"));
        let name = in_path.cloned().or_else(|| got.and_then(body::name).and_then(short));
        let latency = i64::try_from(api.latency_ns.unwrap_or(0)).unwrap_or(i64::MAX);
        Some(Self {
            cause,
            namespace: api.namespace.clone(),
            name: name.or_else(|| sent.and_then(body::name).and_then(short)),
            uid: got.and_then(body::uid).and_then(short),
            added: puts_into.then(|| added(api)),
            from: at.saturating_sub(latency),
            until: at,
            taken_for: None,
            begun: BTreeSet::new(),
        })
    }

    /// Whether it put this container into its pod: surely where a body names it, and the pod is known to be the same.
    fn adds(&self, first: &First<'_>) -> Option<Certainty> {
        let names = self.added.as_ref()?;
        let is_there = self.namespace == first.pod.namespace && self.name.as_ref() == Some(&first.pod.pod);
        let is_other = self.uid.as_ref().is_some_and(|uid| *uid != first.pod.pod_uid);
        if !is_there || is_other || first.began < self.from.saturating_sub(CLOCKS) {
            return None;
        }
        let is_named = names.contains(&first.container.name);
        if is_named && (self.uid.is_some() || first.pod_began < self.from) {
            return Some(Certainty::Certain);
        }
        let may_be = is_named || (names.is_empty() && self.begun.is_empty());
        (may_be && self.is_timely(first.began)).then_some(Certainty::Likely)
    }

    /// Whether it surely created this pod.
    fn surely_creates(&self, pod: &Kubernetes, pod_began: i64) -> bool {
        if self.added.is_some() {
            return false;
        }
        match (&self.uid, &self.name) {
            (Some(uid), _) => *uid == pod.pod_uid,
            // One name is one pod's at a time.
            (None, Some(name)) => *name == pod.pod && self.namespace == pod.namespace && self.is_timely(pod_began),
            (None, None) => false,
        }
    }

    /// Whether it may have created this pod, as far as namespace, time and owner tell.
    fn may_create(&self, pod: &Kubernetes, pod_began: i64) -> bool {
        let is_nameless = self.added.is_none() && self.uid.is_none() && self.name.is_none();
        is_nameless && self.namespace == pod.namespace && self.is_timely(pod_began) && may_own(&self.cause.user, pod)
    }

    /// Whether what began then may come of it, where little else tells.
    fn is_timely(&self, began: i64) -> bool {
        (self.from.saturating_sub(CLOCKS)..self.until.saturating_add(LATEST)).contains(&began)
    }

    /// Notes the container; whether this is the first time: what is begun anew is begun by its kubelet.
    fn begins(&mut self, container: &Container) -> bool {
        let name = if container.name.is_empty() { &container.id } else { &container.name };
        self.begun.len() < CONTAINERS && self.begun.insert(name.clone())
    }
}

/// The request that a container's first process comes from, how surely, and what other requests may have added the container.
pub(super) fn find<'c>(
    creations: &'c mut VecDeque<Creation>,
    first: &First<'_>,
) -> Option<(&'c mut Creation, Certainty, Vec<Cause>)> {
    let all = || creations.iter().enumerate();
    let adds =
        |wanted: Certainty| move |(at, creation): (usize, &Creation)| (creation.adds(first)? == wanted).then_some((at, wanted));
    // The first that names a container is the one that added it: later ones may list all. Where the pod may be a later one of the
    // same name, so is the request.
    let added = all().find_map(adds(Certainty::Certain)).or_else(|| all().rev().find_map(adds(Certainty::Likely)));
    let (at, certainty) = match (added, first.is_added) {
        (Some((_, Certainty::Certain)), _) | (_, Some(true)) => added,
        (_, Some(false)) => creator(creations, first),
        (_, None) => creator(creations, first).or(added),
    }?;
    let is_surely = certainty == Certainty::Certain || creations.get(at)?.added.is_none();
    let others = creations.iter().filter(|creation| !is_surely && creation.adds(first).is_some());
    let others = others.map(|creation| creation.cause.clone()).collect();
    let creation = creations.get_mut(at)?;
    if creation.added.is_none() {
        let uid = if certainty == Certainty::Certain { &mut creation.uid } else { &mut creation.taken_for };
        uid.get_or_insert_with(|| first.pod.pod_uid.clone());
    }
    creation.begins(first.container).then_some((creation, certainty, others))
}

/// The request that created the pod.
fn creator(creations: &VecDeque<Creation>, first: &First<'_>) -> Option<(usize, Certainty)> {
    let all = || creations.iter().enumerate();
    let surely = all().rev().find(|(_, creation)| creation.surely_creates(first.pod, first.pod_began));
    if let Some((at, _)) = surely {
        return Some((at, Certainty::Certain));
    }
    let taken = all().find(|(_, creation)| creation.taken_for.as_ref() == Some(&first.pod.pod_uid));
    if let Some((at, _)) = taken {
        return Some((at, Certainty::Likely));
    }
    let mut open = all().filter(|(_, creation)| creation.taken_for.is_none() && creation.may_create(first.pod, first.pod_began));
    let (at, _) = open.next()?;
    // Of two, either may be it.
    open.next().is_none().then_some((at, Certainty::Likely))
}

/// Whether pods with that owner may be created by that user: a built-in controller creates those of its own alone. All others may
/// name any owner.
fn may_own(user: &str, pod: &Kubernetes) -> bool {
    let is_of = |controller: &str| user == controller || user == ALL_CONTROLLERS;
    // An owner is known where labels are.
    if pod.labels.is_none() || !CONTROLLERS.iter().any(|(_, controller)| is_of(controller)) {
        return true;
    }
    let owner = pod.owner.as_ref().map(|owner| owner.kind.as_str());
    CONTROLLERS.iter().any(|(kind, controller)| Some(*kind) == owner && is_of(controller))
}

/// Names of the containers that are put into a pod, as bodies tell them: a patch holds what is added, an answer all there are.
fn added(api: &Api) -> Vec<String> {
    let names = |body: &Option<ApiBody>| -> Option<Vec<String>> {
        let list = body.as_ref()?.json.as_ref()?.get("spec")?.get("ephemeralContainers")?.as_array()?;
        Some(list.iter().take(CONTAINERS).filter_map(|container| short(container.get("name")?.as_str()?)).collect())
    };
    let sent = if api.verb == "patch" { names(&api.request_body) } else { None };
    sent.or_else(|| names(&api.response_body)).or_else(|| names(&api.request_body)).unwrap_or_default()
}

fn short(text: &str) -> Option<String> {
    (1..=NAME).contains(&text.len()).then(|| text.to_owned())
}
