//! Alerts go where people look (`--alert-to`).
//!
//! - [`meaning`]: from what the user typed to receivers.
//! - [`delivery`]: each receiver's own task; [`queue`] and [`spool`]: what waits for it, in memory and on disk.
//! - [`file`], [`webhook`], [`alertmanager`], [`otlp`], [`syslog`], [`events`], [`exec`]: one kind of receiver each, with [`http`] and
//!   [`tls`] for those that need them.

mod alertmanager;
mod delivery;
mod events;
mod exec;
mod file;
mod http;
mod meaning;
mod otlp;
mod queue;
mod spool;
mod syslog;
mod tls;
mod webhook;

use std::{
    fmt::Write as _,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use futures::future::join_all;
use knark_specs::{
    alert::{
        Match, Notice,
        repeats::{KeyField, Repeats},
    },
    event::{Event, Process, What},
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::Instant,
};

use crate::cluster::ConnectionFlags;
use delivery::Account;

/// An event may match some rules, and end some cool-downs.
const ROOM: usize = delivery::INTAKE / 2;
/// How long the end waits beyond its deadline for disks.
const GRACE: Duration = Duration::from_secs(3);

/// Who is told of matches, besides the terminal.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Alerts")]
pub struct AlertFlags {
    /// Tell of each match: stdout, FILE, csv:FILE, webhook:URL, alertmanager:URL, otlp:URL, syslog:URL, events, exec:PROGRAM (repeatable)
    ///
    /// Options follow a #: webhook:https://siem.example/in#format=kubecop&tokenFile=/run/token. docs/alerts.md has them all. What can't
    /// be delivered for now waits and never holds up the trace.
    #[arg(long = "alert-to", value_name = "RECEIVER")]
    pub receivers: Vec<String>,
    /// Receivers in a YAML file, with the same options (repeatable)
    #[arg(long = "alert-receivers", value_name = "FILE")]
    pub receiver_files: Vec<PathBuf>,
    /// What repeats of a match have in common: policy, rule, node, namespace, pod, container, exe, pid, user, object, message
    #[arg(long = "alert-key", value_name = "FIELD", value_delimiter = ',', value_parser = key_field, default_value = "policy,rule,container,exe,user,object")]
    pub key: Vec<KeyField>,
    /// Count repeats for so long before they are told, as one; 0s: tell each
    #[arg(long = "alert-cooldown", value_name = "DURATION", value_parser = crate::cli::duration, default_value = "1m")]
    pub cooldown: Duration,
    /// At the end, wait so long for receivers to take what waits
    #[arg(long = "alert-drain", value_name = "DURATION", value_parser = crate::cli::duration, default_value = "10s")]
    pub drain: Duration,
}

/// What receivers may be, and what they may do, here.
#[derive(Debug, Clone, Copy)]
pub struct Surroundings<'s> {
    /// Policies are given.
    pub policies: bool,
    /// A dashboard has the terminal.
    pub dashboard: bool,
    /// What is traced is this machine.
    pub local: bool,
    /// The cluster that is traced.
    pub cluster: Option<&'s ConnectionFlags>,
}

/// The receivers of a trace.
#[derive(Debug)]
pub struct Receivers {
    repeats: Repeats,
    running: Vec<Running>,
    /// Lines for standard output, where that is one of them.
    lines: Option<Vec<u8>>,
    warnings: mpsc::Receiver<String>,
    deadline: watch::Sender<Option<Instant>>,
    drain: Duration,
    /// When it began, where it is live. Cool-downs are then of the time since, which neither a node's clock nor ours can set.
    began: Option<Instant>,
    /// Matches of which nobody was told.
    suppressed: u64,
    /// What isn't live waits for receivers, as long as they go on.
    patience: watch::Sender<bool>,
    full_since: Option<Instant>,
    /// Where this machine is traced: the programs that are told, by process id.
    hooks: Vec<Arc<AtomicU32>>,
}

#[derive(Debug)]
struct Running {
    name: String,
    intake: Option<mpsc::Sender<Arc<Notice>>>,
    task: JoinHandle<Account>,
    only_pods: bool,
    /// What its task had no room for, so far behind it was.
    overflown: u64,
}

/// What became of all alerts.
#[derive(Debug)]
pub struct Outcome {
    /// For a person: a line for each receiver.
    pub text: String,
    /// All were told.
    pub complete: bool,
}

impl Default for Outcome {
    fn default() -> Self {
        Self { text: String::new(), complete: true }
    }
}

impl Receivers {
    /// Whether standard output has alerts, in place of events.
    pub fn own_stdout(&self) -> bool {
        self.lines.is_some()
    }

    /// Takes matches in. What isn't live counts cool-downs from when it happened, in ns since the epoch.
    ///
    /// What a program that is told does itself would be told to it for ever; that is shown alone.
    pub fn tell(&mut self, event: &Event, matches: &[Match], happened_ns: i64) {
        if self.is_of_hook(&event.process) {
            self.suppressed = self.suppressed.saturating_add(matches.len() as u64);
            return;
        }
        let now_ns = self.now_ns().unwrap_or(happened_ns);
        let Self { repeats, running, lines, .. } = self;
        for matched in matches {
            repeats.take(event, matched, now_ns, |notice| pass(notice, running, lines));
        }
    }

    fn now_ns(&self) -> Option<i64> {
        self.began.map(|began| i64::try_from(began.elapsed().as_nanos()).unwrap_or(i64::MAX))
    }

    fn is_of_hook(&self, process: &Process) -> bool {
        self.hooks
            .iter()
            .map(|pid| pid.load(Ordering::Relaxed))
            .filter(|pid| *pid != 0)
            .any(|pid| process.pid == pid || process.ppid == pid || process.ancestors.iter().any(|ancestor| ancestor.pid == pid))
    }

    /// Waits until each receiver's task has room: what isn't live needn't be lost for haste. A receiver that takes nothing for as long
    /// as the end would wait for it is waited for no longer.
    pub async fn room(&self) {
        let room = async {
            for intake in self.running.iter().filter_map(|receiver| receiver.intake.as_ref()) {
                // An error says that its task has ended, which needs no room.
                drop(intake.reserve_many(ROOM).await);
            }
        };
        if tokio::time::timeout(self.drain, room).await.is_err() {
            self.patience.send_replace(false);
        }
    }

    /// Whether [`Self::room`] is to be waited for.
    pub fn lack_room(&self) -> bool {
        *self.patience.borrow()
            && self.running.iter().filter_map(|receiver| receiver.intake.as_ref()).any(|intake| intake.capacity() < ROOM)
    }

    /// Tells what was counted long enough.
    pub fn look_at_the_clock(&mut self) {
        if !self.lack_room() {
            self.full_since = None;
        } else if self.full_since.get_or_insert_with(Instant::now).elapsed() > self.drain {
            self.patience.send_replace(false);
        }
        if let Some(now_ns) = self.now_ns() {
            let Self { repeats, running, lines, .. } = self;
            repeats.due(now_ns, |notice| pass(notice, running, lines));
        }
    }

    /// No more matches come: tells what was counted.
    pub fn close(&mut self) {
        let Self { repeats, running, lines, .. } = self;
        repeats.rest(|notice| pass(notice, running, lines));
        for receiver in &mut self.running {
            receiver.intake = None;
        }
    }

    /// Brings what standard output is told to its end.
    pub fn write(&mut self, out: &mut Vec<u8>) {
        if let Some(lines) = &mut self.lines {
            out.append(lines);
        }
    }

    /// What the user should know.
    pub fn warning(&mut self) -> Option<String> {
        self.warnings.try_recv().ok()
    }

    /// Waits until all is told, or until that has taken too long, or a signal came.
    pub async fn finish(mut self, hurry: bool, signals: &mut mpsc::Receiver<()>, mut warn: impl FnMut(&str)) -> Outcome {
        self.close();
        let drain = if hurry { Duration::ZERO } else { self.drain };
        self.deadline.send_replace(Some(Instant::now() + drain));
        let mut outcome = Outcome::default();
        let mut names = Vec::new();
        let mut tasks = Vec::new();
        for Running { name, task, overflown, .. } in self.running {
            names.push((name, overflown));
            tasks.push(async move { tokio::time::timeout(drain + GRACE, task).await });
        }
        let mut ended = std::pin::pin!(join_all(tasks));
        let accounts = loop {
            tokio::select! {
                accounts = &mut ended => break accounts,
                Some(()) = signals.recv() => { self.deadline.send_replace(Some(Instant::now())); }
                Some(warning) = self.warnings.recv() => warn(&warning),
            }
        };
        while let Ok(warning) = self.warnings.try_recv() {
            warn(&warning);
        }
        if self.suppressed > 0 {
            let text = "matches of what told programs did themselves were told to nobody";
            let _ = writeln!(outcome.text, "alerts: {} {text}", self.suppressed);
        }
        for ((name, overflown), account) in names.into_iter().zip(accounts) {
            let Ok(Ok(mut account)) = account else {
                let _ = writeln!(outcome.text, "alerts to {name}: it is not known what became of them: it did not end in time");
                outcome.complete = false;
                continue;
            };
            account.lost = account.lost.saturating_add(overflown);
            outcome.complete &= account.lost + account.refused + account.kept == 0 && !account.unsure;
            let _ = writeln!(outcome.text, "alerts to {name}: {}", account.text());
        }
        outcome
    }
}

/// Each receiver has a queue of its own; one that is full makes nobody wait.
fn pass(notice: Notice, running: &mut [Running], lines: &mut Option<Vec<u8>>) {
    if let Some(lines) = lines
        && serde_json::to_writer(&mut *lines, &notice).is_ok()
    {
        lines.push(b'\n');
    }
    let notice = Arc::new(notice);
    for receiver in running.iter_mut().filter(|receiver| !receiver.only_pods || is_about_a_pod(&notice)) {
        let told = receiver.intake.as_ref().map(|intake| intake.try_send(Arc::clone(&notice)));
        if !matches!(told, Some(Ok(()))) {
            receiver.overflown += 1;
        }
    }
}

/// A request's pod is the API server's own.
fn is_about_a_pod(notice: &Notice) -> bool {
    notice.event.kubernetes.is_some() && !matches!(notice.event.what, What::Api { .. })
}

impl Account {
    /// For a person.
    fn text(&self) -> String {
        let Self { delivered, refused, lost, kept, place, unsure } = self;
        let mut text = format!("{delivered} delivered");
        if *unsure {
            text.push_str(", perhaps not all");
        }
        for (count, what) in [(refused, "refused"), (lost, "lost")] {
            if *count > 0 {
                let _ = write!(text, ", {count} {what}");
            }
        }
        if *kept > 0 {
            let place = place.as_ref().map(|place| format!(" in {}", place.display())).unwrap_or_default();
            let _ = write!(text, ", {kept} kept{place} until a trace has this receiver again");
        }
        text
    }
}

fn key_field(text: &str) -> Result<KeyField, String> {
    let known = || KeyField::ALL.map(KeyField::name).join(", ");
    KeyField::ALL.into_iter().find(|field| field.name() == text).ok_or_else(|| format!("there are {}", known()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn no_nodes_clock_makes_a_cool_down_longer() {
        let mut receivers = Receivers {
            repeats: Repeats::new(vec![KeyField::Rule], 1),
            running: Vec::new(),
            lines: Some(Vec::new()),
            warnings: mpsc::channel(1).1,
            deadline: watch::channel(None).0,
            drain: Duration::ZERO,
            began: Some(Instant::now()),
            suppressed: 0,
            patience: watch::channel(false).0,
            full_since: None,
            hooks: Vec::new(),
        };
        let event = knark_specs::cases::event(json!({ "exec": {} }).as_object().unwrap()).unwrap();
        let matched = json!({ "policy": "p", "rule": "r", "severity": "high", "message": "m" });
        let matches = [serde_json::from_value(matched).unwrap()];
        receivers.tell(&event, &matches, i64::MAX);
        let told = receivers.now_ns();
        // Longer than the cool-down.
        while receivers.now_ns() <= told.map(|told_ns| told_ns + 1) {}
        receivers.tell(&event, &matches, 0);
        let mut out = Vec::new();
        receivers.write(&mut out);
        assert_eq!(String::from_utf8(out).unwrap().lines().count(), 2);
    }
}
