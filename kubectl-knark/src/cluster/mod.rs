//! Everything that touches the API server.
//!
//! - [`client`]: kubectl's connection flags; [`kubeconfig`], [`error`].
//! - [`target`]: what the user typed; [`resolve`]: what it means in this cluster; [`pods`]: keeping up with it.
//! - [`manifest`], [`tracer`], [`diagnose`], [`stream`]: tracer pods, from making them to their removal.
//! - [`complete`]: names for the shell's completion.

mod client;
mod error;
mod kubeconfig;
mod selector;
mod target;

use std::{sync::Arc, time::Duration};

use ed25519_dalek::SigningKey;
use knark_specs::frame::Plan;
use tokio::sync::{mpsc, watch};

use crate::source::Input;

pub use client::{Cluster, ConnectionFlags};
pub use error::{ApiError, ConnectError};
pub use target::{Asked, TargetError, TargetFlags};

/// How the tracer's pods are made.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Tracer pods")]
pub struct TracerFlags {
    /// Namespace of the tracer pods; knark-system where it exists, else kube-system
    #[arg(long, value_name = "NAME")]
    pub tracer_namespace: Option<String>,
    /// Image of the tracer; a mirror, or a digest (NAME@sha256:...) pins it
    #[arg(long, value_name = "IMAGE", env = "KNARK_IMAGE", default_value = concat!("ghcr.io/kubectl-knark/tracer:v", env!("CARGO_PKG_VERSION")))]
    pub image: String,
    /// When nodes pull the image: Never where it is preloaded
    #[arg(long, value_name = "POLICY", default_value = "IfNotPresent", value_parser = ["Always", "IfNotPresent", "Never"])]
    pub image_pull_policy: String,
    /// Secret in the tracer's namespace to pull the image with (repeatable)
    #[arg(long = "image-pull-secret", value_name = "NAME")]
    pub image_pull_secrets: Vec<String>,
    /// Make the tracer pods privileged, for nodes that need it
    #[arg(long)]
    pub privileged: bool,
    /// When the cluster itself ends the tracer pods, such as 2h; a minute after --for, or 1h, if not given
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
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
}

/// Begins a trace: connects, finds out what the targets mean, checks that the tracer pods would be admitted. Nothing is made
/// in the cluster before this returns; what happens from then on is told through `out`. A [`TargetError`] in the error's chain
/// means wrong usage (exit status 2).
///
/// Once `stop` turns true, the tracers are asked to end; each node ends with [`Input::Gone`]. Whatever happens, call
/// [`Running::finish`] at the end: it removes what was made.
pub async fn start(
    request: ClusterRequest,
    key: Arc<SigningKey>,
    out: mpsc::Sender<Input>,
    stop: watch::Receiver<bool>,
) -> anyhow::Result<Running> {
    request.target.parse()?;
    let _cluster = request.connection.connect().await?;
    let _ = (key, out, stop);
    anyhow::bail!("not yet")
}

/// A trace under way.
#[derive(Debug)]
pub struct Running {
    /// The session's id, as the label `knark.dev/session` bears it.
    pub session: String,
}

impl Running {
    /// What removes all of the session's pods at once: for a second Ctrl-C, while [`Self::finish`] may still be waiting.
    pub fn remover(&self) -> Remover {
        Remover {}
    }

    /// Asks the tracers to end if `stop` hasn't, waits for their last words (5 s at most), removes what was made, and waits
    /// until it is gone (10 s at most). After it, `out` is closed.
    #[expect(clippy::unused_async, reason = "a skeleton so far")]
    pub async fn finish(self) -> anyhow::Result<()> {
        Ok(())
    }
}

/// Removes a session's pods; safe to call at any time, and more than once.
#[derive(Debug, Clone)]
pub struct Remover {}

impl Remover {
    /// Removes them without waiting for the tracers' last words.
    #[expect(clippy::unused_async, reason = "a skeleton so far")]
    pub async fn remove(&self) -> anyhow::Result<()> {
        Ok(())
    }
}
