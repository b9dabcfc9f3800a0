//! Audit logs that lie on nodes: on which ones, and a tracer's pod on each that reads one.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use anyhow::Result;
use ed25519_dalek::SigningKey;
use knark_specs::frame::{LogPlan, Plan, Target};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};

use super::{
    client::Cluster,
    control_plane,
    manifest::Template,
    pods::Known,
    resolve,
    session::{Beginning, Running},
    start::{TracerFlags, new_id, pass_on, user_name},
    target::NodeChoice,
    tracer::Tracers,
};
use crate::source::Input;

/// So many batches of a log wait to be read, each of some 128 KiB.
const QUEUE: usize = 64;

/// Where on its node a log lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogPlace {
    /// The folder that is mounted into the pod.
    pub folder: String,
    /// The file's name there; empty: the log of that folder.
    pub name: String,
}

impl std::fmt::Display for LogPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { folder, name } = self;
        if name.is_empty() { f.write_str(folder) } else { write!(f, "{folder}/{name}") }
    }
}

/// Which logs, and by which pods.
#[derive(Debug, Clone)]
pub struct LogRequest {
    /// On these nodes; `None`: on those of the control plane.
    pub nodes: Option<NodeChoice>,
    /// On each of them.
    pub places: Vec<LogPlace>,
    /// They go on for as long as something may be added.
    pub follow: bool,
    /// The pods.
    pub tracer: TracerFlags,
    /// `--for`: the pods' deadline is set by it.
    pub duration: Option<Duration>,
}

/// Logs whose pods would be admitted. Nothing is made yet.
pub struct NodeLogs {
    logs: Vec<(Tracers, String, LogPlace)>,
    key: Arc<SigningKey>,
    follow: bool,
    /// What could not be found out about nodes.
    pub warnings: Vec<String>,
}

/// A log that is being read.
pub struct LogStream {
    /// As events name it: the node, and the log too where there are several.
    pub name: String,
    /// On this node.
    pub node: String,
    /// There.
    pub place: LogPlace,
    /// What its tracer says: batches are of `LogPart`s.
    pub inputs: mpsc::Receiver<Input>,
}

impl NodeLogs {
    /// Finds the nodes, and asks admission about the pods.
    pub async fn prepare(cluster: &Cluster, request: LogRequest, key: Arc<SigningKey>) -> Result<Self> {
        let LogRequest { nodes, places, follow, tracer, duration } = request;
        let nodes = async {
            match &nodes {
                Some(choice) => Ok((resolve::chosen_nodes(cluster, choice).await?, Vec::new())),
                None => anyhow::Ok(control_plane::nodes(cluster).await),
            }
        };
        let (user, nodes) = tokio::join!(user_name(cluster), nodes);
        let (user, (nodes, warnings)) = (user?.unwrap_or_default(), nodes?);
        if nodes.is_empty() {
            let why = warnings.first().map(|why| format!(" ({why})")).unwrap_or_default();
            anyhow::bail!(
                "no node of this cluster is known to run an API server, whose audit log would lie there{why}: name one by --node; where the \
                 control plane is managed, its provider has the log (--audit-log FILE or -)"
            );
        }
        let mut logs = Vec::new();
        for node in nodes {
            for place in &places {
                let template = tracer.template(&new_id()?, user.clone(), &key, duration);
                let template = Template { log_folder: Some(place.folder.clone()), ..template };
                let tracers = Tracers::admit(cluster, template, tracer.tracer_namespace.as_deref(), &node).await?;
                logs.push((tracers, node.clone(), place.clone()));
            }
        }
        Ok(Self { logs, key, follow, warnings })
    }

    /// How many logs there are.
    pub fn count(&self) -> usize {
        self.logs.len()
    }

    /// Starts the pods. They end when `stop` turns true.
    pub fn begin(self, stop: &watch::Receiver<bool>) -> Vec<(LogStream, Running)> {
        let Self { logs, key, follow, .. } = self;
        let places: BTreeSet<_> = logs.iter().map(|(.., place)| place.to_string()).collect();
        let begin = |(tracers, node, place): (Tracers, String, LogPlace)| {
            let log = LogPlan { name: place.name.clone(), follow };
            // Verdicts are for those who trace.
            let (_, known) = watch::channel(Known::default());
            let stopper = Arc::new(watch::Sender::new(false));
            let mut others = JoinSet::new();
            others.spawn(pass_on(stop.clone(), Arc::clone(&stopper)));
            let (out, inputs) = mpsc::channel(QUEUE);
            let beginning = Beginning {
                tracers,
                key: Arc::clone(&key),
                plan: Plan { target: Target::Pods { namespace: None }, log: Some(Box::new(log)), ..Plan::default() },
                known,
                stop: stopper,
                nodes: BTreeSet::from([node.clone()]),
                landed: None,
                others,
            };
            let name = if places.len() > 1 { format!("{node}:{place}") } else { node.clone() };
            (LogStream { name, node, place, inputs }, Running::begin(beginning, out))
        };
        logs.into_iter().map(begin).collect()
    }
}
