//! The command line: what the user typed. What it means is each command's own matter.

use std::{ffi::OsString, path::Path, time::Duration};

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::{
    commands::{cleanup, complete, completion, doctor, policy, replay, schema, trace, version},
    config,
};

/// What kubectl looks for in PATH when it completes the plugin's arguments.
const COMPLETER: &str = "kubectl_complete-knark";

/// See what pods execute and which files they touch, live
///
/// Nothing is installed in the cluster: a tracer pod runs on each node that matters, for as long as the command does.
#[derive(Debug, Parser)]
#[command(name = "kubectl-knark", bin_name = "kubectl knark", version, max_term_width = 110)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What can be done.
#[derive(Debug, Subcommand)]
pub enum Command {
    Trace(Box<trace::Args>),
    Replay(replay::Args),
    Doctor(Box<doctor::Args>),
    Cleanup(cleanup::Args),
    Policy(policy::Args),
    Schema(schema::Args),
    Version(version::Args),
    Completion(completion::Args),
    #[command(name = "__complete", hide = true)]
    Complete(complete::Args),
}

/// Reads the command line. Wrong usage, `--help` and `--version` end the process here.
///
/// # Errors
/// The user's defaults for flags can't be used.
pub fn parse() -> anyhow::Result<Cli> {
    let mut args: Vec<OsString> = std::env::args_os().collect();
    let name = args.first().and_then(|program| Path::new(program).file_stem()).map(ToOwned::to_owned);
    if name.is_some_and(|name| name == COMPLETER) {
        args.splice(1..1, ["__complete".into()]);
    }
    let mut command = Cli::command();
    if args.iter().any(|arg| config::COMMANDS.iter().any(|name| arg == name))
        && let Some(config) = config::read()?
    {
        command = config::apply(&config, command);
    }
    let mut matches = command.get_matches_from(args);
    Ok(Cli::from_arg_matches_mut(&mut matches).unwrap_or_else(|error| error.exit()))
}

/// A number of bytes, such as `4096`, `512K` or `32Mi`; units are powers of 1024.
pub fn bytes(text: &str) -> Result<u64, String> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let unit: u64 = match unit {
        "" => 1,
        "K" | "k" | "Ki" | "KiB" => 1 << 10,
        "M" | "m" | "Mi" | "MiB" => 1 << 20,
        "G" | "g" | "Gi" | "GiB" => 1 << 30,
        _ => return Err(format!("{unit:?} is no unit: use K, M or G")),
    };
    let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    bytes.ok_or_else(|| format!("{text:?} is no size: write a number and a unit, such as 512K or 32M"))
}

/// A duration as kubectl's flags take it.
pub fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| format!("{text:?} is no duration: write a number and a unit, such as 30s or 10m"))
}
