//! What happened, in the words of a table's last column.

use std::{borrow::Cow, fmt::Write as _};

use knark_specs::{
    event::{Api, ApiStage, Event, Exec, Exit, File, Path, PathMark, PathSource, Process, What},
    frame::FileOp,
    link::{self, Cause, Certainty},
};

use super::escape::{cell, cell_of, shell_word, shell_word_of};

/// A sentence in pieces, so that it can be cut where that hurts least.
#[derive(Debug, Default)]
pub struct Detail<'e> {
    /// Who did it, where no column says so: a request's user.
    pub who: Option<Cow<'e, str>>,
    /// The subject: a command line, or a path, or two of them.
    pub subjects: Vec<Cow<'e, str>>,
    /// The subject is a command line: its beginning says most.
    pub is_command: bool,
    /// What really runs, where the command line says otherwise; it gives way first.
    pub exe: Option<Cow<'e, str>>,
    /// What is said of it; never cut.
    pub tail: String,
    /// Why it failed.
    pub error: Option<&'e str>,
    /// Remarks, the weightiest first.
    pub marks: Vec<Cow<'e, str>>,
}

impl Detail<'_> {
    /// Who did it to what, whole.
    pub fn subject(&self) -> String {
        let subjects = self.subjects.join(" → ");
        match &self.who {
            Some(who) => format!("{who} {subjects}"),
            None => subjects,
        }
    }

    /// All of it in one line.
    pub fn text(&self) -> String {
        let exe = self.exe.as_ref().map(|exe| format!(" [{exe}]")).unwrap_or_default();
        let error = self.error.map(|error| format!(" {error}")).unwrap_or_default();
        format!("{}{exe}{}{error}{}", self.subject(), self.tail, self.remarks())
    }

    /// The remarks as they stand at its end.
    pub fn remarks(&self) -> String {
        if self.marks.is_empty() { String::new() } else { format!(" ({})", self.marks.join(", ")) }
    }
}

/// How much is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Extent {
    /// What a narrow table has room for.
    Brief,
    /// What a comfortable one has.
    Usual,
    /// What is only asked for at times: where a request comes from.
    Whole,
}

/// The operation, as JSON names it too.
pub fn operation(event: &Event) -> &'static str {
    match &event.what {
        What::File { file } => file.op.name(),
        what => what.name(),
    }
}

/// What happened, to this extent.
pub fn detail(event: &Event, extent: Extent) -> Detail<'_> {
    let full = extent > Extent::Brief;
    let mut detail = match &event.what {
        What::Exec { exec } => of_exec(exec, &event.process),
        What::File { file } => of_file(file, full),
        What::Exit { exit } => of_exit(exit),
        What::Api { api } => of_api(api, extent),
    };
    if let Some(count) = event.count {
        let _ = write!(detail.tail, " x{count}");
    }
    // Whose shell it is says more than all else: the end of the line is what a narrow terminal cuts.
    let cause = event.cause.as_ref().filter(|cause| full || is_worth_a_mark(event, cause)).map(|cause| of_cause(cause));
    detail.marks.splice(..0, cause);
    detail
}

/// All that a pod does comes of its creation, so its beginning alone says so.
fn is_worth_a_mark(event: &Event, cause: &Cause) -> bool {
    matches!(event.what, What::Exec { .. }) && (!cause.subresource.is_empty() || link::begins_container(&event.process))
}

fn of_cause(cause: &Cause) -> Cow<'static, str> {
    let sure = if cause.certainty == Certainty::Certain { "" } else { "probably " };
    let deed = match cause.subresource.as_str() {
        "" => "created".into(),
        "ephemeralcontainers" => "kubectl debug".into(),
        subresource => format!("kubectl {}", cell(subresource)),
    };
    let who: Vec<_> = std::iter::once(cause.who()).chain(cause.others.iter().map(Cow::Borrowed)).collect();
    Cow::Owned(format!("{sure}{deed} by {}", cell(&who.join(" or "))))
}

fn of_exec<'e>(exec: &Exec, process: &'e Process) -> Detail<'e> {
    let exe = cell_of(&process.exe, process.exe_b64.as_deref());
    let mut marks = Vec::new();
    for (is_set, mark) in [
        (process.exe_memfd, "in memory only"),
        (process.exe_upper_layer == Some(true), "not from the image"),
        (exec.deleted, "deleted"),
        (exec.exe_cut, "path cut"),
        (process.args_cut_from.is_some(), "arguments cut"),
    ] {
        if is_set {
            marks.push(mark.into());
        }
    }
    let Some(name) = process.args.get(0) else {
        return Detail { subjects: vec![exe], is_command: true, marks, ..Detail::default() };
    };
    let bytes = process.args_b64.as_ref();
    let words = process.args.iter().enumerate();
    let words: Vec<_> = words.map(|(at, arg)| shell_word_of(arg, bytes.and_then(|bytes| bytes.get(at)))).collect();
    // A process chooses its first argument freely; the kernel's word is added where they differ.
    let disguised = base(name).trim_start_matches('-') != base(&process.exe) && !exe.is_empty();
    let exe = disguised.then_some(exe);
    Detail { subjects: vec![Cow::Owned(words.join(" "))], is_command: true, exe, marks, ..Detail::default() }
}

fn of_file(file: &File, full: bool) -> Detail<'_> {
    let mut subjects = vec![path(&file.path)];
    subjects.extend(file.to.as_ref().map(path));
    let same = file.same_as.get(0).map(|first| {
        let b64 = file.same_as_b64.as_ref().and_then(|all| all.get(0));
        let more = if file.same_as.len() > 1 { format!(" and {} more", file.same_as.len() - 1) } else { String::new() };
        Cow::Owned(format!("same file as {}{more}", shell_word_of(first, b64)))
    });
    let failed = file.result < 0;
    let argument = full && !failed && file.path.path_source == PathSource::Argument;
    let marks = file.path.path_marks.iter().map(|mark| match mark {
        PathMark::Deleted => "deleted",
        PathMark::Cut => "path cut",
        PathMark::Unreachable => "unreachable",
        PathMark::Late => "read late",
        PathMark::Raced => "raced",
    });
    Detail {
        subjects,
        is_command: false,
        tail: change(file, full),
        error: file.error.as_deref().filter(|_| failed),
        marks: same.into_iter().chain(marks.chain(argument.then_some("as given")).map(Cow::Borrowed)).collect(),
        ..Detail::default()
    }
}

/// What a file operation changed.
fn change(file: &File, full: bool) -> String {
    let mode = || file.mode.map(|mode| format!(" {mode}")).unwrap_or_default();
    let from_to = |from: Option<String>, to: String| from.map_or_else(|| format!(" → {to}"), |from| format!(" {from} → {to}"));
    match file.op {
        FileOp::Open | FileOp::WriteOpen | FileOp::Create => {
            let mode = if file.op == FileOp::Create { mode() } else { String::new() };
            match &file.flags {
                Some(flags) if full => format!("{mode} {}", flags.join("|")),
                _ => mode,
            }
        }
        FileOp::Mkdir => mode(),
        FileOp::Truncate => file.size.map(|size| format!(" to {size} bytes")).unwrap_or_default(),
        FileOp::Chmod => {
            file.mode.map(|new| from_to(file.old_mode.map(|old| old.to_string()), new.to_string())).unwrap_or_default()
        }
        FileOp::Chown => {
            let old = (file.old_uid.is_some() || file.old_gid.is_some()).then(|| owner(file.old_uid, file.old_gid));
            from_to(old, owner(file.uid, file.gid))
        }
        FileOp::Setxattr | FileOp::Removexattr => file.xattr.as_ref().map(|name| format!(" {}", cell(name))).unwrap_or_default(),
        FileOp::Rename | FileOp::Link | FileOp::Symlink | FileOp::Unlink | FileOp::Rmdir | FileOp::Write | FileOp::MapExec => {
            String::new()
        }
    }
}

fn of_exit(exit: &Exit) -> Detail<'_> {
    let how = match (&exit.signal, exit.code) {
        (Some(signal), _) => Cow::Borrowed(signal.as_str()),
        (None, Some(code)) => Cow::Owned(format!("code {code}")),
        (None, None) => Cow::Borrowed("ended"),
    };
    // Milliseconds are enough for the eye; JSON has the rest.
    let lived = std::time::Duration::from_millis(exit.duration_ns / 1_000_000);
    let tail = format!(" after {}", humantime::format_duration(lived));
    Detail { subjects: vec![how], is_command: true, tail, ..Detail::default() }
}

/// `pods/exec`
pub fn resource(api: &Api) -> Cow<'_, str> {
    match api.subresource.as_str() {
        "" => Cow::Borrowed(&api.resource),
        subresource => Cow::Owned(format!("{}/{subresource}", api.resource)),
    }
}

/// Whether a request was refused or failed.
pub fn failed(api: &Api) -> bool {
    api.code.is_some_and(|code| code >= 400)
}

/// `alice get secrets prod/db-password 200`
fn of_api(api: &Api, extent: Extent) -> Detail<'_> {
    let full = extent > Extent::Brief;
    let user = match (&api.user, &api.impersonator) {
        (Some(user), Some(real)) => Cow::Owned(format!("{} as {}", cell(&real.name), cell(&user.name))),
        (Some(user), None) => cell(&user.name),
        (None, _) => Cow::Borrowed("-"),
    };
    let mut subject = format!("{} ", cell(&api.verb));
    if api.resource.is_empty() {
        subject += &cell(&api.path);
    } else {
        subject += &cell(&resource(api));
        if full && !api.group.is_empty() {
            subject = format!("{subject}.{}", cell(&api.group));
        }
        let parts = [&api.namespace, &api.name].map(|part| cell(part));
        subject += match parts.each_ref().map(|part| part.is_empty()) {
            [true, true] => String::new(),
            [false, true] => format!(" {}/", parts[0]),
            [true, false] => format!(" {}", parts[1]),
            [false, false] => format!(" {}", parts.join("/")),
        }
        .as_str();
    }
    if !api.command.is_empty() {
        let words: Vec<_> = api.command.iter().map(shell_word).collect();
        subject = format!("{subject}: {}", words.join(" "));
    }
    let code = api.code.map(|code| format!(" {code}")).unwrap_or_default();
    let tail = match (api.stage, api.latency().filter(|_| full)) {
        (ApiStage::Started, _) => format!("{code} started"),
        (ApiStage::Complete, Some(latency)) => format!("{code} after {latency}"),
        (ApiStage::Complete, None) => code,
    };
    let dry = api.dry_run.then_some("dry run".into());
    let origin = of_origin(api).filter(|_| extent == Extent::Whole);
    let marks = dry.into_iter().chain((!api.truncated.is_empty()).then_some("cut".into())).chain(origin).collect();
    Detail { who: Some(user), subjects: vec![Cow::Owned(subject)], is_command: true, tail, marks, ..Detail::default() }
}

/// `from 10.0.0.7, by 'kubectl/v1.36.3 (linux/amd64)', groups ops system:authenticated`
fn of_origin(api: &Api) -> Option<Cow<'_, str>> {
    let source = api.source.as_ref().map(|source| format!("from {}", cell(source)));
    let agent = api.user_agent.as_ref().map(|agent| format!("by {}", shell_word(agent)));
    let groups: Vec<_> = api.user.iter().flat_map(|user| user.groups.iter()).map(shell_word).collect();
    let groups = (!groups.is_empty()).then(|| format!("groups {}", groups.join(" ")));
    let parts: Vec<_> = [source, agent, groups].into_iter().flatten().collect();
    (!parts.is_empty()).then(|| Cow::Owned(parts.join(", ")))
}

fn path(path: &Path) -> Cow<'_, str> {
    cell_of(&path.path, path.path_b64.as_deref())
}

/// As chown(1) writes it: what stays as it is is left out.
fn owner(uid: Option<u32>, gid: Option<u32>) -> String {
    let part = |id: Option<u32>| id.map(|id| id.to_string()).unwrap_or_default();
    format!("{}:{}", part(uid), part(gid))
}

fn base(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}
