//! From what the sources say to what the user sees: assemble, merge, filter, render, record, count.

pub mod alerts;
mod flow;
mod merge;
mod node;
mod output;
mod progress;
mod summary;

use std::time::{Duration, Instant};

use anyhow::Context as _;
use knark_specs::event::Summary;
use tokio::sync::{mpsc, watch};

use crate::{alert_to::Outcome, exit::Exit, filter::Filter, record::Recorder, render::Render, source::Input, tui::Screen};
use alerts::Alerts;
use flow::Flow;
use output::Output;

/// How often the pipeline looks around when nothing comes.
const TICK: Duration = Duration::from_millis(100);
/// Tracers that were asked to stop and send nothing new for this long are given up.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long a hurried end waits for the reader of the output: one that is there takes the rest at once.
const MOMENT: Duration = Duration::from_millis(500);

/// What to do with the events.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Options {
    /// How they are shown.
    pub render: Box<dyn Render>,
    /// Where that is a dashboard, it has the terminal until the user leaves it.
    pub screen: Option<Screen>,
    /// Which of those that arrive are shown.
    pub filter: Filter,
    /// Only events that match these policies are shown; `None`: all.
    pub alerts: Option<Alerts>,
    /// Whether requests to the Kubernetes API are to be seen.
    pub requests: Requests,
    /// Whether a match is to be told by the exit status.
    pub fail_on_match: bool,
    /// How many of them.
    pub max_events: Option<u64>,
    /// For how long, counted from when all nodes stream.
    pub duration: Option<Duration>,
    /// Where what arrives is written to as well.
    pub recorder: Option<Recorder>,
    /// Whether this happens now; otherwise it was recorded.
    pub live: bool,
    /// Whether all events are there already, so that those of different nodes wait for each other as long as it takes.
    pub complete: bool,
    /// Whether the only node is this machine, so that its clock is ours.
    pub local: bool,
}

/// Whether requests to the Kubernetes API are to be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requests {
    /// Nobody asked for them.
    Unwanted,
    /// Where they can't be seen, that is told.
    Wanted,
    /// Where they can't be seen, the trace is in vain.
    Needed,
}

/// Runs until all nodes are gone. `stop` is turned true when they shall end: at the first signal, when enough was seen, or
/// when nobody reads the output. A second signal ends this at once. What is left to do then, [`Ended`] does. `first` is what
/// the caller has already taken from `inputs`.
pub async fn run(
    first: Option<Input>,
    mut inputs: mpsc::Receiver<Input>,
    stop: &watch::Sender<bool>,
    signals: &mut mpsc::Receiver<()>,
    options: Options,
) -> anyhow::Result<Ended> {
    let mut output = Output::to(std::io::stdout());
    let live = options.live;
    let mut flow = Flow::new(options);
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut stopping: Option<Instant> = None;
    let mut hurry = false;
    if let Some(first) = first {
        flow.take(first);
    }
    loop {
        tokio::select! {
            biased;
            Some(()) = signals.recv() => {
                hurry = *stop.borrow();
                flow.interrupted |= hurry || flow.began.is_none();
                flow.over = true;
                if let Some(screen) = &flow.options.screen {
                    screen.board().leave();
                }
            }
            _ = tick.tick() => {
                flow.look_at_the_clock();
                flow.unread |= live && output::reader_has_gone();
            }
            input = inputs.recv(), if flow.has_room() => match input {
                Some(input) => flow.take(input),
                None => break,
            },
            () = flow.room(), if flow.waits_for_receivers() => {}
            room = output.chunks.reserve(), if !flow.out.is_empty() => match room {
                Ok(room) => room.send(std::mem::take(&mut flow.out)),
                Err(_) => flow.unread = true,
            },
        }
        if flow.out.capacity() == 0 {
            flow.out = output.spare();
        }
        if flow.unread {
            flow.out.clear();
        }
        // There may be room now for what had none.
        flow.release(Instant::now())?;
        if !flow.has_room() {
            // Nothing can be heard while the reader takes its time.
            flow.heard = Instant::now();
        }
        if flow.over || flow.unread {
            stopping.get_or_insert_with(Instant::now);
            stop.send_if_modified(|stop| !std::mem::replace(stop, true));
        }
        // A long backlog is no reason to give up; a recording has no last words to wait for.
        let quiet = stopping.is_some_and(|since| !live || since.max(flow.heard).elapsed() > PATIENCE);
        if hurry || quiet {
            break;
        }
    }
    Ok(Ended { flow, output, hurry })
}

/// A trace whose nodes are gone; its last lines are still to be written.
pub struct Ended {
    flow: Flow,
    output: Output,
    hurry: bool,
}

impl Ended {
    /// Whether the user pressed Ctrl-C twice.
    pub fn is_hurried(&self) -> bool {
        self.hurry
    }

    /// Writes what is left and the summary. A signal ends the wait for a slow reader, and so does the one that hurried.
    pub async fn finish(self, signals: &mut mpsc::Receiver<()>) -> anyhow::Result<Exit> {
        let Self { mut flow, output, mut hurry } = self;
        let shown = show_rest(&mut flow, output, &mut hurry, signals).await;
        let receivers = flow.options.alerts.as_mut().and_then(Alerts::take_receivers);
        let told = match receivers {
            Some(receivers) => receivers.finish(hurry, signals, |warning| flow.progress.warn(warning)).await,
            None => Outcome::default(),
        };
        let summary = shown?;
        let live = flow.options.live;
        if let Some(screen) = flow.options.screen.take() {
            // Without any event there is nothing to look at but what went wrong, and that is told below.
            if flow.began.is_none() || flow.unread {
                screen.board().leave();
            }
            let shown = screen.close(signals).await;
            if let (Err(error), false) = (shown, flow.unread) {
                flow.progress.fail(&format!("showing events on the terminal: {error}"));
                flow.failed = true;
            }
        }
        if flow.began.is_some() && !flow.unread {
            crate::exit::say(&summary::text(&summary.summary));
            if let Some(alerts) = &flow.options.alerts {
                crate::exit::say(&crate::render::escape::lines(&alerts.summary()));
            }
        }
        crate::exit::say(&crate::render::escape::lines(&told.text));
        Ok(match () {
            () if flow.failed => Exit::Failed,
            () if flow.interrupted => Exit::Interrupted,
            () if flow.unread && told.complete => Exit::Done,
            () if summary.summary.lost > 0 || summary.summary.nodes.iter().any(|node| live && node.incomplete) => Exit::Lost,
            () if !told.complete => Exit::Lost,
            () if flow.options.fail_on_match && flow.options.alerts.as_ref().is_some_and(Alerts::any) => Exit::Matched,
            () => Exit::Done,
        })
    }
}

/// Writes what is left and the summary. A signal turns `hurry` true.
async fn show_rest(
    flow: &mut Flow,
    mut output: Output,
    hurry: &mut bool,
    signals: &mut mpsc::Receiver<()>,
) -> anyhow::Result<Summary> {
    flow.check_goodbyes(*hurry);
    let given_up = async {
        if !*hurry && signals.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
        *hurry = true;
        tokio::time::sleep(MOMENT).await;
    };
    let rest = &mut *flow;
    let written = async move {
        write_ready(rest, &mut output).await?;
        rest.close();
        write_ready(rest, &mut output).await?;
        let summary = rest.conclude()?;
        // When this fails, the writer has ended, and says why.
        let _ = output.chunks.send(std::mem::take(&mut rest.out)).await;
        anyhow::Ok((summary, output.finish().await))
    };
    let summary = tokio::select! {
        biased;
        () = given_up => {
            let why = "the last events were not all written to standard output: its reader did not take them in time";
            flow.progress.warn(why);
            flow.interrupted = true;
            flow.conclude()?
        }
        written = written => {
            let (summary, written) = written?;
            match written {
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => flow.unread = true,
                written => written.context("writing to standard output")?,
            }
            summary
        }
    };
    Ok(summary)
}

/// Hands what can be shown now to the writer, chunk by chunk.
async fn write_ready(flow: &mut Flow, output: &mut Output) -> anyhow::Result<()> {
    flow.release(Instant::now())?;
    while !flow.has_room() {
        flow.room().await;
        let chunk = std::mem::replace(&mut flow.out, output.spare());
        flow.unread |= output.chunks.send(chunk).await.is_err();
        flow.release(Instant::now())?;
    }
    Ok(())
}

#[cfg(test)]
pub mod tests;
