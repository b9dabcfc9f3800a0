//! Asking nodes what they can do: a tracer pod on each, which runs its `doctor` verb.

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use ed25519_dalek::SigningKey;
use futures::{StreamExt as _, stream};
use tokio::{io::AsyncReadExt as _, sync::mpsc, time::timeout};

use super::{
    client::Cluster,
    control_plane::{self, Servers},
    manifest::{BINARY, Template},
    resolve,
    start::{TracerFlags, new_id, user_name},
    target::NodeChoice,
    tracer::Tracers,
};

/// How many nodes are asked at once.
const AT_ONCE: usize = 16;
/// Images may have to be pulled first.
const RUNNING_WITHIN: Duration = Duration::from_mins(3);
/// A tracer looks around in a fraction of a second.
const REPORT_WITHIN: Duration = Duration::from_secs(30);
/// More than this is no report.
const REPORT_AT_MOST: u64 = 1 << 20;

/// Nodes about to be asked. Nothing is made yet.
pub struct Examination {
    tracers: Tracers,
    nodes: Vec<String>,
    /// Nodes that can't be asked, as they are not Ready.
    pub unready: Vec<String>,
    /// What could not be found out about API servers.
    pub problems: Vec<String>,
}

/// What came of a node.
pub struct Examined {
    /// Its name.
    pub node: String,
    /// The tracer's report, or what kept it.
    pub report: Result<String>,
}

impl Examination {
    /// Chooses the nodes, and checks that tracers would be admitted there.
    pub async fn prepare(cluster: &Cluster, choice: Option<&NodeChoice>, flags: &TracerFlags) -> Result<Self> {
        let (nodes, unready) = match choice {
            Some(choice) => (resolve::chosen_nodes(cluster, choice).await?, Vec::new()),
            None => resolve::all_nodes(cluster).await?,
        };
        let nodes: Vec<_> = nodes.into_iter().collect();
        // Looking into an API server takes memory, which only those pods get that need it.
        let (user, (servers, mut problems)) = tokio::join!(user_name(cluster), control_plane::nodes(cluster));
        let user = user?.unwrap_or_default();
        // Nobody will sign anything: the tracers are only asked to look around.
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|error| anyhow!("making a key: the system gives no random numbers: {error}"))?;
        let template = flags.template(&new_id()?, user, &SigningKey::from_bytes(&seed), None);
        let namespace = flags.tracer_namespace.as_deref();
        let example = nodes.first().map_or("", String::as_str);
        let admitted = match nodes.iter().find(|node| servers.contains(*node)) {
            Some(server) => {
                let template = Template { servers: Servers::On(servers.clone()), ..template.clone() };
                Tracers::admit(cluster, template, namespace, server).await
            }
            None => Tracers::admit(cluster, template.clone(), namespace, example).await,
        };
        let tracers = match admitted {
            Ok(tracers) => tracers,
            // Those that look into API servers need more than others, which may be what isn't admitted.
            Err(error) => {
                let tracers = Tracers::admit(cluster, template, namespace, example).await.map_err(|_| error)?;
                problems.push("looking into API servers was not admitted, so whether they can be traced isn't known".to_owned());
                tracers
            }
        };
        Ok(Self { tracers, nodes, unready, problems })
    }

    /// Where the tracers run.
    pub fn namespace(&self) -> &str {
        self.tracers.namespace()
    }

    /// Asks all nodes.
    pub async fn run(&self) -> Vec<Examined> {
        stream::iter(&self.nodes)
            .map(|node| async move { Examined { node: node.clone(), report: self.ask(node).await } })
            .buffered(AT_ONCE)
            .collect()
            .await
    }

    /// Removes what was made.
    pub async fn remove(&self) -> Result<()> {
        Ok(self.tracers.remove().await?)
    }

    /// What to say when nobody waits for that any longer.
    pub fn give_up(&self) -> anyhow::Error {
        self.tracers.may_remain().into()
    }

    async fn ask(&self, node: &str) -> Result<String> {
        let job = self.tracers.create(node).await?;
        let (phases, _) = mpsc::channel(1);
        let running = timeout(RUNNING_WITHIN, self.tracers.running(&job, node, &phases)).await;
        let pod = running.with_context(|| format!("the tracer's pod didn't start within {} s", RUNNING_WITHIN.as_secs()))??;
        let report = timeout(REPORT_WITHIN, self.report(&pod, node)).await;
        report.with_context(|| format!("the tracer gave no report within {} s", REPORT_WITHIN.as_secs()))?
    }

    async fn report(&self, pod: &str, node: &str) -> Result<String> {
        let command = if self.tracers.servers().are_on(node) { &[BINARY, "doctor", "--api"][..] } else { &[BINARY, "doctor"] };
        let (mut stdout, _stdin) = self.tracers.exec(pod, command).await?;
        let mut report = String::new();
        (&mut stdout).take(REPORT_AT_MOST).read_to_string(&mut report).await?;
        if stdout.failure().is_some() || report.is_empty() {
            return Err(anyhow!("the tracer's doctor failed: {}", stdout.last_words().unwrap_or_default()));
        }
        Ok(report)
    }
}
