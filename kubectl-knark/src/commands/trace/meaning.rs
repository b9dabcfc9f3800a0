//! What the flags of `trace` mean together.

use std::sync::Arc;

use knark_specs::{
    frame::{Aggregate, FileOp, Plan, Want, WantedFile},
    policy::matcher::Policies,
};
use tokio::sync::{mpsc, watch};

use super::{Args, Repeats, RuleFlags};
use crate::{
    alert_to::{Receivers, Surroundings},
    audit::AuditLogs,
    cluster::{Cluster, LogRequest, NodeLogs, TargetFlags},
    exit::UsageError,
    filter::{Filter, Kind},
    pipeline::{
        Options, Requests,
        alerts::{Alerts, Labels},
    },
    policies::{self, Before},
    record::Recorder,
    render::{Format, OutputFlags, escape::cell},
    source::Input,
};

/// So many rules are named in a warning.
const NAMED: usize = 5;

impl Args {
    /// The audit logs that are asked for.
    pub(super) fn audit_logs(&self) -> anyhow::Result<Option<AuditLogs>> {
        if !self.audit.is_given() {
            return Ok(None);
        }
        if !self.on.is_empty() && !self.on.contains(&Kind::Api) {
            return Err(UsageError::because(
                "--on leaves out api, and audit logs tell of nothing else: add api, or drop --audit-log",
            ));
        }
        if self.host.local
            && let Some(place) = self.audit.on_nodes().first()
        {
            let text = format!("node:{place} is on a node of a cluster, and --local asks none: name this host's file {place}");
            return Err(UsageError::because(text));
        }
        if self.audit.has_input() && self.policies.files.iter().any(|path| path.as_os_str() == "-") {
            return Err(UsageError::because(
                "standard input can't be both an audit log and a policy: name a file for one of them",
            ));
        }
        self.audit.open(self.bodies.wanted()).map(Some)
    }

    /// Who is told of matches, besides the output.
    pub(super) fn receivers(&self) -> anyhow::Result<Option<Receivers>> {
        let around = Surroundings {
            policies: self.policies.is_given(),
            dashboard: self.output.output == Format::Tui,
            local: self.host.local,
            cluster: (!self.host.local && self.needs_tracers()).then_some(&self.connection),
        };
        self.alert_to.open(true, around)
    }

    /// The audit logs on nodes that are asked for, once it is clear that their pods would be admitted.
    pub(super) async fn node_logs(&self, cluster: Option<&Cluster>) -> anyhow::Result<Option<NodeLogs>> {
        let places = self.audit.on_nodes();
        if places.is_empty() {
            return Ok(None);
        }
        let request = LogRequest {
            nodes: self.target.node_choice().map_err(|error| UsageError::because(error.to_string()))?,
            places,
            follow: self.audit.follow,
            tracer: self.tracer.clone(),
            duration: self.duration,
        };
        let connected;
        let cluster = if let Some(cluster) = cluster {
            cluster
        } else {
            connected = self.connection.connect().await?;
            &connected
        };
        NodeLogs::prepare(cluster, request, Arc::new(super::session_key()?)).await.map(Some)
    }

    /// Whether anything is asked for that audit logs don't tell: pods, nodes, or other kinds of events.
    pub(super) fn needs_tracers(&self) -> bool {
        let TargetFlags { targets, selector, all_namespaces, containers, nodes, node_selector } = &self.target;
        let lists = [targets, containers].iter().any(|list| !list.is_empty());
        // They also say where logs on nodes are.
        let has_nodes = (!nodes.is_empty() || node_selector.is_some()) && self.audit.on_nodes().is_empty();
        let has_target = lists || selector.is_some() || *all_namespaces || has_nodes;
        // A namespace alone chooses among requests.
        let tells_all = !self.on.is_empty() && self.on.iter().all(|kind| *kind == Kind::Api);
        (has_target || self.host.local) && !tells_all || self.on.iter().any(|kind| *kind != Kind::Api)
    }

    /// The policies that are asked for, if they can be used and their events be seen.
    pub(super) async fn policies(&self, cluster: Option<&Cluster>) -> anyhow::Result<Option<(Arc<Policies>, Before)>> {
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
            let left_out = if kind == Kind::File && self.named().next().is_some() {
                let ops: Vec<_> = set.policies.want().file.into_iter().flat_map(|file| file.ops).collect();
                ops.into_iter().filter(|op| !leaves_in(&self.on, *op)).map(FileOp::name).collect::<Vec<_>>().join(", ")
            } else if self.on.is_empty() || self.on.contains(&kind) {
                String::new()
            } else {
                name.to_owned()
            };
            if wanted && !left_out.is_empty() {
                crate::exit::say(&format!("warning: --on leaves out {left_out}, so rules about that never match\n"));
            } else if wanted && kind != Kind::Api && self.audit.is_given() && !self.needs_tracers() {
                let remedy = "name pods or nodes to trace them as well";
                crate::exit::say(&format!(
                    "warning: audit logs tell of api alone, so rules about {name} never match: {remedy}\n"
                ));
            }
        }
        let on_bodies: Vec<&str> = set.policies.on_bodies().collect();
        if !on_bodies.is_empty() && !self.bodies.bodies && (self.on.is_empty() || self.on.contains(&Kind::Api)) {
            let others = on_bodies.len().saturating_sub(NAMED);
            let others = if others > 0 { format!(" and {others} more") } else { String::new() };
            let rules = cell(&on_bodies[..on_bodies.len().min(NAMED)].join(", ")).into_owned();
            crate::exit::say(&format!(
                "warning: without --bodies, rules and exceptions that look into bodies never match: {rules}{others}\n"
            ));
        }
        if self.on.contains(&Kind::Exit) {
            crate::exit::say("warning: only events that a rule matches are shown, and none is about exit\n");
        }
        let requests = if self.on.is_empty() { set.policies.wants_api() } else { self.on.contains(&Kind::Api) };
        Ok(Some((Arc::new(set.policies), Before { seen, sources: set.sources, requests })))
    }

    /// What is made of policies while the trace runs. They are followed as long as `sink` has other users.
    pub(super) fn alerts(
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
        Alerts::new(policies, labels, self.connection.own.clone())
    }

    /// Which events are wanted. Policies that may change can't be decided upon in the kernel.
    pub(super) fn plan(&self, policies: Option<&Policies>) -> anyhow::Result<Plan> {
        let fixed = policies.filter(|_| !self.rules.watch);
        let by_default = |kind| match (kind, fixed) {
            (Kind::Exec, Some(policies)) => policies.needs_execs(),
            (Kind::File, Some(policies)) => policies.wants_files(),
            (Kind::Api, Some(policies)) => policies.wants_api(),
            (Kind::Exec | Kind::File, None) => true,
            (Kind::Api, None) => policies.is_some_and(Policies::wants_api),
            (Kind::Exit | Kind::Write | Kind::MapExec, _) => false,
        };
        let on = |kind| if self.on.is_empty() { by_default(kind) } else { self.on.contains(&kind) };
        if (self.requests.is_given() || self.bodies.bodies) && !on(Kind::Api) && !self.audit.is_given() {
            return Err(UsageError::because(
                "flags about requests to the Kubernetes API choose among them, and they are not traced: add --on api",
            ));
        }
        Ok(Plan {
            want: self.want(policies, fixed),
            same: policies.and_then(Policies::same_files).map(|mut same| {
                same.ops.retain(|op| leaves_in(&self.on, *op));
                same
            }),
            exec: on(Kind::Exec),
            file: on(Kind::File) || self.named().next().is_some(),
            exit: on(Kind::Exit),
            // Who has the log needs no probes for what it tells.
            api: on(Kind::Api) && !self.audit.is_given(),
            bodies: self.bodies.wanted(),
            ring_bytes: self.ring_buffer.unwrap_or(0),
            btf: self.btf.read()?.map(Into::into),
            events_per_second: self.rate_limit,
            aggregate: self.aggregate.map(|by| match (by, policies) {
                (Some(Repeats::Exe), _) | (None, None) => Aggregate::Exe,
                (Some(Repeats::Process), _) | (None, Some(_)) => Aggregate::Process,
            }),
            ..Plan::default()
        })
    }

    /// Of the kinds that are asked for, those that are operations on files.
    fn named(&self) -> impl Iterator<Item = FileOp> + '_ {
        self.on.iter().filter_map(|kind| kind.op())
    }

    /// What the kernel is asked for, of those kinds; `None`: all that is usual.
    fn want(&self, policies: Option<&Policies>, fixed: Option<&Policies>) -> Option<Want> {
        let files = self.on.is_empty() || self.on.contains(&Kind::File);
        let mut ops = if files { FileOp::USUAL.to_vec() } else { Vec::new() };
        match (fixed, policies) {
            (Some(fixed), _) => return Some(left_in(fixed.want(), &self.on)),
            // What rules will be about isn't known yet.
            (None, Some(_)) if files => ops.extend(FileOp::NAMED),
            _ if self.named().next().is_none() => return None,
            _ => ops.extend(self.named()),
        }
        Some(Want { file: vec![WantedFile { ops, ..WantedFile::default() }], ..Want::default() })
    }

    /// What is said when nothing sees requests to the Kubernetes API, and whether the trace is in vain then.
    pub(super) fn need(&self, plan: &Plan, policies: Option<&Policies>) -> Requests {
        let only = !(plan.exec || plan.file || plan.exit);
        let ruled = policies.is_some_and(Policies::wants_api) && !self.rules.best_effort;
        match (plan.api, only || ruled) {
            (false, _) => Requests::Unwanted,
            (true, false) => Requests::Wanted,
            (true, true) => Requests::Needed,
        }
    }

    pub(super) fn options(
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

/// Whether `--on` leaves this operation in, where something asks for it.
fn leaves_in(on: &[Kind], op: FileOp) -> bool {
    on.is_empty() || on.contains(&Kind::File) || on.iter().any(|kind| kind.op() == Some(op))
}

/// What rules want, without the operations that `--on` leaves out.
fn left_in(mut want: Want, on: &[Kind]) -> Want {
    want.file.retain_mut(|file| {
        file.ops.retain(|op| leaves_in(on, *op));
        // None would mean the usual ones.
        !file.ops.is_empty()
    });
    want
}

#[cfg(test)]
mod tests {
    use knark_specs::frame::{FileOp, Want, WantedFile};

    use super::left_in;
    use crate::filter::Kind;

    #[test]
    fn rules_get_what_on_leaves_in() {
        let file = |ops: &[FileOp]| WantedFile { ops: ops.to_vec(), ..WantedFile::default() };
        let rules = || vec![file(&[FileOp::Chmod]), file(&[FileOp::Chown, FileOp::Write])];
        for (on, left) in [
            (&[][..], rules()),
            (&[Kind::File], rules()),
            (&[Kind::File, Kind::MapExec], rules()),
            (&[Kind::Exec, Kind::Write], vec![file(&[FileOp::Write])]),
            (&[Kind::MapExec], vec![]),
            (&[Kind::Exec], vec![]),
        ] {
            assert_eq!(left_in(Want { file: rules(), ..Want::default() }, on).file, left, "{on:?}");
        }
    }
}
