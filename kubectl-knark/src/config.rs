//! The user's own defaults for flags: `$KNARK_CONFIG`, else `knark.yaml` beside kubectl's own configuration.

use std::{io::ErrorKind, path::PathBuf};

use anyhow::Context as _;
use knark_specs::{
    config::{self, Config},
    yaml,
};

use crate::{
    exit::{self, UsageError},
    render::{self, problem::Source},
};

/// Names the file.
const VARIABLE: &str = "KNARK_CONFIG";

/// The commands that have flags with defaults of the user's.
pub const COMMANDS: [&str; 3] = ["trace", "replay", "doctor"];

/// Reads the file, where there is one.
///
/// # Errors
/// It can't be read, or says what can't be meant.
pub fn read() -> anyhow::Result<Option<Config>> {
    let named = std::env::var_os(VARIABLE).filter(|name| !name.is_empty()).map(PathBuf::from);
    let is_named = named.is_some();
    let Some(path) = named.or_else(|| Some(std::env::home_dir()?.join(".kube").join("knark.yaml"))) else { return Ok(None) };
    let bytes = match std::fs::read(&path) {
        // Another user's home, where sudo keeps it.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) && !is_named => return Ok(None),
        read => read.with_context(|| format!("reading the defaults for flags in {}", path.display()))?,
    };
    let name = path.display().to_string();
    let text = yaml::decode(&bytes).map_err(|problem| UsageError::because(format!("{name}: {}", problem.message)))?;
    let config = config::parse(&text).map_err(|problems| {
        let source = Source::new(&name, &text);
        let colour = render::colours_stderr();
        for problem in &problems {
            exit::say(&source.show(problem, colour));
        }
        UsageError::because(format!("the defaults for flags can't be used: mend {name}, or name another file in {VARIABLE}"))
    })?;
    Ok(Some(config))
}

/// The command line with these defaults in it, so that `--help` shows them, too.
pub fn apply(config: &Config, command: clap::Command) -> clap::Command {
    let Config { tracer, output, .. } = config;
    let mut defaults: Vec<(&str, Vec<String>)> = vec![("image_pull_secrets", tracer.image_pull_secrets.clone())];
    let single = [
        ("tracer_namespace", tracer.namespace.clone()),
        ("image", tracer.image.clone()),
        ("image_pull_policy", tracer.image_pull_policy.map(|policy| policy.name().to_owned())),
        ("privileged", tracer.privileged.then(|| "true".to_owned())),
        ("output", output.format.map(|format| format.name().to_owned())),
    ];
    defaults.extend(single.into_iter().map(|(name, value)| (name, value.into_iter().collect())));
    COMMANDS.into_iter().fold(command, |command, name| {
        command.mut_subcommand(name, |command| {
            defaults.iter().filter(|(_, values)| !values.is_empty()).fold(command, |command, (name, values)| {
                let has = command.get_arguments().any(|argument| argument.get_id() == *name);
                // A doctor's report has formats of its own.
                if !has || (*name == "output" && command.get_name() == "doctor") {
                    return command;
                }
                command.mut_arg(name, |argument| argument.default_values(values.clone()))
            })
        })
    })
}
