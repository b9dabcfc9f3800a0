//! A trace's life in the cluster: which nodes have a tracer, and the end of it all.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use anyhow::Result;
use tokio::{
    sync::{mpsc, watch},
    task::{JoinHandle, JoinSet},
    time::timeout,
};

use super::{pods::Landed, stream::Stream, tracer::Tracers};
use crate::{connection, source::Input};

/// How long the tracers' last words are waited for.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// What a session has under way.
pub struct Running {
    /// The session's id, as the label `knark.dev/session` bears it.
    pub session: String,
    tracers: Arc<Tracers>,
    stop: Arc<watch::Sender<bool>>,
    nodes: JoinHandle<()>,
    others: JoinSet<()>,
}

/// Where tracers are wanted.
pub struct Places {
    /// From the start.
    pub first: BTreeSet<String>,
    /// Later, where pods land; `None`: nowhere.
    pub later: Option<mpsc::Receiver<Landed>>,
}

impl Running {
    /// Starts the tracers.
    pub fn begin(
        session: String,
        tracers: Tracers,
        shared: connection::Session,
        stop: Arc<watch::Sender<bool>>,
        places: Places,
        others: JoinSet<()>,
        out: mpsc::Sender<Input>,
    ) -> Self {
        let tracers = Arc::new(tracers);
        let nodes = tokio::spawn(run_nodes(Arc::clone(&tracers), shared, places, out));
        Self { session, tracers, stop, nodes, others }
    }

    /// What removes all of the session's pods at once: for a second Ctrl-C, while [`Self::finish`] may still be waiting.
    pub fn remover(&self) -> Remover {
        Remover(Arc::clone(&self.tracers))
    }

    /// Asks the tracers to end if `stop` hasn't, waits for their last words (5 s at most), removes what was made, and waits
    /// until it is gone (10 s at most). After it, `out` is closed.
    pub async fn finish(mut self) -> Result<()> {
        self.stop.send_replace(true);
        if timeout(LAST_WORDS, &mut self.nodes).await.is_err() {
            self.nodes.abort();
            let _ = (&mut self.nodes).await;
        }
        self.others.shutdown().await;
        Ok(self.tracers.remove().await?)
    }
}

/// Removes a session's pods; safe to call at any time, and more than once.
#[derive(Clone)]
pub struct Remover(Arc<Tracers>);

impl Remover {
    /// Removes them without waiting for the tracers' last words.
    pub async fn remove(&self) -> Result<()> {
        Ok(self.0.remove().await?)
    }
}

/// Runs a tracer on each node where one is wanted, until all have ended and no more can come.
async fn run_nodes(tracers: Arc<Tracers>, shared: connection::Session, places: Places, out: mpsc::Sender<Input>) {
    let mut stop = shared.stop.clone();
    let mut known: BTreeMap<String, u32> = BTreeMap::new();
    let mut tasks = JoinSet::new();
    let mut add = |node: String, tasks: &mut JoinSet<()>| {
        let number = u32::try_from(known.len()).unwrap_or(u32::MAX);
        if known.contains_key(&node) {
            return false;
        }
        known.insert(node.clone(), number);
        tasks.spawn(run_node(Arc::clone(&tracers), number, node, shared.clone(), out.clone()));
        true
    };
    for node in places.first {
        add(node, &mut tasks);
    }
    let mut later = places.later;
    while let Some(landings) = &mut later {
        tokio::select! {
            landed = landings.recv() => match landed {
                None => break,
                Some(Landed { node, pod }) => {
                    if add(node.clone(), &mut tasks) {
                        let text = format!("pod {pod} starts on node {node}, where no tracer ran: its first events are not seen");
                        let _ = out.send(Input::Warning(text)).await;
                    }
                }
            },
            () = stopped(&mut stop) => break,
        }
    }
    tasks.join_all().await;
}

async fn run_node(tracers: Arc<Tracers>, number: u32, node: String, shared: connection::Session, out: mpsc::Sender<Input>) {
    let _ = out.send(Input::Node { node: number, name: node.clone() }).await;
    let error = trace_node(&tracers, number, &node, shared, &out).await.err();
    let _ = out.send(Input::Gone { node: number, error }).await;
}

async fn trace_node(
    tracers: &Tracers,
    number: u32,
    node: &str,
    mut shared: connection::Session,
    out: &mpsc::Sender<Input>,
) -> Result<()> {
    let say = |phase: &str| out.send(Input::Phase { node: number, phase: phase.to_owned() });
    if *shared.stop.borrow_and_update() {
        return Ok(());
    }
    let _ = say("creating").await;
    let job = tracers.create(node).await?;
    let (phases, mut told) = mpsc::channel(4);
    let running = tracers.running(&job, node, &phases);
    let mut running = std::pin::pin!(running);
    let pod = loop {
        tokio::select! {
            pod = &mut running => break pod?,
            Some(phase) = told.recv() => {
                let _ = say(phase).await;
            }
            // Nothing was seen yet, so there are no last words to wait for.
            () = stopped(&mut shared.stop) => return Ok(()),
        }
    };
    let _ = say("attaching probes").await;
    Stream { tracers, number, node, job: &job, pod: &pod }.follow(shared, out).await
}

/// Resolves when the trace is to end.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}
