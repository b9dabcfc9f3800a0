//! `--local`: the tracer as a child of the plugin, speaking the same frames over pipes.

use std::{
    path::PathBuf,
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use ed25519_dalek::SigningKey;
use knark_specs::frame::Plan;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::{mpsc, watch},
    task::JoinHandle,
};

use crate::{
    connection::{self, End, Session},
    source::Input,
};

/// Names the tracer's binary where it is neither beside the plugin nor in PATH.
const TRACER: &str = "KNARK_TRACER";
/// How much the tracer may complain.
const COMPLAINT: u64 = 64 << 10;
/// How long a tracer that said goodbye may take to end.
const PATIENCE: Duration = Duration::from_secs(5);

/// Starts the tracer; what it says goes to `out`. It ends when `stop` turns true, or with the plugin, since its input ends then.
pub fn start(key: SigningKey, plan: Plan, stop: watch::Receiver<bool>, out: mpsc::Sender<Input>) -> anyhow::Result<()> {
    may_trace()?;
    let program = find_tracer()?;
    let mut command = Command::new(&program);
    let public = BASE64.encode(key.verifying_key().as_bytes());
    command
        .args(["local", "--key", &public])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    // Ctrl-C is meant for the plugin, which then asks the tracer to end.
    #[cfg(unix)]
    command.process_group(0);
    let mut child = command.spawn().with_context(|| format!("starting the tracer {}", program.display()))?;
    let pipes = child.stdin.take().zip(child.stdout.take()).zip(child.stderr.take());
    let ((to, from), complaint) = pipes.context("starting the tracer: its pipes are missing")?;

    // The host's own pods have no verdicts: nobody knows them here.
    let (_, verdicts) = watch::channel(Arc::default());
    let session = Session { key: Arc::new(key), plan, verdicts, stop };
    let complaint = tokio::spawn(read(complaint));
    tokio::spawn(async move {
        let _ = out.send(Input::Node { node: 0, name: String::new() }).await;
        let _ = out.send(Input::Phase { node: 0, phase: "attaching probes".to_owned() }).await;
        let error = follow(child, from, to, complaint, session, &out).await.err();
        let _ = out.send(Input::Gone { node: 0, error }).await;
    });
    Ok(())
}

async fn follow(
    mut child: Child,
    from: ChildStdout,
    to: ChildStdin,
    complaint: JoinHandle<String>,
    session: Session,
    out: &mpsc::Sender<Input>,
) -> anyhow::Result<()> {
    let end = connection::drive(0, from, to, session, &mut 0, &mut Instant::now(), out).await?;
    // `drive` has dropped the pipes: a tracer that still lives sees that the plugin has gone.
    let status = match tokio::time::timeout(PATIENCE, child.wait()).await {
        Ok(status) => status.context("waiting for the tracer")?,
        Err(_) => anyhow::bail!("the tracer didn't end within {} s; it was killed", PATIENCE.as_secs()),
    };
    let complaint = complaint.await.unwrap_or_default();
    let complaint = complaint.trim();
    match end {
        End::Bye(_) if complaint.is_empty() => Ok(()),
        End::Bye(_) => {
            let _ = out.send(Input::Warning(complaint.to_owned())).await;
            Ok(())
        }
        End::Cut(_) if !complaint.is_empty() => anyhow::bail!("{complaint}"),
        End::Cut(why) => anyhow::bail!("the tracer ended ({status}): {why}"),
    }
}

async fn read(from: impl AsyncRead + Unpin) -> String {
    let mut text = Vec::new();
    let _ = from.take(COMPLAINT).read_to_end(&mut text).await;
    String::from_utf8_lossy(&text).into_owned()
}

/// Beside the plugin, as its archive has it, or in PATH.
pub fn find_tracer() -> anyhow::Result<PathBuf> {
    if let Some(program) = std::env::var_os(TRACER) {
        return Ok(program.into());
    }
    let beside = std::env::current_exe().and_then(std::fs::canonicalize).ok().map(|plugin| plugin.with_file_name("knark-tracer"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&path).map(|folder| folder.join("knark-tracer"));
    beside.into_iter().chain(in_path).find(|program| program.is_file()).with_context(|| {
        format!("the tracer's program knark-tracer was found neither beside kubectl-knark nor in PATH: unpack it beside the plugin, or set {TRACER} to it")
    })
}

#[cfg(target_os = "linux")]
fn may_trace() -> anyhow::Result<()> {
    let is_root = rustix::process::geteuid().is_root();
    anyhow::ensure!(is_root, "tracing this host needs root: run `sudo kubectl-knark trace --local`");
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn may_trace() -> anyhow::Result<()> {
    anyhow::bail!(
        "--local traces the host that it runs on, and only Linux can be traced: trace a cluster's nodes from here instead"
    )
}
