//! Who is told of alerts, as users write it: `webhook:https://siem.example/in#format=kubecop&timeout=5s`, or the same in YAML.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{problem::Problem, structure::suggest, typed, yaml};

/// A file of receivers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReceiverFile {
    /// `knark.dev/v1alpha1`.
    #[schemars(regex(pattern = r"^knark\.dev/v1alpha1$"))]
    pub api_version: String,
    /// `AlertReceivers`.
    #[schemars(regex(pattern = "^AlertReceivers$"))]
    pub kind: String,
    /// Who is told.
    #[schemars(length(min = 1, max = 100))]
    pub receivers: Vec<Receiver>,
}

/// Who is told, and how. Options that a kind of receiver doesn't have are refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Receiver {
    /// `stdout`, a file's path, `file:PATH`, `csv:PATH`, `webhook:URL`, `alertmanager:URL`, `otlp:URL`, `syslog:URL`, `events` or
    /// `exec:PROGRAM`. A URL may stand in a file, since some are secrets: `webhook:@PATH`.
    pub to: String,
    /// What a webhook is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// Headers of HTTP requests.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Headers whose values are secrets: files that hold them. They are read for each request.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub header_files: BTreeMap<String, String>,
    /// A file with the bearer token. It is read for each request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_file: Option<String>,
    /// The certificates (PEM) that the receiver's must be signed by, instead of those that this system trusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<String>,
    /// The client's certificate (PEM).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert_file: Option<String>,
    /// Its key (PEM).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_file: Option<String>,
    /// How long one attempt may take, such as `10s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
    /// The folder for what can't be delivered for now, of receivers in the network; `none`: nothing is kept on disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spool: Option<String>,
    /// It takes at most so much room, such as `64M`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spool_size: Option<String>,
    /// The program's arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
}

/// What a webhook is sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Our own: several alerts per request.
    #[default]
    Knark,
    /// KubeCop's `RuntimeAlerts`: several per request.
    Kubecop,
    /// Kive's `KiveAlert`: one per request.
    Kive,
}

/// The kind of a receiver, and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target<'t> {
    /// Standard output, in place of the events.
    Stdout,
    /// A file of JSON lines.
    File(&'t str),
    /// A file of comma-separated values.
    Csv(&'t str),
    /// HTTP requests of the user's choice.
    Webhook(&'t str),
    /// Alertmanager's API.
    Alertmanager(&'t str),
    /// OpenTelemetry's logs.
    Otlp(&'t str),
    /// A syslog daemon.
    Syslog(&'t str),
    /// Kubernetes Events on pods.
    Events,
    /// A program's standard input.
    Exec(&'t str),
}

/// What isn't a receiver.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReceiverError {
    /// There is no such kind.
    #[error(
        "there is no kind of receiver {kind:?}{}: use stdout, FILE, file:FILE, csv:FILE, webhook:URL, alertmanager:URL, otlp:URL, \
         syslog:URL, events or exec:PROGRAM",
        .meant.as_ref().map(|meant| format!(" (did you mean {meant:?}?)")).unwrap_or_default()
    )]
    Kind {
        /// What was written before the colon.
        kind: String,
        /// What may have been meant.
        meant: Option<String>,
    },
    /// It isn't said where.
    #[error("{0}: needs something behind it, such as {0}:{1}")]
    Place(&'static str, &'static str),
    /// An option can't be meant.
    #[error("the options after #: {0}")]
    Options(String),
    /// An option that this kind doesn't have.
    #[error("{kind} has no option {option}")]
    Misplaced {
        /// The kind.
        kind: &'static str,
        /// The option.
        option: &'static str,
    },
}

/// The JSON Schema (draft 2020-12) of a [`ReceiverFile`].
pub fn schema() -> schemars::Schema {
    schemars::schema_for!(ReceiverFile)
}

/// Reads a file of receivers.
///
/// # Errors
/// Every mistake, at its place.
pub fn read_file(text: &str) -> Result<Vec<Receiver>, Vec<Problem>> {
    let read = yaml::read(text);
    if !read.problems.is_empty() {
        return Err(read.problems);
    }
    let mut receivers = Vec::new();
    let mut problems = Vec::new();
    for document in &read.documents {
        match typed::read::<ReceiverFile>(document) {
            Ok(file) => {
                for (at, receiver) in file.receivers.into_iter().enumerate() {
                    if let Err(error) = receiver.target().and_then(|target| receiver.check(&target)) {
                        let field = format!("receivers[{at}].to");
                        problems.push(Problem::error(document.find(&field).span.clone(), field, error.to_string()));
                    }
                    receivers.push(receiver);
                }
            }
            Err(found) => problems.extend(found),
        }
    }
    if problems.is_empty() { Ok(receivers) } else { Err(problems) }
}

impl Receiver {
    /// Reads `TO#OPTION=VALUE&...`. The options are those of the YAML file, URL-encoded; `header` and `headerFile` take `NAME:VALUE`,
    /// and, as `arg`, may be given several times. What stands behind `#` no URL's server is ever sent, so it is free for this.
    ///
    /// # Errors
    /// What can't be meant.
    pub fn parse(text: &str) -> Result<Self, ReceiverError> {
        let (to, options) = text.split_once('#').unwrap_or((text, ""));
        let mut object = Map::from_iter([("to".to_owned(), Value::from(to))]);
        for (name, value) in form_urlencoded::parse(options.as_bytes()) {
            let list = match &*name {
                "header" => Some("headers"),
                "headerFile" => Some("headerFiles"),
                _ => None,
            };
            if let Some(list) = list {
                let (header, value) =
                    value.split_once(':').ok_or_else(|| ReceiverError::Options(format!("{name} takes NAME:VALUE")))?;
                object.entry(list).or_insert_with(|| Map::new().into())[header.trim()] = value.trim().into();
            } else if name == "arg" {
                let args = object.entry("args").or_insert_with(|| Vec::<Value>::new().into());
                args.as_array_mut().into_iter().for_each(|args| args.push(Value::from(&*value)));
            } else if matches!(&*name, "to" | "headers" | "headerFiles" | "args") || object.contains_key(&*name) {
                return Err(ReceiverError::Options(format!("{name} can't be given here, or not twice")));
            } else {
                object.insert(name.into_owned(), value.into_owned().into());
            }
        }
        let receiver: Self = serde_json::from_value(object.into()).map_err(|error| ReceiverError::Options(error.to_string()))?;
        receiver.check(&receiver.target()?)?;
        Ok(receiver)
    }

    /// Its kind, and where it is.
    ///
    /// # Errors
    /// There is no such kind, or it isn't said where.
    pub fn target(&self) -> Result<Target<'_>, ReceiverError> {
        const KINDS: [&str; 9] = ["stdout", "file", "csv", "webhook", "alertmanager", "otlp", "syslog", "events", "exec"];
        let to = self.to.as_str();
        let (kind, place) = to.split_once(':').unwrap_or((to, ""));
        let some = |kind, example| if place.is_empty() { Err(ReceiverError::Place(kind, example)) } else { Ok(place) };
        match kind {
            "stdout" if place.is_empty() => Ok(Target::Stdout),
            "events" if place.is_empty() => Ok(Target::Events),
            "file" => some("file", "alerts.json").map(Target::File),
            "csv" => some("csv", "alerts.csv").map(Target::Csv),
            "webhook" => some("webhook", "https://siem.example/in").map(Target::Webhook),
            "alertmanager" => some("alertmanager", "http://localhost:9093").map(Target::Alertmanager),
            "otlp" => some("otlp", "http://localhost:4318").map(Target::Otlp),
            "syslog" => some("syslog", "udp://localhost:514").map(Target::Syslog),
            "exec" => some("exec", "/usr/local/bin/hook").map(Target::Exec),
            // A path has a slash or a dot; a letter before a colon is a drive.
            _ if !to.contains(':') && to.contains(['/', '\\', '.']) || kind.len() == 1 || kind.contains(['/', '\\']) => {
                Ok(Target::File(to))
            }
            _ => {
                let meant = suggest(kind, &KINDS).map(ToOwned::to_owned);
                // What stands before `://` alone is no secret, and what follows may be one.
                Err(ReceiverError::Kind { kind: kind.chars().take(32).collect(), meant })
            }
        }
    }

    fn check(&self, target: &Target<'_>) -> Result<(), ReceiverError> {
        let (kind, http, network) = match target {
            Target::Stdout => ("stdout", false, false),
            Target::File(_) => ("file", false, false),
            Target::Csv(_) => ("csv", false, false),
            Target::Webhook(_) => ("webhook", true, true),
            Target::Alertmanager(_) => ("alertmanager", true, true),
            Target::Otlp(_) => ("otlp", true, true),
            Target::Syslog(_) => ("syslog", false, true),
            Target::Events => ("events", false, true),
            Target::Exec(_) => ("exec", false, false),
        };
        let tls = http || kind == "syslog";
        for (option, given, has) in [
            ("format", self.format.is_some(), kind == "webhook"),
            ("headers", !self.headers.is_empty(), http),
            ("headerFiles", !self.header_files.is_empty(), http),
            ("tokenFile", self.token_file.is_some(), http),
            ("caFile", self.ca_file.is_some(), tls),
            ("certFile", self.cert_file.is_some(), tls),
            ("keyFile", self.key_file.is_some(), tls),
            ("timeout", self.timeout.is_some(), network),
            ("spool", self.spool.is_some(), network),
            ("spoolSize", self.spool_size.is_some(), network),
            ("args", !self.args.is_empty(), kind == "exec"),
        ] {
            if given && !has {
                return Err(ReceiverError::Misplaced { kind, option });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receivers_are_what_they_look_like() {
        for (text, want) in [
            ("stdout", Target::Stdout),
            ("events", Target::Events),
            ("./a", Target::File("./a")),
            ("/var/log/a:b", Target::File("/var/log/a:b")),
            ("alerts.json", Target::File("alerts.json")),
            (r"C:\alerts", Target::File(r"C:\alerts")),
            ("file:alerts", Target::File("alerts")),
            ("csv:a.csv", Target::Csv("a.csv")),
            ("webhook:https://a/b?c=d", Target::Webhook("https://a/b?c=d")),
            ("alertmanager:http://a", Target::Alertmanager("http://a")),
            ("otlp:http://a:4318", Target::Otlp("http://a:4318")),
            ("syslog:tls://a:6514#caFile=ca.pem", Target::Syslog("tls://a:6514")),
            ("exec:/bin/cat", Target::Exec("/bin/cat")),
        ] {
            let receiver = Receiver::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(receiver.target().unwrap(), want, "{text}");
        }
    }

    #[test]
    fn what_is_no_receiver_is_refused_in_words() {
        for (text, words) in [
            ("webhok:https://a", "did you mean \"webhook\"?"),
            ("https://user:secret@a", "there is no kind of receiver \"https\""),
            ("", "there is no kind"),
            ("alerts", "there is no kind"),
            ("webhook:", "such as webhook:https://siem.example/in"),
            ("stdout:x", "there is no kind"),
            ("webhook:https://a#formt=kive", "unknown field `formt`"),
            ("webhook:https://a#format=x", "unknown variant `x`"),
            ("webhook:https://a#header=x", "NAME:VALUE"),
            ("webhook:https://a#timeout=1s&timeout=2s", "not twice"),
            ("file:a#tokenFile=x", "file has no option tokenFile"),
            ("syslog:udp://a#format=kive", "syslog has no option format"),
        ] {
            let error = Receiver::parse(text).expect_err(text).to_string();
            assert!(error.contains(words) && !error.contains("secret"), "{text}: {error}");
        }
    }

    #[test]
    fn options_are_those_of_the_file() {
        let short = "webhook:https://a/b?c=d#format=kive&header=X-Team:%20blue&header=X-B:c&headerFile=X-Key:/run/key&tokenFile=/run/t\
                     &caFile=ca.pem&certFile=c.pem&keyFile=k.pem&timeout=5s&spool=/var/spool/knark&spoolSize=1M";
        let file = "
apiVersion: knark.dev/v1alpha1
kind: AlertReceivers
receivers:
- to: webhook:https://a/b?c=d
  format: kive
  headers: {X-Team: blue, X-B: c}
  headerFiles: {X-Key: /run/key}
  tokenFile: /run/t
  caFile: ca.pem
  certFile: c.pem
  keyFile: k.pem
  timeout: 5s
  spool: /var/spool/knark
  spoolSize: 1M
- to: exec:/bin/hook
  args: [-a, b c]
";
        let hook = Receiver::parse("exec:/bin/hook#arg=-a&arg=b%20c").unwrap();
        assert_eq!(read_file(file).unwrap(), [Receiver::parse(short).unwrap(), hook]);
    }

    #[test]
    fn mistakes_in_a_file_are_told_at_their_places() {
        let text =
            "{apiVersion: knark.dev/v1alpha1, kind: AlertReceivers, receivers: [{to: 'webhok:x'}, {to: stdout, timeout: 1s}]}";
        let problems = read_file(text).unwrap_err();
        let places: Vec<_> = problems.iter().map(|problem| &text[problem.span.clone()]).collect();
        assert_eq!(places, ["'webhok:x'", "stdout"]);
        assert!(read_file("{apiVersion: v1, kind: AlertReceivers, receivers: []}").is_err());
    }
}
