//! What a request to the Kubernetes API has led to: who ran the `kubectl exec` that a shell comes from.
//!
//! Nothing passes from the API server to the process but the command, so a link is made out of what both sides tell: the pod,
//! the container, the command, the time, and that the process was put into the container from outside.

use std::collections::{HashMap, VecDeque};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::{Ancestor, Api, ApiStage, Event, Process, What};

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
    /// `exec` or `attach`.
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
    /// Other requests under way ask for the same, or what the request asks for is not known whole.
    Likely,
    /// No other request under way asks for this command in this container.
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
    /// By node, pid and start, what processes come from.
    processes: HashMap<Identity, Cause>,
    /// The same, the oldest first.
    order: VecDeque<Identity>,
}

type Identity = (String, u32, u64);

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

impl Links {
    /// What an event comes from. Events are to be shown in the order of their times, requests that are shown to nobody
    /// included; `at` is the event's time by the plugin's clock, in nanoseconds since the epoch.
    pub fn cause(&mut self, event: &Event, at: i64) -> Option<Cause> {
        match &event.what {
            What::Api { api } => {
                self.hear(api, at);
                None
            }
            What::Exec { .. } => self.inherited(event).or_else(|| self.begun(event, at)),
            What::File { .. } => self.inherited(event),
            What::Exit { .. } => {
                let cause = self.inherited(event);
                self.processes.remove(&identity(event, event.process.pid, event.process.start_boot_ns));
                cause
            }
        }
    }

    fn hear(&mut self, api: &Api, at: i64) {
        if api.resource != "pods" || api.subresource != "exec" {
            return;
        }
        match api.stage {
            ApiStage::Started => {
                self.requests.retain(|request| request.cause.request_id != api.request_id);
                self.requests.push_back(Request::of(api, at));
                if self.requests.len() > MOST {
                    self.requests.pop_front();
                }
            }
            // What it led to has begun before.
            ApiStage::Complete => self.requests.retain(|request| request.cause.request_id != api.request_id),
        }
    }

    /// A process does what it was begun for, or one of those that it began.
    fn inherited(&self, event: &Event) -> Option<Cause> {
        if self.processes.is_empty() {
            return None;
        }
        let process = &event.process;
        let own = (process.pid, process.start_boot_ns);
        let line = process.ancestors.iter().map(|ancestor| (ancestor.pid, ancestor.start_boot_ns));
        std::iter::once(own).chain(line).find_map(|(pid, start)| self.processes.get(&identity(event, pid, start))).cloned()
    }

    /// A process that the runtime put into a container.
    fn begun(&mut self, event: &Event, at: i64) -> Option<Cause> {
        let (pod, container) = (event.kubernetes.as_deref()?, event.container.as_deref()?);
        if !comes_from_outside(&event.process) {
            return None;
        }
        let fits = |request: &Request| {
            (request.namespace.as_str(), request.pod.as_str()) == (&pod.namespace, &pod.pod)
                && request.container.as_ref().is_none_or(|name| *name == container.name)
                && (request.from - CLOCKS..request.from + LATEST).contains(&at)
                && request.asks_for(&event.process)
        };
        let mut fitting: Vec<_> = self.requests.iter_mut().filter(|request| fits(request)).collect();
        let alone = fitting.len() == 1;
        // The oldest that has led to nothing yet.
        let at = fitting.iter().position(|request| !request.used)?;
        let request = &mut *fitting[at];
        request.used = true;
        let certain = alone && request.whole && request.container.is_some();
        let cause = Cause { certainty: if certain { Certainty::Certain } else { Certainty::Likely }, ..request.cause.clone() };
        let process = identity(event, event.process.pid, event.process.start_boot_ns);
        self.order.push_back(process.clone());
        self.processes.insert(process, cause.clone());
        if self.order.len() > MOST
            && let Some(oldest) = self.order.pop_front()
        {
            self.processes.remove(&oldest);
        }
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

    /// Whether a process does what was asked for. A script's interpreter has its own name in front.
    fn asks_for(&self, process: &Process) -> bool {
        let is_end = |command: &[String]| {
            let skipped = process.args.len().checked_sub(command.len());
            skipped.is_some_and(|skipped| command.iter().map(String::as_str).eq(process.args.iter().skip(skipped)))
        };
        match self.command.split_first() {
            None => false,
            Some(_) if is_end(&self.command) => true,
            // The name of a script is replaced by its path.
            Some((_, rest)) if process.args.len() > self.command.len() && !rest.is_empty() => is_end(rest),
            // Its end is missing, so it may be anything that begins so.
            Some((first, _)) => !self.whole && process.args.get(0) == Some(first.as_str()),
        }
    }
}

/// Whether a runtime put the process into its container: above it there are the runtime's own processes alone, up to the one
/// shim. A process that merely calls itself so has its container's processes, and the real shim, above it.
fn comes_from_outside(process: &Process) -> bool {
    let name = |ancestor: &Ancestor| ancestor.exe.rsplit('/').next().map(str::to_owned).unwrap_or_default();
    let is_shim = |ancestor: &Ancestor| {
        let is = |name: &str| name.starts_with("containerd-shim") || name == "conmon" || name == "conmonrs";
        is(&name(ancestor)) || is(&ancestor.comm)
    };
    let is_runtime = |ancestor: &Ancestor| {
        let is = |name: &str| ["runc", "crun", "youki", "runc_cloned"].iter().any(|runtime| name.contains(runtime));
        is(&name(ancestor)) || is(&ancestor.comm)
    };
    let Some(shim) = process.ancestors.iter().position(is_shim) else { return false };
    let (below, above) = process.ancestors.split_at(shim);
    below.iter().all(is_runtime) && !above.iter().skip(1).any(is_shim)
}

fn identity(event: &Event, pid: u32, start_boot_ns: u64) -> Identity {
    (event.node.name.clone(), pid, start_boot_ns)
}

#[cfg(test)]
mod tests;
