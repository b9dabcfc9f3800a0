//! What a batch holds: events, and the definitions that they refer to.

use minicbor::{Decode, Encode, bytes::ByteSlice};

use super::Api;

/// One value of a [`Batch`].
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub enum Item<'b> {
    /// Fills a container slot.
    #[n(0)]
    Container(#[cbor(n(0), borrow = "'b")] Container<'b>),
    /// Fills a process slot.
    #[n(1)]
    Process(#[cbor(n(0), borrow = "'b")] Process<'b>),
    /// A process executed a program.
    #[n(2)]
    Exec(#[cbor(n(0), borrow = "'b")] Exec<'b>),
    /// A file operation.
    #[n(3)]
    File(#[cbor(n(0), borrow = "'b")] File<'b>),
    /// A process ended.
    #[n(4)]
    Exit(#[n(0)] Exit),
    /// The plugin's own addition, in recordings: what the API server knows of a pod.
    #[n(5)]
    Pod(#[n(0)] Pod),
    /// A process in a slot has another user or container than before.
    #[n(6)]
    Changed(#[n(0)] Changed),
    /// A request to the Kubernetes API. Boxed: it is far larger than the others.
    #[n(7)]
    Api(#[cbor(n(0), borrow = "'b")] Box<Api<'b>>),
    /// What the user has to know of the events around it: what came to be traced, or is traced no more, and what is missing.
    #[n(8)]
    Note(#[n(0)] &'b str),
}

/// What may change of a process while it runs one program.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Changed {
    /// Slot of the process.
    #[n(0)]
    pub slot: u32,
    /// Effective user id.
    #[n(1)]
    pub uid: u32,
    /// Effective group id.
    #[n(2)]
    pub gid: u32,
    /// Slot of the container; 0: the host.
    #[n(3)]
    pub container: u32,
    /// Effective user id in the process's own user namespace, where it is another number there.
    #[n(4)]
    pub ns_uid: Option<u32>,
    /// Effective group id, likewise.
    #[n(5)]
    pub ns_gid: Option<u32>,
}

/// A container, as the node itself knows it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Container<'b> {
    /// Slot, 1 to [`CONTAINER_SLOTS`] - 1.
    #[n(0)]
    pub slot: u32,
    /// kernfs id of its cgroup.
    #[n(1)]
    pub cgroup_id: u64,
    /// The runtime's id, 64 hexadecimal digits as a rule.
    #[n(2)]
    pub id: &'b str,
    /// Its name in the pod's spec; empty when not known.
    #[n(3)]
    pub name: &'b str,
    /// The pod's namespace.
    #[n(4)]
    pub namespace: &'b str,
    /// The pod's name.
    #[n(5)]
    pub pod: &'b str,
    /// The pod's UID as its cgroup bears it.
    #[n(6)]
    pub pod_uid: &'b str,
    /// The image, as the pod's spec or the runtime names it.
    #[n(7)]
    pub image: &'b str,
}

/// A process that runs one program; executing another, or changing its user, fills the slot anew.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Process<'b> {
    /// Slot, 0 to [`PROCESS_SLOTS`] - 1.
    #[n(0)]
    pub slot: u32,
    /// Process id in the node's own PID namespace.
    #[n(1)]
    pub pid: u32,
    /// The parent's.
    #[n(2)]
    pub ppid: u32,
    /// When it started (`CLOCK_BOOTTIME`, ns); with the pid its identity.
    #[n(3)]
    pub start_ns: u64,
    /// Effective user id in the node's own user namespace.
    #[n(4)]
    pub uid: u32,
    /// Effective group id, likewise.
    #[n(5)]
    pub gid: u32,
    /// The main thread's name.
    #[cbor(n(6), with = "minicbor::bytes")]
    pub comm: &'b [u8],
    /// The executable's path; empty when not known.
    #[cbor(n(7), with = "minicbor::bytes")]
    pub exe: &'b [u8],
    /// Arguments, each ended by a NUL.
    #[cbor(n(8), with = "minicbor::bytes")]
    pub args: &'b [u8],
    /// How many bytes of arguments there were, when `args` was cut; 0 otherwise.
    #[n(9)]
    pub args_cut_from: u32,
    /// Working directory when it executed its program; empty when not known.
    #[cbor(n(10), with = "minicbor::bytes")]
    pub cwd: &'b [u8],
    /// The file lies in its container's writable layer; `None` where that can't be told.
    #[n(11)]
    pub upper_layer: Option<bool>,
    /// The file lies in memory only (memfd_create).
    #[n(12)]
    pub memfd: bool,
    /// Where this was learnt.
    #[n(13)]
    pub source: ProcessSource,
    /// Parent, its parent, and so on.
    #[cbor(n(14), borrow = "'b")]
    pub ancestors: Vec<Ancestor<'b>>,
    /// Slot of the container; 0: the host.
    #[n(15)]
    pub container: u32,
    /// Whether there were more ancestors.
    #[n(16)]
    pub ancestors_cut: bool,
    /// Process id in the process's own PID namespace, where it is another number there.
    #[n(17)]
    pub ns_pid: Option<u32>,
    /// Effective user id in the process's own user namespace, likewise.
    #[n(18)]
    pub ns_uid: Option<u32>,
    /// Effective group id, likewise.
    #[n(19)]
    pub ns_gid: Option<u32>,
}

/// Where a process's description comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum ProcessSource {
    /// The kernel, when it executed the program.
    #[n(0)]
    Exec,
    /// Its parent, which it is a copy of.
    #[n(1)]
    Fork,
    /// /proc, since it was there before the trace.
    #[n(2)]
    Proc,
    /// Nothing but the event itself: the process had gone.
    #[n(3)]
    Unknown,
}

/// A forebear.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Ancestor<'b> {
    /// Process id.
    #[n(0)]
    pub pid: u32,
    /// When it started (`CLOCK_BOOTTIME`, ns).
    #[n(1)]
    pub start_ns: u64,
    /// Its main thread's name.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub comm: &'b [u8],
    /// Its executable, where the tracer knows it; empty otherwise.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub exe: &'b [u8],
}

/// A process executed a program; its slot was filled just before.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Exec<'b> {
    /// `CLOCK_BOOTTIME`, ns.
    #[n(0)]
    pub time_ns: u64,
    /// Slot.
    #[n(1)]
    pub process: u32,
    /// The name given to execve, before symbolic links and the interpreter of a script.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub filename: &'b [u8],
    /// The executable's inode number; 0 when not known.
    #[n(3)]
    pub inode: u64,
    /// The executable's device, as the kernel encodes it (major << 20 | minor).
    #[n(4)]
    pub device: u32,
    /// The executable's mode, file type included.
    #[n(5)]
    pub mode: u32,
    /// The executable's owner.
    #[n(6)]
    pub uid: u32,
    /// The executable's group.
    #[n(7)]
    pub gid: u32,
    /// The executable has been deleted.
    #[n(8)]
    pub deleted: bool,
    /// The path could not be built whole.
    #[n(9)]
    pub exe_cut: bool,
}

/// What was done to a file.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[cbor(index_only)]
#[serde(rename_all = "kebab-case")]
pub enum FileOp {
    /// Opened for reading, or as a path only.
    #[n(0)]
    Open,
    /// Made: an open that made the file, creat, or mknod.
    #[n(1)]
    Create,
    /// Opened for writing.
    #[n(2)]
    WriteOpen,
    /// Cut or stretched: truncate, ftruncate.
    #[n(3)]
    Truncate,
    /// Renamed, or exchanged with another.
    #[n(4)]
    Rename,
    /// Given another name.
    #[n(5)]
    Link,
    /// A symbolic link made.
    #[n(6)]
    Symlink,
    /// A name removed.
    #[n(7)]
    Unlink,
    /// A directory made.
    #[n(8)]
    Mkdir,
    /// A directory removed.
    #[n(9)]
    Rmdir,
    /// Mode changed.
    #[n(10)]
    Chmod,
    /// Owner or group changed.
    #[n(11)]
    Chown,
    /// An extended attribute set.
    #[n(12)]
    Setxattr,
    /// An extended attribute removed.
    #[n(13)]
    Removexattr,
    /// Written to, through a descriptor or a shared mapping: told once for each open file and process. Only where it is named.
    #[n(22)]
    Write,
    /// Mapped to be executed, as libraries are: told once for each file and process. Only where it is named.
    #[n(23)]
    MapExec,
}

impl FileOp {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::Open,
        Self::Create,
        Self::WriteOpen,
        Self::Truncate,
        Self::Rename,
        Self::Link,
        Self::Symlink,
        Self::Unlink,
        Self::Mkdir,
        Self::Rmdir,
        Self::Chmod,
        Self::Chown,
        Self::Setxattr,
        Self::Removexattr,
        Self::Write,
        Self::MapExec,
    ];

    /// Those that are watched where none is named: the others cost those who write and map files something.
    pub const USUAL: &[Self] = Self::ALL.split_at(Self::ALL.len() - Self::NAMED.len()).0;

    /// Those that are watched only where they are named.
    pub const NAMED: &[Self] = &[Self::Write, Self::MapExec];

    /// The name as JSON and the table show it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Create => "create",
            Self::WriteOpen => "write-open",
            Self::Truncate => "truncate",
            Self::Rename => "rename",
            Self::Link => "link",
            Self::Symlink => "symlink",
            Self::Unlink => "unlink",
            Self::Mkdir => "mkdir",
            Self::Rmdir => "rmdir",
            Self::Chmod => "chmod",
            Self::Chown => "chown",
            Self::Setxattr => "setxattr",
            Self::Removexattr => "removexattr",
            Self::Write => "write",
            Self::MapExec => "map-exec",
        }
    }
}

/// A path, and how far to trust it.
#[expect(clippy::struct_excessive_bools, reason = "they are independent of one another, and fields of the wire")]
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub struct Path<'b> {
    /// Absolute, as the process's own root shows it; relative when its base could not be told.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub path: &'b [u8],
    /// Built from the syscall's argument instead of the kernel's own dentries.
    #[n(1)]
    pub argument: bool,
    /// The file has no name any more.
    #[n(2)]
    pub deleted: bool,
    /// The path was longer or deeper than what a record holds.
    #[n(3)]
    pub cut: bool,
    /// It lies outside of the process's root, or in a detached mount.
    #[n(4)]
    pub unreachable: bool,
    /// The argument could only be read after the call; another thread may have changed it.
    #[n(5)]
    pub late: bool,
    /// The descriptor may have been closed or replaced by another thread before it was resolved.
    #[n(6)]
    pub raced: bool,
    /// The argument as given, where it differs from `path`; empty otherwise.
    #[cbor(n(7), with = "minicbor::bytes")]
    pub asked: &'b [u8],
}

/// A file operation.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct File<'b> {
    /// `CLOCK_BOOTTIME`, ns.
    #[n(0)]
    pub time_ns: u64,
    /// Slot.
    #[n(1)]
    pub process: u32,
    /// Thread id.
    #[n(2)]
    pub tid: u32,
    /// What was done.
    #[n(3)]
    pub op: FileOp,
    /// What the syscall returned: negative errno, or 0 or a descriptor.
    #[n(4)]
    pub result: i64,
    /// The file.
    #[cbor(n(5), borrow = "'b")]
    pub path: Path<'b>,
    /// The other path: the new name of a rename or link; of a symbolic link what it says, as it stands.
    #[cbor(n(6), borrow = "'b")]
    pub to: Option<Path<'b>>,
    /// Flags as given to the syscall: open(2)'s, renameat2(2)'s, ...
    #[n(7)]
    pub flags: Option<u64>,
    /// The open made the file.
    #[n(8)]
    pub created: bool,
    /// Mode: of the opened file, or the new one.
    #[n(9)]
    pub mode: Option<u32>,
    /// The mode before.
    #[n(10)]
    pub old_mode: Option<u32>,
    /// Owner: of the opened file, or the new one.
    #[n(11)]
    pub uid: Option<u32>,
    /// Group, likewise.
    #[n(12)]
    pub gid: Option<u32>,
    /// The owner before.
    #[n(13)]
    pub old_uid: Option<u32>,
    /// The group before.
    #[n(14)]
    pub old_gid: Option<u32>,
    /// Inode number, where the kernel's own file was seen.
    #[n(15)]
    pub inode: Option<u64>,
    /// Device (major << 20 | minor), likewise.
    #[n(16)]
    pub device: Option<u32>,
    /// The new length of a truncate.
    #[n(17)]
    pub size: Option<u64>,
    /// The extended attribute's name; empty for other operations.
    #[cbor(n(18), with = "minicbor::bytes")]
    pub xattr: &'b [u8],
    /// The thread's name where it isn't the process's; empty otherwise.
    #[cbor(n(19), with = "minicbor::bytes")]
    pub thread: &'b [u8],
    /// The syscall, such as `fchmodat2`; or `io_uring`, or `32-bit`.
    #[n(20)]
    pub syscall: &'b str,
    /// It stands for several, which are repeats of one that was told before; `time_ns` is then when they were counted.
    #[n(21)]
    pub repeats: Option<Repeats>,
    /// The watched paths ([`SameFiles`](super::SameFiles)) that lead to a file which is touched, but for the event's own.
    #[cbor(n(26), borrow = "'b")]
    pub same_as: Option<Vec<&'b ByteSlice>>,
}

/// Repeats of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Repeats {
    /// How many.
    #[n(0)]
    pub count: u64,
    /// When the first of them was (`CLOCK_BOOTTIME`, ns).
    #[n(1)]
    pub first_ns: u64,
    /// When the last one was.
    #[n(2)]
    pub last_ns: u64,
}

/// A process ended.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Exit {
    /// `CLOCK_BOOTTIME`, ns.
    #[n(0)]
    pub time_ns: u64,
    /// Slot.
    #[n(1)]
    pub process: u32,
    /// As wait(2) shows it: exit status in bits 8 to 15, or the signal in bits 0 to 6.
    #[n(2)]
    pub code: i32,
}

/// What the API server knows of a pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub struct Pod {
    /// The UID as the pod's cgroup bears it.
    #[n(0)]
    pub uid: String,
    /// Labels.
    #[n(1)]
    pub labels: std::collections::BTreeMap<String, String>,
    /// Kind of the controlling owner; empty for none.
    #[n(2)]
    pub owner_kind: String,
    /// Its name.
    #[n(3)]
    pub owner_name: String,
    /// Namespace.
    #[n(4)]
    pub namespace: String,
    /// Name.
    #[n(5)]
    pub name: String,
    /// Images by container name.
    #[n(6)]
    pub images: std::collections::BTreeMap<String, String>,
    /// Containers by name; absent in what older versions wrote.
    #[n(7)]
    pub containers: Option<std::collections::BTreeMap<String, PodContainer>>,
}

/// What a pod's spec says of a container, as far as it helps to tell where processes come from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub struct PodContainer {
    /// It was put into the pod when that ran.
    #[n(0)]
    pub ephemeral: bool,
    /// Its main process can be fed.
    #[n(1)]
    pub stdin: bool,
    /// What its kubelet runs in it: probes, and hooks of its life cycle.
    #[n(2)]
    pub commands: Vec<Vec<String>>,
}

impl Pod {
    /// About how much memory it takes, in bytes.
    pub fn bytes(&self) -> usize {
        let Self { uid, labels, owner_kind, owner_name, namespace, name, images, containers } = self;
        let texts: usize = [uid, owner_kind, owner_name, namespace, name].into_iter().map(String::len).sum();
        let containers = containers.iter().flatten().map(|(name, container)| name.len() + container.bytes());
        let maps = crate::texts::map_bytes(labels) + crate::texts::map_bytes(images);
        size_of::<Self>() + texts + maps + containers.sum::<usize>()
    }
}

impl PodContainer {
    fn bytes(&self) -> usize {
        let texts = |command: &Vec<String>| command.iter().map(|text| size_of::<String>() + text.len()).sum::<usize>();
        let commands = self.commands.iter().map(|command| size_of::<Vec<String>>() + texts(command));
        size_of::<String>() + size_of::<Self>() + commands.sum::<usize>()
    }
}

/// Reads the items of a batch one after another, passing over kinds that this version doesn't know.
pub fn items(bytes: &[u8]) -> Items<'_> {
    Items { rest: bytes }
}

/// The items of a batch; an error is the last of them.
#[derive(Debug, Clone)]
pub struct Items<'a> {
    rest: &'a [u8],
}

impl<'a> Items<'a> {
    /// What has not been read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = Result<Item<'a>, minicbor::decode::Error>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.rest.is_empty() {
            let mut decoder = minicbor::Decoder::new(self.rest);
            let decoded = match decoder.decode::<Item<'_>>() {
                Err(error) if error.is_unknown_variant() => {
                    decoder.set_position(0);
                    decoder.skip().map(|()| None)
                }
                decoded => decoded.map(Some),
            };
            self.rest = if decoded.is_ok() { self.rest.get(decoder.position()..).unwrap_or_default() } else { &[] };
            if let Some(decoded) = decoded.transpose() {
                return Some(decoded);
            }
        }
        None
    }
}
