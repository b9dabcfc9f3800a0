//! What is wrong with a text that a user wrote, and where.

use std::ops::Range;

/// One finding in a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// How bad it is.
    pub level: Level,
    /// Where, in bytes of the text.
    pub span: Range<usize>,
    /// The field, such as `spec.rules[0].file.ops[1]`; empty for what isn't one.
    pub field: String,
    /// What is wrong, in a sentence without a full stop.
    pub message: String,
    /// A few words to stand at the place itself; empty where the message says it all.
    pub label: String,
    /// What to do, or what was probably meant.
    pub help: Option<String>,
}

/// How bad a [`Problem`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// It works, but hardly as meant.
    Warning,
    /// It can't be used.
    Error,
}

impl Problem {
    /// An error at a place.
    pub fn error(span: Range<usize>, field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { level: Level::Error, span, field: field.into(), message: message.into(), label: String::new(), help: None }
    }

    /// A warning at a place.
    pub fn warning(span: Range<usize>, field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { level: Level::Warning, ..Self::error(span, field, message) }
    }

    /// With words at the place itself.
    #[must_use]
    pub fn label(self, label: impl Into<String>) -> Self {
        Self { label: label.into(), ..self }
    }

    /// With advice.
    #[must_use]
    pub fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }
}
