//! What a request to the Kubernetes API has led to: who ran the `kubectl exec` that a shell comes from.
//!
//! Nothing passes from the API server to the process but the command, so a link is made out of what both sides tell: the pod,
//! the container, the command, the time, and that the process was put into the container from outside.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::{self, Ancestor, Api, ApiStage, Event, What};

/// How long after its request a process may begin, in nanoseconds: the runtime may be busy.
const LATEST: i64 = 30_000_000_000;
/// How far clocks of nodes may be apart, in nanoseconds.
const CLOCKS: i64 = 1_000_000_000;
/// Requests, and processes, that are remembered; beyond, the oldest are forgotten.
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
    /// `exec`.
    pub subresource: String,
    /// The address that the request came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Whether anything else could be the cause.
    pub certainty: Certainty,
}

/// How sure a link is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Certainty {
    /// Other requests under way ask for the same, what the request asks for is not known whole, or the process runs it by an
    /// interpreter.
    Likely,
    /// The request, and no other that was seen under way, asks for this very command in this container.
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
    requests: VecDeque<Request>,
    /// What processes come from, by node.
    processes: HashMap<String, HashMap<Process, Arc<Cause>>>,
    /// The same, the oldest first.
    order: VecDeque<(String, Process)>,
}

/// A process of a node: its pid and its start.
type Process = (u32, u64);

/// An exec under way.
#[derive(Debug)]
struct Request {
    cause: Cause,
    namespace: String,
    pod: String,
    /// Where the request names one.
    container: Option<String>,
    command: Vec<String>,
    /// The query is whole, so the command is.
    whole: bool,
    /// When it came in, by the plugin's clock (ns since the epoch).
    from: i64,
    /// It has led to a process.
    used: bool,
}

/// How a process runs a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    /// As far as can be told.
    Loosely,
    /// The very command.
    Exactly,
}

impl Links {
    /// What an event comes from. Events are to be shown in the order of their times, requests that are shown to nobody
    /// included; `at` is the event's time by the plugin's clock, in nanoseconds since the epoch.
    pub fn cause(&mut self, event: &Event, at: i64) -> Option<Arc<Cause>> {
        match &event.what {
            What::Api { api } => {
                self.hear(api, at);
                None
            }
            What::Exec { .. } => self.inherited(event).or_else(|| self.begun(event, at)),
            What::File { .. } | What::Exit { .. } => self.inherited(event),
        }
    }

    fn hear(&mut self, api: &Api, at: i64) {
        if !api.group.is_empty() || api.resource != "pods" || api.subresource != "exec" {
            return;
        }
        self.requests.retain(|request| request.cause.request_id != api.request_id);
        // What came of one that has ended has begun before.
        if api.stage == ApiStage::Started {
            self.requests.push_back(Request::of(api, at));
            if self.requests.len() > MOST {
                self.requests.pop_front();
            }
        }
    }

    /// A process does what it was begun for, or one of those that it began.
    fn inherited(&mut self, event: &Event) -> Option<Arc<Cause>> {
        let known = self.processes.get(&event.node.name).filter(|known| !known.is_empty())?;
        let process = &event.process;
        let own = (process.pid, process.start_boot_ns);
        if let Some(cause) = known.get(&own) {
            return Some(Arc::clone(cause));
        }
        let mut line = process.ancestors.iter().map(|ancestor| (ancestor.pid, ancestor.start_boot_ns));
        let cause = Arc::clone(line.find_map(|ancestor| known.get(&ancestor))?);
        // Its ancestors may end before it does.
        self.remember(&event.node.name, own, &cause);
        Some(cause)
    }

    fn remember(&mut self, node: &str, process: Process, cause: &Arc<Cause>) {
        self.processes.entry(node.to_owned()).or_default().insert(process, Arc::clone(cause));
        self.order.push_back((node.to_owned(), process));
        if self.order.len() > MOST
            && let Some((node, oldest)) = self.order.pop_front()
            && let Some(known) = self.processes.get_mut(&node)
        {
            known.remove(&oldest);
        }
    }

    /// A process that the runtime put into a container.
    fn begun(&mut self, event: &Event, at: i64) -> Option<Arc<Cause>> {
        let (pod, container) = (event.kubernetes.as_deref()?, event.container.as_deref()?);
        if self.requests.is_empty() || !comes_from_outside(&event.process) {
            return None;
        }
        let fit = |request: &Request| {
            let is_there = (request.namespace.as_str(), request.pod.as_str()) == (&pod.namespace, &pod.pod)
                && request.container.as_ref().is_none_or(|name| *name == container.name)
                && (request.from - CLOCKS..request.from + LATEST).contains(&at);
            is_there.then(|| request.asks_for(&event.process))?
        };
        let fits: Vec<Option<Fit>> = self.requests.iter().map(fit).collect();
        let alone = fits.iter().flatten().count() == 1;
        // Of those that fit best, the oldest that has led to nothing yet.
        let unused = self.requests.iter().zip(&fits).enumerate().filter(|(_, (request, _))| !request.used);
        let (best, at) = unused.filter_map(|(at, (_, fit))| Some((((*fit)?), std::cmp::Reverse(at)))).max()?;
        let request = &mut self.requests[at.0];
        request.used = true;
        let certain = alone && best == Fit::Exactly && request.whole && request.container.is_some();
        let certainty = if certain { Certainty::Certain } else { Certainty::Likely };
        let cause = Arc::new(Cause { certainty, ..request.cause.clone() });
        self.remember(&event.node.name, (event.process.pid, event.process.start_boot_ns), &cause);
        Some(cause)
    }
}

impl Request {
    fn of(api: &Api, at: i64) -> Self {
        let query: Vec<(String, String)> = form_urlencoded::parse(api.query.as_bytes()).into_owned().collect();
        let all = |name: &str| query.iter().filter(|(key, _)| key == name).map(|(_, value)| value.clone()).collect::<Vec<_>>();
        let name = |user: &Option<crate::event::ApiUser>| user.as_ref().map(|user| user.name.clone());
        Self {
            cause: Cause {
                request_id: api.request_id.clone(),
                user: name(&api.user).unwrap_or_default(),
                impersonator: name(&api.impersonator),
                subresource: api.subresource.clone(),
                source: api.source.clone(),
                certainty: Certainty::Likely,
            },
            namespace: api.namespace.clone(),
            pod: api.name.clone(),
            container: all("container").into_iter().next(),
            command: all("command"),
            whole: !api.truncated.iter().any(|field| field == "query" || field == "path"),
            from: at,
            used: false,
        }
    }

    /// Whether a process does what was asked for.
    fn asks_for(&self, process: &event::Process) -> Option<Fit> {
        let (first, rest) = self.command.split_first()?;
        let args: Vec<&str> = process.args.iter().collect();
        if args == self.command {
            return Some(Fit::Exactly);
        }
        let base = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
        // A script's interpreter has its own name in front, and the script's path in place of its name.
        let script = args.len().checked_sub(rest.len() + 1).filter(|at| (1..=2).contains(at));
        let is_script =
            script.is_some_and(|at| args[at].contains('/') && base(args[at]) == base(first) && args[at + 1..] == *rest);
        // Where its end is missing, it may be anything that begins so.
        let is_begun = !self.whole && args.first() == Some(&first.as_str());
        (is_script || is_begun).then_some(Fit::Loosely)
    }
}

/// Whether a runtime put the process into its container: above it there are the runtime's own processes alone, up to the one
/// shim. A process that merely calls itself so has its container's processes, and the real shim, above it.
fn comes_from_outside(process: &event::Process) -> bool {
    let base = |ancestor: &Ancestor| ancestor.exe.rsplit('/').next().map(str::to_owned).unwrap_or_default();
    let is_shim = |ancestor: &Ancestor| {
        let is = |name: &str| name.starts_with("containerd-shim") || name == "conmon" || name == "conmonrs";
        is(&base(ancestor)) || is(&ancestor.comm)
    };
    let is_runtime = |ancestor: &Ancestor| {
        let is = |name: &str| ["runc", "crun", "youki"].iter().any(|runtime| name.contains(runtime));
        is(&base(ancestor)) || is(&ancestor.comm)
    };
    let Some(shim) = process.ancestors.iter().position(is_shim) else { return false };
    let (below, above) = process.ancestors.split_at(shim);
    below.iter().all(is_runtime) && !above.iter().skip(1).any(is_shim)
}

#[cfg(test)]
mod tests;
