//! Sessions in containers: `kubectl exec` and `kubectl attach`.

use super::{CLOCKS, Cause, LATEST, Place, ProcessId};
use crate::{
    event::{Api, Process},
    query,
};

/// An exec under way.
#[derive(Debug)]
pub(super) struct Exec {
    pub(super) cause: Cause,
    pub(super) place: Place,
    pub(super) command: Vec<String>,
    /// The query is whole, so the command is.
    pub(super) whole: bool,
    /// When it came in, by the plugin's clock (ns since the epoch).
    from: i64,
    /// It has led to a process, and leads to no other.
    pub(super) used: bool,
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
    /// As of an exec.
    from: i64,
    /// Of the processes that the runtime put into the container, the oldest that began anything since.
    main: Option<ProcessId>,
}

impl Exec {
    pub(super) fn of(api: &Api, at: i64) -> Self {
        let query = Query::of(api);
        Self {
            cause: Cause::of(api),
            place: query.place(api),
            command: query.all("command"),
            whole: !api.truncated.iter().any(|field| field == "query" || field == "path"),
            from: at,
            used: false,
        }
    }

    /// Whether a process that begins then may come of it.
    pub(super) fn is_under_way(&self, at: i64) -> bool {
        (self.from.saturating_sub(CLOCKS)..self.from.saturating_add(LATEST)).contains(&at)
    }

    /// Whether it came in before that.
    pub(super) fn is_before(&self, then: i64) -> bool {
        then >= self.from.saturating_sub(CLOCKS)
    }

    /// Whether a process does what was asked for.
    pub(super) fn asks_for(&self, process: &Process) -> Option<Fit> {
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

impl Attach {
    /// `None` where nothing can be typed into it, so that nothing comes of it.
    pub(super) fn of(api: &Api, at: i64) -> Option<Self> {
        let query = Query::of(api);
        // As the API server reads it: what is neither of these is true.
        let stdin = query.all("stdin").first().is_some_and(|value| !matches!(value.as_str(), "false" | "0"));
        stdin.then(|| Self { cause: Cause::of(api), place: query.place(api), from: at, main: None })
    }

    /// Whether what that process, which began then, begins in turn may have been typed into it: it was there when the session
    /// began, and is the oldest of its kind.
    pub(super) fn feeds(&mut self, process: ProcessId, begun: i64) -> bool {
        if begun > self.from.saturating_add(CLOCKS) || self.main.is_some_and(|main| (main.1, main.0) < (process.1, process.0)) {
            return false;
        }
        self.main = Some(process);
        true
    }
}

/// What follows `?`.
struct Query(Vec<(String, String)>);

impl Query {
    fn of(api: &Api) -> Self {
        Self(query::pairs(&api.query).collect())
    }

    fn all(&self, name: &str) -> Vec<String> {
        self.0.iter().filter(|(key, _)| key == name).map(|(_, value)| value.clone()).collect()
    }

    fn place(&self, api: &Api) -> Place {
        let container = self.all("container").into_iter().next();
        Place { namespace: api.namespace.clone(), pod: api.name.clone(), container }
    }
}
