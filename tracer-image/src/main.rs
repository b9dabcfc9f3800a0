//! `knark-tracer`: the only binary of the tracer's image.

use std::{process::ExitCode, time::Duration};

use anyhow::{Context as _, bail};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use ed25519_dalek::VerifyingKey;
use lexopt::prelude::*;

const USAGE: &str = "\
The tracer of kubectl-knark. The plugin starts it; by hand, use `kubectl knark trace` or `kubectl-knark trace --local`.

usage: knark-tracer serve --key KEY [--grace SECONDS]   hold the probes; plugins come through `connect`
       knark-tracer connect                             join stdin and stdout to `serve` in the same pod
       knark-tracer local --key KEY                     hold the probes; the plugin is at stdin and stdout
       knark-tracer doctor [--api]                      what this node can do, as JSON; with --api, looks into API servers
       knark-tracer version

KEY is the session's Ed25519 public key in Base64.
";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("knark-tracer: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let mut parser = lexopt::Parser::from_env();
    let (mut verb, mut key, mut grace, mut api) = (None, None, Duration::from_secs(10), false);
    while let Some(argument) = parser.next()? {
        match argument {
            Value(value) if verb.is_none() => verb = Some(value.string()?),
            Long("key") => key = Some(public_key(&parser.value()?.string()?)?),
            Long("grace") => {
                let value = parser.value()?.string()?;
                let seconds = value.strip_suffix('s').unwrap_or(&value);
                grace = Duration::from_secs(seconds.parse().context("--grace: seconds, such as 10s")?);
            }
            Long("api") => api = true,
            Long("help") | Short('h') => {
                print!("{USAGE}");
                return Ok(());
            }
            other => return Err(other.unexpected().into()),
        }
    }
    match (verb.as_deref(), key) {
        (Some("serve"), Some(key)) => knark_tracer::serve::run(key, grace),
        (Some("local"), Some(key)) => knark_tracer::local::run(key),
        (Some("serve" | "local"), None) => bail!("--key is missing\n\n{USAGE}"),
        (Some("connect"), _) => knark_tracer::connect::run(),
        (Some("doctor"), _) => knark_tracer::doctor::run(api),
        (Some(knark_tracer::api::inspection::VERB), _) => knark_tracer::api::inspection::answer(),
        (Some("version"), _) => {
            println!("knark-tracer {} (protocol {})", env!("CARGO_PKG_VERSION"), knark_specs::PROTOCOL);
            Ok(())
        }
        (Some(other), _) => bail!("unknown verb {other:?}\n\n{USAGE}"),
        (None, _) => bail!("{USAGE}"),
    }
}

fn public_key(text: &str) -> anyhow::Result<VerifyingKey> {
    let bytes = BASE64.decode(text).context("--key: not Base64")?;
    let bytes: [u8; 32] = bytes.try_into().map_err(|_| anyhow::anyhow!("--key: an Ed25519 public key has 32 bytes"))?;
    VerifyingKey::from_bytes(&bytes).context("--key: not an Ed25519 public key")
}
