//! `--audit-log`: requests to the Kubernetes API out of the API server's audit log. Each log is a node of the pipeline.

mod feed;
mod node;
mod place;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

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
/// How long the last words of nodes are waited for.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// Which audit logs.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Audit logs")]
pub struct AuditFlags {
    /// Read requests from an audit log of the API server: a file, a folder with rotated ones, - for standard input, or node:PATH
    /// (repeatable)
    ///
    /// node:PATH lies on the nodes of the control plane, or on those that --node and --node-selector choose. A short-lived pod on each,
    /// which has the log's folder mounted read-only and no capabilities, passes it on. PATH is a folder if it has no log's name, such as
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
    let (mut waiting, mut looked) = (vec![false; feeds.len()], Instant::now());
    // When what nodes have already sent is waited for no longer.
    let mut until = None;
    while heard && !feeds.is_empty() && until.is_none_or(|until| Instant::now() < until) {
        if until.is_none() && *stop.borrow() {
            until = Some(Instant::now() + LAST_WORDS);
            let (there, here): (Vec<_>, Vec<_>) = feeds.into_iter().partition(Feed::is_there);
            feeds = there;
            waiting = vec![false; feeds.len()];
            let inputs = here.into_iter().flat_map(|feed| feed.leave(!complete));
            heard = inputs.into_iter().all(|input| out.blocking_send(input).is_ok());
            continue;
        }
        // None is to wait long for another one that always has something.
        if looked.elapsed() >= POLL {
            waiting.fill(false);
            looked = Instant::now();
        }
        // What has not been opened may be behind all others.
        let order = |at: &usize| (complete && feeds[*at].is_begun(), feeds[*at].time_ns(), waiting[*at]);
        let ready = (0..feeds.len()).filter(|at| complete || !waiting[*at]).min_by_key(order);
        let Some(at) = ready.filter(|at| !waiting[*at]) else {
            std::thread::sleep(POLL);
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
                let feed = feeds.remove(at);
                if until.is_some() { feed.leave(!complete) } else { feed.end() }
            }
            Step::Failed(error) => {
                stop.send_replace(true);
                waiting.remove(at);
                feeds.remove(at).fail(error)
            }
        };
        heard = inputs.into_iter().all(|input| out.blocking_send(input).is_ok());
    }
    for input in feeds.into_iter().flat_map(|feed| feed.leave(!complete)) {
        let _ = out.blocking_send(input);
    }
}

/// Since the epoch.
fn nanoseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use knark_specs::frame::{Batch, Ending, Hello, LogPart, Status, Up};

    use super::*;

    fn said(message: Up) -> Input {
        Input::Up { node: 0, message }
    }

    fn hello() -> Input {
        said(Up::Hello(Hello {
            version: String::new(),
            kernel: String::new(),
            arch: String::new(),
            probes: Vec::new(),
            realtime_offset_ns: 0,
            hostname: String::new(),
            portable: Vec::new(),
        }))
    }

    fn bytes(text: &[u8]) -> Input {
        said(Up::Batch(Batch { seq: 1, items: minicbor::to_vec(LogPart::Bytes(text)).unwrap() }))
    }

    fn event(id: &str) -> Vec<u8> {
        let mut event = serde_json::json!({
            "kind": "Event", "apiVersion": "audit.k8s.io/v1", "auditID": id, "stage": "ResponseComplete",
            "requestURI": "/api/v1/pods", "verb": "list", "user": {"username": "u"}, "responseStatus": {"code": 200},
            "requestReceivedTimestamp": "2026-01-02T03:04:05.000001Z", "stageTimestamp": "2026-01-02T03:04:06.000003Z",
        })
        .to_string();
        event.push('\n');
        event.into_bytes()
    }

    /// Logs of two nodes, whose tracers say what is sent there; their reader; and what it says.
    fn reading(complete: bool) -> ([mpsc::Sender<Input>; 2], watch::Sender<bool>, mpsc::Receiver<Input>) {
        let mut logs = AuditLogs { feeds: Vec::new(), since_ns: 0, bodies: None, complete };
        let tracers = ["a", "b"].map(|node| {
            let (tracer, inputs) = mpsc::channel(16);
            let place = LogPlace { folder: "/log".to_owned(), name: "audit.log".to_owned() };
            logs.add_stream(LogStream { name: node.to_owned(), node: node.to_owned(), place, inputs });
            tracer
        });
        let (stop, (out, heard)) = (watch::Sender::new(false), mpsc::channel(64));
        logs.start(stop.clone(), out).unwrap();
        (tracers, stop, heard)
    }

    /// What comes of which node, in a word, up to this.
    async fn until(heard: &mut mpsc::Receiver<Input>, last: &str) -> Vec<String> {
        let mut words = Vec::new();
        while words.last().is_none_or(|word| word != last) {
            let word = match heard.recv().await.unwrap_or_else(|| panic!("no {last}: {words:?}")) {
                Input::Node { .. } | Input::Up { message: Up::Status(_), .. } => continue,
                Input::Up { node, message: Up::Hello(_) } => format!("{node} hello"),
                Input::Up { node, message: Up::Batch(_) } => format!("{node} batch"),
                Input::Up { node, message: Up::Bye { status: Status { sent, .. }, .. } } => format!("{node} bye after {sent}"),
                Input::Clock { node, offset_ns } => format!("{node} clock {offset_ns}"),
                Input::Gone { node, error: None } => format!("{node} gone"),
                other => panic!("{other:?}"),
            };
            words.push(word);
        }
        words
    }

    #[tokio::test]
    async fn whole_logs_wait_for_one_another() {
        let ([a, b], _stop, mut heard) = reading(true);
        for input in [hello(), Input::Clock { node: 9, offset_ns: 7 }, bytes(&event("1"))] {
            a.send(input).await.unwrap();
        }
        assert_eq!(until(&mut heard, "0 hello").await, ["0 hello"]);
        // Several looks later nothing of it has been read.
        tokio::time::sleep(3 * POLL).await;
        assert!(heard.try_recv().is_err());
        for (tracer, inputs) in [(&b, vec![hello(), bytes(&event("2"))]), (&a, Vec::new())] {
            for input in inputs {
                tracer.send(input).await.unwrap();
            }
            tracer.send(said(Up::Bye { reason: Ending::Stopped, status: Status::default() })).await.unwrap();
            tracer.send(Input::Gone { node: 0, error: None }).await.unwrap();
        }
        // Both are as far, so that the first goes first.
        let words = [until(&mut heard, "0 gone").await, until(&mut heard, "1 gone").await].concat();
        assert_eq!(words[0], "1 hello", "{words:?}");
        for word in ["0 clock 7", "0 batch", "1 batch", "0 bye after 1", "1 bye after 1"] {
            assert!(words.iter().any(|other| other == word), "{word}: {words:?}");
        }
    }

    #[tokio::test]
    async fn what_a_node_has_sent_when_all_ends_is_told() {
        let ([a, b], stop, mut heard) = reading(false);
        for tracer in [&a, &b] {
            tracer.send(hello()).await.unwrap();
        }
        let words = [until(&mut heard, "0 hello").await, until(&mut heard, "1 hello").await].concat();
        assert_eq!(words.len(), 2, "{words:?}");
        stop.send_replace(true);
        tokio::time::sleep(2 * POLL).await;
        a.send(bytes(&event("1"))).await.unwrap();
        for tracer in [&a, &b] {
            tracer.send(Input::Gone { node: 0, error: None }).await.unwrap();
        }
        let words = until(&mut heard, "1 gone").await.into_iter().chain(until(&mut heard, "0 gone").await);
        assert!(words.into_iter().any(|word| word == "0 bye after 1"));
    }
}
