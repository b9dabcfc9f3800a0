//! What a request to the Kubernetes API has led to: who ran the `kubectl exec` that a shell comes from, who typed into a
//! container, who created a pod.
//!
//! Nothing passes from the API server to the process but the command, so a link is made out of what both sides tell: the pod,
//! the container, the command, the time, and how the process came into its container.

mod creation;
mod known;
mod origin;
mod session;

use std::{borrow::Cow, collections::VecDeque, sync::Arc};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    event::{Api, ApiStage, ApiUser, Container, Event, Kubernetes, Process, What},
    frame::{Pod, PodContainer},
    texts::Texts,
};
use creation::{Creation, First};
use known::{By, Known};
use origin::Outside;
use session::{Attach, Exec, Fit, Session};

/// How long after its request a process may begin that a session runs, in nanoseconds: the runtime may be busy.
const LATEST: i64 = 30_000_000_000;
/// How far clocks of nodes may be apart, in nanoseconds.
const CLOCKS: i64 = 1_000_000_000;
/// So many others are named who may have made a request.
const OTHERS: usize = 8;
/// Requests of each kind, and processes, that are remembered; beyond, the oldest are forgotten.
const MOST: usize = 4_096;

/// What an event comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Cause {
    /// The request, by its `api.request_id`.
    pub request_id: String,
    /// The user that the request acted as.
    pub user: String,
    /// The user who really made it, where it acted as another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub impersonator: Option<String>,
    /// The request's verb, such as `create`.
    #[serde(default)]
    pub verb: String,
    /// What of the pod it was about: `exec`, which runs a command in it; `attach`, where what a container's main process begins
    /// may have been typed in; `ephemeralcontainers`, which puts a container into it (`kubectl debug`). Empty: it created the pod.
    pub subresource: String,
    /// The address that the request came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Whether anything else could be the cause.
    pub certainty: Certainty,
    /// Others who asked for the same at about that time, so that it may as well be theirs: `bob`, or `admin as bob`.
    #[serde(default, skip_serializing_if = "Texts::is_empty")]
    pub others: Texts,
}

/// How sure a link is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Certainty {
    /// Something else could have led to it: other requests ask for the same, or a probe of the kubelet's does; what the request
    /// asks for is not known whole; an interpreter runs it; or it was typed into a process that could begin it by itself.
    Likely,
    /// The request, and nothing else that was seen, asks for this very command in this container, or has made this very pod or
    /// container.
    Certain,
}

impl Certainty {
    /// The name as JSON shows it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Likely => "likely",
            Self::Certain => "certain",
        }
    }
}

/// Requests that may lead to processes, and the processes that came of them.
#[derive(Debug, Default)]
pub struct Links {
    execs: VecDeque<Exec>,
    attached: VecDeque<Attach>,
    creations: VecDeque<Creation>,
    /// Processes of sessions. Each is known by itself, since those above it may end before it does.
    begun: Known,
    /// First processes of containers, which all others of the container have above them as long as it runs.
    made: Known,
}

/// A process of a node: its pid and its start.
type ProcessId = (u32, u64);

/// Where a session is.
#[derive(Debug)]
struct Place {
    namespace: String,
    pod: String,
    /// Where the request names one.
    container: Option<String>,
}

/// Whether a process is the first of its container, as far as its ancestors tell.
pub fn begins_container(process: &Process) -> bool {
    origin::from_outside(process).is_some_and(|outside| outside.runtime.is_none())
}

impl Links {
    /// What an event comes from. Events are to be shown in the order of their times, requests that are shown to nobody
    /// included; `at` is the event's time by the plugin's clock, in nanoseconds since the epoch; `pod` is what the API server
    /// knows of the event's pod.
    pub fn cause(&mut self, event: &Event, at: i64, pod: Option<&Pod>) -> Option<Arc<Cause>> {
        match &event.what {
            What::Api { api } => {
                self.hear(api, at);
                None
            }
            What::Exec { .. } => match self.inherited(event) {
                Some(cause) if cause.is_session() => Some(cause),
                // Who feeds a container tells more of what it does than who made it.
                made => self.is_typed(event, at, pod).or(made).or_else(|| self.is_begun(event, at, pod)),
            },
            What::File { .. } | What::Exit { .. } => self.inherited(event),
        }
    }

    fn hear(&mut self, api: &Api, at: i64) {
        if !api.group.is_empty() || api.resource != "pods" {
            return;
        }
        let has_started = api.stage == ApiStage::Started;
        match api.subresource.as_str() {
            "exec" | "attach" if !has_started => {
                end(&mut self.execs, api, at);
                end(&mut self.attached, api, at);
            }
            "exec" => push(&mut self.execs, Some(Exec::of(api, at))),
            "attach" => push(&mut self.attached, Attach::of(api, at)),
            _ => push(&mut self.creations, Creation::of(api, at)),
        }
    }

    /// A process does what it was begun for, or one of those that it began.
    fn inherited(&mut self, event: &Event) -> Option<Arc<Cause>> {
        let (node, process) = (&event.node.name, &event.process);
        let above = process.ancestors.iter().map(|ancestor| (ancestor.pid, ancestor.start_boot_ns));
        let line = || std::iter::once(id(process)).chain(above.clone());
        if let Some(cause) = self.begun.first(node, line()) {
            self.begun.remember(node, id(process), By::Parent, Arc::clone(&cause));
            return Some(cause);
        }
        self.made.first(node, line())
    }

    /// What a container's main process begins while somebody feeds it.
    fn is_typed(&mut self, event: &Event, at: i64, pod: Option<&Pod>) -> Option<Arc<Cause>> {
        let (kubernetes, container) = place(event)?;
        // The latest session counts, and one that has not ended more.
        let there = self.attached.iter_mut().filter(|attach| attach.place.is_at(kubernetes, container) && attach.counts(at));
        let mut there: Vec<_> = there.collect();
        there.sort_by_key(|attach| attach.time.is_open());
        let attach = there.pop()?;
        let others = others(&attach.cause, there.iter().map(|attach| &attach.cause));
        let has_no_input = of_spec(pod, container).is_some_and(|spec| !spec.stdin);
        let root = origin::root(&event.process).filter(|_| !has_no_input)?;
        if !attach.feeds((root.pid, root.start_boot_ns), then(event, at, root.start_boot_ns)) {
            return None;
        }
        let cause = Arc::new(Cause { others, ..attach.cause.clone() });
        self.begun.remember(&event.node.name, id(&event.process), By::Request, Arc::clone(&cause));
        Some(cause)
    }

    /// A process that the runtime put into a container.
    fn is_begun(&mut self, event: &Event, at: i64, pod: Option<&Pod>) -> Option<Arc<Cause>> {
        if self.execs.is_empty() && self.creations.is_empty() {
            return None;
        }
        let outside = origin::from_outside(&event.process)?;
        let made = self.is_made(event, at, pod, outside);
        let cause = Arc::new(made.or_else(|| self.is_executed(event, at, pod, outside))?);
        let known = if cause.is_session() { &mut self.begun } else { &mut self.made };
        known.remember(&event.node.name, id(&event.process), By::Request, Arc::clone(&cause));
        Some(cause)
    }

    /// By an exec.
    fn is_executed(&mut self, event: &Event, at: i64, pod: Option<&Pod>, outside: Outside<'_>) -> Option<Cause> {
        let (kubernetes, container) = place(event)?;
        let fit = |exec: &Exec| {
            let is_there = exec.place.is_at(kubernetes, container) && exec.may_begin(at);
            is_there.then(|| exec.asks_for(&event.process))?
        };
        let fits: Vec<Option<Fit>> = self.execs.iter().map(fit).collect();
        let alone = fits.iter().flatten().count() == 1;
        // Of those that fit best, the oldest that has led to nothing yet.
        let unused = self.execs.iter().zip(&fits).enumerate().filter(|(_, (exec, _))| !exec.used);
        let (best, index) = unused.filter_map(|(index, (_, fit))| Some((((*fit)?), std::cmp::Reverse(index)))).max()?;
        let fitting = self.execs.iter().zip(&fits).filter(|(_, fit)| fit.is_some()).map(|(exec, _)| &exec.cause);
        let others = others(&self.execs[index.0].cause, fitting);
        let exec = &mut self.execs[index.0];
        // Whoever was there before calls itself as the runtime does.
        let is_put = outside.runtime.is_some_and(|runtime| exec.time.has_begun(then(event, at, runtime.start_boot_ns)));
        let spec = of_spec(pod, container);
        let is_probe = spec.is_some_and(|spec| spec.commands.contains(&exec.command));
        let is_known = exec.whole && exec.place.container.is_some() && spec.is_some();
        let certain = alone && best == Fit::Exactly && is_known && is_put && !is_probe && exec.time.goes_on(at);
        // What is not sure of the only request leaves it to others.
        exec.used = certain || (!alone && is_put && !is_probe);
        let certainty = if certain { Certainty::Certain } else { Certainty::Likely };
        Some(Cause { certainty, others, ..exec.cause.clone() })
    }

    /// As the first of a container that somebody had made.
    fn is_made(&mut self, event: &Event, at: i64, pod: Option<&Pod>, outside: Outside<'_>) -> Option<Cause> {
        let (kubernetes, container) = place(event).filter(|_| outside.runtime.is_none())?;
        let spec = pod.and_then(|pod| pod.containers.as_ref()).filter(|_| !container.name.is_empty());
        let first = First {
            pod: kubernetes,
            container,
            // Nothing else can be put into a pod that runs.
            is_added: spec.map(|spec| spec.get(&container.name).is_none_or(|container| container.ephemeral)),
            began: then(event, at, event.process.start_boot_ns),
            pod_began: then(event, at, outside.shim.start_boot_ns),
        };
        let (creation, certainty, fitting) = creation::find(&mut self.creations, &first)?;
        let others = others(&creation.cause, fitting.iter());
        Some(Cause { certainty, others, ..creation.cause.clone() })
    }
}

impl Cause {
    /// Whether it is somebody at work in a container, rather than what made the container.
    pub fn is_session(&self) -> bool {
        matches!(self.subresource.as_str(), "exec" | "attach")
    }

    /// The user, and who acted as that one: `bob`, `admin as bob`.
    pub fn who(&self) -> Cow<'_, str> {
        match &self.impersonator {
            Some(impersonator) => Cow::Owned(format!("{impersonator} as {}", self.user)),
            None => Cow::Borrowed(&self.user),
        }
    }

    fn of(api: &Api) -> Self {
        let name = |user: &Option<ApiUser>| user.as_ref().map(|user| user.name.clone());
        Self {
            request_id: api.request_id.clone(),
            user: name(&api.user).unwrap_or_default(),
            impersonator: name(&api.impersonator),
            verb: api.verb.clone(),
            subresource: api.subresource.clone(),
            source: api.source.clone(),
            certainty: Certainty::Likely,
            others: Texts::default(),
        }
    }
}

/// Who else there is, of those who asked for the same.
fn others<'c>(chosen: &Cause, fitting: impl Iterator<Item = &'c Cause>) -> Texts {
    let mut names: Vec<_> = fitting.map(Cause::who).filter(|who| *who != chosen.who()).collect();
    names.sort_unstable();
    names.dedup();
    names.into_iter().take(OTHERS).collect()
}

impl Place {
    fn is_at(&self, pod: &Kubernetes, container: &Container) -> bool {
        (self.namespace.as_str(), self.pod.as_str()) == (&pod.namespace, &pod.pod)
            && self.container.as_ref().is_none_or(|name| *name == container.name)
    }
}

/// What has failed leads to nothing.
fn end<T: Session>(sessions: &mut VecDeque<T>, api: &Api, at: i64) {
    let has_failed = api.code.is_some_and(|code| code >= 400);
    sessions.retain_mut(|session| {
        let is_this = session.id() == api.request_id;
        if is_this {
            session.time().ends(at);
        }
        !(is_this && has_failed) && session.counts(at)
    });
}

fn push<T>(requests: &mut VecDeque<T>, request: Option<T>) {
    requests.extend(request);
    if requests.len() > MOST {
        requests.pop_front();
    }
}

fn id(process: &Process) -> ProcessId {
    (process.pid, process.start_boot_ns)
}

fn place(event: &Event) -> Option<(&Kubernetes, &Container)> {
    Some((event.kubernetes.as_deref()?, event.container.as_deref()?))
}

fn of_spec<'p>(pod: Option<&'p Pod>, container: &Container) -> Option<&'p PodContainer> {
    pod?.containers.as_ref()?.get(&container.name)
}

/// A time of the event's node, in nanoseconds since it booted, by the plugin's clock; the event itself was `at`.
fn then(event: &Event, at: i64, boot_ns: u64) -> i64 {
    let before = i128::from(event.boot_ns) - i128::from(boot_ns);
    i64::try_from(i128::from(at) - before).unwrap_or(if before > 0 { i64::MIN } else { i64::MAX })
}

#[cfg(test)]
mod tests;
