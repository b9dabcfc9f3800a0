//! `kubectl knark doctor`: what can be seen, on which nodes, and what this user may do.

mod report;

use std::fmt::Write as _;

use anyhow::Context as _;
use comfy_table::{Table, presets};
use serde::Serialize;

use crate::{
    cluster::{Cluster, ConnectionFlags, Examination, NodeChoice, Right, TargetFlags, TracerFlags, rights},
    commands::print,
    exit::{Exit, UsageError},
    local, signals,
};
use report::{Answer, Report};

/// Check what can be traced, on which nodes, and what you may do
///
/// A tracer pod is started on each chosen node (on all that are Ready, if none is), looks around, and is removed.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  # All nodes, and your own permissions
  kubectl knark doctor

  # One node
  kubectl knark doctor --node worker-1

  # The smallest Role for somebody who shall trace pods of the namespace prod
  kubectl knark doctor --rbac -n prod | kubectl apply -f -

  # This host
  sudo kubectl-knark doctor --local")]
pub struct Args {
    /// Check only this node (repeatable)
    #[arg(long = "node", value_name = "NAME")]
    nodes: Vec<String>,
    /// Check only nodes whose labels match
    #[arg(long, value_name = "SELECTOR")]
    node_selector: Option<String>,
    /// Check this host instead of a cluster
    #[arg(long, conflicts_with_all = ["nodes", "node_selector", "rbac", "ConnectionFlags"])]
    local: bool,
    /// Print the smallest Role instead, and check nothing
    #[arg(long, conflicts_with_all = ["nodes", "node_selector", "output"])]
    rbac: bool,
    /// With --rbac: for pods of all namespaces
    #[arg(short = 'A', long, requires = "rbac")]
    all_namespaces: bool,
    /// Output format
    #[arg(short, long, value_name = "FORMAT", value_enum)]
    output: Option<Format>,
    #[command(flatten)]
    tracer: TracerFlags,
    #[command(flatten)]
    connection: ConnectionFlags,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Format {
    /// For reading
    Table,
    /// One JSON object
    Json,
    /// One YAML document
    Yaml,
}

/// All that was found.
#[derive(Debug, Serialize)]
struct Findings {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    permissions: Vec<Right>,
    nodes: Vec<Answer>,
    /// What could not be found out about API servers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    problems: Vec<String>,
}

/// Looks, and prints.
pub async fn run(args: Args) -> anyhow::Result<Exit> {
    if args.rbac {
        let tracers = args.tracer.tracer_namespace.as_deref().unwrap_or("kube-system");
        // No cluster is needed for this; without one, the targets' namespace is the flag's.
        let targets = match args.connection.namespace.clone() {
            Some(namespace) => namespace,
            None => args.connection.connect().await.map_or_else(|_| "default".to_owned(), |cluster| cluster.namespace),
        };
        return print(&rights::yaml(tracers, &targets, args.all_namespaces));
    }
    let findings = if args.local { on_host().await? } else { in_cluster(&args).await? };
    let Some(findings) = findings else { return Ok(Exit::Interrupted) };
    print(&match args.output {
        Some(Format::Json) => crate::render::json::pretty(&findings)?,
        Some(Format::Yaml) => serde_yaml::to_string(&findings)?,
        Some(Format::Table) | None => table(&findings),
    })?;
    let allowed = findings.permissions.iter().all(|right| right.allowed || right.only_for.is_some());
    let able = findings.nodes.iter().all(Answer::is_able);
    Ok(if allowed && able { Exit::Done } else { Exit::Failed })
}

async fn on_host() -> anyhow::Result<Option<Findings>> {
    let program = local::find_tracer()?;
    let output = tokio::process::Command::new(&program).args(["doctor", "--api"]).output().await;
    let output = output.with_context(|| format!("starting the tracer {}", program.display()))?;
    if !output.status.success() {
        anyhow::bail!("the tracer's doctor failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let report = String::from_utf8_lossy(&output.stdout);
    let nodes = vec![Answer::new("this host".to_owned(), Ok(report.into_owned()))];
    Ok(Some(Findings { permissions: Vec::new(), nodes, problems: Vec::new() }))
}

async fn in_cluster(args: &Args) -> anyhow::Result<Option<Findings>> {
    let choice = TargetFlags { nodes: args.nodes.clone(), node_selector: args.node_selector.clone(), ..TargetFlags::default() };
    let choice = choice.node_choice().map_err(|error| UsageError::because(error.to_string()))?;
    let mut signals = signals::listen()?;
    // Nothing is made in the cluster yet.
    let (cluster, examination) = tokio::select! {
        prepared = prepare(args, choice.as_ref()) => prepared?,
        Some(()) = signals.recv() => return Ok(None),
    };
    let examined = tokio::select! {
        examined = examine(&cluster, &examination) => Some(examined),
        Some(()) = signals.recv() => None,
    };
    let removed = tokio::select! {
        removed = examination.remove() => removed,
        Some(()) = signals.recv() => Err(examination.give_up()),
    };
    let Some(examined) = examined else { return removed.map(|()| None) };
    // What was found, or kept it from being found, is worth showing all the same.
    if let Err(left) = removed {
        crate::exit::warn(&left);
    }
    examined.map(Some)
}

async fn prepare(args: &Args, choice: Option<&NodeChoice>) -> anyhow::Result<(Cluster, Examination)> {
    let cluster = args.connection.connect().await?;
    match Examination::prepare(&cluster, choice, &args.tracer).await {
        Ok(examination) => Ok((cluster, examination)),
        Err(error) => {
            // What the user may do is worth knowing all the more.
            let tracers = args.tracer.tracer_namespace.as_deref().unwrap_or("kube-system");
            if let Ok(permissions) = rights::check(&cluster, tracers, &cluster.namespace).await {
                print(&rights_table(&permissions))?;
            }
            Err(error)
        }
    }
}

async fn examine(cluster: &Cluster, examination: &Examination) -> anyhow::Result<Findings> {
    let permissions = rights::check(cluster, examination.namespace(), &cluster.namespace);
    let (permissions, examined) = tokio::join!(permissions, examination.run());
    let mut nodes: Vec<_> = examined.into_iter().map(|examined| Answer::new(examined.node, examined.report)).collect();
    nodes.extend(examination.unready.iter().map(|node| Answer::new(node.clone(), Err(anyhow::anyhow!("the node is not Ready")))));
    Ok(Findings { permissions: permissions?, nodes, problems: examination.problems.clone() })
}

fn table(findings: &Findings) -> String {
    let mut rows = plain(&["NODE", "KERNEL", "ARCH", "BTF", "LOCKDOWN", "CGROUP", "DRIVER", "RUNTIME", "SEES"]);
    let mut notes = String::new();
    for Answer { node, report, error } in &findings.nodes {
        let none = Report::default();
        let r = report.as_ref().unwrap_or(&none);
        let sees: Vec<_> = r.events.iter().filter(|event| event.available).map(|event| event.kind.as_str()).collect();
        let sees = if sees.is_empty() { "nothing".to_owned() } else { sees.join(",") };
        let btf = if r.btf { "yes" } else { "no" };
        let cells = [node, &r.kernel, &r.arch, btf, &r.lockdown, &r.cgroup.version, &r.cgroup.driver, &r.runtime, &sees];
        rows.add_row(cells.map(|cell| crate::render::escape::cell(cell).into_owned()));
        for problem in error.iter().chain(&r.problems) {
            let _ = writeln!(notes, "{node}: {problem}");
        }
        for event in &r.events {
            for missing in &event.missing {
                let _ = writeln!(notes, "{node}: {} events lack {missing}", event.kind);
            }
            for portable in &event.portable {
                let _ = writeln!(notes, "{node}: {} events are of the portable tier for {portable}", event.kind);
            }
        }
    }
    let mut text = format!("{}\n", rows.trim_fmt());
    if !notes.is_empty() {
        let _ = write!(text, "\n{}", crate::render::escape::lines(&notes));
    }
    let in_cluster = !findings.permissions.is_empty();
    let sees_requests = |answer: &Answer| answer.report.as_ref().is_some_and(|report| report.sees("api"));
    if in_cluster && !findings.nodes.iter().any(sees_requests) {
        text.push_str(
            "\nOn none of these nodes an API server was found that can be traced. If you know one, `trace --on api --node NAME` looks \
             there; where the control plane is managed, its audit log tells of requests: `trace --audit-log FILE`.\n",
        );
    }
    for problem in &findings.problems {
        let _ = write!(text, "{}", crate::render::escape::lines(&format!("{problem}\n")));
    }
    if in_cluster {
        let _ = write!(text, "\n{}", rights_table(&findings.permissions));
    }
    text
}

fn rights_table(rights: &[Right]) -> String {
    let mut table = plain(&["ALLOWED", "VERB", "RESOURCE", "NAMESPACE", "NEEDED FOR"]);
    for right in rights {
        let allowed = if right.allowed { "yes" } else { "no" };
        let namespace = right.namespace.as_deref().unwrap_or("(cluster)");
        table.add_row([allowed, right.verb, &right.resource, namespace, right.only_for.unwrap_or("every trace")]);
    }
    let mut text = format!("{}\n", table.trim_fmt());
    if rights.iter().any(|right| !right.allowed) {
        text.push_str("\n`kubectl knark doctor --rbac` prints a Role with what is missing.\n");
    }
    text
}

/// A table as kubectl prints them.
fn plain(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    for column in table.column_iter_mut() {
        column.set_padding((0, 3));
    }
    table
}
