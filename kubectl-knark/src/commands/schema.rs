//! `kubectl knark schema`: what programs may rely on.

use crate::exit::Exit;

/// Print the JSON Schema of what -o json and -o yaml write
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  # The schema of one line of `kubectl knark trace -o json`
  kubectl knark schema event")]
pub struct Args {
    /// Whose schema
    #[arg(value_enum)]
    what: What,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum What {
    /// One line of -o json: an event, or the summary that comes last
    Event,
}

/// Prints the schema.
pub fn run(args: &Args) -> anyhow::Result<Exit> {
    let schema = match args.what {
        What::Event => knark_specs::event::schema(),
    };
    super::print(&(serde_json::to_string_pretty(&schema)? + "\n"))
}
