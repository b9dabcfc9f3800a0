//! `kubectl knark replay`: a recording through the same pipeline as a live trace.

use std::{
    fs::File,
    io::{self, Read},
    path::PathBuf,
    sync::Arc,
};

use anyhow::Context as _;
use knark_specs::{frame::Up, packet::Recorded};
use tokio::sync::{mpsc, watch};

use crate::{
    alert_to::{AlertFlags, Surroundings},
    cluster::OwnRequests,
    exit::{Exit, UsageError},
    filter::{Filter, Kind},
    pipeline::{
        self, Options, Requests,
        alerts::{Alerts, Labels},
    },
    policies::{self, PolicyFlags},
    record::{self, Recording},
    render::{Format, OutputFlags},
    signals,
    source::Input,
};

/// Show a recording that trace --record made
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  # As the trace would have shown it
  kubectl knark replay rec.knark

  # What one pod executed, as JSON
  kubectl knark replay rec.knark --on exec -n prod --pod web -o json

  # From standard input
  xz -dc rec.knark.xz | kubectl knark replay -

  # Whether a policy would have had anything to say
  kubectl knark replay rec.knark -f policies/ --fail-on-match

  # Who would have been told of it, and what
  kubectl knark replay rec.knark -f policies/ --alert-to stdout

Exit status: 0 done, 1 failed, 2 wrong usage or a policy that can't be used, 3 events were lost or alerts not \
delivered, 4 a rule matched (--fail-on-match), 130 interrupted.")]
pub struct Args {
    /// The recording; - is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Show at most this many events
    #[arg(long, value_name = "N")]
    max_events: Option<u64>,
    #[command(flatten)]
    output: OutputFlags,
    #[command(flatten)]
    filter: Filter,
    #[command(flatten)]
    policies: PolicyFlags,
    /// Exit with status 4 if a rule matched
    #[arg(long, help_heading = "Policies")]
    fail_on_match: bool,
    #[command(flatten)]
    alert_to: AlertFlags,
}

/// Shows the recording.
pub async fn run(args: Args) -> anyhow::Result<Exit> {
    args.output.check()?;
    if args.fail_on_match && !args.policies.is_given() {
        return Err(UsageError::because("--fail-on-match is about policies: name some by -f or --pack"));
    }
    let around = Surroundings {
        policies: args.policies.is_given(),
        dashboard: args.output.output == Format::Tui,
        local: false,
        cluster: None,
    };
    let receivers = args.alert_to.open(false, around)?;
    let doing = || format!("replaying {}", args.file.display());
    let from: Box<dyn Read + Send> =
        if args.file.as_os_str() == "-" { Box::new(io::stdin()) } else { Box::new(File::open(&args.file).with_context(doing)?) };
    let recording = Recording::open(from).with_context(doing)?;
    if args.filter.requests.is_given() && !args.filter.on.is_empty() && !args.filter.on.contains(&Kind::Api) {
        return Err(UsageError::because("flags about requests choose among them, and --on leaves them out: add api"));
    }
    let (quit, mut signals) = signals::listen_and_send()?;
    let (stop, stopped) = watch::channel(false);
    let (sink, mut inputs) = mpsc::channel(16);
    let reader = tokio::task::spawn_blocking(move || play(recording, &sink, &stopped));

    let set = policies::required(&args.policies, None).await?;
    let policies = set.map(|set| watch::channel(Arc::new(set.policies)).1);
    let alerts = policies.map(|policies| Alerts::new(policies, Labels::default(), OwnRequests::default()).telling(receivers));

    // The first word tells where the recording was made.
    let first = tokio::select! {
        first = inputs.recv() => first,
        Some(()) = signals.recv() => return Ok(Exit::Interrupted),
    };
    let local = matches!(&first, Some(Input::Node { name, .. }) if name.is_empty());
    let output = OutputFlags { many_namespaces: args.filter.namespaces.len() != 1, ..args.output.clone() };
    let (render, screen) = output.open(false, quit)?;
    let options = Options {
        requests: Requests::Unwanted,
        render,
        screen,
        filter: args.filter.clone(),
        alerts,
        fail_on_match: args.fail_on_match,
        max_events: args.max_events,
        duration: None,
        recorder: None,
        live: false,
        complete: true,
        local,
    };
    let ended = pipeline::run(first, inputs, &stop, &mut signals, options).await?;
    let exit = ended.finish(&mut signals).await?;
    // A reader that waits for input which never comes is left alone.
    if !*stop.borrow() {
        reader.await?.with_context(doing)?;
    }
    Ok(exit)
}

/// Says what the recording says, until it ends or nobody listens.
fn play(mut recording: Recording<impl Read>, sink: &mpsc::Sender<Input>, stopped: &watch::Receiver<bool>) -> anyhow::Result<()> {
    let mut nodes = Vec::new();
    let mut played = Ok(());
    while !*stopped.borrow() {
        let input = match recording.next() {
            Ok(None) => break,
            Ok(Some(Recorded::Node { number, clock_offset_ns, .. })) if nodes.contains(&number) => {
                Input::Clock { node: number, offset_ns: clock_offset_ns }
            }
            Ok(Some(Recorded::Node { number, name, clock_offset_ns })) => {
                anyhow::ensure!(nodes.len() < 100_000 && number < 100_000, "the recording is damaged: node number {number}");
                nodes.push(number);
                let _ = sink.blocking_send(Input::Node { node: number, name });
                Input::Clock { node: number, offset_ns: clock_offset_ns }
            }
            Ok(Some(Recorded::Up { node, .. })) if !nodes.contains(&node) => {
                played = Err(anyhow::anyhow!("the recording is damaged: node number {node} has no name"));
                break;
            }
            Ok(Some(Recorded::Up { node, message: Up::Batch(batch) })) => match record::pods_in(&batch) {
                Some(pods) => {
                    for pod in pods {
                        let _ = sink.blocking_send(Input::Pod(pod));
                    }
                    continue;
                }
                None => Input::Up { node, message: Up::Batch(batch) },
            },
            Ok(Some(Recorded::Up { node, message })) => Input::Up { node, message },
            Err(error) => {
                played = Err(error.into());
                break;
            }
        };
        if sink.blocking_send(input).is_err() {
            break;
        }
    }
    for node in nodes {
        let _ = sink.blocking_send(Input::Gone { node, error: None });
    }
    played
}
