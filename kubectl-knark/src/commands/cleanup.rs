//! `kubectl knark cleanup`: removes what earlier sessions left in the cluster.

use anyhow::bail;

use crate::{
    cluster::{ConnectionFlags, Leftovers, user_name},
    commands::print,
    exit::{self, Exit},
};

/// Remove tracer pods that earlier sessions left
///
/// A trace removes its own pods, and the cluster removes those of a killed one soon after; this does it at once. Only sessions
/// of the same user are ended, those that are under way included.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  # What would be removed
  kubectl knark cleanup --dry-run client

  # Remove what this user's sessions left, in whatever namespace
  kubectl knark cleanup")]
pub struct Args {
    /// End only this session
    #[arg(long, value_name = "ID", value_parser = session_id)]
    session: Option<String>,
    /// End other users' sessions as well
    #[arg(long)]
    all_users: bool,
    /// Look only in this namespace; otherwise in all where the user may
    #[arg(long, value_name = "NAME")]
    tracer_namespace: Option<String>,
    /// client: only say what would be removed
    #[arg(long, value_name = "MODE", default_value = "none", value_parser = ["none", "client"])]
    dry_run: String,
    #[command(flatten)]
    connection: ConnectionFlags,
}

/// Finds, removes, tells.
pub async fn run(args: Args) -> anyhow::Result<Exit> {
    let cluster = args.connection.connect().await?;
    let user = if args.all_users {
        None
    } else {
        match user_name(&cluster).await? {
            Some(user) => Some(user),
            None => bail!("the API server does not tell who you are, so your sessions can't be told apart: use --all-users"),
        }
    };
    let leftovers = Leftovers { namespace: args.tracer_namespace, session: args.session, user };
    let found = leftovers.find(&cluster).await?;
    if found.is_empty() {
        exit::say("No tracer pods found\n");
        return Ok(Exit::Done);
    }
    if args.dry_run == "client" {
        let lines: Vec<_> = found.iter().map(|leftover| format!("{leftover} deleted (dry run)\n")).collect();
        return print(&lines.concat());
    }
    let (mut failed, mut told) = (false, Ok(Exit::Done));
    for leftover in &found {
        match leftover.remove(&cluster).await {
            // Whoever can't be told still wants the rest removed.
            Ok(true) => told = told.and(print(&format!("{leftover} deleted\n"))),
            Ok(false) => {}
            Err(error) => {
                exit::report(&error.into());
                failed = true;
            }
        }
    }
    if failed {
        return told.and(Ok(Exit::Failed));
    }
    let left = leftovers.gone(&cluster).await?;
    if let Some(pod) = left.first() {
        bail!("{pod} in namespace {} is still terminating: `kubectl get {pod} -n {}` says more", pod.namespace, pod.namespace);
    }
    told
}

fn session_id(text: &str) -> Result<String, String> {
    let valid = text.len() == 8 && text.bytes().all(|b| b.is_ascii_hexdigit());
    if valid { Ok(text.to_owned()) } else { Err("a session's id has 8 hexadecimal digits".to_owned()) }
}
