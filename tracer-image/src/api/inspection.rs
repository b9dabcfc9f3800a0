//! Looking into a program in a process of its own, with limits: any container may hold a program that is called like an API server
//! and is made to exhaust who looks into it.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    process::{Command, Stdio},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use rustix::{
    process::{Resource, Rlimit, setrlimit},
    thread::{CapabilitySet, CapabilitySets, set_capabilities, set_no_new_privs},
};

use super::binary::{self, Build, MAX_PROGRAM};

/// The tracer's verb for the process that looks.
pub const VERB: &str = "inspect";
/// It may have so much memory, in bytes: the program itself takes most of it,
const MEMORY: u64 = MAX_PROGRAM + (64 << 20);
/// so much of a CPU's time, in seconds,
const CPU_SECONDS: u64 = 10;
/// and so much time.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longest answer, in bytes.
const ANSWER: u64 = 64 << 10;
/// How often it is looked whether it has answered.
const POLL: Duration = Duration::from_millis(5);

/// An inspection that is under way.
pub type Inspection = JoinHandle<Result<Build, String>>;

/// Begins to look into a program.
pub fn begin(program: File) -> Inspection {
    thread::spawn(move || inspect(program))
}

/// What [`VERB`] does: looks into the program at stdin, and answers at stdout.
pub fn answer() -> anyhow::Result<()> {
    confine()?;
    let mut program = Vec::with_capacity(usize::try_from(MAX_PROGRAM)?);
    io::stdin().lock().take(MAX_PROGRAM).read_to_end(&mut program)?;
    let build = binary::inspect(&program).map_err(|misfit| misfit.to_string());
    Ok(serde_json::to_writer(io::stdout().lock(), &build)?)
}

/// Gives up whatever this process doesn't need, as it is about to read what may be made to take it over.
fn confine() -> anyhow::Result<()> {
    for (resource, limit) in [(Resource::As, MEMORY), (Resource::Cpu, CPU_SECONDS), (Resource::Core, 0)] {
        setrlimit(resource, Rlimit { current: Some(limit), maximum: Some(limit) }).context("limiting this process")?;
    }
    // Where memory runs out all the same, this process goes first.
    fs::write("/proc/self/oom_score_adj", "1000").context("having this process killed first")?;
    set_no_new_privs(true).context("doing without further privileges")?;
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    set_capabilities(None, sets).context("dropping all capabilities")
}

fn inspect(program: File) -> Result<Build, String> {
    let failed = |e: io::Error| format!("looking into its program failed: {e}");
    let size = program.metadata().map_err(failed)?.len();
    if size > MAX_PROGRAM {
        return Err(format!("its program has {} MiB, more than the {} MiB that are looked into", size >> 20, MAX_PROGRAM >> 20));
    }
    let mut child = Command::new("/proc/self/exe")
        .arg(VERB)
        .stdin(program)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(failed)?;
    let stdout = child.stdout.take();
    let reader = thread::spawn(move || {
        let mut answer = Vec::new();
        stdout.map(|stdout| stdout.take(ANSWER).read_to_end(&mut answer));
        answer
    });
    let until = Instant::now() + PATIENCE;
    let status = loop {
        match child.try_wait().map_err(failed)? {
            Some(status) => break Some(status),
            None if Instant::now() > until => break None,
            None => thread::sleep(POLL),
        }
    };
    if status.is_none() {
        // It may have ended in this moment.
        let _ = child.kill();
        child.wait().map_err(failed)?;
    }
    let answer = reader.join().unwrap_or_default();
    match status {
        Some(status) if status.success() => {
            serde_json::from_slice(&answer).unwrap_or_else(|e| Err(format!("looking into its program gave no answer: {e}")))
        }
        Some(status) => Err(format!("looking into its program took too much memory or time, or failed ({status})")),
        None => Err(format!("looking into its program took more than {} s", PATIENCE.as_secs())),
    }
}
