//! `kubectl knark version`: what must fit together.

use knark_specs::{PROTOCOL, event::SCHEMA};
use serde::Serialize;

use crate::{cluster::DEFAULT_IMAGE, exit::Exit};

/// Print the versions of the plugin, its protocol and its tracer image
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  # Which tracer image this plugin runs, for a mirror
  kubectl knark version -o json | jq -r .tracerImage")]
pub struct Args {
    /// Output format
    #[arg(short, long, value_name = "FORMAT", value_enum)]
    output: Option<Format>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Format {
    /// One JSON object
    Json,
    /// One YAML document
    Yaml,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Versions {
    version: &'static str,
    platform: String,
    protocol: u32,
    event_schema: &'static str,
    tracer_image: &'static str,
}

/// Prints the versions.
pub fn run(args: &Args) -> anyhow::Result<Exit> {
    let versions = Versions {
        version: concat!("v", env!("CARGO_PKG_VERSION")),
        platform: format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
        protocol: PROTOCOL,
        event_schema: SCHEMA,
        tracer_image: DEFAULT_IMAGE,
    };
    super::print(&match args.output {
        Some(Format::Json) => serde_json::to_string_pretty(&versions)? + "\n",
        Some(Format::Yaml) => serde_yaml::to_string(&versions)?,
        None => {
            let Versions { version, platform, protocol, event_schema, tracer_image } = versions;
            format!(
                "Plugin Version: {version}\nPlatform: {platform}\nProtocol: {protocol}\nEvent Schema: {event_schema}\nTracer Image: {tracer_image}\n"
            )
        }
    })
}
