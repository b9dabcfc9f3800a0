//! An event's fields by name, read out of the event itself.

mod api;
mod json;

use std::{collections::BTreeMap, fmt};

use serde_json::{Map, Value};

pub(super) use json::member;

use crate::{
    event::{
        Ancestor, Api, ApiBody, ApiUser, Container, Event, Exec, Exit, File, Kubernetes, Node, Owner, Path, PathMark, PathSource,
        Process, ProcessSource, Thread, What,
    },
    link::Cause,
    texts::Texts,
};

/// A field's value, borrowed from the event.
#[derive(Debug, Clone)]
pub(crate) enum Field<'e> {
    Bool(bool),
    Int(i64),
    Double(f64),
    Text(&'e str),
    /// What JSON shows as a text and the event holds as something else.
    Made(String),
    List(List<'e>),
    Map(&'e BTreeMap<String, String>),
    Object(Object<'e>),
    /// An object in a request's or response's body.
    Json(&'e Map<String, Value>),
}

/// A list's items, wherever they are.
#[derive(Debug, Clone, Copy)]
pub(crate) enum List<'e> {
    Texts(&'e Texts),
    Flags(&'e [std::borrow::Cow<'static, str>]),
    Marks(&'e [PathMark]),
    Ancestors(&'e [Ancestor]),
    Json(&'e [Value]),
}

/// Something with fields.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Object<'e> {
    Event(&'e Event),
    Node(&'e Node),
    Kubernetes(&'e Kubernetes),
    Owner(&'e Owner),
    Container(&'e Container),
    Process(&'e Process),
    Ancestor(&'e Ancestor),
    Thread(&'e Thread),
    Exec(&'e Exec),
    File(&'e File),
    Path(&'e Path),
    Exit(&'e Exit),
    Api(&'e Api),
    ApiUser(&'e ApiUser),
    ApiBody(&'e ApiBody),
    Cause(&'e Cause),
}

impl<'e> Object<'e> {
    /// The field below this, by its dotted path; what follows a map's name is a key, dots and all. None where it is absent.
    pub(crate) fn find(self, path: &str) -> Option<Field<'e>> {
        let (mut object, mut rest) = (self, path);
        loop {
            let (name, below) = rest.split_once('.').map_or((rest, None), |(name, below)| (name, Some(below)));
            match (object.field(name)?, below) {
                (field, None) => return Some(field),
                (Field::Object(next), Some(below)) => (object, rest) = (next, below),
                (Field::Map(map), Some(key)) => return map.get(key).map(|value| Field::Text(value)),
                (Field::Json(map), Some(path)) => return json::below(map, path),
                _ => return None,
            }
        }
    }

    /// A field of this; none where it is absent.
    pub(crate) fn field(self, name: &str) -> Option<Field<'e>> {
        match self {
            Self::Event(event) => of_event(event, name),
            Self::Node(node) => match name {
                "name" => text(&node.name),
                "clock_offset_ns" => Some(Field::Int(node.clock_offset_ns)),
                _ => None,
            },
            Self::Kubernetes(pod) => match name {
                "namespace" => text(&pod.namespace),
                "pod" => text(&pod.pod),
                "pod_uid" => text(&pod.pod_uid),
                "labels" => pod.labels.as_ref().map(Field::Map),
                "owner" => pod.owner.as_ref().map(|owner| Field::Object(Self::Owner(owner))),
                _ => None,
            },
            Self::Owner(owner) => match name {
                "kind" => text(&owner.kind),
                "name" => text(&owner.name),
                _ => None,
            },
            Self::Container(container) => match name {
                "id" => text(&container.id),
                "name" => text(&container.name),
                "image" => text(&container.image),
                "cgroup_id" => made(container.cgroup_id),
                _ => None,
            },
            Self::Process(process) => of_process(process, name),
            Self::Ancestor(ancestor) => match name {
                "pid" => int(ancestor.pid),
                "comm" => text(&ancestor.comm),
                "exe" => text(&ancestor.exe),
                "start_boot_ns" => made(ancestor.start_boot_ns),
                _ => None,
            },
            Self::Thread(thread) => match name {
                "tid" => int(thread.tid),
                "comm" => text(&thread.comm),
                _ => None,
            },
            Self::Exec(exec) => match name {
                "filename" => text(&exec.filename),
                "filename_b64" => optional(exec.filename_b64.as_ref()),
                "mode" => made(exec.mode),
                "uid" => int(exec.uid),
                "gid" => int(exec.gid),
                "inode" => made(exec.inode),
                "device" => text(&exec.device),
                "deleted" => Some(Field::Bool(exec.deleted)),
                "exe_cut" => Some(Field::Bool(exec.exe_cut)),
                _ => None,
            },
            Self::File(file) => of_file(file, name),
            Self::Path(path) => of_path(path, name),
            Self::Exit(exit) => match name {
                "code" => exit.code.and_then(int),
                "signal" => optional(exit.signal.as_ref()),
                "duration_ns" => made(exit.duration_ns),
                _ => None,
            },
            Self::Api(api) => api::of_api(api, name),
            Self::ApiUser(user) => api::of_user(user, name),
            Self::ApiBody(body) => api::of_body(body, name),
            Self::Cause(cause) => api::of_cause(cause, name),
        }
    }
}

impl<'e> List<'e> {
    /// How many items it has.
    pub(crate) fn len(self) -> usize {
        match self {
            Self::Texts(texts) => texts.len(),
            Self::Flags(flags) => flags.len(),
            Self::Marks(marks) => marks.len(),
            Self::Ancestors(ancestors) => ancestors.len(),
            Self::Json(items) => items.len(),
        }
    }

    /// The item at a place, counted from 0.
    pub(crate) fn get(self, at: usize) -> Option<Field<'e>> {
        match self {
            Self::Texts(texts) => texts.get(at).map(Field::Text),
            Self::Flags(flags) => flags.get(at).map(|flag| Field::Text(flag)),
            Self::Marks(marks) => marks.get(at).map(|mark| Field::Text(path_mark(*mark))),
            Self::Ancestors(ancestors) => ancestors.get(at).map(|ancestor| Field::Object(Object::Ancestor(ancestor))),
            Self::Json(items) => items.get(at).and_then(json::field),
        }
    }

    /// The items in their order.
    pub(crate) fn iter(self) -> impl Iterator<Item = Field<'e>> {
        (0..self.len()).filter_map(move |at| self.get(at))
    }
}

fn of_event<'e>(event: &'e Event, name: &str) -> Option<Field<'e>> {
    match (name, &event.what) {
        ("schema", _) => text(&event.schema),
        ("time", _) => text(&event.time),
        ("boot_ns", _) => made(event.boot_ns),
        ("count", _) => event.count.and_then(|count| i64::try_from(count).ok()).and_then(int),
        ("first_time", _) => optional(event.first_time.as_ref()),
        ("last_time", _) => optional(event.last_time.as_ref()),
        ("node", _) => Some(Field::Object(Object::Node(&event.node))),
        ("kubernetes", _) => event.kubernetes.as_deref().map(|pod| Field::Object(Object::Kubernetes(pod))),
        ("container", _) => event.container.as_deref().map(|container| Field::Object(Object::Container(container))),
        ("process", _) => Some(Field::Object(Object::Process(&event.process))),
        ("thread", _) => event.thread.as_ref().map(|thread| Field::Object(Object::Thread(thread))),
        ("cause", _) => event.cause.as_deref().map(|cause| Field::Object(Object::Cause(cause))),
        ("type", What::Exec { .. }) => text("exec"),
        ("type", What::File { .. }) => text("file"),
        ("type", What::Exit { .. }) => text("exit"),
        ("type", What::Api { .. }) => text("api"),
        ("exec", What::Exec { exec }) => Some(Field::Object(Object::Exec(exec))),
        ("file", What::File { file }) => Some(Field::Object(Object::File(file))),
        ("exit", What::Exit { exit }) => Some(Field::Object(Object::Exit(exit))),
        ("api", What::Api { api }) => Some(Field::Object(Object::Api(api))),
        _ => None,
    }
}

fn of_process<'e>(process: &'e Process, name: &str) -> Option<Field<'e>> {
    match name {
        "pid" => int(process.pid),
        "ppid" => int(process.ppid),
        "uid" => int(process.uid),
        "gid" => int(process.gid),
        "ns_pid" => process.ns_pid.and_then(int),
        "ns_uid" => process.ns_uid.and_then(int),
        "ns_gid" => process.ns_gid.and_then(int),
        "comm" => text(&process.comm),
        "comm_b64" => optional(process.comm_b64.as_ref()),
        "exe" => text(&process.exe),
        "exe_b64" => optional(process.exe_b64.as_ref()),
        "args" => Some(Field::List(List::Texts(&process.args))),
        "args_b64" => process.args_b64.as_ref().map(|args| Field::List(List::Texts(args))),
        "args_cut_from" => process.args_cut_from.and_then(int),
        "cwd" => text(&process.cwd),
        "cwd_b64" => optional(process.cwd_b64.as_ref()),
        "start_time" => text(&process.start_time),
        "start_boot_ns" => made(process.start_boot_ns),
        "exe_upper_layer" => process.exe_upper_layer.map(Field::Bool),
        "exe_memfd" => Some(Field::Bool(process.exe_memfd)),
        "ancestors" => Some(Field::List(List::Ancestors(&process.ancestors))),
        "ancestors_cut" => Some(Field::Bool(process.ancestors_cut)),
        "source" => text(match process.source {
            ProcessSource::Exec => "exec",
            ProcessSource::Fork => "fork",
            ProcessSource::Proc => "proc",
            ProcessSource::Unknown => "unknown",
        }),
        _ => None,
    }
}

fn of_file<'e>(file: &'e File, name: &str) -> Option<Field<'e>> {
    match name {
        "op" => text(file.op.name()),
        "syscall" => text(&file.syscall),
        "same_as" => Some(Field::List(List::Texts(&file.same_as))),
        "same_as_b64" => file.same_as_b64.as_ref().map(|paths| Field::List(List::Texts(paths))),
        "to" => file.to.as_ref().map(|path| Field::Object(Object::Path(path))),
        "flags" => file.flags.as_deref().map(|flags| Field::List(List::Flags(flags))),
        "created" => Some(Field::Bool(file.created)),
        "mode" => file.mode.and_then(made),
        "old_mode" => file.old_mode.and_then(made),
        "uid" => file.uid.and_then(int),
        "gid" => file.gid.and_then(int),
        "old_uid" => file.old_uid.and_then(int),
        "old_gid" => file.old_gid.and_then(int),
        "size" => file.size.and_then(made),
        "xattr" => optional(file.xattr.as_ref()),
        "inode" => file.inode.and_then(made),
        "device" => optional(file.device.as_ref()),
        "result" => Some(Field::Int(file.result)),
        "error" => file.error.as_deref().and_then(text),
        _ => of_path(&file.path, name),
    }
}

fn of_path<'e>(path: &'e Path, name: &str) -> Option<Field<'e>> {
    match name {
        "path" => text(&path.path),
        "path_b64" => optional(path.path_b64.as_ref()),
        "path_source" => text(match path.path_source {
            PathSource::Kernel => "kernel",
            PathSource::Argument => "argument",
        }),
        "path_argument" => optional(path.path_argument.as_ref()),
        "path_marks" => Some(Field::List(List::Marks(&path.path_marks))),
        _ => None,
    }
}

fn path_mark(mark: PathMark) -> &'static str {
    match mark {
        PathMark::Deleted => "deleted",
        PathMark::Cut => "cut",
        PathMark::Unreachable => "unreachable",
        PathMark::Late => "late",
        PathMark::Raced => "raced",
    }
}

#[expect(clippy::unnecessary_wraps, reason = "the arms of the matches above are options")]
fn text(text: &str) -> Option<Field<'_>> {
    Some(Field::Text(text))
}

fn optional(text: Option<&String>) -> Option<Field<'_>> {
    text.map(|text| Field::Text(text))
}

#[expect(clippy::unnecessary_wraps, reason = "the arms of the matches above are options")]
fn made<'e>(value: impl fmt::Display) -> Option<Field<'e>> {
    Some(Field::Made(value.to_string()))
}

#[expect(clippy::unnecessary_wraps, reason = "the arms of the matches above are options")]
fn int<'e>(number: impl Into<i64>) -> Option<Field<'e>> {
    Some(Field::Int(number.into()))
}
