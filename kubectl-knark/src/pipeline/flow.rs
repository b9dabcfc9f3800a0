//! What the pipeline knows, and what each input changes about it. Nothing here waits.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use knark_specs::{
    event::{Event, Summary},
    frame::{Batch, Ending, Hello, Pod, Up},
    link::Links,
};

use super::{Options, Requests, alerts::Alerts, merge::Merge, node::Node, output::CHUNK, progress::Progress, summary};
use crate::{alert_to::Receivers, filter::Kind, record::Recorder, render::Scene, source::Input};

/// What is known of pods takes this much memory at most, in bytes.
const PODS: usize = 64 << 20;

/// A trace under way.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Flow {
    pub options: Options,
    pub progress: Progress,
    nodes: Vec<Node>,
    merge: Merge,
    /// By UID.
    pods: HashMap<String, Arc<Pod>>,
    pod_bytes: usize,
    /// What there was no room for in `out` yet.
    rest: Option<Rest>,
    /// Rendered, and not yet handed to the writer: little more than a chunk, however much one input makes of it.
    pub out: Vec<u8>,
    created: Instant,
    /// When the first node streamed.
    pub began: Option<Instant>,
    /// When something new came: not just another heartbeat.
    pub heard: Instant,
    /// When all nodes did.
    complete: Option<Instant>,
    ended: Option<Instant>,
    shown: u64,
    header_due: bool,
    /// No more is wanted.
    pub over: bool,
    /// Nobody reads the output.
    pub unread: bool,
    /// A node failed.
    pub failed: bool,
    /// There was no room for a pod.
    crowded: bool,
    links: Links,
    /// An API server is traced.
    sees_requests: bool,
    /// A node tells of requests, and none of anything else.
    only_requests: Option<bool>,
    /// A signal came before the first node streamed, or one more before the end was complete.
    pub interrupted: bool,
}

/// A node's batch, of which this much has been read.
struct Rest {
    node: usize,
    batch: Batch,
    read: usize,
}

impl Flow {
    pub fn new(options: Options) -> Self {
        Self {
            merge: Merge::new(!options.complete),
            progress: Progress::new(options.screen.as_ref().map(|screen| screen.board().clone())),
            options,
            nodes: Vec::new(),
            pods: HashMap::new(),
            pod_bytes: 0,
            rest: None,
            out: Vec::new(),
            created: Instant::now(),
            began: None,
            heard: Instant::now(),
            complete: None,
            ended: None,
            shown: 0,
            header_due: true,
            over: false,
            unread: false,
            failed: false,
            crowded: false,
            links: Links::default(),
            sees_requests: false,
            only_requests: None,
            interrupted: false,
        }
    }

    /// Takes an input in; [`Self::release`] shows what comes of it, and must have found room for that of the one before.
    pub fn take(&mut self, input: Input) {
        let now = Instant::now();
        if !matches!(&input, Input::Up { message: Up::Status(_), .. } | Input::Clock { .. }) {
            self.heard = now;
        }
        match input {
            Input::Node { node, name } => {
                self.progress.set(node, &name, Some("starting"));
                self.node(node).name = name;
            }
            Input::Phase { node, phase } => {
                let name = self.node(node).name.clone();
                self.progress.set(node, &name, Some(&phase));
            }
            Input::Up { node, message } => {
                let known = self.node(node);
                let (name, clock_offset_ns) = (known.name.clone(), known.clock_offset_ns);
                let name = if self.options.local { "" } else { &name };
                self.record(|recorder| recorder.message(node, name, clock_offset_ns, &message));
                self.hear(node, message, now);
            }
            Input::Clock { .. } if self.options.local => {}
            Input::Clock { node, offset_ns } => self.node(node).set_clock(offset_ns),
            Input::Pod(pod) => {
                self.record(|recorder| recorder.pod(&pod));
                self.meet(pod);
            }
            Input::PodGone { uid } => {
                self.pod_bytes -= self.pods.remove(&uid).map_or(0, |pod| pod.bytes());
                self.nodes.iter_mut().filter_map(|n| n.assembler.as_mut()).for_each(|a| a.forget_pod(&uid));
            }
            Input::Warning(text) => self.progress.warn(&text),
            Input::Gone { node, error } => self.lose(node, error),
        }
    }

    /// A recording that can't be written on ends the trace, but not what was seen until then.
    fn record(&mut self, write: impl FnOnce(&mut Recorder) -> anyhow::Result<()>) {
        if let Some(recorder) = &mut self.options.recorder
            && let Err(error) = write(recorder)
        {
            self.options.recorder = None;
            self.fail(&format!("{error:#}"));
        }
    }

    /// Something that makes the trace a failed one, and its last.
    fn fail(&mut self, why: &str) {
        self.progress.fail(why);
        self.failed = true;
        self.over = true;
    }

    fn node(&mut self, node: u32) -> &mut Node {
        let at = node as usize;
        if self.nodes.len() <= at {
            self.nodes.resize_with(at + 1, Node::default);
        }
        &mut self.nodes[at]
    }

    fn hear(&mut self, number: u32, message: Up, now: Instant) {
        let at = number as usize;
        let node = self.node(number);
        match message {
            Up::Hello(hello) => self.welcome(number, &hello, now),
            Up::Batch(batch) => self.rest = Some(Rest { node: at, batch, read: 0 }),
            Up::Status(status) => {
                let watermark_ns = status.watermark_ns;
                node.count(status);
                let here = node.here(watermark_ns);
                self.merge.advance(at, here);
            }
            Up::Bye { reason, status } => {
                node.count(status);
                node.said_bye = true;
                let why = match reason {
                    Ending::Stopped => return,
                    Ending::Signal => "the tracer was told to end by a signal: its pod is being deleted, or its deadline is over",
                    Ending::Orphaned => "the tracer ended, since it heard nothing from the plugin for too long",
                    Ending::Failed => "the tracer could not go on reading the kernel's events; its log says why",
                };
                let text = format!("node {}: {why}", node.name);
                self.failed |= !self.over;
                self.progress.fail(&text);
            }
            Up::Challenge { .. } | Up::Refuse { .. } => {}
        }
    }

    /// Shows each event before the next is made where it can be, which keeps memory small and warm.
    fn unpack(&mut self, mut rest: Rest, now: Instant) -> anyhow::Result<()> {
        let at = rest.node;
        let Some(mut assembler) = self.nodes[at].assembler.take() else {
            self.damaged(at, "events came before the tracer's Hello: not a tracer of this version");
            return Ok(());
        };
        let mut shown = Ok(());
        let fed = assembler.feed(rest.batch.items.get(rest.read..).unwrap_or_default(), |event| {
            let node = &mut self.nodes[at];
            node.received = node.received.saturating_add(event.events());
            node.tell(event.boot_ns);
            let time_ns = node.here(event.boot_ns);
            self.merge.push(at, time_ns, event, now);
            shown = self.pop(now);
            shown.is_ok() && self.has_room()
        });
        for note in assembler.take_notes() {
            let name = &self.nodes[at].name;
            self.progress.warn(&format!("node {name}: {note}"));
        }
        self.nodes[at].assembler = Some(assembler);
        match fed {
            Ok(read) => {
                rest.read += read;
                self.rest = (rest.read < rest.batch.items.len()).then_some(rest);
            }
            Err(error) => self.damaged(at, &format!("batch {}: {error}", rest.batch.seq)),
        }
        shown
    }

    /// A node's stream can't be understood; what it lost by that, its counters say. Told once.
    fn damaged(&mut self, at: usize, why: &str) {
        let node = &mut self.nodes[at];
        if !std::mem::replace(&mut node.damaged, true) {
            let text = format!("node {}: {why}", node.name);
            self.fail(&text);
        }
    }

    fn welcome(&mut self, number: u32, hello: &Hello, now: Instant) {
        let pods = std::mem::take(&mut self.pods);
        let node = self.node(number);
        let again = node.assembler.is_some();
        node.greet(hello);
        for pod in pods.values().filter(|_| !again) {
            // Nothing else is known to it yet, so there is room.
            let _ = node.assembler.as_mut().map(|assembler| assembler.set_pod(Arc::clone(pod)));
        }
        let name = node.name.clone();
        self.pods = pods;
        self.merge.begin(number as usize);
        self.progress.set(number, &name, None);
        self.began.get_or_insert(now);
        self.sees_requests |= hello.probes.iter().any(|probe| probe.serves == "api" && probe.missing.is_none());
        let tells_requests = hello.probes.iter().any(|probe| probe.serves == "api");
        if self.options.requests != Requests::Unwanted || self.options.complete && tells_requests {
            self.merge.sort(number as usize);
        }
        let tells_others =
            hello.probes.iter().any(|probe| matches!(probe.serves.as_str(), "exec" | "file" | "write" | "map-exec" | "exit"));
        if tells_requests || tells_others {
            self.only_requests = Some(!tells_others && self.only_requests != Some(false));
        }
        for probe in hello.probes.iter().filter(|_| !again) {
            if let Some(why) = &probe.missing {
                let missed = match probe.serves.as_str() {
                    "body" => "can't be seen".to_owned(),
                    kind => format!("isn't attached, so some {kind} events are missed"),
                };
                self.progress.warn(&format!("node {name}: {} {missed}: {why}", probe.name));
            }
        }
        if let Some(first) = hello.portable.first().filter(|_| !again) {
            let calls: usize = hello.portable.iter().map(|portable| portable.calls.len()).sum();
            self.progress.note(&format!(
                "node {name}: {calls} kinds of calls on files are seen by their system calls alone: {} (`doctor` says which)",
                first.why
            ));
        }
        self.settle(now);
    }

    fn meet(&mut self, pod: Pod) {
        self.pod_bytes -= self.pods.remove(&pod.uid).map_or(0, |known| known.bytes());
        if self.pod_bytes + pod.bytes() > PODS {
            if !std::mem::replace(&mut self.crowded, true) {
                self.progress.warn("there are too many pods to remember them all: some events lack their pod's labels and owner");
            }
            return;
        }
        self.pod_bytes += pod.bytes();
        let pod = Arc::new(pod);
        for at in 0..self.nodes.len() {
            let told = self.nodes[at].assembler.as_mut().map(|assembler| assembler.set_pod(Arc::clone(&pod)));
            if let Some(Err(error)) = told {
                self.damaged(at, &error.to_string());
            }
        }
        self.pods.insert(pod.uid.clone(), pod);
    }

    fn lose(&mut self, number: u32, error: Option<anyhow::Error>) {
        let over = self.over;
        let node = self.node(number);
        node.gone = true;
        let name = node.name.clone();
        self.merge.end(number as usize);
        self.progress.set(number, &name, None);
        if let Some(error) = error {
            let place = if self.options.local { String::new() } else { format!("node {name}: ") };
            self.progress.fail(&format!("{place}{error:#}"));
            self.failed |= !(over && self.interrupted);
        }
        self.settle(Instant::now());
    }

    /// Notes when all nodes stream: `--for` is counted from then, and the header shows that they do.
    fn settle(&mut self, now: Instant) {
        let ready = self.nodes.iter().all(|node| node.gone || node.assembler.is_some());
        if self.complete.is_none() && ready && self.began.is_some() {
            self.complete = Some(now);
            if !self.sees_requests {
                self.miss_requests();
            }
        }
        if self.nodes.iter().all(|node| node.gone) {
            self.ended.get_or_insert(now);
        }
    }

    fn miss_requests(&mut self) {
        let text = "no API server that can be traced runs on the traced nodes, so no request to the Kubernetes API is seen: trace the \
                    control plane's nodes too (--node NAME); where the control plane is managed, read its audit log (--audit-log FILE)";
        match self.options.requests {
            Requests::Unwanted => {}
            Requests::Wanted => self.progress.warn(text),
            Requests::Needed => self.fail(text),
        }
    }

    pub fn look_at_the_clock(&mut self) {
        if let Some(receivers) = self.options.alerts.as_mut().and_then(Alerts::receivers) {
            receivers.look_at_the_clock();
            receivers.write(&mut self.out);
            while let Some(warning) = self.receivers().and_then(Receivers::warning) {
                self.progress.warn(&warning);
            }
        }
        if let (Some(since), Some(duration)) = (self.complete, self.options.duration) {
            self.over |= since.elapsed() >= duration;
        }
        if self.complete.is_some() && self.options.live {
            self.head();
        }
        if let Some(screen) = &self.options.screen {
            screen.board().count(self.progress.text(), self.summary().summary);
        }
    }

    /// Whether `out` takes more: otherwise it is to be handed to the writer first. And whether those do who are told of alerts.
    pub fn has_room(&self) -> bool {
        self.out.len() < CHUNK && !self.waits_for_receivers()
    }

    /// Whether those who are told of alerts have no room for more.
    pub fn waits_for_receivers(&self) -> bool {
        self.options.alerts.as_ref().is_some_and(Alerts::lack_room)
    }

    /// Waits until they have.
    pub async fn room(&self) {
        if let Some(alerts) = &self.options.alerts {
            alerts.room().await;
        }
    }

    /// Shows the events whose turn has come, and what is left of the last batch, as far as there is room.
    pub fn release(&mut self, now: Instant) -> anyhow::Result<()> {
        self.pop(now)?;
        while self.has_room()
            && let Some(rest) = self.rest.take()
        {
            self.unpack(rest, now)?;
        }
        Ok(())
    }

    fn pop(&mut self, now: Instant) -> anyhow::Result<()> {
        while self.has_room()
            && let Some((at, event)) = self.merge.pop(now)
        {
            self.show(at, event)?;
        }
        Ok(())
    }

    fn show(&mut self, at: usize, mut event: Event) -> anyhow::Result<()> {
        let pod = event.kubernetes.as_ref().and_then(|pod| self.pods.get(&pod.pod_uid));
        event.cause = self.links.cause(&event, self.nodes[at].here(event.boot_ns), pod.map(Arc::as_ref));
        let event = &event;
        let enough = self.options.max_events.is_some_and(|most| self.shown >= most);
        if enough || self.unread || !self.options.filter.wants(event) {
            self.nodes[at].discard(event);
            return Ok(());
        }
        let matches = match &mut self.options.alerts {
            Some(alerts) => alerts.of(event, |text| self.progress.warn(text)),
            None => Vec::new(),
        };
        if matches.is_empty() && self.options.alerts.is_some() {
            self.nodes[at].discard(event);
            return Ok(());
        }
        let here_ns = self.nodes[at].here(event.boot_ns);
        let mut is_shown = true;
        if let Some(receivers) = self.options.alerts.as_mut().and_then(Alerts::receivers) {
            receivers.tell(event, &matches, here_ns);
            receivers.write(&mut self.out);
            is_shown = !receivers.own_stdout();
        }
        if is_shown {
            self.head();
            self.options.render.event(event, &matches, &mut self.out).context("rendering an event")?;
        }
        self.nodes[at].show(event);
        self.shown += 1;
        // A recording is read to its end all the same, for the sums.
        self.over |= self.options.live && self.options.max_events.is_some_and(|most| self.shown >= most);
        Ok(())
    }

    fn head(&mut self) {
        if std::mem::take(&mut self.header_due) {
            self.progress.clear();
            if self.is_silent() {
                return;
            }
            let pods: Vec<_> = self.pods.values().map(Arc::as_ref).collect();
            let scene = Scene {
                local: self.options.local,
                nodes: self.nodes.len(),
                pods: &pods,
                policies: self.options.alerts.is_some(),
                requests: self.only_requests == Some(true) || self.options.filter.on == [Kind::Api],
            };
            self.options.render.begin(&scene, &mut self.out);
        }
    }

    fn summary(&self) -> Summary {
        let ran = if self.options.live {
            self.ended.unwrap_or_else(Instant::now).duration_since(self.began.unwrap_or(self.created))
        } else {
            let spans = self.nodes.iter().filter_map(|node| node.told).map(|(first, last)| last - first);
            Duration::from_nanos(spans.max().unwrap_or(0))
        };
        let mut summary = summary::of(self.nodes.iter().map(Node::sums).collect(), ran);
        summary.summary.matches = self.options.alerts.as_ref().map(|alerts| alerts.matches().clone());
        summary
    }

    /// Complains about tracers that are still there.
    pub fn check_goodbyes(&mut self, hurry: bool) {
        for node in self.nodes.iter().filter(|node| self.options.live && !hurry && node.assembler.is_some()) {
            if !node.said_bye && !node.gone {
                self.failed = true;
                self.progress
                    .fail(&format!("node {}: the tracer didn't say goodbye in time; its counts are not the last", node.name));
            }
        }
    }

    /// No more comes: what waits for its turn need not any longer.
    pub fn close(&mut self) {
        (0..self.nodes.len()).for_each(|node| self.merge.end(node));
    }

    /// Who is told of matches, besides the output.
    fn receivers(&mut self) -> Option<&mut Receivers> {
        self.options.alerts.as_mut()?.receivers()
    }

    /// Whether standard output has alerts, in place of events.
    fn is_silent(&mut self) -> bool {
        self.receivers().is_some_and(|receivers| receivers.own_stdout())
    }

    /// Adds up, and says so.
    pub fn conclude(&mut self) -> anyhow::Result<Summary> {
        if let Some(Err(error)) = self.options.recorder.take().map(Recorder::finish) {
            self.fail(&format!("{error:#}"));
        }
        let summary = self.summary();
        if let Some(receivers) = self.options.alerts.as_mut().and_then(Alerts::receivers) {
            receivers.close();
            receivers.write(&mut self.out);
        }
        if self.began.is_some() && !self.unread && !self.is_silent() {
            self.head();
            self.options.render.end(&summary, &mut self.out).context("rendering the summary")?;
        }
        self.progress.clear();
        Ok(summary)
    }
}
