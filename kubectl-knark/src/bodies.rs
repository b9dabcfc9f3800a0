//! `--bodies`: what requests to the Kubernetes API carry and are answered, whoever tells of them.

use knark_specs::frame::{BODY_BYTES_AT_MOST, Bodies};

use crate::exit::UsageError;

/// So many bytes of a body are shown, if the user doesn't say.
const BODY_BYTES: u32 = 64 << 10;

/// How bodies are wanted.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Requests to the Kubernetes API")]
pub struct BodyFlags {
    /// Show bodies: of requests, and of the responses to those that change something
    ///
    /// What gives access is taken out before it leaves the node. Of an audit log, what its audit policy has put there.
    #[arg(long)]
    pub bodies: bool,
    /// Show so much of each body, in bytes, such as 4096 or 16Ki; 64Ki if not given, at most 1Mi
    #[arg(long, value_name = "SIZE", value_parser = limit)]
    body_limit: Option<u32>,
    /// Show bodies as they are, with all that gives access: data of Secrets, tokens. Recordings have it then, too
    #[arg(long)]
    show_secrets: bool,
}

impl BodyFlags {
    /// Whether they can be meant as they stand.
    ///
    /// # Errors
    /// They say how to show bodies, and not to show them, which is a matter of usage.
    pub fn check(&self) -> anyhow::Result<()> {
        let how = [(self.show_secrets, "--show-secrets"), (self.body_limit.is_some(), "--body-limit")];
        match how.into_iter().find(|(given, _)| *given && !self.bodies) {
            Some((_, flag)) => {
                Err(UsageError::because(format!("{flag} says how bodies are shown, and they are not asked for: add --bodies")))
            }
            None => Ok(()),
        }
    }

    /// What is wanted; none: no bodies.
    pub fn wanted(&self) -> Option<Bodies> {
        let limit = self.body_limit.unwrap_or(BODY_BYTES);
        self.bodies.then_some(Bodies { limit, show_secrets: self.show_secrets })
    }
}

fn limit(text: &str) -> Result<u32, String> {
    let bytes = crate::cli::bytes(text)?;
    u32::try_from(bytes)
        .ok()
        .filter(|bytes| (1..=BODY_BYTES_AT_MOST).contains(bytes))
        .ok_or_else(|| "of a body, from 1 byte to 1Mi can be shown".to_owned())
}

#[cfg(test)]
mod tests {
    use super::limit;

    #[test]
    fn a_limit_is_a_quantity() {
        for (text, want) in [("1", 1), ("4096", 4096), ("64Ki", 64 << 10), ("1Mi", 1 << 20), ("1024K", 1 << 20)] {
            assert_eq!(limit(text), Ok(want), "{text}");
        }
        for text in ["", "0", "Ki", "2Mi", "1048577", "1.5Ki", "-1", "64Kx", "99999999999999999999"] {
            assert!(limit(text).is_err(), "{text}");
        }
    }
}
