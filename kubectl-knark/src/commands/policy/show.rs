//! `kubectl knark policy show`: a shipped pack as it is written.

use knark_specs::packs;

use crate::{
    commands::print,
    exit::{Exit, UsageError},
};

/// Print a shipped pack, to read it or to begin one's own with it
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The pack
    #[arg(value_name = "NAME")]
    name: String,
}

/// Prints.
pub fn run(args: &Args) -> anyhow::Result<Exit> {
    let Some(pack) = packs::get(&args.name) else {
        let known: Vec<_> = packs::all().iter().map(|pack| pack.name).collect();
        return Err(UsageError::because(format!("there is no pack {:?}; there are {}", args.name, known.join(", "))));
    };
    print(pack.text)
}
