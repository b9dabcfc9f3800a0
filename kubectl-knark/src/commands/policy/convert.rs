//! `kubectl knark policy convert`: an older system's formats as TracePolicies.

use std::path::PathBuf;

use crate::{
    commands::print,
    exit::{self, Exit},
    policies::{Set, read},
};

/// Write the TracePolicies that an older system's files come to
///
/// Read are kube-knark's API and filesystem specs, KivePolicy, RuntimeRuleAlertBinding, ApplicationProfile and PodCheckpoint.
/// What can't be honoured is said with its line.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  kubectl knark policy convert ~/.kube-knark/spec/filesystem > policies.yaml")]
pub struct Args {
    /// Files or folders; - is standard input
    #[arg(value_name = "FILE", required = true)]
    paths: Vec<PathBuf>,
}

/// Converts.
pub fn run(args: &Args) -> anyhow::Result<Exit> {
    let mut sources = Vec::new();
    for path in &args.paths {
        sources.extend(read(path)?);
    }
    let set = Set::of(sources);
    exit::say(&set.complaints());
    let mut text = String::new();
    for (_, policy) in &set.written {
        text.push_str("---\n");
        text.push_str(&serde_yaml::to_string(policy)?);
    }
    print(&text)?;
    Ok(if set.has_errors() { Exit::Usage } else { Exit::Done })
}
