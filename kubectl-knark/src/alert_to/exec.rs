//! Alerts to a program of the user's: one JSON object per line on its standard input.

use std::{
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use anyhow::{Context as _, anyhow, bail};
use futures::future::BoxFuture;
use knark_specs::alert::Notice;
use tokio::{
    io::AsyncWriteExt as _,
    process::{Child, Command},
};

use super::delivery::{Failure, Sink};

/// Of `CreateProcess`.
#[cfg(windows)]
const CREATE_NEW_PROCESS_GROUP: u32 = 0x200;

/// A program. It is started at once, and again when it has ended and there is more to tell.
pub struct Hook {
    program: String,
    args: Vec<String>,
    silent: bool,
    child: Option<Child>,
    /// One has ended otherwise than well before it was told that there is no more.
    failed: bool,
    /// Its process id, while it runs; else 0.
    pid: Arc<AtomicU32>,
}

impl Hook {
    /// Starts it. What it says goes to standard error, unless a dashboard has the terminal.
    ///
    /// # Errors
    /// It can't be started.
    pub fn start(program: &str, args: &[String], silent: bool) -> anyhow::Result<Self> {
        let mut hook =
            Self { program: program.to_owned(), args: args.to_vec(), silent, child: None, failed: false, pid: Arc::default() };
        hook.child = Some(hook.spawn()?);
        Ok(hook)
    }

    /// Its process id, while it runs; else 0.
    pub fn pid(&self) -> Arc<AtomicU32> {
        Arc::clone(&self.pid)
    }

    fn end(&mut self) -> Option<Child> {
        self.pid.store(0, Ordering::Relaxed);
        self.child.take()
    }

    fn spawn(&self) -> anyhow::Result<Child> {
        let out = || if self.silent { Stdio::null() } else { Stdio::from(std::io::stderr()) };
        let mut command = Command::new(&self.program);
        command.args(&self.args).stdin(Stdio::piped()).stdout(out()).stderr(out()).kill_on_drop(true);
        // Ctrl-C is for the trace, and the program still has to hear of its last alerts.
        #[cfg(unix)]
        command.process_group(0);
        #[cfg(windows)]
        command.creation_flags(CREATE_NEW_PROCESS_GROUP);
        let child = command.spawn().with_context(|| format!("starting {}", self.program))?;
        self.pid.store(child.id().unwrap_or(0), Ordering::Relaxed);
        Ok(child)
    }

    async fn write(&mut self, line: &[u8]) -> anyhow::Result<()> {
        if self.child.is_none() {
            self.child = Some(self.spawn()?);
        }
        let Some(child) = &mut self.child else { bail!("{} isn't running", self.program) };
        let ended = child.try_wait().context("looking after it")?;
        if let Some(status) = ended {
            self.end();
            self.failed |= !status.success();
            bail!("{} has ended ({status})", self.program);
        }
        let Some(stdin) = &mut child.stdin else { bail!("{} has no standard input", self.program) };
        if let Err(error) = stdin.write_all(line).await {
            // It may live on without reading; another one is started in its place.
            let _ = child.kill().await;
            self.end();
            self.failed = true;
            return Err(error).with_context(|| format!("writing to {}", self.program));
        }
        Ok(())
    }
}

impl Sink for Hook {
    /// What is in one write when the program ends is in doubt, so that is little.
    fn most(&self) -> usize {
        1
    }

    fn send<'s>(&'s mut self, notices: &'s [&'s Notice]) -> BoxFuture<'s, Result<(), Failure>> {
        Box::pin(async move {
            for notice in notices {
                let mut line = serde_json::to_vec(notice)?;
                line.push(b'\n');
                self.write(&line).await?;
            }
            Ok(())
        })
    }

    /// The program is told that there is no more, and waited for.
    fn close(&mut self) -> BoxFuture<'_, anyhow::Result<()>> {
        Box::pin(async move {
            let failed = self.failed;
            let early = || anyhow!("{} has ended before, and may not have read all alerts", self.program);
            let Some(mut child) = self.child.take() else { return if failed { Err(early()) } else { Ok(()) } };
            self.pid.store(0, Ordering::Relaxed);
            drop(child.stdin.take());
            let status = child.wait().await.with_context(|| format!("waiting for {}", self.program))?;
            anyhow::ensure!(status.success(), "{} has failed ({status}); it may not have read all alerts", self.program);
            anyhow::ensure!(!failed, early());
            Ok(())
        })
    }
}
