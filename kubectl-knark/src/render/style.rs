//! Colours of the table: what an event means shows before it is read.

use super::words::failed;
use knark_specs::{
    event::{Event, What},
    frame::FileOp,
    policy::Severity,
};

/// An SGR sequence, or none.
pub type Style = &'static str;

/// Nothing special.
pub const PLAIN: Style = "";
/// Remarks.
pub const DIM: Style = "\x1b[2m";
/// Failures.
pub const RED: Style = "\x1b[31m";
const BOLD_RED: Style = "\x1b[1;31m";
const GREEN: Style = "\x1b[32m";
const YELLOW: Style = "\x1b[33m";
const MAGENTA: Style = "\x1b[35m";
const CYAN: Style = "\x1b[36m";

/// Ends any style.
pub const RESET: &str = "\x1b[0m";

/// An operation's colour: what runs, what comes into being or changes, what goes, what changes who may do what.
pub fn of(event: &Event) -> Style {
    match &event.what {
        What::Exec { .. } => CYAN,
        What::Exit { .. } => DIM,
        What::Api { api } if failed(api) => RED,
        What::Api { api } => of_verb(&api.verb),
        What::File { file } if file.result < 0 => RED,
        What::File { file } => match file.op {
            FileOp::Open => PLAIN,
            FileOp::MapExec => CYAN,
            FileOp::Create
            | FileOp::WriteOpen
            | FileOp::Write
            | FileOp::Truncate
            | FileOp::Mkdir
            | FileOp::Link
            | FileOp::Symlink => GREEN,
            FileOp::Rename | FileOp::Unlink | FileOp::Rmdir => MAGENTA,
            FileOp::Chmod | FileOp::Chown | FileOp::Setxattr | FileOp::Removexattr => YELLOW,
        },
    }
}

fn of_verb(verb: &str) -> Style {
    match verb {
        "create" | "update" | "patch" | "post" | "put" => GREEN,
        "delete" | "deletecollection" => MAGENTA,
        _ => PLAIN,
    }
}

/// A severity's colour.
pub fn of_severity(severity: Severity) -> Style {
    match severity {
        Severity::Info => DIM,
        Severity::Low => CYAN,
        Severity::Medium => YELLOW,
        Severity::High => RED,
        Severity::Critical => BOLD_RED,
    }
}
