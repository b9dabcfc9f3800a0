//! Beginning a trace: flags to tracers, by way of what the cluster says.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use ed25519_dalek::SigningKey;
use k8s_openapi::api::{authentication::v1::SelfSubjectReview, core::v1::Pod};
use knark_specs::{
    frame::{self, Plan},
    policy::matcher::Policies,
};
use kube::{Api, api::PostParams};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};

use super::{
    client::{Cluster, ConnectionFlags},
    control_plane::{self, Servers},
    error::ApiError,
    manifest::Template,
    pods::{self, Known, Pods, Scope},
    resolve::{self, Covered, Matcher},
    session::{Beginning, Running},
    target::{Asked, NodeChoice, Rule, TargetFlags},
    tracer::Tracers,
};
use crate::{exit::UsageError, pipeline::alerts::Labels, source::Input};

/// How much later than `--for` the cluster itself ends the pods: that counts from their start, before images are pulled, and
/// `--for` from when all nodes stream.
const BEYOND_FOR: Duration = Duration::from_mins(30);
/// When it does without `--for`.
const DEADLINE: Duration = Duration::from_hours(1);

/// The tracer that fits this plugin.
pub const DEFAULT_IMAGE: &str = concat!("ghcr.io/kubectl-knark/tracer:v", env!("CARGO_PKG_VERSION"));

/// How the tracer's pods are made.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Tracer pods")]
pub struct TracerFlags {
    /// Namespace of the tracer pods; knark-system where it exists, else kube-system
    #[arg(long, value_name = "NAME")]
    pub tracer_namespace: Option<String>,
    /// Image of the tracer; a mirror, or a digest (NAME@sha256:...) pins it
    #[arg(long, value_name = "IMAGE", env = "KNARK_IMAGE", default_value = DEFAULT_IMAGE)]
    pub image: String,
    /// When nodes pull the image: Never where it is preloaded
    #[arg(long, value_name = "POLICY", default_value = "IfNotPresent", value_parser = ["Always", "IfNotPresent", "Never"])]
    pub image_pull_policy: String,
    /// Secret in the tracer's namespace to pull the image with (repeatable)
    #[arg(long = "image-pull-secret", value_name = "NAME")]
    pub image_pull_secrets: Vec<String>,
    /// Make the tracer pods privileged, for nodes that need it
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", hide_possible_values = true, hide_default_value = true, action = clap::ArgAction::Set, value_name = "BOOL")]
    pub privileged: bool,
    /// When the cluster itself ends the tracer pods, such as 2h; if not given, half an hour after --for, or after 1h
    #[arg(long, value_name = "DURATION", value_parser = crate::cli::duration)]
    pub deadline: Option<Duration>,
}

/// What a trace asks of the cluster.
#[derive(Debug, Clone)]
pub struct ClusterRequest {
    /// Which cluster.
    pub connection: ConnectionFlags,
    /// What to trace.
    pub target: TargetFlags,
    /// By which pods.
    pub tracer: TracerFlags,
    /// Which events; the plan's target is filled in here.
    pub plan: Plan,
    /// `--for`: the pods' deadline is set by it.
    pub duration: Option<Duration>,
    /// Policies: where no target is named, they say where to look.
    pub policies: Option<Arc<Policies>>,
    /// The policies may change while the trace runs, so they can't say where to look.
    pub watch: bool,
}

impl ClusterRequest {
    /// Whether it is left to the policies where to look.
    fn names_nothing(&self) -> bool {
        let TargetFlags { targets, selector, all_namespaces, containers, nodes, node_selector } = &self.target;
        let target = targets.is_empty() && selector.is_none() && !all_namespaces && containers.is_empty();
        target && nodes.is_empty() && node_selector.is_none() && self.connection.namespace.is_none()
    }
}

/// Begins a trace: connects, finds out what the targets mean, checks that the tracer pods would be admitted. Nothing is made
/// in the cluster before this returns; what happens from then on is told through `out`. A [`UsageError`] means exit status 2.
///
/// Once `stop` turns true, the tracers are asked to end; each node ends with [`Input::Gone`]. Whatever happens, call
/// [`Running::finish`] at the end: it removes what was made.
pub async fn start(
    request: ClusterRequest,
    key: Arc<SigningKey>,
    out: mpsc::Sender<Input>,
    stop: watch::Receiver<bool>,
) -> Result<(Running, Labels)> {
    let chosen = !request.target.nodes.is_empty() || request.target.node_selector.is_some();
    let asked = request.target.parse().map_err(|error| UsageError::because(error.to_string()))?;
    let cluster = request.connection.connect().await?;
    let by_policies = request.policies.clone().filter(|_| request.names_nothing());
    let only_api = {
        let Plan { exec, file, exit, api, .. } = request.plan;
        api && !(exec || file || exit)
    };
    let chosen = chosen || matches!(asked, Asked::Nodes(_));
    let find = async {
        match by_policies {
            _ if only_api && !chosen => check_target(&cluster, asked, &request.target.containers).await,
            Some(_) if request.watch => find_everything(&cluster).await,
            Some(policies) => find_covered(&cluster, policies).await,
            None => find(&cluster, asked, &request.target.containers).await,
        }
    };
    let labels = labels(&cluster, request.policies.as_deref(), request.watch);
    let servers = async { if request.plan.api { control_plane::nodes(&cluster).await } else { Default::default() } };
    let (user, found, labels, (servers, told)) = tokio::join!(user_name(&cluster), find, labels, servers);
    let (Found { target, watches, mut nodes, follow, mut warnings }, labels) = (found?, labels?);
    warnings.extend(told);
    let servers = match (request.plan.api, servers.is_empty()) {
        (false, _) => Servers::Nowhere,
        (true, false) => Servers::On(servers),
        // Where nothing tells which node runs an API server, the user may.
        (true, true) if chosen => Servers::Anywhere,
        (true, true) if only_api => anyhow::bail!(
            "no node of this cluster is known to run an API server{}: name one by --node; where the control plane is managed, read its \
             audit log (--audit-log FILE)",
            warnings.first().map(|why| format!(" ({why})")).unwrap_or_default()
        ),
        (true, true) => Servers::Nowhere,
    };
    if let Servers::On(servers) = &servers
        && !chosen
    {
        nodes.extend(servers.iter().cloned());
    }
    let example = nodes.iter().find(|node| servers.are_on(node)).or(nodes.first()).cloned().unwrap_or_default();

    let template = request.tracer.template(&new_id()?, user?.unwrap_or_default(), &key, request.duration);
    let namespace = request.tracer.tracer_namespace.as_deref();
    let template = Template { servers, ..template };
    let tracers = Tracers::admit(&cluster, template, namespace, &example).await?;
    // There may be more of them than `out` has room for, and nobody reads it before this returns.
    let warned = out.clone();
    tokio::spawn(async move {
        for warning in warnings {
            let _ = warned.send(Input::Warning(warning)).await;
        }
    });

    let mut others = JoinSet::new();
    let (known, knowing) = watch::channel(Known::default());
    let (landed, landings) = mpsc::channel(64);
    for pods in watches {
        others.spawn(pods.follow(cluster.clone(), known.clone(), out.clone(), landed.clone()));
    }
    let stopper = Arc::new(watch::Sender::new(false));
    others.spawn(pass_on(stop, Arc::clone(&stopper)));

    let plan = Plan { target, ..request.plan };
    let landed = follow.then_some(landings);
    let running = Running::begin(Beginning { tracers, key, plan, known: knowing, stop: stopper, nodes, landed, others }, out);
    Ok((running, labels))
}

impl TracerFlags {
    /// The manifest's values; the namespace is settled by admission.
    pub fn template(&self, session: &str, user: String, key: &SigningKey, duration: Option<Duration>) -> Template {
        Template {
            namespace: String::new(),
            session: session.to_owned(),
            user,
            image: self.image.clone(),
            pull_policy: self.image_pull_policy.clone(),
            pull_secrets: self.image_pull_secrets.clone(),
            privileged: self.privileged,
            deadline: self.deadline.unwrap_or_else(|| duration.map_or(DEADLINE, |duration| duration.saturating_add(BEYOND_FOR))),
            servers: Servers::Nowhere,
            log_folder: None,
            public_key: BASE64_STANDARD.encode(key.verifying_key().as_bytes()),
        }
    }
}

/// The targets, found in the cluster.
struct Found {
    target: frame::Target,
    watches: Vec<Pods>,
    nodes: BTreeSet<String>,
    /// Whether a node gets its tracer when a wanted pod lands on it.
    follow: bool,
    warnings: Vec<String>,
}

impl Found {
    /// No pod is wanted.
    fn nothing() -> Self {
        let target = frame::Target::Pods { namespace: None };
        Self { target, watches: Vec::new(), nodes: BTreeSet::new(), follow: false, warnings: Vec::new() }
    }
}

async fn find(cluster: &Cluster, asked: Asked, containers: &[String]) -> Result<Found> {
    match asked {
        Asked::Nodes(names) => find_nodes(cluster, names).await,
        Asked::Pods { rules, all_namespaces, nodes } => find_pods(cluster, rules, all_namespaces, nodes, containers).await,
    }
}

/// The labels that policies select by.
async fn labels(cluster: &Cluster, policies: Option<&Policies>, watch: bool) -> Result<Labels> {
    let mut labels = Labels::default();
    let Some(policies) = policies else { return Ok(labels) };
    // Those that come later may need what these don't.
    let later =
        |error: &resolve::ResolveError| watch && matches!(error, resolve::ResolveError::Api(error) if error.is_forbidden());
    if policies.needs_node_labels() || watch {
        match resolve::node_labels(cluster).await {
            Err(error) if later(&error) && !policies.needs_node_labels() => {}
            nodes => labels.nodes = nodes?,
        }
    }
    if policies.needs_namespace_labels() || watch {
        match resolve::namespace_labels(cluster).await {
            Err(error) if later(&error) && !policies.needs_namespace_labels() => {}
            namespaces => labels.namespaces = namespaces?,
        }
    }
    Ok(labels)
}

/// All nodes that are Ready, inside and outside of pods.
async fn find_everything(cluster: &Cluster) -> Result<Found> {
    let (nodes, others) = resolve::all_nodes(cluster).await?;
    let mut found = find_nodes(cluster, nodes.into_iter().collect()).await?;
    if !others.is_empty() {
        found.warnings.push(format!("not traced, since they are not Ready: {}", others.join(", ")));
    }
    Ok(found)
}

/// What policies are about: whole nodes if any looks outside of pods, otherwise pods, of all namespaces and on all nodes that
/// they select.
async fn find_covered(cluster: &Cluster, policies: Arc<Policies>) -> Result<Found> {
    let (nodes, others) = resolve::covered_nodes(cluster, &policies).await?;
    let mut warnings = Vec::new();
    if !others.is_empty() {
        warnings.push(format!("not traced, since they are not Ready: {}", others.join(", ")));
    }
    if policies.covers_hosts() {
        let found = find_nodes(cluster, nodes.into_iter().collect()).await?;
        warnings.extend(found.warnings);
        return Ok(Found { warnings, ..found });
    }
    let wanted = vec![Matcher::Policies(Covered(policies))];
    let pods = Pods::list(cluster, Scope { namespace: None, node: None, wanted, containers: Vec::new() }).await?;
    Ok(Found { target: frame::Target::Pods { namespace: None }, watches: vec![pods], nodes, follow: false, warnings })
}

async fn find_nodes(cluster: &Cluster, names: Vec<String>) -> Result<Found> {
    let nodes = resolve::chosen_nodes(cluster, &NodeChoice { names: names.into_iter().collect(), selector: None }).await?;
    let (mut watches, mut warnings) = (Vec::new(), Vec::new());
    for node in &nodes {
        let scope = Scope { namespace: None, node: Some(node.clone()), wanted: vec![Matcher::All], containers: Vec::new() };
        match Pods::list(cluster, scope).await {
            Ok(pods) => watches.push(pods),
            Err(error) if error.is_forbidden() => {
                warnings = vec![format!("labels and owners of pods are not shown: {error}")];
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Found { target: frame::Target::Everything, watches, nodes, follow: false, warnings })
}

/// Requests alone are traced: those of the whole cluster, so that no pod is wanted. A target that isn't there is a mistake all
/// the same.
async fn check_target(cluster: &Cluster, asked: Asked, containers: &[String]) -> Result<Found> {
    let mut found = Found::nothing();
    if let Asked::Pods { rules, all_namespaces, .. } = asked
        && (rules != [Rule::All] || !containers.is_empty())
    {
        list_pods(cluster, rules, all_namespaces, containers).await?;
        let text = "a target chooses among processes and files, and only requests are traced: those about anything are shown; \
                    --api-namespace, --resource and --api-name choose among them";
        found.warnings.push(text.to_owned());
    }
    Ok(found)
}

/// The pods that targets mean; those that are named must be there.
async fn list_pods(cluster: &Cluster, rules: Vec<Rule>, all_namespaces: bool, containers: &[String]) -> Result<(Pods, Vec<Pod>)> {
    let namespace = (!all_namespaces).then(|| cluster.namespace.clone());
    let wanted = resolve::matchers(cluster, rules).await?;
    let pods =
        Pods::list(cluster, Scope { namespace, node: None, wanted: wanted.clone(), containers: containers.to_vec() }).await?;
    let now = pods.wanted();
    resolve::check_pods(cluster, &wanted, containers, &now).await?;
    if now.is_empty() && !all_namespaces {
        resolve::check_namespace(cluster).await?;
    }
    Ok((pods, now))
}

async fn find_pods(
    cluster: &Cluster,
    rules: Vec<Rule>,
    all_namespaces: bool,
    choice: Option<NodeChoice>,
    containers: &[String],
) -> Result<Found> {
    let everywhere = all_namespaces && rules == [Rule::All];
    let namespace = (!all_namespaces).then(|| cluster.namespace.clone());
    let (pods, now) = list_pods(cluster, rules, all_namespaces, containers).await?;

    let mut warnings = Vec::new();
    if now.is_empty() {
        warnings.push("no pod matches yet: waiting for one to start (Ctrl-C ends the trace)".to_owned());
    }
    let follow = choice.is_none();
    let nodes = match choice {
        Some(choice) => resolve::chosen_nodes(cluster, &choice).await?,
        None if everywhere => every_node(cluster, &now, &mut warnings).await?,
        None => ready_nodes(cluster, nodes_of(&now), &mut warnings).await?,
    };
    Ok(Found { target: frame::Target::Pods { namespace }, watches: vec![pods], nodes, follow, warnings })
}

fn nodes_of(pods: &[Pod]) -> BTreeSet<String> {
    pods.iter().filter_map(pods::node_of).collect()
}

/// All nodes that are Ready; for a user who may not list nodes, those on which pods run.
async fn every_node(cluster: &Cluster, pods: &[Pod], warnings: &mut Vec<String>) -> Result<BTreeSet<String>> {
    match resolve::all_nodes(cluster).await {
        Ok((ready, others)) => {
            if !others.is_empty() {
                warnings.push(format!("not traced, since they are not Ready: {}", others.join(", ")));
            }
            Ok(ready)
        }
        Err(resolve::ResolveError::Api(error)) if error.is_forbidden() => Ok(nodes_of(pods)),
        Err(error) => Err(error.into()),
    }
}

/// Those of the nodes that are Ready; none of them is an error.
async fn ready_nodes(cluster: &Cluster, nodes: BTreeSet<String>, warnings: &mut Vec<String>) -> Result<BTreeSet<String>> {
    let mut ready = BTreeSet::new();
    let mut last = None;
    for (node, problem) in resolve::problems(cluster, &nodes).await? {
        if let Some(problem) = problem {
            warnings.push(problem.to_string());
            last = Some(problem);
        } else {
            ready.insert(node);
        }
    }
    match last {
        Some(problem) if ready.is_empty() => Err(problem.into()),
        _ => Ok(ready),
    }
}

/// The user's name as the API server knows it; `None` where it doesn't tell.
pub async fn user_name(cluster: &Cluster) -> Result<Option<String>, ApiError> {
    let reviews: Api<SelfSubjectReview> = Api::all(cluster.client.clone());
    let review = reviews.create(&PostParams::default(), &SelfSubjectReview::default()).await;
    match review.map_err(|error| cluster.explain("asking who you are", error)) {
        Ok(review) => Ok(review.status.and_then(|status| status.user_info).and_then(|info| info.username)),
        // Kubernetes before 1.28, or a cluster that took this from its users.
        Err(error) if error.is_forbidden() || error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// A session's id: short enough to type, and unlikely enough to collide.
pub fn new_id() -> Result<String> {
    let number = getrandom::u32().context("making a session id: the system gives no random numbers")?;
    Ok(format!("{number:08x}"))
}

/// Asks for the end through `to` as well.
pub async fn pass_on(mut stop: watch::Receiver<bool>, to: Arc<watch::Sender<bool>>) {
    if stop.wait_for(|stop| *stop).await.is_ok() {
        to.send_replace(true);
    }
}
