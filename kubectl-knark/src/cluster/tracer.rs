//! Tracer pods: admitted, made, waited for, removed.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use futures::StreamExt as _;
use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{Event, Pod},
};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams, PostParams},
    runtime::{WatchStreamExt as _, watcher},
};
use tokio::{
    sync::{RwLock, mpsc, watch},
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use super::{
    client::Cluster,
    control_plane::Servers,
    diagnose::{self, State},
    error::ApiError,
    exec::{self, Stdin, Stdout},
    manifest::{CONTAINER, SESSION, Template},
    resolve::{self, ResolveError},
};

/// Where tracers run, if the user doesn't say: the first that exists.
pub const NAMESPACES: [&str; 2] = ["knark-system", "kube-system"];
/// The Job controller makes a pod within a second as a rule.
const POD_WITHIN: Duration = Duration::from_secs(20);
/// A kubelet that is alive says something about a new pod within this time.
const KUBELET_WITHIN: Duration = Duration::from_secs(45);
/// How often it is looked whether the folder of a log could be mounted.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long the removal of pods is waited for.
const GONE_WITHIN: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(100);

/// A tracer that can't be had.
#[derive(Debug, thiserror::Error)]
pub enum TracerError {
    /// The API server's word.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// Tracers can't be where they shall be.
    #[error(
        "there is no namespace {0:?} for the tracer pods: choose another by --tracer-namespace, or make it by `kubectl create namespace {0}`"
    )]
    NoNamespace(String),
    /// The pod's fate: what happened and what to do.
    #[error("{0}")]
    Over(String),
    /// The Job has no pod.
    #[error("the Job {namespace}/{job} has no pod after {} s: {why}", POD_WITHIN.as_secs())]
    NoPod {
        /// The Job.
        job: String,
        /// Its namespace.
        namespace: String,
        /// What its events say.
        why: String,
    },
    /// The kubelet doesn't take the pod up.
    #[error("the kubelet of node {node} has not taken up the tracer within {} s: check `kubectl describe node {node}`", KUBELET_WITHIN.as_secs())]
    Ignored {
        /// Where.
        node: String,
    },
    /// Not valid as an object: a flag's fault.
    #[error("making the tracer's manifest: {0}")]
    Manifest(#[from] serde_json::Error),
    /// It can't be told whether all that was made has been removed.
    #[error(
        "tracer pods of session {session} may still be in namespace {namespace}: `kubectl knark cleanup --session {session} --tracer-namespace {namespace}` removes them, and they end by themselves"
    )]
    MayRemain {
        /// Whose.
        session: String,
        /// Where.
        namespace: String,
    },
    /// What was made is still there.
    #[error(
        "the tracer pods of session {session} are still terminating: `kubectl get pods -n {namespace} -l {SESSION}={session}` shows them, and they end by themselves"
    )]
    StillThere {
        /// Whose.
        session: String,
        /// Where.
        namespace: String,
    },
}

impl TracerError {
    /// Adds how the stream ended to a pod's end that doesn't say why.
    #[must_use]
    pub fn and_the_stream(self, why: &str) -> Self {
        match self {
            Self::Over(text) if text == diagnose::ENDED => Self::Over(format!("{text} without a goodbye: {why}")),
            other => other,
        }
    }
}

/// What a pod of the session was last seen as.
#[derive(Debug, Clone)]
enum Seen {
    There(Arc<Pod>),
    Gone,
}

/// What is known of the session's pods.
#[derive(Debug, Default)]
struct Pods {
    by_job: BTreeMap<String, Seen>,
    /// Why they can't be watched.
    refused: Option<String>,
}

/// The tracer pods of one session.
pub struct Tracers {
    cluster: Cluster,
    template: Template,
    made: AtomicU32,
    /// Held while a Job is being made, even if nobody waits for the answer any more: only then is it known what to remove.
    making: Arc<RwLock<()>>,
    pods: watch::Receiver<Pods>,
    watcher: JoinHandle<()>,
}

impl Drop for Tracers {
    fn drop(&mut self) {
        self.watcher.abort();
    }
}

impl Tracers {
    /// Asks admission about the pod, which creates nothing, and settles the namespace.
    pub async fn admit(
        cluster: &Cluster,
        mut template: Template,
        namespace: Option<&str>,
        node: &str,
    ) -> Result<Self, TracerError> {
        if let Some(namespace) = namespace {
            namespace.clone_into(&mut template.namespace);
            dry_run(cluster, &template, node).await?;
        } else {
            let [ours, systems] = NAMESPACES.map(|namespace| Template { namespace: namespace.to_owned(), ..template.clone() });
            let (in_ours, in_systems) = tokio::join!(dry_run(cluster, &ours, node), dry_run(cluster, &systems, node));
            template = match (in_ours, in_systems) {
                (Ok(()), _) => ours,
                // Not there, or not for this user.
                (Err(TracerError::NoNamespace(_)), in_systems) => in_systems.map(|()| systems)?,
                (Err(TracerError::Api(error)), in_systems) if error.is_forbidden() => in_systems.map(|()| systems)?,
                (Err(error), _) => return Err(error),
            };
        }
        let (sender, pods) = watch::channel(Pods::default());
        let watcher = tokio::spawn(watch_pods(cluster.clone(), template.namespace.clone(), template.session.clone(), sender));
        Ok(Self { cluster: cluster.clone(), template, made: AtomicU32::new(0), making: Arc::default(), pods, watcher })
    }

    /// Where the pods are.
    pub fn namespace(&self) -> &str {
        &self.template.namespace
    }

    /// Where API servers are traced.
    pub fn servers(&self) -> &Servers {
        &self.template.servers
    }

    fn explain(&self, doing: impl Into<String>, error: kube::Error) -> ApiError {
        self.cluster.explain(doing, error).in_namespace(self.namespace())
    }

    /// Runs a command in a tracer's pod.
    pub async fn exec(&self, pod: &str, command: &[&str]) -> Result<(Stdout, Stdin), ApiError> {
        let doing = || format!("connecting to the tracer pod {}/{pod}", self.namespace());
        let streams = exec::exec(&self.cluster.client, self.namespace(), pod, CONTAINER, command).await;
        streams.map_err(|error| self.explain(doing(), error))
    }

    /// What keeps a tracer from a node; `None` also where that can't be told.
    pub async fn obstacle(&self, node: &str) -> Option<ResolveError> {
        resolve::problem(&self.cluster, node).await.ok().flatten()
    }

    /// Makes the Job for a node; returns its name.
    pub async fn create(&self, node: &str) -> Result<String, TracerError> {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let job = self.template.job(number, node)?;
        let api: Api<Job> = Api::namespaced(self.cluster.client.clone(), self.namespace());
        let made = Arc::clone(&self.making).read_owned().await;
        let created = tokio::spawn(async move {
            let created = api.create(&PostParams::default(), &job).await;
            drop(made);
            created
        });
        let doing = || format!("starting a tracer on node {node} in namespace {}", self.namespace());
        match created.await {
            Ok(created) => created.map_err(|error| self.explain(doing(), error))?,
            Err(_) => return Err(over("the request to make the tracer's Job was given up")),
        };
        Ok(self.template.job_name(number))
    }

    /// Waits until the Job's pod runs, and tells `phase` how far it is; returns the pod's name.
    pub async fn running(&self, job: &str, node: &str, phase: &mpsc::Sender<&'static str>) -> Result<String, TracerError> {
        let mut pods = self.pods.clone();
        let created = Instant::now();
        let mut said = "";
        let at_most = if self.template.log_folder.is_some() { LOOK_EVERY } else { Duration::from_hours(1) };
        loop {
            let (seen, refused) = {
                let pods = pods.borrow_and_update();
                (pods.by_job.get(job).cloned(), pods.refused.clone())
            };
            let left = match &seen {
                None if let Some(why) = refused => return Err(TracerError::Over(why)),
                None => POD_WITHIN.checked_sub(created.elapsed()),
                Some(Seen::Gone) => return Err(over("the tracer's pod was deleted by someone else")),
                Some(Seen::There(pod)) => match diagnose::state(pod) {
                    State::Running => return Ok(pod.name_any()),
                    State::Over(why) => return Err(TracerError::Over(why)),
                    State::Waiting(doing) => {
                        if said != doing {
                            said = doing;
                            let _ = phase.send(doing).await;
                        }
                        if let Some(why) = self.lacks_folder(pod, created.elapsed()).await {
                            return Err(TracerError::Over(why));
                        }
                        // Once the kubelet has the pod, pulling an image may take any time.
                        let unknown =
                            pod.status.as_ref().is_none_or(|s| s.container_statuses.is_none() && s.start_time.is_none());
                        if unknown { KUBELET_WITHIN.checked_sub(created.elapsed()) } else { Some(Duration::MAX) }
                    }
                },
            };
            let Some(left) = left else { return Err(self.late(job, node, seen.is_some()).await) };
            if let Ok(Err(_)) = timeout(left.min(at_most), pods.changed()).await {
                return Err(over("the watch of the tracer's pod ended"));
            }
        }
    }

    /// Resolves when the Job's pod runs no longer, with the reason.
    pub async fn ended(&self, job: &str) -> TracerError {
        let mut pods = self.pods.clone();
        loop {
            match pods.borrow_and_update().by_job.get(job) {
                Some(Seen::Gone) => return over("the tracer's pod was deleted by someone else"),
                Some(Seen::There(pod)) => {
                    if let State::Over(why) = diagnose::state(pod) {
                        return TracerError::Over(why);
                    }
                }
                None => {}
            }
            if pods.changed().await.is_err() {
                return over("the watch of the tracer's pod ended");
            }
        }
    }

    /// What keeps the folder of a log from being mounted: the pod would wait for it for ever.
    async fn lacks_folder(&self, pod: &Pod, waited: Duration) -> Option<String> {
        let is_prepared = diagnose::is_prepared(pod);
        let folder = self.template.log_folder.as_ref().filter(|_| is_prepared != Some(true))?;
        let events: Api<Event> = Api::namespaced(self.cluster.client.clone(), self.namespace());
        let fields = format!("involvedObject.name={},reason=FailedMount", pod.name_any());
        let events = events.list(&ListParams::default().fields(&fields)).await.map(|events| events.items).unwrap_or_default();
        let late = || {
            let (seconds, namespace, pod) = (KUBELET_WITHIN.as_secs(), self.namespace(), pod.name_any());
            let look = format!("`kubectl describe pod -n {namespace} {pod}` tells while it waits");
            format!("the node has not prepared the pod within {seconds} s: is there a folder {folder}? {look}")
        };
        // Whoever may not list events isn't told why.
        let is_late = is_prepared == Some(false) && waited > KUBELET_WITHIN;
        diagnose::without_folder(folder, &events).or_else(|| is_late.then(late))
    }

    async fn late(&self, job: &str, node: &str, has_pod: bool) -> TracerError {
        if has_pod {
            return TracerError::Ignored { node: node.to_owned() };
        }
        let events: Api<Event> = Api::namespaced(self.cluster.client.clone(), self.namespace());
        let events = events.list(&ListParams::default().fields(&format!("involvedObject.name={job}"))).await;
        let why = events.ok().and_then(|events| diagnose::without_pod(&events.items));
        let why = why.unwrap_or_else(|| "does the cluster's Job controller run?".to_owned());
        TracerError::NoPod { job: job.to_owned(), namespace: self.namespace().to_owned(), why }
    }

    /// Removes all that was made, and waits for its end. May be called again.
    pub async fn remove(&self) -> Result<(), TracerError> {
        let all_are_made = timeout(GONE_WITHIN, self.making.write()).await.is_ok();
        // Only now: what was being made is counted.
        let made = self.made.load(Ordering::Relaxed);
        if made == 0 {
            return Ok(());
        }
        let names: Vec<_> = (0..made).map(|number| self.template.job_name(number)).collect();
        futures::future::join_all(names.iter().map(|name| self.delete(name))).await.into_iter().collect::<Result<(), _>>()?;
        let session = &self.template.session;
        let params = ListParams::default().labels(&format!("{SESSION}={session}"));
        let api: Api<Pod> = Api::namespaced(self.cluster.client.clone(), self.namespace());
        let begun = Instant::now();
        loop {
            let left = api.list(&params).await.map_err(|error| self.explain("waiting for the tracers' end", error))?.items;
            if left.is_empty() {
                return if all_are_made { Ok(()) } else { Err(self.may_remain()) };
            }
            if begun.elapsed() > GONE_WITHIN {
                return Err(TracerError::StillThere { session: session.clone(), namespace: self.namespace().to_owned() });
            }
            // A pod whose container has ended has nothing to wait for, yet its kubelet takes seconds to let go of it. Where
            // the user may not delete pods, that is what it takes.
            for pod in left.iter().filter(|pod| diagnose::has_ended(pod)) {
                let _ = api.delete(&pod.name_any(), &DeleteParams::default().grace_period(0)).await;
            }
            sleep(POLL).await;
        }
    }

    /// For a user who won't wait for [`Self::remove`] any longer.
    pub fn may_remain(&self) -> TracerError {
        TracerError::MayRemain { session: self.template.session.clone(), namespace: self.namespace().to_owned() }
    }

    async fn delete(&self, name: &str) -> Result<(), ApiError> {
        let api: Api<Job> = Api::namespaced(self.cluster.client.clone(), self.namespace());
        match api.delete(name, &DeleteParams::background()).await {
            Ok(_) => Ok(()),
            Err(error) => match self.explain(format!("removing the Job {}/{name}", self.namespace()), error) {
                error if error.is_not_found() => Ok(()),
                error => Err(error),
            },
        }
    }
}

fn over(why: &str) -> TracerError {
    TracerError::Over(why.to_owned())
}

async fn dry_run(cluster: &Cluster, template: &Template, node: &str) -> Result<(), TracerError> {
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), &template.namespace);
    let params = PostParams { dry_run: true, ..PostParams::default() };
    let doing = || format!("checking whether a tracer may run in namespace {}", template.namespace);
    let tried = pods.create(&params, &template.pod(0, node)?).await;
    match tried.map_err(|error| cluster.explain(doing(), error).in_namespace(&template.namespace)) {
        Err(error) if error.is_not_found() => Err(TracerError::NoNamespace(template.namespace.clone())),
        tried => Ok(tried.map(|_| ())?),
    }
}

async fn watch_pods(cluster: Cluster, namespace: String, session: String, seen: watch::Sender<Pods>) {
    let api: Api<Pod> = Api::namespaced(cluster.client.clone(), &namespace);
    let config = watcher::Config::default().labels(&format!("{SESSION}={session}"));
    let mut events = std::pin::pin!(watcher(api, config).default_backoff());
    let mut listed: Vec<String> = Vec::new();
    while let Some(event) = events.next().await {
        let refused = match &event {
            Err(
                watcher::Error::InitialListFailed(kube::Error::Api(status))
                | watcher::Error::WatchStartFailed(kube::Error::Api(status))
                | watcher::Error::WatchFailed(kube::Error::Api(status))
                | watcher::Error::WatchError(status),
            ) if status.code == 403 => {
                let error = cluster.explain("watching the tracer's pod", kube::Error::Api(status.clone()));
                Some(error.in_namespace(&namespace).to_string())
            }
            _ => None,
        };
        seen.send_modify(|seen| {
            seen.refused = refused;
            match event {
                Ok(watcher::Event::Apply(pod)) => seen.put(pod),
                Ok(watcher::Event::Delete(pod)) => drop(seen.by_job.insert(job_of(&pod), Seen::Gone)),
                Ok(watcher::Event::Init) => listed.clear(),
                Ok(watcher::Event::InitApply(pod)) => {
                    listed.push(job_of(&pod));
                    seen.put(pod);
                }
                Ok(watcher::Event::InitDone) => {
                    let gone = seen.by_job.iter_mut().filter(|(job, _)| !listed.contains(job));
                    gone.for_each(|(_, pod)| *pod = Seen::Gone);
                }
                // The watcher tries again by itself.
                Err(_) => {}
            }
        });
    }
}

impl Pods {
    fn put(&mut self, pod: Pod) {
        self.by_job.insert(job_of(&pod), Seen::There(Arc::new(pod)));
    }
}

fn job_of(pod: &Pod) -> String {
    let labels = pod.labels();
    labels.get("batch.kubernetes.io/job-name").or_else(|| labels.get("job-name")).cloned().unwrap_or_default()
}
