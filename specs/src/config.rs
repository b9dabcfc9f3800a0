//! The user's own defaults for flags, out of a file.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::{
    policy::{PolicyVersion, schema::schema_of},
    problem::{Level, Problem},
    structure::Schema,
    yaml,
};

/// Defaults for flags: what the command line or the environment says goes before them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// `knark.dev/v1alpha1`.
    pub api_version: PolicyVersion,
    /// `Config`.
    pub kind: ConfigKind,
    /// How tracer pods are made.
    #[serde(default)]
    pub tracer: TracerConfig,
    /// How events are shown.
    #[serde(default)]
    pub output: OutputConfig,
}

/// `Config`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ConfigKind {
    /// The only one.
    #[default]
    Config,
}

/// How tracer pods are made, as the flags of `trace` and `doctor` say it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TracerConfig {
    /// Their namespace (`--tracer-namespace`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
    /// Their image (`--image`): a mirror, or a digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub image: Option<String>,
    /// When nodes pull the image (`--image-pull-policy`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<PullPolicy>,
    /// Secrets to pull the image with (`--image-pull-secret`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub image_pull_secrets: Vec<String>,
    /// Whether they are privileged (`--privileged`).
    #[serde(default)]
    pub privileged: bool,
}

/// When nodes pull an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PullPolicy {
    /// Each time.
    Always,
    /// If they lack it.
    IfNotPresent,
    /// Never: it is preloaded.
    Never,
}

/// How events are shown.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OutputConfig {
    /// The format of `trace` and `replay` (`-o`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<OutputFormat>,
}

/// A format of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OutputFormat {
    /// A table.
    Table,
    /// A table with more columns.
    Wide,
    /// A JSON object a line.
    Json,
    /// YAML documents.
    Yaml,
    /// Names alone.
    Name,
    /// The dashboard.
    Tui,
}

impl OutputFormat {
    /// As a flag's value.
    pub fn name(self) -> &'static str {
        match self {
            Self::Table => "table",
            Self::Wide => "wide",
            Self::Json => "json",
            Self::Yaml => "yaml",
            Self::Name => "name",
            Self::Tui => "tui",
        }
    }
}

impl PullPolicy {
    /// As a flag's value.
    pub fn name(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::IfNotPresent => "IfNotPresent",
            Self::Never => "Never",
        }
    }
}

/// The JSON Schema (draft 2020-12) of the file.
pub fn schema() -> Json {
    schema_of::<Config>()
}

/// Reads the file's text; an empty one says nothing.
///
/// # Errors
/// Every mistake, at its place.
pub fn parse(text: &str) -> Result<Config, Vec<Problem>> {
    let yaml::Read { documents, mut problems } = yaml::read(text);
    let document = match documents.as_slice() {
        [] if problems.is_empty() => return Ok(Config::default()),
        [only] => only,
        [_, second, ..] => {
            problems.push(Problem::error(second.span.clone(), "", "the configuration is one document, and this is a second one"));
            return Err(problems);
        }
        [] => return Err(problems),
    };
    problems.extend(Schema::new(schema()).check(document));
    if problems.iter().any(|problem| problem.level == Level::Error) {
        return Err(problems);
    }
    serde_json::from_value(document.without_nulls().to_json())
        .map_err(|error| vec![Problem::error(document.span.clone(), "", error.to_string())])
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "apiVersion: knark.dev/v1alpha1\nkind: Config\n";

    #[test]
    fn defaults_are_read() {
        let config = parse(&format!("{HEAD}tracer: {{image: a@sha256:b, privileged: true, imagePullPolicy: Never}}\n")).unwrap();
        let want = TracerConfig {
            image: Some("a@sha256:b".to_owned()),
            privileged: true,
            image_pull_policy: Some(PullPolicy::Never),
            ..TracerConfig::default()
        };
        assert_eq!((config.tracer, config.output), (want, OutputConfig::default()));
        assert_eq!(parse("# nothing\n"), Ok(Config::default()));
    }

    #[test]
    fn every_mistake_is_told() {
        let text = format!("{HEAD}tracer: {{imge: a, imagePullPolicy: never, privileged: 1}}\n");
        let problems = parse(&text).unwrap_err();
        let places: Vec<_> = problems.iter().map(|problem| &text[problem.span.clone()]).collect();
        assert_eq!(places, ["imge", "never", "1"]);
        assert_eq!(problems[0].label, "did you mean `image`?");
        assert_eq!(parse(&format!("{HEAD}---\n{HEAD}")).unwrap_err().len(), 1);
        assert!(parse("kind: [").is_err());
    }
}
