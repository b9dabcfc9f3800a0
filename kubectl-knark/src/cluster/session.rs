//! A trace's life in the cluster: which nodes have a tracer, and the end of it all.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    sync::Arc,
    time::Duration,
};

use anyhow::Result;
use ed25519_dalek::SigningKey;
use knark_specs::frame::{Plan, PodVerdict};
use tokio::{
    sync::{mpsc, watch},
    task::{JoinHandle, JoinSet},
    time::timeout,
};

use super::{
    pods::{self, Known, Landed},
    stream::Stream,
    tracer::Tracers,
};
use crate::{connection, source::Input};

/// How long the tracers' last words are waited for.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// A trace under way.
pub struct Running {
    tracers: Arc<Tracers>,
    stop: Arc<watch::Sender<bool>>,
    nodes: JoinHandle<()>,
}

/// What a trace begins with.
pub struct Beginning {
    /// Ready to make pods.
    pub tracers: Tracers,
    /// Signs the tracers' challenges.
    pub key: Arc<SigningKey>,
    /// What to watch.
    pub plan: Plan,
    /// The pods of the scope.
    pub known: watch::Receiver<Known>,
    /// Makes them end.
    pub stop: Arc<watch::Sender<bool>>,
    /// The nodes to trace from the start.
    pub nodes: BTreeSet<String>,
    /// Where wanted pods land later; `None` when the nodes were chosen.
    pub landed: Option<mpsc::Receiver<Landed>>,
    /// Tasks to end with the trace.
    pub others: JoinSet<()>,
}

impl Running {
    /// Starts the tracers.
    pub fn begin(beginning: Beginning, out: mpsc::Sender<Input>) -> Self {
        let Beginning { tracers, key, plan, known, stop, nodes, landed, others } = beginning;
        let tracers = Arc::new(tracers);
        let session = Session { tracers: Arc::clone(&tracers), key, plan, known, stop: Arc::clone(&stop), out };
        Self { tracers, stop, nodes: tokio::spawn(session.run(nodes, landed, others)) }
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

    /// What to say when nobody waits for that any longer.
    pub fn give_up(&self) -> anyhow::Error {
        self.0.may_remain().into()
    }
}

#[derive(Clone)]
struct Session {
    tracers: Arc<Tracers>,
    key: Arc<SigningKey>,
    plan: Plan,
    known: watch::Receiver<Known>,
    stop: Arc<watch::Sender<bool>>,
    out: mpsc::Sender<Input>,
}

impl Session {
    /// Runs a tracer on each node where one is wanted, until all have ended and no more can come. All ends with it.
    async fn run(self, nodes: BTreeSet<String>, mut landed: Option<mpsc::Receiver<Landed>>, _others: JoinSet<()>) {
        let mut stop = self.stop.subscribe();
        let mut known: BTreeSet<String> = BTreeSet::new();
        let mut tasks = JoinSet::new();
        for node in nodes {
            tasks.spawn(self.clone().node(known.len(), node.clone(), None));
            known.insert(node);
        }
        let mut examined = JoinSet::new();
        while let Some(landings) = &mut landed {
            tokio::select! {
                () = stopped(&mut stop) => break,
                landing = landings.recv() => match landing {
                    Some(Landed { node, .. }) if known.contains(&node) => {}
                    Some(landing) => {
                        let tracers = Arc::clone(&self.tracers);
                        examined.spawn(async move { (tracers.obstacle(&landing.node).await, landing) });
                    }
                    None => break,
                },
                Some(Ok((obstacle, Landed { node, pod }))) = examined.join_next() => {
                    if known.contains(&node) {
                        continue;
                    }
                    if let Some(obstacle) = obstacle {
                        let (out, text) = (self.out.clone(), format!("pod {pod} starts, but is not traced: {obstacle}"));
                        tasks.spawn(async move { drop(out.send(Input::Warning(text)).await) });
                        continue;
                    }
                    let text = format!("pod {pod} starts on node {node}, where no tracer ran: its first events are not seen");
                    tasks.spawn(self.clone().node(known.len(), node.clone(), Some(text)));
                    known.insert(node);
                }
            }
        }
        tasks.join_all().await;
    }

    async fn node(self, number: usize, name: String, warning: Option<String>) {
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        let _ = self.out.send(Input::Node { node: number, name: name.clone() }).await;
        if let Some(text) = warning {
            let _ = self.out.send(Input::Warning(text)).await;
        }
        let mine = watch::Sender::new(pods::verdicts(&self.known.borrow(), &name));
        let plan = Plan { api: self.tracers.servers().are_on(&name), ..self.plan };
        let shared = connection::Session { key: self.key, plan, verdicts: mine.subscribe(), stop: self.stop.subscribe() };
        let traced = tokio::select! {
            traced = trace_node(&self.tracers, number, &name, shared, &self.out) => traced,
            never = keep_up(self.known, &name, &mine) => match never {},
        };
        let error = traced.err();
        // A trace that misses a node is no whole trace: the others say goodbye.
        if error.is_some() {
            self.stop.send_replace(true);
        }
        let _ = self.out.send(Input::Gone { node: number, error }).await;
    }
}

/// Passes on what of the pods matters to one node.
async fn keep_up(
    mut known: watch::Receiver<Known>,
    node: &str,
    verdicts: &watch::Sender<Arc<BTreeMap<String, PodVerdict>>>,
) -> Infallible {
    while known.changed().await.is_ok() {
        let now = pods::verdicts(&known.borrow_and_update(), node);
        verdicts.send_replace(now);
    }
    std::future::pending().await
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
    let _ = say(if shared.plan.log.is_some() { "opening the log" } else { "attaching probes" }).await;
    Stream { tracers, number, job: &job, pod: &pod }.follow(shared, out).await
}

/// Resolves when the trace is to end.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}
