//! `kubectl knark policy show`: a shipped pack as it is written.

use crate::{commands::print, exit::Exit, policies::pack};

/// Print a shipped pack, to read it or to begin one's own with it
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The pack
    #[arg(value_name = "NAME")]
    name: String,
}

/// Prints.
pub fn run(args: &Args) -> anyhow::Result<Exit> {
    print(&pack(&args.name)?.text)
}
