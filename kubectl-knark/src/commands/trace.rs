//! `kubectl knark trace`: the main job.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context as _;
use ed25519_dalek::SigningKey;
use knark_specs::{
    frame::{HostFilter, Plan, Target},
    policy::matcher::Policies,
};
use tokio::sync::{mpsc, watch};

use crate::{
    audit::{AuditFlags, AuditLogs},
    cluster::{self, Cluster, ClusterRequest, ConnectionFlags, TargetFlags, TracerFlags},
    exit::{Exit, UsageError},
    filter::{Filter, Kind, RequestFilter},
    local,
    pipeline::{
        self, Options, Requests,
        alerts::{Alerts, Labels},
    },
    policies::{self, Before, PolicyFlags},
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

Exit status: 0 done (Ctrl-C is the usual end), 1 failed, 2 wrong usage or a policy that can't be used, 3 events were lost, 4 a rule matched (--fail-on-match), 130 interrupted before anything streamed.")]
pub struct Args {
    #[command(flatten)]
    target: TargetFlags,
    /// Kinds of events: exec, file, exit, api
    ///
    /// exec and file if not given; with policies, those that their rules are about. api, requests to the Kubernetes API, are those
    /// to every API server on a traced node, whatever the target, or those in audit logs.
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
    /// Also write all that arrives to this new file, for replay
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    #[command(flatten)]
    output: OutputFlags,
    #[command(flatten)]
    requests: RequestFilter,
    #[command(flatten)]
    policies: PolicyFlags,
    #[command(flatten)]
    rules: RuleFlags,
    #[command(flatten)]
    audit: AuditFlags,
    #[command(flatten)]
    host: HostFlags,
    #[command(flatten)]
    tracer: TracerFlags,
    #[command(flatten)]
    connection: ConnectionFlags,
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
    let (quit, mut signals) = signals::listen_and_send()?;
    let logs = args.audit_logs()?;
    let recorder = args.record.as_deref().map(Recorder::create).transpose()?;
    let signals = &mut signals;
    let traced = match logs {
        Some(logs) if !args.needs_tracers() => Box::pin(in_audit_logs(&args, logs, recorder, quit, signals)).await,
        logs if args.host.local => Box::pin(on_host(&args, logs, recorder, quit, signals)).await,
        logs => Box::pin(in_cluster(&args, logs, recorder, quit, signals)).await,
    };
    if let Some(file) = &args.record {
        crate::record::discard_empty(file);
    }
    traced
}

/// Audit logs and nothing else: no tracer is started, and no cluster asked but for policies.
async fn in_audit_logs(
    args: &Args,
    logs: AuditLogs,
    recorder: Option<Recorder>,
    quit: mpsc::Sender<()>,
    signals: &mut mpsc::Receiver<()>,
) -> anyhow::Result<Exit> {
    let (stop, stopped) = watch::channel(false);
    let cluster = if args.policies.from_cluster { Some(args.connection.connect().await?) } else { None };
    let policies = args.policies(cluster.as_ref()).await?;
    let (sink, inputs) = mpsc::channel(QUEUE);
    let weak = sink.downgrade();
    let options = Options {
        complete: logs.complete,
        filter: Filter { requests: args.requests.clone().within(args.connection.namespace.as_deref()), ..Filter::default() },
        // What is about pods is about none here, and one log need not be told from others.
        local: logs.count() == 1,
        ..args.options(recorder, true, None, Requests::Unwanted, quit)?
    };
    logs.start(stopped, sink)?;
    let alerts = policies.map(|policies| args.alerts(policies, Labels::default(), cluster, weak));
    let ended = pipeline::run(None, inputs, &stop, signals, Options { alerts, ..options }).await?;
    ended.finish(signals).await
}

/// Has the audit logs read, as the first nodes; gives where the others are to be told of.
fn beside(
    logs: Option<AuditLogs>,
    stop: &watch::Receiver<bool>,
    sink: mpsc::Sender<Input>,
) -> anyhow::Result<mpsc::Sender<Input>> {
    let Some(logs) = logs else { return Ok(sink) };
    let others = source::after(logs.count(), sink.clone());
    logs.start(stop.clone(), sink)?;
    Ok(others)
}

async fn on_host(
    args: &Args,
    logs: Option<AuditLogs>,
    recorder: Option<Recorder>,
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
    let plan =
        Plan { target, exclude_pids: vec![std::process::id()], ..args.plan(policies.as_ref().map(|(policies, _)| &**policies))? };
    let requests = args.need(&plan, policies.as_ref().map(|(policies, _)| &**policies));
    let sink = beside(logs, &stopped, sink)?;
    local::start(session_key()?, plan, stopped, sink)?;
    let alerts = policies.map(|policies| args.alerts(policies, Labels::default(), None, weak));
    let options = args.options(recorder, false, alerts, requests, quit)?;
    let ended = pipeline::run(None, inputs, &stop, signals, options).await?;
    ended.finish(signals).await
}

async fn in_cluster(
    args: &Args,
    logs: Option<AuditLogs>,
    recorder: Option<Recorder>,
    quit: mpsc::Sender<()>,
    signals: &mut mpsc::Receiver<()>,
) -> anyhow::Result<Exit> {
    let (stop, stopped) = watch::channel(false);
    let (sink, inputs) = mpsc::channel::<Input>(QUEUE);
    let cluster = if args.policies.from_cluster { Some(args.connection.connect().await?) } else { None };
    let policies = args.policies(cluster.as_ref()).await?;
    let weak = sink.downgrade();
    let plan = args.plan(policies.as_ref().map(|(policies, _)| &**policies))?;
    let requests = args.need(&plan, policies.as_ref().map(|(policies, _)| &**policies));
    let sink = beside(logs, &stopped, sink)?;
    let request = ClusterRequest {
        connection: args.connection.clone(),
        target: args.target.clone(),
        tracer: args.tracer.clone(),
        plan,
        duration: args.duration,
        policies: policies.as_ref().map(|(policies, _)| Arc::clone(policies)),
        watch: args.rules.watch,
    };
    let (running, labels) = tokio::select! {
        running = cluster::start(request, Arc::new(session_key()?), sink, stopped) => running?,
        Some(()) = signals.recv() => return Ok(Exit::Interrupted),
    };
    let whole_nodes = args.target.targets.iter().any(|target| target.starts_with("no"));
    let many_namespaces = args.target.all_namespaces
        || policies.is_some() && args.target.targets.is_empty()
        || whole_nodes && args.target.targets.iter().all(|target| target.contains('/'));
    let alerts = policies.map(|policies| args.alerts(policies, labels, cluster, weak));
    // A terminal that can't be taken must not keep the pods from being removed.
    let ended = match args.options(recorder, many_namespaces, alerts, requests, quit) {
        Ok(options) => pipeline::run(None, inputs, &stop, signals, options).await,
        Err(error) => Err(error),
    };
    stop.send_replace(true);

    let hurried = ended.as_ref().is_ok_and(pipeline::Ended::is_hurried);
    let remover = running.remover();
    let removed = async {
        if hurried {
            // What this can't remove, the regular end tries again.
            let _ = remover.remove().await;
        }
        running.finish().await
    };
    let mut removed = std::pin::pin!(removed);
    let mut early = None;
    // A slow reader of the output doesn't keep pods in the cluster.
    let shown = {
        let shown = async {
            match ended {
                Ok(ended) => ended.finish(signals).await,
                Err(error) => Err(error),
            }
        };
        let mut shown = std::pin::pin!(shown);
        loop {
            tokio::select! {
                shown = &mut shown => break shown,
                removed = &mut removed, if early.is_none() => early = Some(removed),
            }
        }
    };
    let removed = if let Some(removed) = early {
        removed
    } else {
        tokio::select! {
            removed = removed => removed,
            Some(()) = signals.recv() => Err(remover.give_up()),
        }
    };
    if let (Err(_), Err(left)) = (&shown, &removed) {
        crate::exit::warn(left);
    }
    let exit = shown?;
    removed?;
    Ok(exit)
}

impl Args {
    /// The audit logs that are asked for.
    fn audit_logs(&self) -> anyhow::Result<Option<AuditLogs>> {
        if !self.audit.is_given() {
            return Ok(None);
        }
        if !self.on.is_empty() && !self.on.contains(&Kind::Api) {
            return Err(UsageError::because(
                "--on leaves out api, and audit logs tell of nothing else: add api, or drop --audit-log",
            ));
        }
        if let Some(path) = self.audit.logs.iter().find(|path| path.as_os_str().as_encoded_bytes().starts_with(b"node:")) {
            let text = format!(
                "{}: audit logs of nodes are not read yet: `ssh NODE cat PATH | kubectl knark trace --audit-log -`",
                path.display()
            );
            return Err(UsageError::because(text));
        }
        let is_input = |path: &PathBuf| path.as_os_str() == "-";
        if self.audit.logs.iter().any(is_input) && self.policies.files.iter().any(is_input) {
            return Err(UsageError::because(
                "standard input can't be both an audit log and a policy: name a file for one of them",
            ));
        }
        self.audit.open().map(Some)
    }

    /// Whether anything is asked for that audit logs don't tell: pods, nodes, or other kinds of events.
    fn needs_tracers(&self) -> bool {
        let TargetFlags { targets, selector, all_namespaces, containers, nodes, node_selector } = &self.target;
        let lists = [targets, containers, nodes].iter().any(|list| !list.is_empty());
        let has_target = lists || selector.is_some() || *all_namespaces || node_selector.is_some();
        // A namespace alone chooses among requests.
        let tells_all = !self.on.is_empty() && self.on.iter().all(|kind| *kind == Kind::Api);
        (has_target || self.host.local) && !tells_all || self.on.iter().any(|kind| *kind != Kind::Api)
    }

    /// The policies that are asked for, if they can be used and their events be seen.
    async fn policies(&self, cluster: Option<&Cluster>) -> anyhow::Result<Option<(Arc<Policies>, Before)>> {
        if self.rules.watch && self.policies.files.iter().any(|file| file.as_os_str() == "-") {
            return Err(UsageError::because(
                "--watch reads policies again, and standard input can be read only once: name files",
            ));
        }
        let seen = policies::state(&self.policies.files);
        let Some(set) = policies::required(&self.policies, cluster).await? else {
            let RuleFlags { watch, best_effort, fail_on_match } = self.rules;
            let senseless = watch || best_effort || fail_on_match;
            anyhow::ensure!(
                !senseless,
                UsageError::because(
                    "--watch, --best-effort and --fail-on-match are about policies: name some by -f, --pack or --from-cluster"
                )
            );
            return Ok(None);
        };
        for (kind, wanted, name) in [
            (Kind::Exec, set.policies.wants_execs(), "exec"),
            (Kind::File, set.policies.wants_files(), "file"),
            (Kind::Api, set.policies.wants_api(), "api"),
        ] {
            if wanted && !self.on.is_empty() && !self.on.contains(&kind) {
                crate::exit::say(&format!("warning: --on leaves out {name}, so rules about it never match\n"));
            } else if wanted && kind != Kind::Api && self.audit.is_given() && !self.needs_tracers() {
                let remedy = "name pods or nodes to trace them as well";
                crate::exit::say(&format!(
                    "warning: audit logs tell of api alone, so rules about {name} never match: {remedy}\n"
                ));
            }
        }
        if self.on.contains(&Kind::Exit) {
            crate::exit::say("warning: only events that a rule matches are shown, and none is about exit\n");
        }
        let requests = if self.on.is_empty() { set.policies.wants_api() } else { self.on.contains(&Kind::Api) };
        Ok(Some((Arc::new(set.policies), Before { seen, sources: set.sources, requests })))
    }

    /// What is made of policies while the trace runs. They are followed as long as `sink` has other users.
    fn alerts(
        &self,
        (policies, before): (Arc<Policies>, Before),
        labels: Labels,
        cluster: Option<Cluster>,
        sink: mpsc::WeakSender<Input>,
    ) -> Alerts {
        let (changed, policies) = watch::channel(policies);
        if self.rules.watch {
            tokio::spawn(policies::follow(self.policies.clone(), cluster, before, changed, sink));
        }
        Alerts::new(policies, labels)
    }

    /// Which events are wanted. Policies that may change can't be decided upon in the kernel.
    fn plan(&self, policies: Option<&Policies>) -> anyhow::Result<Plan> {
        let fixed = policies.filter(|_| !self.rules.watch);
        let by_default = |kind| match (kind, fixed) {
            (Kind::Exec, Some(policies)) => policies.wants_execs(),
            (Kind::File, Some(policies)) => policies.wants_files(),
            (Kind::Api, Some(policies)) => policies.wants_api(),
            (Kind::Exec | Kind::File, None) => true,
            (Kind::Api, None) => policies.is_some_and(Policies::wants_api),
            (Kind::Exit, _) => false,
        };
        let on = |kind| if self.on.is_empty() { by_default(kind) } else { self.on.contains(&kind) };
        if self.requests.is_given() && !on(Kind::Api) && !self.audit.is_given() {
            return Err(UsageError::because(
                "flags about requests to the Kubernetes API choose among them, and they are not traced: add --on api",
            ));
        }
        Ok(Plan {
            want: fixed.map(Policies::want),
            exec: on(Kind::Exec),
            file: on(Kind::File),
            exit: on(Kind::Exit),
            // Who has the log needs no probes for what it tells.
            api: on(Kind::Api) && !self.audit.is_given(),
            ring_bytes: self.ring_buffer.unwrap_or(0),
            ..Plan::default()
        })
    }

    /// What is said when nothing sees requests to the Kubernetes API, and whether the trace is in vain then.
    fn need(&self, plan: &Plan, policies: Option<&Policies>) -> Requests {
        let only = !(plan.exec || plan.file || plan.exit);
        let ruled = policies.is_some_and(Policies::wants_api) && !self.rules.best_effort;
        match (plan.api, only || ruled) {
            (false, _) => Requests::Unwanted,
            (true, false) => Requests::Wanted,
            (true, true) => Requests::Needed,
        }
    }

    fn options(
        &self,
        recorder: Option<Recorder>,
        many_namespaces: bool,
        alerts: Option<Alerts>,
        requests: Requests,
        quit: mpsc::Sender<()>,
    ) -> anyhow::Result<Options> {
        let (render, screen) = OutputFlags { many_namespaces, ..self.output.clone() }.open(true, quit)?;
        Ok(Options {
            render,
            screen,
            filter: Filter { requests: self.requests.clone(), ..Filter::default() },
            alerts,
            requests,
            fail_on_match: self.rules.fail_on_match,
            max_events: self.max_events,
            duration: self.duration,
            recorder,
            live: true,
            complete: false,
            local: self.host.local,
        })
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
