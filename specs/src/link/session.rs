//! Sessions in containers: `kubectl exec` and `kubectl attach`.

use super::{CLOCKS, Cause, LATEST, Place, ProcessId};
use crate::{
    event::{Api, Process},
    query,
};

/// How long after a session's end something may be told of it, in nanoseconds.
const ENDED: i64 = 3 * CLOCKS;

/// An exec that led to a process, or may yet.
#[derive(Debug)]
pub(super) struct Exec {
    pub(super) cause: Cause,
    pub(super) place: Place,
    pub(super) command: Vec<String>,
    /// The query is whole, so the command is.
    pub(super) whole: bool,
    pub(super) time: Time,
    /// It has led to a process, and leads to no other.
    pub(super) used: bool,
}

/// When a session came in, and when it ended, by the plugin's clock (ns since the epoch).
#[derive(Debug)]
pub(super) struct Time {
    from: i64,
    until: Option<i64>,
}

/// How a process runs a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fit {
    /// As far as can be told.
    Loosely,
    /// The very command.
    Exactly,
}

/// An attachment that feeds a container's main process, which was there before.
#[derive(Debug)]
pub(super) struct Attach {
    pub(super) cause: Cause,
    pub(super) place: Place,
    pub(super) time: Time,
    /// Of the processes that the runtime put into the container, the oldest that began anything since.
    main: Option<ProcessId>,
}

/// Either.
pub(super) trait Session {
    fn id(&self) -> &str;

    fn time(&mut self) -> &mut Time;

    /// Whether anything may come of it yet, or might have just come of it.
    fn counts(&self, at: i64) -> bool;
}

impl Session for Exec {
    fn id(&self) -> &str {
        &self.cause.request_id
    }

    fn time(&mut self) -> &mut Time {
        &mut self.time
    }

    fn counts(&self, at: i64) -> bool {
        // A client may be gone before the runtime has begun its process.
        at < self.time.from.saturating_add(LATEST) && (!self.used || self.time.goes_on(at))
    }
}

impl Session for Attach {
    fn id(&self) -> &str {
        &self.cause.request_id
    }

    fn time(&mut self) -> &mut Time {
        &mut self.time
    }

    fn counts(&self, at: i64) -> bool {
        self.time.goes_on(at)
    }
}

impl Time {
    fn of(from: i64) -> Self {
        Self { from, until: None }
    }

    pub(super) fn ends(&mut self, at: i64) {
        self.until = Some(at);
    }

    /// Whether it had begun then.
    pub(super) fn has_begun(&self, at: i64) -> bool {
        at >= self.from.saturating_sub(CLOCKS)
    }

    /// Whether it had not ended then, or just so.
    pub(super) fn goes_on(&self, at: i64) -> bool {
        self.until.is_none_or(|until| at <= until.saturating_add(ENDED))
    }

    pub(super) fn is_open(&self) -> bool {
        self.until.is_none()
    }
}

impl Exec {
    pub(super) fn of(api: &Api, at: i64) -> Self {
        let query = Query::of(api);
        Self {
            cause: Cause::of(api),
            place: query.place(api),
            command: query.all("command"),
            whole: query.whole,
            time: Time::of(at),
            used: false,
        }
    }

    /// Whether a process that begins then may come of it.
    pub(super) fn may_begin(&self, at: i64) -> bool {
        self.time.has_begun(at) && self.counts(at)
    }

    /// Whether a process, which came from outside, does what was asked for.
    pub(super) fn asks_for(&self, process: &Process) -> Option<Fit> {
        let Some((first, rest)) = self.command.split_first() else {
            return (!self.whole).then_some(Fit::Loosely);
        };
        let args: Vec<&str> = process.args.iter().collect();
        if args == self.command {
            return Some(Fit::Exactly);
        }
        let base = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
        // A script's interpreter has its own name in front, and the script's path in place of its name.
        let mut scripts = (1..=2).filter_map(|at| args.get(at).zip(args.get(at + 1..)));
        let is_script = scripts
            .any(|(script, after)| script.contains('/') && base(script) == base(first) && (*after == *rest || !self.whole));
        // Where its end is missing, it may be anything that begins so.
        let is_begun = !self.whole && args.first() == Some(&first.as_str());
        (is_script || is_begun).then_some(Fit::Loosely)
    }
}

impl Attach {
    /// `None` where nothing can be typed into it, so that nothing comes of it.
    pub(super) fn of(api: &Api, at: i64) -> Option<Self> {
        let query = Query::of(api);
        // As the API server reads it: what is neither of these is true.
        let is_true = |value: &String| !matches!(value.to_lowercase().as_str(), "false" | "0");
        let stdin = query.all("stdin").first().map_or(!query.whole, is_true);
        stdin.then(|| Self { cause: Cause::of(api), place: query.place(api), time: Time::of(at), main: None })
    }

    /// Whether what that process, which began then, begins in turn may have been typed into it: it was there when the session
    /// began, and is the oldest of its kind.
    pub(super) fn feeds(&mut self, process: ProcessId, begun: i64) -> bool {
        let is_late = begun > self.time.from.saturating_add(CLOCKS);
        if is_late || self.main.is_some_and(|main| (main.1, main.0) < (process.1, process.0)) {
            return false;
        }
        self.main = Some(process);
        true
    }
}

/// What follows `?`.
struct Query {
    parameters: Vec<(String, String)>,
    whole: bool,
}

impl Query {
    fn of(api: &Api) -> Self {
        let whole = !api.truncated.iter().any(|field| field == "query" || field == "path");
        // Of what is cut, the last parameter may be another.
        let cut = || api.query.rsplit_once('&').map_or("", |(known, _)| known);
        let known = if whole { &api.query } else { cut() };
        Self { parameters: query::pairs(known).collect(), whole }
    }

    fn all(&self, name: &str) -> Vec<String> {
        self.parameters.iter().filter(|(key, _)| key == name).map(|(_, value)| value.clone()).collect()
    }

    fn place(&self, api: &Api) -> Place {
        let container = self.all("container").into_iter().next().filter(|name| !name.is_empty());
        Place { namespace: api.namespace.clone(), pod: api.name.clone(), container }
    }
}
