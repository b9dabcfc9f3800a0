//! `--audit-log`: requests to the Kubernetes API out of the API server's audit log. Each log is a node of the pipeline.

mod compressed;
mod feed;
mod log;

use std::{
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, ensure};
use knark_specs::{audit::Seen, frame::Bodies};
use tokio::sync::{mpsc, watch};

use crate::{exit::UsageError, source::Input};
use feed::{Feed, Step};
use log::Log;

/// How often it is looked whether there is more to read.
const POLL: Duration = Duration::from_millis(100);
/// How much is read at a time, in bytes.
const PIECE: usize = 64 << 10;

/// Which audit logs.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Audit logs")]
pub struct AuditFlags {
    /// Read requests from an audit log of the API server: a file, a folder with rotated ones, or - for standard input (repeatable)
    ///
    /// JSON lines as --audit-log-path makes them or the lists that webhooks are sent, plain or compressed by gzip or zstd. Without a
    /// target and other kinds of events nothing of a cluster is needed; with them, the events of both come in one order.
    #[arg(long = "audit-log", value_name = "FILE")]
    pub logs: Vec<PathBuf>,
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
    /// Whether all of them end by themselves, and nothing of them is still to come.
    pub complete: bool,
}

impl AuditFlags {
    /// Whether there are any.
    pub fn is_given(&self) -> bool {
        !self.logs.is_empty()
    }

    /// Finds the logs, of whose requests bodies may be wanted. They are nodes from number 0 on.
    pub fn open(&self, bodies: Option<Bodies>) -> anyhow::Result<AuditLogs> {
        let standard_input = self.logs.iter().filter(|path| path.as_os_str() == "-").count();
        ensure!(standard_input < 2, UsageError::because("standard input can be read only once: give --audit-log - once"));
        let since_ns = match self.since {
            Some(age) => nanoseconds(SystemTime::now().checked_sub(age).unwrap_or(UNIX_EPOCH)),
            None => 0,
        };
        let mut logs = Vec::new();
        for path in &self.logs {
            let found = Log::find(path, self.follow).with_context(|| format!("reading the audit log {}", path.display()))?;
            logs.extend(found);
        }
        let complete = !self.follow && logs.iter().all(Log::is_complete);
        let feeds = (0..).zip(logs).map(|(node, log)| Feed::new(node, log, since_ns, bodies)).collect();
        Ok(AuditLogs { feeds, complete })
    }
}

impl AuditLogs {
    /// How many logs there are.
    pub fn count(&self) -> u32 {
        u32::try_from(self.feeds.len()).unwrap_or(u32::MAX)
    }

    /// Begins to read them; what they tell goes to `out`. They end when `stop` turns true.
    pub fn start(self, stop: watch::Receiver<bool>, out: mpsc::Sender<Input>) -> anyhow::Result<()> {
        // A thread of its own, and none of the runtime's, which would be waited for at the end.
        let thread = std::thread::Builder::new().name("audit".to_owned());
        thread.spawn(move || read(self.feeds, &stop, &out)).context("reading the audit logs: no thread could be started")?;
        Ok(())
    }
}

/// Reads them side by side, that first which is behind, so that events hardly wait for one another. Ends when nobody listens.
fn read(mut feeds: Vec<Feed>, stop: &watch::Receiver<bool>, out: &mpsc::Sender<Input>) {
    let mut seen = Seen::default();
    let mut piece = vec![0; PIECE];
    let mut heard = feeds.iter_mut().flat_map(Feed::begin).all(|input| out.blocking_send(input).is_ok());
    let mut waiting = vec![false; feeds.len()];
    while heard && !feeds.is_empty() && !*stop.borrow() {
        let ready = (0..feeds.len()).filter(|at| !waiting[*at]);
        let Some(at) = ready.min_by_key(|at| feeds[*at].time_ns()) else {
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
