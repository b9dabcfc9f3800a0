//! The structured conditions of a rule, compiled: each says whether an event satisfies it, or which part does not.

mod request;

use super::{
    IdRange, ModeProperty, Origin, Owner, ResultMatch,
    facts::{Facts, bytes},
    pattern::PatternId,
};
use crate::{
    event::{File, What},
    frame::FileOp,
    linux::Mode,
};

pub use request::Request;

/// The field of the rule that an event does not satisfy, such as `file.paths`.
pub type Miss = &'static str;

/// Any of these patterns; empty: any text.
pub type AnyOf = Vec<PatternId>;

/// Who.
#[derive(Debug, Clone, Default)]
pub struct Process {
    /// Executables.
    pub exes: AnyOf,
    /// Names.
    pub comms: AnyOf,
    /// Arguments.
    pub args: AnyOf,
    /// Arguments in their order.
    pub args_in_order: Vec<AnyOf>,
    /// User ids.
    pub uids: Vec<IdRange>,
    /// Group ids.
    pub gids: Vec<IdRange>,
    /// Ancestors' executables.
    pub ancestors: AnyOf,
}

/// What.
#[derive(Debug, Clone)]
pub enum Subject {
    /// An execution.
    Exec(Exec),
    /// A file operation.
    File(FileOperation),
    /// A request to the Kubernetes API.
    Api(Request),
    /// Anything; only an exception may say so little.
    Any,
}

/// An execution.
#[derive(Debug, Clone, Default)]
pub struct Exec {
    /// Executables.
    pub paths: AnyOf,
    /// Where they come from.
    pub from: Vec<Origin>,
}

/// A file operation.
#[derive(Debug, Clone, Default)]
pub struct FileOperation {
    /// What is done; empty: anything. Of a rule, it isn't empty.
    pub ops: Vec<FileOp>,
    /// Files.
    pub paths: AnyOf,
    /// Whether these count under other names, too.
    pub same_file: bool,
    /// Properties that the mode gets.
    pub becomes: Vec<ModeProperty>,
    /// What the new mode may allow at most.
    pub looser_than: Option<Mode>,
    /// Who the new owner may be.
    pub owner_other_than: Option<Owner>,
    /// Flags of an open.
    pub flags: Vec<String>,
    /// Names of extended attributes.
    pub xattrs: AnyOf,
    /// Whether it worked.
    pub result: ResultMatch,
}

/// Whether one of the wanted patterns is among those found.
fn hit(wanted: &[PatternId], found: &[PatternId]) -> bool {
    !found.is_empty() && wanted.iter().any(|id| found.binary_search(id).is_ok())
}

impl Process {
    /// Whether the event's process satisfies it.
    pub fn check(&self, facts: &Facts<'_>) -> Result<(), Miss> {
        let process = &facts.event.process;
        let is = |holds: bool, field: Miss| if holds { Ok(()) } else { Err(field) };
        is(self.uids.is_empty() || self.uids.iter().any(|range| range.contains(process.uid)), "process.uids")?;
        is(self.gids.is_empty() || self.gids.iter().any(|range| range.contains(process.gid)), "process.gids")?;
        is(self.exes.is_empty() || hit(&self.exes, facts.exe()), "process.exes")?;
        is(self.comms.is_empty() || hit(&self.comms, facts.comm()), "process.comms")?;
        is(self.ancestors.is_empty() || hit(&self.ancestors, facts.ancestors()), "process.ancestors")?;
        is(self.args.is_empty() || hit(&self.args, facts.args()), "process.args")?;
        is(in_order(&self.args_in_order, facts), "process.argsInOrder")
    }
}

fn in_order(wanted: &[AnyOf], facts: &Facts<'_>) -> bool {
    let mut wanted = wanted.iter().peekable();
    for at in 0..facts.event.process.args.len() {
        let Some(next) = wanted.peek() else { break };
        if hit(next, &facts.argument_patterns(at)) {
            wanted.next();
        }
    }
    wanted.peek().is_none()
}

impl Subject {
    /// Whether the event satisfies it.
    pub fn check(&self, facts: &Facts<'_>) -> Result<(), Miss> {
        match (self, &facts.event.what) {
            (Self::Any, _) => Ok(()),
            (Self::Exec(exec), What::Exec { exec: event }) => exec.check(facts, event.deleted),
            (Self::File(operation), What::File { file }) => operation.check(facts, file),
            (Self::Exec(_), _) => Err("exec"),
            (Self::File(_), _) => Err("file"),
            (Self::Api(request), What::Api { api }) => request.check(facts, api),
            (Self::Api(_), _) => Err("api"),
        }
    }
}

impl Exec {
    fn check(&self, facts: &Facts<'_>, deleted: bool) -> Result<(), Miss> {
        let process = &facts.event.process;
        let comes_from = |origin: &Origin| match origin {
            Origin::UpperLayer => process.exe_upper_layer == Some(true),
            Origin::Memfd => process.exe_memfd,
            Origin::Deleted => deleted,
        };
        if !self.from.is_empty() && !self.from.iter().any(comes_from) {
            return Err("exec.from");
        }
        if !self.paths.is_empty() && !hit(&self.paths, facts.subject()) {
            return Err("exec.paths");
        }
        Ok(())
    }
}

impl FileOperation {
    fn check(&self, facts: &Facts<'_>, file: &File) -> Result<(), Miss> {
        let is = |holds: bool, field: Miss| if holds { Ok(()) } else { Err(field) };
        is(self.ops.is_empty() || self.ops.contains(&file.op), "file.ops")?;
        let worked = match self.result {
            ResultMatch::Any => true,
            ResultMatch::Success => file.result >= 0,
            ResultMatch::Failure => file.result < 0,
        };
        is(worked, "file.result")?;
        is(self.becomes.is_empty() || self.becomes.iter().any(|property| becomes(*property, file)), "file.becomes")?;
        is(self.looser_than.is_none_or(|limit| new_mode(file).is_some_and(|mode| mode.0 & !limit.0 != 0)), "file.looserThan")?;
        is(self.owner_other_than.is_none_or(|owner| gets_another_owner(owner, file)), "file.ownerOtherThan")?;
        let flags = || file.flags.iter().flatten();
        is(self.flags.is_empty() || flags().any(|flag| self.flags.iter().any(|wanted| wanted == flag)), "file.flags")?;
        let under_other_name = || self.same_file && hit(&self.paths, facts.same());
        is(self.paths.is_empty() || hit(&self.paths, facts.subject()) || under_other_name(), "file.paths")?;
        is(self.xattrs.is_empty() || hit(&self.xattrs, facts.xattr()), "file.xattrs")
    }
}

/// The mode that the operation gives. Of other operations `mode` is what the file has; of mkdir and mknod what was asked for,
/// before the process's umask, which isn't known.
fn new_mode(file: &File) -> Option<Mode> {
    let given = match file.op {
        FileOp::Chmod => true,
        FileOp::Create => file.created,
        _ => false,
    };
    given.then_some(file.mode).flatten()
}

fn becomes(property: ModeProperty, file: &File) -> bool {
    let bits = match property {
        ModeProperty::WorldWritable => 0o002,
        ModeProperty::WorldReadable => 0o004,
        ModeProperty::GroupWritable => 0o020,
        ModeProperty::Executable => 0o111,
        ModeProperty::Setuid => 0o4000,
        ModeProperty::Setgid => 0o2000,
    };
    new_mode(file).is_some_and(|mode| mode.0 & bits != 0) && file.old_mode.is_none_or(|mode| mode.0 & bits == 0)
}

fn gets_another_owner(owner: Owner, file: &File) -> bool {
    let differs = |given: Option<u32>, allowed: Option<u32>| given.zip(allowed).is_some_and(|(given, allowed)| given != allowed);
    let gives = file.op == FileOp::Chown || file.op == FileOp::Create && file.created;
    gives && (differs(file.uid, owner.uid) || differs(file.gid, owner.gid))
}

/// In words, what of the event did not satisfy a field of a rule.
pub fn describe(miss: Miss, facts: &Facts<'_>) -> String {
    let event = facts.event;
    let process = &event.process;
    let file = match &event.what {
        What::File { file } => Some(&**file),
        What::Api { api } if miss.starts_with("api.") => return request::describe(miss, api),
        What::Exec { .. } | What::Exit { .. } | What::Api { .. } => None,
    };
    let file_field = |text: fn(&File) -> String| file.map_or_else(String::new, text);
    let show = |text: &str, b64: Option<&str>| format!("{:?}", String::from_utf8_lossy(&bytes(text, b64)));
    match miss {
        "process.uids" => format!("the uid is {}", process.uid),
        "process.gids" => format!("the gid is {}", process.gid),
        "process.exes" => format!("the executable is {}", show(&process.exe, process.exe_b64.as_deref())),
        "process.comms" => format!("the process is called {}", show(&process.comm, process.comm_b64.as_deref())),
        "process.ancestors" => {
            let names: Vec<_> = process.ancestors.iter().map(|ancestor| ancestor.exe.as_str()).collect();
            format!("the ancestors are {names:?}")
        }
        "process.args" | "process.argsInOrder" => format!("the arguments are {:?}", process.args),
        "exec" | "file" | "api" => format!("the event is of type {}", event.what.name()),
        "exec.paths" => format!("the executable is {}", show(&process.exe, process.exe_b64.as_deref())),
        "exec.from" => "the executable comes from elsewhere".to_owned(),
        "file.ops" => file_field(|file| format!("the operation is {}", file.op.name())),
        "file.result" => file_field(|file| format!("the result is {}", file.result)),
        "file.becomes" | "file.looserThan" => file_field(|file| {
            let text = |mode: Option<Mode>| mode.map_or_else(|| "not known".to_owned(), |mode| mode.to_string());
            format!("the {} gives the mode {}, and the old one is {}", file.op.name(), text(new_mode(file)), text(file.old_mode))
        }),
        "file.ownerOtherThan" => file_field(|file| {
            let text = |id: Option<u32>| id.map_or_else(|| "-".to_owned(), |id| id.to_string());
            format!("the {} gives the owner {}:{}", file.op.name(), text(file.uid), text(file.gid))
        }),
        "file.flags" => file_field(|file| format!("the flags are {:?}", file.flags.as_deref().unwrap_or_default())),
        "file.paths" => file_field(|file| {
            let same = if file.same_as.is_empty() { String::new() } else { format!(", the same file as {:?}", file.same_as) };
            match &file.to {
                Some(to) => format!("the paths are {:?} and {:?}{same}", file.path.path, to.path),
                None => format!("the path is {:?}{same}", file.path.path),
            }
        }),
        "file.xattrs" => file_field(|file| format!("the attribute is {:?}", file.xattr.as_deref().unwrap_or_default())),
        _ => String::new(),
    }
}
