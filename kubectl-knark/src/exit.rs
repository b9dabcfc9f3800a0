//! Exit statuses, as the README lists them.

use std::{io::Write as _, process::ExitCode};

use crate::render::escape;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It did what was asked.
    Done,
    /// It could not.
    Failed,
    /// It was asked wrongly.
    Usage,
    /// It did what was asked, but events were lost.
    Lost,
    /// It did what was asked, and a rule matched (`--fail-on-match`).
    Matched,
    /// It was interrupted before there was anything to show, or again before its end was complete.
    Interrupted,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Lost => 3,
            Exit::Matched => 4,
            Exit::Interrupted => 130,
        })
    }
}

/// The command line can't be meant as it stands.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(String);

impl UsageError {
    /// As an error of a command.
    pub fn because(text: impl Into<String>) -> anyhow::Error {
        Self(text.into()).into()
    }
}

/// Tells the user of something that went wrong beside what the exit status tells.
pub fn warn(error: &anyhow::Error) {
    say(&format!("warning: {}\n", escape::lines(&format!("{error:#}"))));
}

/// Writes to stderr. A terminal that has gone must not keep the pods from being removed, as the panic of `eprintln!` would.
pub fn say(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

/// Tells the user what went wrong, with its causes, and which status that makes.
pub fn report(error: &anyhow::Error) -> Exit {
    say(&format!("error: {}\n", escape::lines(&format!("{error:#}"))));
    if error.is::<UsageError>() { Exit::Usage } else { Exit::Failed }
}
