//! Events as the user sees them: one JSON object each, with a stable, documented schema.
//!
//! - Fields are added, never renamed; a reader ignores what it doesn't know.
//! - 64-bit ids are strings, times are RFC 3339 in UTC with nanoseconds, a mode is a quoted octal string.
//! - Bytes that aren't UTF-8: the field holds the text with U+FFFD in place of each bad sequence, and `<field>_b64` beside it
//!   holds the bytes themselves in Base64. A field without such a neighbour is exact.

mod api;

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use api::{Api, ApiBody, ApiDecision, ApiStage, ApiUser};

use crate::{frame::FileOp, link::Cause, linux::Mode, policy::Severity, texts::Texts};

/// The version of this schema, in every object.
pub const SCHEMA: &str = "knark.dev/v1alpha1";

/// One line of `-o json`: an event, or the summary that ends the output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Line {
    /// Something happened.
    Event(Box<Event>),
    /// The trace is over.
    Summary(Box<Summary>),
}

/// Something that happened on a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    /// `knark.dev/v1alpha1`.
    pub schema: Cow<'static, str>,
    /// When, by the node's clock: RFC 3339, UTC, nanoseconds. It is `boot_ns` and how far that clock was from it when it was last
    /// looked at, which is done five times a second; so where a clock is set, time may seem to leap or to run backwards.
    pub time: String,
    /// When, in nanoseconds since the node booted (`CLOCK_BOOTTIME`), which nobody can set. By this, events are ordered.
    #[serde(with = "number_string")]
    #[schemars(with = "String")]
    pub boot_ns: u64,
    /// It stands for so many events (`--aggregate`): repeats of one that was shown before, which is not among them. `process` is that
    /// one's, and `time` is when they were counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// When the first of them was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_time: Option<String>,
    /// When the last one was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_time: Option<String>,
    /// Where.
    pub node: Arc<Node>,
    /// The pod; absent for a process outside of any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubernetes: Option<Arc<Kubernetes>>,
    /// The container; absent for a process outside of any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<Arc<Container>>,
    /// Who.
    pub process: Arc<Process>,
    /// The thread, where it isn't the process's main one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thread: Option<Thread>,
    /// The request to the Kubernetes API that it comes from, where requests are traced as well: who ran the `kubectl exec` that
    /// this process, or one above it, was begun for, who typed it into the container, or who had the container made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Arc<Cause>>,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// What happened; `type` names the field that says more.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum What {
    /// A process executed a program, and `process` describes it.
    Exec {
        /// More.
        exec: Exec,
    },
    /// A file operation.
    File {
        /// More.
        file: Box<File>,
    },
    /// A process ended.
    Exit {
        /// More.
        exit: Exit,
    },
    /// A request to the Kubernetes API, and `process` is the API server.
    Api {
        /// More.
        api: Box<Api>,
    },
}

impl What {
    /// The `type` in JSON.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Exec { .. } => "exec",
            Self::File { .. } => "file",
            Self::Exit { .. } => "exit",
            Self::Api { .. } => "api",
        }
    }
}

/// The machine that an event happened on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Node {
    /// Its name in the cluster; its host name in local mode.
    pub name: String,
    /// Its clock minus the plugin's in nanoseconds, as far as the plugin can tell; 0 in local mode.
    pub clock_offset_ns: i64,
}

/// The pod that an event belongs to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Kubernetes {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub pod: String,
    /// UID as the pod's cgroup bears it.
    pub pod_uid: String,
    /// Labels, where the plugin knows the pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
    /// The controlling owner, where the plugin knows the pod and it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
}

/// A pod's controlling owner.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Owner {
    /// Such as `ReplicaSet`.
    pub kind: String,
    /// Name.
    pub name: String,
}

/// The container that an event belongs to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Container {
    /// The runtime's id.
    pub id: String,
    /// Name in the pod's spec; empty where it isn't known.
    pub name: String,
    /// Image; empty where it isn't known.
    pub image: String,
    /// kernfs id of its cgroup.
    #[serde(with = "number_string")]
    #[schemars(with = "String")]
    pub cgroup_id: u64,
}

/// A process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Process {
    /// Process id in the node's PID namespace.
    pub pid: u32,
    /// The parent's.
    pub ppid: u32,
    /// Effective user id in the node's user namespace.
    pub uid: u32,
    /// Effective group id, likewise.
    pub gid: u32,
    /// Process id in the process's own PID namespace; absent where it is `pid` too, as outside of containers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ns_pid: Option<u32>,
    /// Effective user id in the process's own user namespace (65534 where that has no number for it); absent where it is `uid` too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ns_uid: Option<u32>,
    /// Effective group id, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ns_gid: Option<u32>,
    /// The main thread's name.
    pub comm: String,
    #[doc = "Bytes of `comm` where it isn't UTF-8."]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comm_b64: Option<String>,
    /// The executable as the kernel resolved it (for a script its interpreter); empty where it isn't known.
    pub exe: String,
    #[doc = "Bytes of `exe` where it isn't UTF-8."]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exe_b64: Option<String>,
    /// The arguments, the program's name first.
    pub args: Texts,
    /// Bytes of all arguments, where one isn't UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub args_b64: Option<Texts>,
    /// How many bytes of arguments there were, where `args` holds fewer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub args_cut_from: Option<u32>,
    /// The working directory when it executed its program; empty where it isn't known.
    pub cwd: String,
    #[doc = "Bytes of `cwd` where it isn't UTF-8."]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd_b64: Option<String>,
    /// When it started: RFC 3339, UTC, nanoseconds.
    pub start_time: String,
    /// When it started, in nanoseconds since the node booted.
    #[serde(with = "number_string")]
    #[schemars(with = "String")]
    pub start_boot_ns: u64,
    /// The executable lies in the container's writable layer, not in its image; absent where that can't be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exe_upper_layer: Option<bool>,
    /// The executable lies in memory only (memfd_create).
    pub exe_memfd: bool,
    /// Parent, its parent, and so on.
    pub ancestors: Vec<Ancestor>,
    /// There were more ancestors.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ancestors_cut: bool,
    /// Where this was learnt.
    pub source: ProcessSource,
}

/// Where a process's description comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ProcessSource {
    /// The kernel, when it executed the program.
    Exec,
    /// Its parent, which it is a copy of.
    Fork,
    /// /proc, since it was there before the trace.
    Proc,
    /// Nothing but the event itself: the process had gone.
    Unknown,
}

/// A forebear.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Ancestor {
    /// Process id.
    pub pid: u32,
    /// Its main thread's name.
    pub comm: String,
    /// Its executable; empty where it isn't known.
    pub exe: String,
    /// When it started, in nanoseconds since the node booted; with the pid its identity.
    #[serde(with = "number_string")]
    #[schemars(with = "String")]
    pub start_boot_ns: u64,
}

/// A thread other than the main one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Thread {
    /// Thread id.
    pub tid: u32,
    /// Its name; empty where it is the process's.
    pub comm: String,
}

/// A process executed a program.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Exec {
    /// The name given to execve: before symbolic links, and the script where `process.exe` is its interpreter.
    pub filename: String,
    #[doc = "Bytes of `filename` where it isn't UTF-8."]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filename_b64: Option<String>,
    /// The executable's mode.
    pub mode: Mode,
    /// The executable's owner.
    pub uid: u32,
    /// The executable's group.
    pub gid: u32,
    /// The executable's inode number.
    #[serde(with = "number_string")]
    #[schemars(with = "String")]
    pub inode: u64,
    /// The executable's device, `major:minor`.
    pub device: String,
    /// The executable has been deleted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deleted: bool,
    /// `process.exe` lacks its beginning: it is longer or deeper than a record holds.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub exe_cut: bool,
}

/// A file operation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct File {
    /// What was done.
    pub op: FileOp,
    /// The syscall that did it; `io_uring` where that did it without one, `32-bit` for all of those, and `other` for what writes to or
    /// maps files by the way.
    pub syscall: String,
    /// The file.
    #[serde(flatten)]
    pub path: Path,
    /// Paths that rules with `sameFile` watch and that lead to this very file, or to that of `to`, which was reached by another name:
    /// a hard link, a bind mount, a path in another mount namespace.
    #[serde(default, skip_serializing_if = "Texts::is_empty")]
    pub same_as: Texts,
    /// Bytes of all of them, where one isn't UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub same_as_b64: Option<Texts>,
    /// The other path: the new name of a rename or link. For a symbolic link, what it says, as it stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Path>,
    /// Flags as given to the call, by name: open(2)'s for opens, a hexadecimal number for others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flags: Option<Vec<Cow<'static, str>>>,
    /// The open made the file.
    pub created: bool,
    /// The opened file's mode, or the new one of a chmod, mkdir or mknod.
    pub mode: Option<Mode>,
    /// The mode before, where known.
    pub old_mode: Option<Mode>,
    /// The opened file's owner, or the new one of a chown (absent where it leaves the owner as it is).
    pub uid: Option<u32>,
    /// The group, likewise.
    pub gid: Option<u32>,
    /// The owner before, where known.
    pub old_uid: Option<u32>,
    /// The group before, where known.
    pub old_gid: Option<u32>,
    /// The length that a truncate asked for.
    #[serde(default, with = "optional_number_string", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub size: Option<u64>,
    /// The extended attribute's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub xattr: Option<String>,
    /// Inode number, where the kernel's own file was seen.
    #[serde(default, with = "optional_number_string", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub inode: Option<u64>,
    /// Device, `major:minor`, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// What the call returned: 0 or a descriptor, or a negative errno. Of `write` and `map-exec`, which are told as they begin, 0 says
    /// nothing of how they end, and an error is that of the security module that forbids them.
    pub result: i64,
    /// The errno's name, where the call failed: `ENOENT`, `EACCES`, ...
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Cow<'static, str>>,
}

/// A path and how far to trust it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Path {
    /// Absolute, as the process's own root shows it; relative where its base could not be told.
    pub path: String,
    #[doc = "Bytes of `path` where it isn't UTF-8."]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_b64: Option<String>,
    /// Who said so.
    pub path_source: PathSource,
    /// The argument as given to the call, where it differs from `path`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_argument: Option<String>,
    /// What limits the trust in `path`; absent where nothing does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub path_marks: Vec<PathMark>,
}

/// Who said where a file is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PathSource {
    /// The kernel: built from the file's own dentries and mounts.
    #[default]
    Kernel,
    /// The caller: its argument, copied once at entry and joined to its working directory.
    Argument,
}

/// What limits the trust in a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PathMark {
    /// The file has no name any more.
    Deleted,
    /// Longer or deeper than a record holds; its beginning is missing.
    Cut,
    /// Outside of the process's root, or in a detached mount.
    Unreachable,
    /// The argument could only be read after the call; another thread may have changed it.
    Late,
    /// Another thread may have closed or replaced the descriptor before it was resolved.
    Raced,
}

/// A process ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Exit {
    /// The status that it returned; absent where a signal ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    /// The signal that ended it, such as `SIGKILL`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// How long it lived, in nanoseconds.
    #[serde(with = "number_string")]
    #[schemars(with = "String")]
    pub duration_ns: u64,
}

/// The last object of `-o json`: what was seen and what became of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Summary {
    /// `knark.dev/v1alpha1`.
    pub schema: Cow<'static, str>,
    /// `summary`.
    #[serde(rename = "type")]
    pub kind: SummaryKind,
    /// The sums.
    pub summary: Sums,
}

/// The `type` of a summary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SummaryKind {
    /// The only one.
    Summary,
}

/// What was seen and what became of it. On each node and in all: seen = shown + aggregated + filtered + lost.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Sums {
    /// How long the trace ran, in seconds.
    pub seconds: f64,
    /// Events written to the output.
    pub shown: u64,
    /// Events that are shown in the `count` of another only: one that says it stands for 5 has shown 1 and aggregated 4.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub aggregated: u64,
    /// Events that user space dropped because no target wants them.
    pub filtered: u64,
    /// Events lost.
    pub lost: u64,
    /// With policies: matches of their rules, by severity. An event may match several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matches: Option<BTreeMap<Severity, u64>>,
    /// The same, node by node.
    pub nodes: Vec<NodeSums>,
}

/// One node's part of the sums.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct NodeSums {
    /// The node.
    pub node: String,
    /// Events that passed the kernel's filter.
    pub seen: u64,
    /// Events written to the output.
    pub shown: u64,
    /// Events that are shown in the `count` of another only.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub aggregated: u64,
    /// Events that user space dropped because no target wants them.
    pub filtered: u64,
    /// Events lost, by stage: ring, in-flight, probe, held, stream, unreadable, rate-limit.
    pub lost: BTreeMap<String, u64>,
    /// Whose events are lost for the rate limit (`--rate-limit`), those that lost most first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limited: Vec<Limited>,
    /// The node's stream broke off: its numbers are the last that it sent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub incomplete: bool,
}

/// A container that made more file events than the rate limit lets through. What isn't known is absent; if all is, it stands for
/// several.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Limited {
    /// The pod's namespace.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// The pod's name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pod: String,
    /// The container's name in the pod's spec.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub container: String,
    /// The runtime's id of it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub container_id: String,
    /// Outside of containers: the control group's path.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cgroup: String,
    /// How many of its events are lost.
    pub lost: u64,
}

impl Event {
    /// How many events it stands for.
    pub fn events(&self) -> u64 {
        self.count.unwrap_or(1)
    }

    /// About how much memory it takes, in bytes, its process included.
    pub fn bytes(&self) -> usize {
        let what = match &self.what {
            What::File { file } => {
                let File { path, to, flags, xattr, device, error, syscall, .. } = &**file;
                let texts = length(xattr.as_deref()) + length(device.as_deref()) + length(error.as_deref()) + syscall.len();
                let flags = flags.iter().flatten().map(|flag| size_of_val(flag) + flag.len());
                let paths = path.bytes() + to.as_ref().map_or(0, Path::bytes);
                size_of::<File>() + paths + texts + flags.sum::<usize>()
            }
            What::Exec { exec } => exec.filename.len() + length(exec.filename_b64.as_deref()) + exec.device.len(),
            What::Exit { exit } => length(exit.signal.as_deref()),
            What::Api { api } => api.bytes(),
        };
        let thread = self.thread.as_ref().map_or(0, |thread| thread.comm.len());
        let times = self.time.len() + length(self.first_time.as_deref()) + length(self.last_time.as_deref());
        size_of::<Self>() + times + thread + self.process.bytes() + what
    }
}

impl Process {
    /// About how much memory it takes, in bytes.
    pub fn bytes(&self) -> usize {
        let Self { comm, comm_b64, exe, exe_b64, args, args_b64, cwd, cwd_b64, ancestors, start_time, .. } = self;
        let texts: usize = [comm, exe, cwd, start_time].into_iter().map(String::len).sum();
        let encoded: usize = [comm_b64, exe_b64, cwd_b64].into_iter().map(|text| length(text.as_deref())).sum();
        let ancestors: usize = ancestors.iter().map(|a| size_of::<Ancestor>() + a.comm.len() + a.exe.len()).sum();
        size_of::<Self>() + texts + encoded + args.bytes() + args_b64.as_ref().map_or(0, Texts::bytes) + ancestors
    }
}

impl Path {
    fn bytes(&self) -> usize {
        let Self { path, path_b64, path_argument, path_marks, .. } = self;
        path.len() + length(path_b64.as_deref()) + length(path_argument.as_deref()) + size_of_val(path_marks.as_slice())
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn length(text: Option<&str>) -> usize {
    text.map_or(0, str::len)
}

/// The JSON Schema (draft 2020-12) of one line of `-o json`.
pub fn schema() -> schemars::Schema {
    schemars::schema_for!(Line)
}

mod number_string {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
    pub(super) fn serialize<S: Serializer>(number: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(number)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        std::borrow::Cow::<str>::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

mod optional_number_string {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    #[expect(clippy::ref_option, reason = "the signature is serde's")]
    pub(super) fn serialize<S: Serializer>(number: &Option<u64>, serializer: S) -> Result<S::Ok, S::Error> {
        match number {
            Some(number) => serializer.collect_str(number),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
        Option::<String>::deserialize(deserializer)?.map(|text| text.parse().map_err(D::Error::custom)).transpose()
    }
}
