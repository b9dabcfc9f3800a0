//! `kubectl knark trace`: the main job.

mod meaning;
mod pods;

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context as _;
use ed25519_dalek::SigningKey;
use knark_specs::frame::{HostFilter, Plan, Target};
use tokio::sync::{mpsc, watch};

use crate::{
    alert_to::{AlertFlags, Receivers},
    audit::{AuditFlags, AuditLogs},
    bodies::BodyFlags,
    btf::BtfFlags,
    cluster::{self, ClusterRequest, ConnectionFlags, TargetFlags, TracerFlags},
    exit::Exit,
    filter::{Filter, Kind, RequestFilter},
    local,
    pipeline::{self, Options, Requests, alerts::Labels},
    policies::PolicyFlags,
    record::Recorder,
    render::OutputFlags,
    signals,
    source::{self, Input},
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

  # Only what policies say is worth it; they also say on which nodes and pods
  kubectl knark trace --pack credentials -f policies/ --for 10m

  # This host, without a cluster
  sudo kubectl-knark trace --local --comm sshd

  # What an API server's audit log says, old files first, by your policies
  kubectl knark trace --audit-log /var/log/kubernetes/ -f policies/ --fail-on-match

  # The same, where it lies on the nodes of the control plane
  kubectl knark trace --audit-log node:/var/log/kubernetes/audit.log --follow --since 0s

Exit status: 0 done (Ctrl-C is the usual end), 1 failed, 2 wrong usage or a policy that can't be used, 3 events were lost or alerts not delivered, 4 a rule matched (--fail-on-match), 130 interrupted before anything streamed, or once more before the end was complete.")]
pub struct Args {
    #[command(flatten)]
    target: TargetFlags,
    /// Kinds of events: exec, file, exit, api, write, map-exec
    ///
    /// exec and file if not given; with policies, those that their rules are about. api, requests to the Kubernetes API, are those
    /// to every API server on a traced node, whatever the target, or those in audit logs. write and map-exec are operations on files
    /// that are watched only if they are named, here or by a rule.
    #[arg(long, value_name = "KIND", value_enum, value_delimiter = ',')]
    on: Vec<Kind>,
    /// End after this time, such as 30s or 10m, counted from when all nodes stream
    #[arg(long = "for", value_name = "DURATION", value_parser = crate::cli::duration)]
    duration: Option<Duration>,
    /// End after this many events
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    max_events: Option<u64>,
    /// Size of each node's kernel buffer, a power of two such as 512K or 32M
    #[arg(long, value_name = "SIZE", value_parser = ring_bytes)]
    ring_buffer: Option<u32>,
    /// Let each container make so many file events per second; what it makes beyond that is lost, and counted for it
    ///
    /// So one that makes a storm of them takes no room from the others. After a quiet second it can make as many at once.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate_limit: Option<u32>,
    /// Count repeats of a file event, and tell once a second how many there were
    ///
    /// Repeats do the same to the same file with the same flags and outcome, in the same container, as the same user, and by the same
    /// program (exe), or by the same process (process). exe if not given; with policies, whose rules may tell processes apart, process.
    #[arg(long, value_name = "BY", value_enum, require_equals = true)]
    #[expect(clippy::option_option, reason = "the flag may be given without a value, which clap says so")]
    aggregate: Option<Option<Repeats>>,
    /// Also write all that arrives to this new file, for replay
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    #[command(flatten)]
    output: OutputFlags,
    #[command(flatten)]
    requests: RequestFilter,
    #[command(flatten)]
    bodies: BodyFlags,
    #[command(flatten)]
    policies: PolicyFlags,
    #[command(flatten)]
    rules: RuleFlags,
    #[command(flatten)]
    alert_to: AlertFlags,
    #[command(flatten)]
    audit: AuditFlags,
    #[command(flatten)]
    host: HostFlags,
    #[command(flatten)]
    tracer: TracerFlags,
    #[command(flatten)]
    btf: BtfFlags,
    #[command(flatten)]
    connection: ConnectionFlags,
}

/// What repeats of an event have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Repeats {
    /// The program, whichever process runs it
    Exe,
    /// The process
    Process,
}

/// What to do with policies.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Policies")]
struct RuleFlags {
    /// Read the policies again when they change, while the trace runs
    #[arg(long)]
    watch: bool,
    /// Leave out rules whose events can't be seen, instead of refusing them
    #[arg(long)]
    best_effort: bool,
    /// Exit with status 4 if a rule matched
    #[arg(long)]
    fail_on_match: bool,
}

/// Local mode. Its conditions are joined by and, the values of one by or.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "This host, without a cluster (as root)")]
struct HostFlags {
    /// Trace this host instead of a cluster; -c then takes names, ids or beginnings of ids of containers
    #[arg(long, conflicts_with_all = [
        "targets", "selector", "all_namespaces", "nodes", "node_selector", "ConnectionFlags", "tracer_namespace",
        "image_pull_policy", "image_pull_secrets", "privileged", "deadline", "from_cluster",
    ])]
    local: bool,
    /// These processes and their descendants
    #[arg(long = "pid", value_name = "PID", value_delimiter = ',', requires = "local", value_parser = clap::value_parser!(u32).range(1..))]
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
    args.output.check()?;
    args.bodies.check()?;
    let (quit, mut signals) = signals::listen_and_send()?;
    let logs = args.audit_logs()?;
    let receivers = args.receivers()?;
    let recorder = args.record.as_deref().map(Recorder::create).transpose()?;
    let signals = &mut signals;
    let traced = match logs {
        Some(logs) if !args.needs_tracers() => Box::pin(in_audit_logs(&args, logs, recorder, receivers, quit, signals)).await,
        logs if args.host.local => Box::pin(on_host(&args, logs, recorder, receivers, quit, signals)).await,
        logs => Box::pin(in_cluster(&args, logs, recorder, receivers, quit, signals)).await,
    };
    if let Some(file) = &args.record {
        crate::record::discard_empty(file);
    }
    traced
}

/// Audit logs and nothing else: nothing is traced, and no cluster asked but for policies and for logs on its nodes.
async fn in_audit_logs(
    args: &Args,
    logs: AuditLogs,
    recorder: Option<Recorder>,
    receivers: Option<Receivers>,
    quit: mpsc::Sender<()>,
    signals: &mut mpsc::Receiver<()>,
) -> anyhow::Result<Exit> {
    let (stop, _) = watch::channel(false);
    let cluster = if args.policies.from_cluster { Some(args.connection.connect().await?) } else { None };
    let policies = args.policies(cluster.as_ref()).await?;
    let on_nodes = tokio::select! {
        on_nodes = args.node_logs(cluster.as_ref()) => on_nodes?,
        Some(()) = signals.recv() => return Ok(Exit::Interrupted),
    };
    let (sink, inputs) = mpsc::channel(QUEUE);
    let weak = sink.downgrade();
    let options = Options {
        complete: logs.complete,
        filter: Filter { requests: args.requests.clone().within(args.connection.namespace.as_deref()), ..Filter::default() },
        // What is about pods is about none here, and one log need not be told from others.
        local: logs.count_with(on_nodes.as_ref()) == 1,
        ..args.options(recorder, true, None, Requests::Unwanted, quit)?
    };
    let (begun, running) = pods::begin(logs, on_nodes, &stop, sink);
    let alerts = policies.map(|policies| args.alerts(policies, Labels::default(), cluster, weak).telling(receivers));
    let ended = match begun {
        Ok(()) => pipeline::run(None, inputs, &stop, signals, Options { alerts, ..options }).await,
        Err(error) => Err(error),
    };
    pods::end(ended, &stop, running, signals).await
}

async fn on_host(
    args: &Args,
    logs: Option<AuditLogs>,
    recorder: Option<Recorder>,
    receivers: Option<Receivers>,
    quit: mpsc::Sender<()>,
    signals: &mut mpsc::Receiver<()>,
) -> anyhow::Result<Exit> {
    let (stop, stopped) = watch::channel(false);
    let host = &args.host;
    let filter = HostFilter {
        pids: host.pids.clone(),
        comms: host.comms.clone(),
        exes: host.exes.clone(),
        cgroups: host.cgroups.clone(),
        containers: args.target.containers.iter().flat_map(|names| names.split(',')).map(str::to_owned).collect(),
    };
    let policies = args.policies(None).await?;
    let (sink, inputs) = mpsc::channel(QUEUE);
    let (weak, target) = (sink.downgrade(), Target::Host(filter));
    let rules = policies.as_ref().map(|(policies, _)| &**policies);
    let plan = Plan { target, exclude_pids: vec![std::process::id()], ..args.plan(rules)? };
    let requests = args.need(&plan, rules);
    let others = source::after(logs.as_ref().map_or(0, AuditLogs::count), sink.clone());
    if let Some(logs) = logs {
        logs.start(stop.clone(), sink)?;
    } else {
        drop(sink);
    }
    local::start(session_key()?, plan, stopped, others)?;
    let alerts = policies.map(|policies| args.alerts(policies, Labels::default(), None, weak).telling(receivers));
    let options = args.options(recorder, false, alerts, requests, quit)?;
    let ended = pipeline::run(None, inputs, &stop, signals, options).await?;
    ended.finish(signals).await
}

async fn in_cluster(
    args: &Args,
    logs: Option<AuditLogs>,
    recorder: Option<Recorder>,
    receivers: Option<Receivers>,
    quit: mpsc::Sender<()>,
    signals: &mut mpsc::Receiver<()>,
) -> anyhow::Result<Exit> {
    let (stop, stopped) = watch::channel(false);
    let (sink, inputs) = mpsc::channel::<Input>(QUEUE);
    let cluster = if args.policies.from_cluster { Some(args.connection.connect().await?) } else { None };
    let policies = args.policies(cluster.as_ref()).await?;
    let weak = sink.downgrade();
    let rules = policies.as_ref().map(|(policies, _)| &**policies);
    let plan = args.plan(rules)?;
    let requests = args.need(&plan, rules);
    let request = ClusterRequest {
        connection: args.connection.clone(),
        target: args.target.clone(),
        tracer: args.tracer.clone(),
        plan,
        duration: args.duration,
        policies: policies.as_ref().map(|(policies, _)| Arc::clone(policies)),
        watch: args.rules.watch,
    };
    let started = async {
        let on_nodes = args.node_logs(cluster.as_ref()).await?;
        let logs_before = logs.as_ref().map_or(0, |logs| logs.count_with(on_nodes.as_ref()));
        let others = source::after(logs_before, sink.clone());
        let (running, labels) = cluster::start(request, Arc::new(session_key()?), others, stopped).await?;
        anyhow::Ok((on_nodes, running, labels))
    };
    let (on_nodes, traced, labels) = tokio::select! {
        started = started => started?,
        Some(()) = signals.recv() => return Ok(Exit::Interrupted),
    };
    let (begun, mut running) = if let Some(logs) = logs {
        pods::begin(logs, on_nodes, &stop, sink)
    } else {
        drop(sink);
        (Ok(()), Vec::new())
    };
    running.push(traced);
    let whole_nodes = args.target.targets.iter().any(|target| target.starts_with("no"));
    let many_namespaces = args.target.all_namespaces
        || policies.is_some() && args.target.targets.is_empty()
        || whole_nodes && args.target.targets.iter().all(|target| target.contains('/'));
    let alerts = policies.map(|policies| args.alerts(policies, labels, cluster, weak).telling(receivers));
    // A terminal that can't be taken must not keep the pods from being removed.
    let ended = match begun.and_then(|()| args.options(recorder, many_namespaces, alerts, requests, quit)) {
        Ok(options) => pipeline::run(None, inputs, &stop, signals, options).await,
        Err(error) => Err(error),
    };
    pods::end(ended, &stop, running, signals).await
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
    let bytes = crate::cli::bytes(text)?;
    u32::try_from(bytes)
        .ok()
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
