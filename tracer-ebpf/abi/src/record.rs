//! Ring records.

/// `Header::kind`; also the index into the counters.
pub mod kind {
    /// A process replaced its program.
    pub const EXEC: u8 = 0;
    /// More of the arguments of an exec; comes before the exec's own record.
    pub const EXEC_ARGS: u8 = 1;
    /// A file was opened, or was not.
    pub const OPEN: u8 = 2;
    /// A call that names a file or changes one through its descriptor.
    pub const PATH: u8 = 3;
    /// The last thread of a process ended.
    pub const EXIT: u8 = 4;
    /// A control group was made.
    pub const CGROUP_MKDIR: u8 = 5;
    /// A control group was removed.
    pub const CGROUP_RMDIR: u8 = 6;
    /// Not a record: counts the processes that should have come into the scope by inheritance.
    pub const SCOPE: u8 = 7;
    /// A step of a request to the Kubernetes API.
    pub const API: u8 = 8;
    /// A piece of a request's or response's body.
    pub const API_BODY: u8 = 9;
    /// How many kinds there are.
    pub const COUNT: usize = 10;
}

/// What the walk of a path found out; one byte per path.
pub mod walk {
    /// The root of the process was reached: the path is complete.
    pub const ROOT: u8 = 1;
    /// The top of a mount tree was reached first: the file lies outside the process's root, or in a detached mount.
    pub const TOP: u8 = 2;
    /// Out of steps, out of room, or a read failed: the front of the path is missing.
    pub const TRUNC: u8 = 4;
    /// The file has no name any more.
    pub const DELETED: u8 = 8;
    /// The file never had a place in a tree (memfd, pipe, socket): the path is the name that the kernel gives it.
    pub const ANON: u8 = 16;
    /// There was nothing to walk from: a bad descriptor, or one that was closed meanwhile.
    pub const NONE: u8 = 32;
}

/// What happened to a string copied from user memory; one byte per string.
pub mod text {
    /// It was not in memory when the call began, and was copied when the call ended: another thread may have changed it.
    pub const LATE: u8 = 1;
    /// It could not be read at all.
    pub const FAULT: u8 = 2;
    /// It was longer than the room for it.
    pub const CUT: u8 = 4;
    /// The call has such an argument (an empty string is not the same as none).
    pub const PRESENT: u8 = 8;
    /// A null pointer was passed.
    pub const NULL: u8 = 16;
    /// What was walked is the file itself; this is what was asked for, to compare with.
    pub const BESIDE: u8 = 32;
}

/// `Header::marks`.
pub mod mark {
    /// The descriptor's place in the table was empty when the call ended: another thread closed it.
    pub const FD_EMPTY: u32 = 1;
    /// The table of descriptors is shared, so another thread may have put another file in that place.
    pub const FD_SHARED: u32 = 1 << 1;
    /// The registers didn't hold this call's arguments: flags and names are missing.
    pub const NO_REGS: u32 = 1 << 2;
    /// The thread ended within the call; there is no result.
    pub const UNFINISHED: u32 = 1 << 3;
    /// The file was made by this open.
    pub const CREATED: u32 = 1 << 4;
    /// The inode's fields are valid.
    pub const INODE: u32 = 1 << 5;
    /// `struct open_how` could not be read.
    pub const NO_HOW: u32 = 1 << 6;
    /// More ancestors than the record holds.
    pub const MORE_ANCESTORS: u32 = 1 << 7;
    /// Arguments were longer than what is copied.
    pub const ARGS_CUT: u32 = 1 << 8;
    /// A part of the arguments was not in memory, or its record found no room in the ring.
    pub const ARGS_HOLE: u32 = 1 << 9;
    /// The file lives in memory only (`memfd_create`).
    pub const MEMFD: u32 = 1 << 10;
    /// The file lies in an overlay file system ...
    pub const OVERLAY: u32 = 1 << 11;
    /// ... and in its upper layer.
    pub const UPPER: u32 = 1 << 12;
    /// Whether it lies in the upper layer can't be said.
    pub const UPPER_UNKNOWN: u32 = 1 << 13;
    /// The exe is one that the scope asks for.
    pub const EXE_WANTED: u32 = 1 << 14;
    /// No call of its own: io_uring did it.
    pub const IO_URING: u32 = 1 << 15;
    /// By a 32-bit system call.
    pub const COMPAT: u32 = 1 << 16;
    /// The record stands for several events: behind its strings lies [`crate::Repeats`]. User space makes such records.
    pub const REPEATS: u32 = 1 << 17;
    /// By a system call that isn't among the operations ([`crate::Op`]).
    pub const OTHER_CALL: u32 = 1 << 26;
    /// The file was mapped to be executed; without it, mappings are to write.
    pub const CODE: u32 = 1 << 27;
}

/// [`PathBody::note`]: what is done to the file ([`crate::effect`]), and this bit.
pub mod note {
    /// It is wanted, as far as is known.
    pub const WANTED: u8 = 1 << 7;
}

/// What every record begins with: who did it, and when.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Header {
    /// Length of the whole record.
    pub len: u32,
    /// See [`kind`].
    pub kind: u8,
    /// See [`Op`], and [`crate::site`] and [`crate::body`] for requests to the API; 0 where the kind says it all.
    pub op: u8,
    /// The verdict that let it through, see [`crate::verdict`].
    pub verdict: u8,
    /// Zero.
    pub pad: u8,
    /// See [`mark`].
    pub marks: u32,
    /// Thread group, which user space calls a process id, in the first pid namespace.
    pub tgid: u32,
    /// Thread.
    pub tid: u32,
    /// Thread group of the parent.
    pub ppid: u32,
    /// Effective user id, as the first user namespace counts.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
    /// The thread group as the process's own PID namespace counts; `tgid` again where that is the first.
    pub ns_tgid: u32,
    /// Effective user id as the process's own user namespace counts; `uid` again where that is the first, and [`UNMAPPED`].
    pub ns_uid: u32,
    /// Effective group id, likewise.
    pub ns_gid: u32,
    /// Zero.
    pub pad2: u32,
    /// Nanoseconds since boot, sleep included; of a path call it is the time of its end.
    pub boot_ns: u64,
    /// The kernfs id of the process's control group, in the chosen hierarchy.
    pub cgroup: u64,
    /// When the thread group's leader started (ns since boot): with `tgid` it names a process for ever.
    pub start_ns: u64,
    /// The same of the parent.
    pub parent_start_ns: u64,
    /// How many programs the process has executed so far.
    pub exec_id: u64,
    /// The thread's name.
    pub comm: [u8; 16],
}
const _: () = assert!(size_of::<Header>() == 104);

/// [`Header::ns_uid`], [`Header::ns_gid`]: the user namespace has no number for it.
pub const UNMAPPED: u32 = u32::MAX;

/// What is known of a file.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Inode {
    /// Inode number.
    pub ino: u64,
    /// Size in bytes.
    pub size: u64,
    /// The device as the kernel encodes it: major in the upper 12 bits, minor in the lower 20.
    pub dev: u32,
    /// Type and permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Owning group.
    pub gid: u32,
}
const _: () = assert!(size_of::<Inode>() == 32);

/// Follows the header of an open. Strings: the walked path (of the file, or of the directory that `name` starts from),
/// then the name as asked for.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct OpenBody {
    /// The descriptor or the negative error.
    pub result: i32,
    /// `O_*` as asked for.
    pub flags: u32,
    /// The file; valid with [`mark::INODE`].
    pub inode: Inode,
    /// Mode argument: the permission bits asked for.
    pub mode: u32,
    /// Directory that a relative name starts from (`AT_FDCWD` too).
    pub dirfd: i32,
    /// Bytes of the walked path.
    pub walked_len: u16,
    /// Bytes of the name.
    pub name_len: u16,
    /// See [`walk`].
    pub walked_flags: u8,
    /// See [`text`].
    pub name_flags: u8,
    /// Zero.
    pub pad: [u8; 2],
    /// The number of the watched file ([`crate::FileId`]) that this is; 0: none of them.
    pub same: u32,
    /// Zero.
    pub pad_end: u32,
}
const _: () = assert!(size_of::<OpenBody>() == 64);

/// In [`PathBody::nr`]: the record is of a function of the kernel, whoever called it, or such functions add to it. It is counted as
/// seen when it ends, since only then it is known whether it is wanted.
pub const PRECISE: u32 = 1 << 31;

/// A path of a path call: the walked start and the argument.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct PathPart {
    /// Bytes of the walked directory, or of the file itself where a descriptor was given.
    pub walked_len: u16,
    /// Bytes of the argument.
    pub name_len: u16,
    /// See [`walk`]; 0 where nothing had to be walked (an absolute argument).
    pub walked_flags: u8,
    /// See [`text`]; 0 where there is no argument.
    pub name_flags: u8,
    /// Bytes of the path of what the kernel found, behind all that was known when the call began; 0: it didn't get that far, or
    /// nobody looked. With it, `walked_flags` are those of this path.
    pub real_len: u16,
}
const _: () = assert!(size_of::<PathPart>() == 8);

/// No such path.
pub const NO_PART: PathPart = PathPart { walked_len: 0, name_len: 0, walked_flags: 0, name_flags: 0, real_len: 0 };

/// Follows the header of a path call. Strings: for each of the two parts the walked path and the argument, then the name
/// of the extended attribute; then for each part the path of what was found; then what could only be copied at the end.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct PathBody {
    /// What the call returned. Until then: how many functions of the kernel that do the same are within the one that began it.
    pub result: i64,
    /// The call's six arguments.
    pub args: [u64; 6],
    /// When the call began.
    pub enter_ns: u64,
    /// The file before the call, where a descriptor was given; valid with [`mark::INODE`].
    pub inode: Inode,
    /// The path itself; of a rename or link, where from.
    pub first: PathPart,
    /// Of a rename or link, where to; of a symlink, what it says.
    pub second: PathPart,
    /// The call's number on this architecture; with [`PRECISE`], that of the call that takes the same arguments as the kernel's
    /// function which was seen.
    pub nr: u32,
    /// Bytes of the extended attribute's name.
    pub xattr_len: u16,
    /// See [`text`].
    pub xattr_flags: u8,
    /// The programs' own note while the call is under way, see [`crate::note`].
    pub note: u8,
    /// For each of the two parts, the number of the watched file ([`crate::FileId`]) that the kernel found; 0: none of them, or nobody
    /// looked.
    pub same: [u32; 2],
}
const _: () = assert!(size_of::<PathBody>() == 128);

/// A process that the executing one descends from.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Ancestor {
    /// When it started, ns since boot.
    pub start_ns: u64,
    /// Its id.
    pub tgid: u32,
    /// Zero.
    pub pad: u32,
    /// Its name.
    pub comm: [u8; 16],
}
const _: () = assert!(size_of::<Ancestor>() == 32);

/// The nearest ancestors that a record holds.
pub const ANCESTORS: usize = 16;

/// Follows the header of an exec. Then come `ancestors` times [`Ancestor`], then the strings: the exe, the name as asked
/// for, the working directory, and the arguments, each ended by a zero byte, as they lie in memory.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ExecBody {
    /// The exe.
    pub inode: Inode,
    /// Bytes of arguments in the process's memory.
    pub args_total: u64,
    /// Bytes of arguments in this record.
    pub args_len: u32,
    /// Bytes of arguments in the continuation records that came before it.
    pub args_before: u32,
    /// Bytes of the exe's path.
    pub exe_len: u16,
    /// Bytes of the name as asked for.
    pub filename_len: u16,
    /// Bytes of the working directory.
    pub cwd_len: u16,
    /// See [`walk`].
    pub exe_flags: u8,
    /// See [`walk`].
    pub cwd_flags: u8,
    /// How many ancestors follow.
    pub ancestors: u32,
    /// The id that the thread had before: not `tgid` when another thread than the leader executes.
    pub old_tid: u32,
}
const _: () = assert!(size_of::<ExecBody>() == 64);

/// Follows the header of a continuation; then `len` bytes of arguments.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ArgsBody {
    /// Where they belong, counted from the first argument.
    pub offset: u32,
    /// How many there are.
    pub len: u32,
}
const _: () = assert!(size_of::<ArgsBody>() == 8);

/// Follows the header of an exit.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ExitBody {
    /// As `wait` reports it: the exit code in bits 8 to 15, or the signal in bits 0 to 6.
    pub status: i32,
    /// Zero.
    pub pad: u32,
    /// How long the process lived.
    pub lived_ns: u64,
}
const _: () = assert!(size_of::<ExitBody>() == 16);

/// Follows the header of a control group's record; then its path within its hierarchy.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct CgroupBody {
    /// The group's kernfs id.
    pub id: u64,
    /// The parent's.
    pub parent: u64,
    /// Bytes of the path.
    pub path_len: u16,
    /// The verdict that it got from its parent, or [`crate::verdict::NONE`].
    pub verdict: u8,
    /// Zero.
    pub pad: [u8; 5],
}
const _: () = assert!(size_of::<CgroupBody>() == 24);
