//! One file per command.

pub mod cleanup;
pub mod complete;
pub mod completion;
pub mod doctor;
pub mod policy;
pub mod replay;
pub mod schema;
pub mod trace;
pub mod version;

use std::io::{self, Write as _};

use anyhow::Context as _;

use crate::{cli::Command, exit::Exit};

/// Does what the user asked for.
pub fn run(command: Command) -> anyhow::Result<Exit> {
    match command {
        Command::Trace(args) => block_on(trace::run(*args)),
        Command::Replay(args) => block_on(replay::run(args)),
        Command::Cleanup(args) => block_on(cleanup::run(args)),
        Command::Doctor(args) => block_on(doctor::run(*args)),
        Command::Policy(args) => block_on(policy::run(args)),
        Command::Schema(args) => schema::run(&args),
        Command::Version(args) => version::run(&args),
        Command::Completion(args) => completion::run(&args),
        Command::Complete(args) => complete::run(args),
    }
}

fn block_on(command: impl Future<Output = anyhow::Result<Exit>>) -> anyhow::Result<Exit> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.context("starting the program's threads")?;
    let exit = runtime.block_on(command);
    // A thread may still be reading or writing for somebody who is gone.
    runtime.shutdown_background();
    exit
}

/// Writes to standard output. Nobody reading any more is no failure.
fn print(text: &str) -> anyhow::Result<Exit> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error).context("writing to standard output"),
        _ => Ok(Exit::Done),
    }
}
