//! `kubectl knark trace`: the main job.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context as _;
use ed25519_dalek::SigningKey;
use knark_specs::frame::{HostFilter, Plan, Target};
use tokio::sync::{mpsc, watch};

use crate::{
    cluster::{self, ClusterRequest, ConnectionFlags, TargetFlags, TracerFlags},
    exit::Exit,
    filter::{Filter, Kind},
    local,
    pipeline::{self, Options},
    record::Recorder,
    render::OutputFlags,
    signals,
    source::Input,
};

/// How many messages may wait for the pipeline. Each is a batch of events as a rule.
const QUEUE: usize = 64;

/// Show what pods execute and which files they touch, live
///
/// Pods that start while the trace runs are traced from their first process on. When the command ends, for whatever reason,
/// nothing of it remains in the cluster.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  # What the pod web executes, and the files that it touches
  kubectl knark trace web

  # Every replica of a deployment, executions and exits only
  kubectl knark trace deploy/web -n prod --on exec,exit

  # The pods with a label, for half a minute, as JSON
  kubectl knark trace -l app=web -A --for 30s -o json

  # All processes of a node, in pods or not, and a recording for later
  kubectl knark trace node/worker-1 --record rec.knark

  # This host, without a cluster
  sudo kubectl-knark trace --local --comm sshd

Exit status: 0 done (Ctrl-C is the usual end), 1 failed, 2 wrong usage, 3 events were lost, 130 interrupted before anything streamed.")]
pub struct Args {
    #[command(flatten)]
    target: TargetFlags,
    /// Kinds of events: exec, file, exit
    #[arg(long, value_name = "KIND", value_enum, value_delimiter = ',', default_values = ["exec", "file"])]
    on: Vec<Kind>,
    /// End after this time, such as 30s or 10m, counted from when all nodes stream
    #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
    /// End after this many events
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    max_events: Option<u64>,
    /// Size of each node's kernel buffer, a power of two such as 512K or 32M
    #[arg(long, value_name = "SIZE", value_parser = ring_bytes)]
    ring_buffer: Option<u32>,
    /// Also write all that arrives to this new file, for replay
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    #[command(flatten)]
    output: OutputFlags,
    #[command(flatten)]
    host: HostFlags,
    #[command(flatten)]
    tracer: TracerFlags,
    #[command(flatten)]
    connection: ConnectionFlags,
}

/// Local mode. Its conditions are joined by and, the values of one by or.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "This host, without a cluster (as root)")]
struct HostFlags {
    /// Trace this host instead of a cluster; -c then takes names, ids or beginnings of ids of containers
    #[arg(long, conflicts_with_all = [
        "targets", "selector", "all_namespaces", "nodes", "node_selector", "ConnectionFlags", "tracer_namespace",
        "image_pull_policy", "image_pull_secrets", "privileged", "deadline",
    ])]
    local: bool,
    /// These processes and their descendants
    #[arg(long = "pid", value_name = "PID", value_delimiter = ',', requires = "local")]
    pids: Vec<u32>,
    /// Processes of this name, as ps -o comm shows it
    #[arg(long = "comm", value_name = "NAME", value_delimiter = ',', requires = "local")]
    comms: Vec<String>,
    /// Processes that run this executable
    #[arg(long = "exe", value_name = "PATH", value_delimiter = ',', requires = "local")]
    exes: Vec<String>,
    /// Processes of this cgroup or below it, such as system.slice/ssh.service
    #[arg(long = "cgroup", value_name = "PATH", value_delimiter = ',', requires = "local")]
    cgroups: Vec<String>,
}

/// Traces.
pub async fn run(args: Args) -> anyhow::Result<Exit> {
    let mut signals = signals::listen()?;
    let recorder = args.record.as_deref().map(Recorder::create).transpose()?;
    let traced = if args.host.local {
        Box::pin(on_host(&args, recorder, &mut signals)).await
    } else {
        Box::pin(in_cluster(&args, recorder, &mut signals)).await
    };
    if let Some(file) = &args.record {
        crate::record::discard_empty(file);
    }
    traced
}

async fn on_host(args: &Args, recorder: Option<Recorder>, signals: &mut mpsc::Receiver<()>) -> anyhow::Result<Exit> {
    let (stop, stopped) = watch::channel(false);
    let host = &args.host;
    let filter = HostFilter {
        pids: host.pids.clone(),
        comms: host.comms.clone(),
        exes: host.exes.clone(),
        cgroups: host.cgroups.clone(),
        containers: args.target.containers.iter().flat_map(|names| names.split(',')).map(str::to_owned).collect(),
    };
    let plan = Plan { target: Target::Host(filter), exclude_pids: vec![std::process::id()], ..args.plan() };
    let inputs = local::start(session_key()?, plan, stopped)?;
    let ended = pipeline::run(None, inputs, &stop, signals, args.options(recorder, false)).await?;
    ended.finish(signals).await
}

async fn in_cluster(args: &Args, recorder: Option<Recorder>, signals: &mut mpsc::Receiver<()>) -> anyhow::Result<Exit> {
    let (stop, stopped) = watch::channel(false);
    let (sink, inputs) = mpsc::channel::<Input>(QUEUE);
    let request = ClusterRequest {
        connection: args.connection.clone(),
        target: args.target.clone(),
        tracer: args.tracer.clone(),
        plan: args.plan(),
        duration: args.duration,
    };
    let running = tokio::select! {
        running = cluster::start(request, Arc::new(session_key()?), sink, stopped) => running?,
        Some(()) = signals.recv() => return Ok(Exit::Interrupted),
    };
    let whole_nodes = args.target.targets.iter().any(|target| target.starts_with("no"));
    let many_namespaces =
        args.target.all_namespaces || whole_nodes && args.target.targets.iter().all(|target| target.contains('/'));
    let ended = pipeline::run(None, inputs, &stop, signals, args.options(recorder, many_namespaces)).await;
    stop.send_replace(true);

    let hurried = ended.as_ref().is_ok_and(pipeline::Ended::is_hurried);
    let removed = async {
        if hurried {
            // What this can't remove, the regular end tries again.
            let _ = running.remover().remove().await;
        }
        running.finish().await
    };
    let shown = async {
        match ended {
            Ok(ended) => ended.finish(signals).await,
            Err(error) => Err(error),
        }
    };
    // A slow reader of the output doesn't keep pods in the cluster.
    let (removed, shown) = tokio::join!(removed, shown);
    if let (Err(_), Err(left)) = (&shown, &removed) {
        crate::exit::warn(left);
    }
    let exit = shown?;
    removed?;
    Ok(exit)
}

impl Args {
    fn plan(&self) -> Plan {
        let on = |kind| self.on.contains(&kind);
        Plan {
            exec: on(Kind::Exec),
            file: on(Kind::File),
            exit: on(Kind::Exit),
            ring_bytes: self.ring_buffer.unwrap_or(0),
            ..Plan::default()
        }
    }

    fn options(&self, recorder: Option<Recorder>, many_namespaces: bool) -> Options {
        Options {
            render: OutputFlags { many_namespaces, ..self.output.clone() }.renderer(),
            filter: Filter::default(),
            max_events: self.max_events,
            duration: self.duration,
            recorder,
            live: true,
            local: self.host.local,
        }
    }
}

fn session_key() -> anyhow::Result<SigningKey> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed)
        .map_err(|error| anyhow::anyhow!("{error}"))
        .context("making the session's key: the system gives no random bytes")?;
    Ok(SigningKey::from_bytes(&seed))
}

/// `4096`, `512K`, `32M`: what the kernel takes is a power of two of whole pages.
fn ring_bytes(text: &str) -> Result<u32, String> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let unit: u32 = match unit {
        "" => 1,
        "K" | "k" | "Ki" | "KiB" => 1 << 10,
        "M" | "m" | "Mi" | "MiB" => 1 << 20,
        "G" | "g" | "Gi" | "GiB" => 1 << 30,
        _ => return Err(format!("{unit:?} is no unit: use K, M or G")),
    };
    let bytes = number.parse::<u32>().ok().and_then(|number| number.checked_mul(unit));
    bytes
        .filter(|bytes| bytes.is_power_of_two() && *bytes >= 4096)
        .ok_or_else(|| "a kernel buffer has a power of two of bytes, from 4K to 2G".to_owned())
}

#[cfg(test)]
mod tests {
    use super::ring_bytes;

    #[test]
    fn sizes_are_powers_of_two() {
        for (text, want) in [("4096", 4096), ("512K", 512 << 10), ("32Mi", 32 << 20), ("2G", 2 << 30)] {
            assert_eq!(ring_bytes(text), Ok(want), "{text}");
        }
        for text in ["", "K", "3M", "2048", "4G", "1x", "-1"] {
            assert!(ring_bytes(text).is_err(), "{text}");
        }
    }
}
