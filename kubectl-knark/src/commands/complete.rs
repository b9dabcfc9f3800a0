//! `kubectl knark __complete`: what kubectl's plugin mechanism asks by way of kubectl_complete-knark.
//!
//! The answer is cobra's: a candidate per line, its description after a tab, and a directive last.

use std::{ffi::OsString, fmt::Write as _};

use clap::CommandFactory as _;

use crate::{cli::Cli, exit::Exit};

/// cobra's ShellCompDirectiveNoFileComp: nothing but these candidates.
const NO_FILES: u32 = 4;
/// cobra's ShellCompDirectiveDefault: names of files, where there are no candidates.
const DEFAULT: u32 = 0;

/// Complete a command line
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The words after `kubectl knark`, the last of them incomplete
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<OsString>,
}

/// Prints the candidates.
pub fn run(args: Args) -> anyhow::Result<Exit> {
    let mut words: Vec<OsString> = vec!["kubectl-knark".into()];
    words.extend(args.words);
    if words.len() == 1 {
        words.push(OsString::new());
    }
    let last = words.len() - 1;
    let candidates = clap_complete::engine::complete(&mut Cli::command(), words, last, None).unwrap_or_default();
    let mut answer = String::new();
    for candidate in candidates.iter().filter(|candidate| !candidate.is_hide_set()) {
        let _ = write!(answer, "{}", candidate.get_value().to_string_lossy());
        if let Some(help) = candidate.get_help() {
            let _ = write!(answer, "\t{}", help.to_string().lines().next().unwrap_or_default());
        }
        answer.push('\n');
    }
    let directive = if candidates.is_empty() { DEFAULT } else { NO_FILES };
    let _ = writeln!(answer, ":{directive}");
    super::print(&answer)
}
