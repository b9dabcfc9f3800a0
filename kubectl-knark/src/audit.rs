//! `--audit-log`: requests to the Kubernetes API out of the API server's audit log. Each log is a node of the pipeline.

mod feed;
mod node;
mod place;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, ensure};
use clap::builder::{OsStringValueParser, TypedValueParser as _};
use knark_audit_log::{FindError, Log, PIECE};
use knark_specs::{audit::Seen, frame::Bodies};
use tokio::sync::{mpsc, watch};

use crate::{
    cluster::{LogPlace, LogStream, NodeLogs},
    exit::UsageError,
    source::Input,
};
use feed::{Feed, Source, Step};
use node::NodeLog;
use place::Place;

/// How often it is looked whether there is more to read.
const POLL: Duration = Duration::from_millis(100);

/// Which audit logs.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Audit logs")]
pub struct AuditFlags {
    /// Read requests from an audit log of the API server: a file, a folder with rotated ones, - for standard input, or node:PATH
    /// (repeatable)
    ///
    /// node:PATH lies on the nodes of the control plane, or on those that --node and --node-selector choose. A short-lived pod on each,
    /// which has the log's folder mounted read-only and no other rights, passes it on. PATH is a folder if it has no log's name, such as
    /// audit.log, or ends in /.
    ///
    /// JSON lines as --audit-log-path makes them or the lists that webhooks are sent, plain or compressed by gzip or zstd. Without a
    /// target and other kinds of events nothing of a cluster is needed; with them, the events of both come in one order.
    #[arg(long = "audit-log", value_name = "FILE", value_parser = OsStringValueParser::new().try_map(place::parse))]
    pub logs: Vec<Place>,
    /// Wait for what is added to the audit logs, also after they were rotated
    #[arg(long, requires = "logs")]
    pub follow: bool,
    /// Leave out requests of the audit logs that are older than this, such as 30s or 10m; 0s: all that was there before
    #[arg(long, value_name = "DURATION", value_parser = crate::cli::duration, requires = "logs")]
    pub since: Option<Duration>,
}

/// Audit logs that are there, ready to be read.
pub struct AuditLogs {
    feeds: Vec<Feed>,
    since_ns: u64,
    bodies: Option<Bodies>,
    /// Whether all of them end by themselves, and nothing of them is still to come.
    pub complete: bool,
}

impl AuditFlags {
    /// Whether there are any.
    pub fn is_given(&self) -> bool {
        !self.logs.is_empty()
    }

    /// Those that lie on nodes.
    pub fn on_nodes(&self) -> Vec<LogPlace> {
        let on_nodes = |place: &Place| if let Place::OnNodes(place) = place { Some(place.clone()) } else { None };
        self.logs.iter().filter_map(on_nodes).collect()
    }

    /// Whether one is standard input.
    pub fn has_input(&self) -> bool {
        self.logs.iter().any(Place::is_input)
    }

    /// Finds the logs that are here, of whose requests bodies may be wanted. They are nodes from number 0 on.
    pub fn open(&self, bodies: Option<Bodies>) -> anyhow::Result<AuditLogs> {
        let standard_input = self.logs.iter().filter(|place| place.is_input()).count();
        ensure!(standard_input < 2, UsageError::because("standard input can be read only once: give --audit-log - once"));
        let since_ns = match self.since {
            Some(age) => nanoseconds(SystemTime::now().checked_sub(age).unwrap_or(UNIX_EPOCH)),
            None => 0,
        };
        let mut logs = Vec::new();
        for path in self.logs.iter().filter_map(|place| if let Place::Here(path) = place { Some(path) } else { None }) {
            let found = Log::find(path, self.follow).map_err(|error| match error {
                FindError::NoLogs => UsageError::because(error.to_string()),
                error => error.into(),
            });
            logs.extend(found.with_context(|| format!("reading the audit log {}", path.display()))?);
        }
        let complete = !self.follow && logs.iter().all(Log::is_complete);
        let mut opened = AuditLogs { feeds: Vec::new(), since_ns, bodies, complete };
        for log in logs {
            opened.add(Source::Here(log));
        }
        Ok(opened)
    }
}

impl AuditLogs {
    /// How many logs there are.
    pub fn count(&self) -> u32 {
        u32::try_from(self.feeds.len()).unwrap_or(u32::MAX)
    }

    /// Adds one that lies on a node; it is the next node. Called on the runtime.
    pub fn add_stream(&mut self, stream: LogStream) {
        self.add(Source::There(Box::new(NodeLog::new(stream))));
    }

    fn add(&mut self, log: Source) {
        self.feeds.push(Feed::new(self.count(), log, self.since_ns, self.bodies));
    }

    /// How many there are with those on nodes.
    pub fn count_with(&self, on_nodes: Option<&NodeLogs>) -> u32 {
        let more = on_nodes.map_or(0, NodeLogs::count);
        self.count().saturating_add(u32::try_from(more).unwrap_or(u32::MAX))
    }

    /// Begins to read them; what they tell goes to `out`. They end when `stop` turns true, and turn it true when one fails: a trace
    /// that misses a log is no whole trace.
    pub fn start(self, stop: watch::Sender<bool>, out: mpsc::Sender<Input>) -> anyhow::Result<()> {
        // A thread of its own, and none of the runtime's, which would be waited for at the end.
        let thread = std::thread::Builder::new().name("audit".to_owned());
        thread
            .spawn(move || read(self.feeds, self.complete, &stop, &out))
            .context("reading the audit logs: no thread could be started")?;
        Ok(())
    }
}

/// Reads them side by side, that first which is behind, so that events hardly wait for one another; what is behind is waited for if
/// all `complete` by themselves. Ends when nobody listens.
fn read(mut feeds: Vec<Feed>, complete: bool, stop: &watch::Sender<bool>, out: &mpsc::Sender<Input>) {
    let mut seen = Seen::default();
    let mut piece = vec![0; PIECE];
    let mut heard = feeds.iter_mut().flat_map(Feed::begin).all(|input| out.blocking_send(input).is_ok());
    let mut waiting = vec![false; feeds.len()];
    while heard && !feeds.is_empty() && !*stop.borrow() {
        let ready = (0..feeds.len()).filter(|at| complete || !waiting[*at]).min_by_key(|at| (feeds[*at].time_ns(), waiting[*at]));
        let Some(at) = ready.filter(|at| !waiting[*at]) else {
            std::thread::sleep(POLL);
            waiting.fill(false);
            continue;
        };
        let feed = &mut feeds[at];
        let inputs = match feed.step(&mut piece, &mut seen) {
            Step::Told(inputs) => inputs,
            Step::Waiting => {
                waiting[at] = true;
                continue;
            }
            Step::Ended => {
                waiting.remove(at);
                feeds.remove(at).end()
            }
            Step::Failed(error) => {
                stop.send_replace(true);
                waiting.remove(at);
                feeds.remove(at).fail(error)
            }
        };
        heard = inputs.into_iter().all(|input| out.blocking_send(input).is_ok());
    }
    for input in feeds.into_iter().flat_map(Feed::end) {
        let _ = out.blocking_send(input);
    }
}

/// Since the epoch.
fn nanoseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
