//! `kubectl knark completion`: scripts for shells.

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::{cli::Cli, exit::Exit};

/// Print a shell's completion script for the program kubectl-knark
///
/// `kubectl knark <TAB>` needs no script but kubectl's own: kubectl asks a program named kubectl_complete-knark, which it looks
/// for in PATH. It comes with the plugin; any of the two makes it reachable:
///
///   ln -s "$(command -v kubectl-knark)" ~/.local/bin/kubectl_complete-knark    # the plugin knows itself by this name
///   cp kubectl_complete-knark ~/.local/bin/                                    # the script from the plugin's archive
#[derive(Debug, clap::Args)]
#[command(
    verbatim_doc_comment,
    after_help = "Examples:
  # For `sudo kubectl-knark trace --local`, in bash
  kubectl knark completion bash > /etc/bash_completion.d/kubectl-knark"
)]
pub struct Args {
    /// For which shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints the script.
pub fn run(args: &Args) -> anyhow::Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "kubectl-knark", &mut script);
    super::print(&String::from_utf8_lossy(&script))
}
