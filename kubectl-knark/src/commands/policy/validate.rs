//! `kubectl knark policy validate`: every mistake in one run.

use std::path::PathBuf;

use crate::{
    cluster::ConnectionFlags,
    commands::print,
    exit::{self, Exit, UsageError},
    policies::{PolicyFlags, Set},
};

/// Check policies, and show every mistake at its place
///
/// Exit status 0: they can be used, perhaps with warnings; 2: they can't.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  # Files, folders, or standard input
  kubectl knark policy validate policy.yaml policies/ -

  # For editors and CI
  kubectl knark policy validate policies/ -o json

  # The policies in the cluster
  kubectl knark policy validate --from-cluster")]
pub struct Args {
    /// Files or folders of policies; - is standard input
    #[arg(value_name = "FILE")]
    paths: Vec<PathBuf>,
    /// Output format
    #[arg(short, long, value_name = "FORMAT", value_enum)]
    output: Option<Format>,
    #[command(flatten)]
    policies: PolicyFlags,
    #[command(flatten)]
    connection: ConnectionFlags,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Format {
    /// One JSON array of all that was found
    Json,
}

/// Validates.
pub async fn run(args: Args) -> anyhow::Result<Exit> {
    let mut flags = args.policies;
    flags.files.splice(0..0, args.paths);
    if !flags.is_given() {
        return Err(UsageError::because("nothing to validate: name files or folders, --pack or --from-cluster"));
    }
    let cluster = if flags.from_cluster { Some(args.connection.connect().await?) } else { None };
    let set = Set::of(flags.read(cluster.as_ref()).await?);
    if set.written.is_empty() && set.problems.is_empty() {
        let names: Vec<_> = set.sources.iter().map(|source| source.name.as_str()).collect();
        return Err(UsageError::because(format!("there is no policy in {}", names.join(", "))));
    }
    if matches!(args.output, Some(Format::Json)) {
        print(&(serde_json::to_string_pretty(&set.findings())? + "\n"))?;
    } else {
        exit::say(&set.complaints());
        let sound = set.policies.policies().len();
        let rules = set.policies.rules().len();
        let count = |n: usize, one: &str, many: &str| format!("{n} {}", if n == 1 { one } else { many });
        let text = format!("{} with {} can be used\n", count(sound, "policy", "policies"), count(rules, "rule", "rules"));
        if set.has_errors() {
            exit::say(&text);
        } else {
            print(&text)?;
        }
    }
    Ok(if set.has_errors() { Exit::Usage } else { Exit::Done })
}
