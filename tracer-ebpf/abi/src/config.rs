//! What user space sets before the programs are loaded, and the maps' values.

/// What is done with the events of a control group; the value in the map of groups.
pub mod verdict {
    /// Nothing of it is reported.
    pub const IGNORE: u8 = 0;
    /// Reported.
    pub const TRACE: u8 = 1;
    /// Reported; whether anyone wants it is not known yet.
    pub const HOLD: u8 = 2;
    /// In records only: no verdict was there.
    pub const NONE: u8 = 255;
}

/// `Config::scope`: which conditions an event must meet, all of them.
pub mod scope {
    /// The control group has a verdict other than ignore.
    pub const CGROUP: u32 = 1;
    /// The process or an ancestor was named.
    pub const TGID: u32 = 1 << 1;
    /// The thread has one of the wanted names.
    pub const COMM: u32 = 1 << 2;
    /// The process runs one of the wanted programs.
    pub const EXE: u32 = 1 << 3;
}

/// `Config::features`: what this kernel has; code that needs more is removed by the verifier.
pub mod feature {
    /// `bpf_get_current_task_btf` and `bpf_task_pt_regs` (5.15).
    pub const TASK_REGS: u32 = 1;
    /// Control groups are told apart by the v1 hierarchy of `Config::cgroup_subsys`, not by the v2 tree.
    pub const CGROUP_V1: u32 = 1 << 1;
    /// Exit records are wanted.
    pub const EXIT: u32 = 1 << 2;
    /// Not everything that is done to files is wanted: `Config::anywhere`, `Config::somewhere` and the map of paths say what.
    pub const WANTED: u32 = 1 << 3;
    /// Repeats of file events are counted instead of reported, see [`crate::RepeatKey`].
    pub const AGGREGATE: u32 = 1 << 4;
    /// With it: those of another process are no repeats.
    pub const BY_PROCESS: u32 = 1 << 5;
}

/// `Call::effect`: what is done to a file, by whichever call; also the bit's number in masks of what is wanted. User space
/// numbers them; these are the ones that the programs name.
pub mod effect {
    /// Opened for reading.
    pub const OPEN: u8 = 0;
    /// Made by an open.
    pub const CREATE: u8 = 1;
    /// Opened for writing.
    pub const WRITE_OPEN: u8 = 2;
    /// Cut or stretched.
    pub const TRUNCATE: u8 = 3;
    /// A name changed.
    pub const RENAME: u8 = 4;
    /// Given another name.
    pub const LINK: u8 = 5;
    /// A symbolic link made.
    pub const SYMLINK: u8 = 6;
    /// A name removed.
    pub const UNLINK: u8 = 7;
    /// A directory made.
    pub const MKDIR: u8 = 8;
    /// A directory removed.
    pub const RMDIR: u8 = 9;
    /// An extended attribute set.
    pub const SETXATTR: u8 = 12;
    /// An extended attribute removed.
    pub const REMOVEXATTR: u8 = 13;
    /// Written to, through what is open or mapped.
    pub const WRITE: u8 = 14;
    /// Mapped to be executed.
    pub const MAP_EXEC: u8 = 15;

    /// `O_WRONLY | O_RDWR | O_TRUNC`, the same on all architectures: the flags of an open for writing.
    pub const WRITES: u32 = 0o1003;
    /// `AT_REMOVEDIR`: the flag of unlinkat that removes a directory.
    pub const REMOVES_DIR: u32 = 0x200;
}

/// Bytes of a path that the map of wanted paths tells apart; the kernel allows no more.
pub const WANTED_BYTES: usize = 256;

/// A key of the map of wanted paths, the longest one that begins a path deciding. The path's bytes: a folder's end in `/`,
/// an exact path in a zero byte, and of those that don't fit the front is there. The value is the mask of effects.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct WantedKey {
    /// How many bits of the path count.
    pub bits: u32,
    /// The path.
    pub path: [u8; WANTED_BYTES],
}
const _: () = assert!(size_of::<WantedKey>() == 260);

/// Processes that are never reported.
pub const EXCLUDED: usize = 4;

/// The one read-only global that says what is wanted.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Config {
    /// See [`scope`].
    pub scope: u32,
    /// See [`feature`].
    pub features: u32,
    /// Thread groups never reported; 0 is no one.
    pub exclude: [u32; EXCLUDED],
    /// The chosen hierarchy's number; control groups of others are left alone.
    pub hierarchy: u32,
    /// Index into `css_set.subsys` with [`feature::CGROUP_V1`].
    pub cgroup_subsys: u32,
    /// Size of a kernel stack, for kernels without [`feature::TASK_REGS`].
    pub thread_size: u32,
    /// `sizeof(struct pt_regs)`, for the same.
    pub regs_size: u32,
    /// With [`feature::WANTED`]: effects that are wanted whatever the path ...
    pub anywhere: u32,
    /// ... and those that are wanted on some paths.
    pub somewhere: u32,
    /// Bytes of each body of a request to the API, and of its response, that are wanted; 0: none.
    pub body_bytes: u32,
    /// The bit of `Offsets::task_compat` that a task in a 32-bit call has.
    pub compat: u32,
    /// By operation ([`crate::Op`]): whether the kernel's function for it is given names that have been copied (`struct
    /// filename`), or pointers to the process's memory.
    pub copied_names: u64,
    /// How long a control group must wait after a file event for it to be made up for, in ns, where their rate is limited;
    /// 0: it isn't.
    pub event_ns: u64,
    /// By operation: whether programs on the kernel's functions add what is found to the records that its tracepoints begin.
    pub joined: u64,
    /// Effects that are wanted on watched files ([`FileId`]) whatever the path; 0: no files are watched.
    pub same: u32,
    /// Zero.
    pub pad: u32,
}
const _: () = assert!(size_of::<Config>() == 88);

/// A file as the kernel tells it from others, whichever name leads to it: the key of the map of watched files. The value is a
/// number that user space gives it, not 0.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId {
    /// Inode number.
    pub ino: u64,
    /// The super block's device, as the kernel encodes it. stat(2) may tell another one (overlay, btrfs).
    pub dev: u32,
    /// Most file systems give each file another one, also where its inode's number was another file's before.
    pub generation: u32,
}
const _: () = assert!(size_of::<FileId>() == 16);

/// So many files can be watched.
pub const WATCHED_FILES: u32 = 16_384;

/// How to read a call's arguments: each field is the argument's index, or one of the constants below.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Call {
    /// See [`crate::Op`]; 0 for calls that are not looked at.
    pub op: u8,
    /// How the first part is given.
    pub first_dir: u8,
    /// Its argument, or [`Call::NO`].
    pub first_name: u8,
    /// How the second part is given.
    pub second_dir: u8,
    /// Its argument, or [`Call::NO`].
    pub second_name: u8,
    /// The extended attribute's name, or [`Call::NO`].
    pub xattr: u8,
    /// The `AT_*` flags, or [`Call::NO`].
    pub at_flags: u8,
    /// What it does to a file; see [`effect`].
    pub effect: u8,
}
const _: () = assert!(size_of::<Call>() == 8);

impl Call {
    /// No such argument.
    pub const NO: u8 = 0xff;
    /// A relative name starts from the working directory.
    pub const CWD: u8 = 0xfe;
    /// The name is a text and not a path (what a symbolic link says).
    pub const TEXT: u8 = 0xfd;
}

/// Calls are looked up by number in a table of this size.
pub const CALLS: usize = 512;

/// The numbers of operations ([`crate::Op`]) on this architecture, in a table of this size.
pub const NUMBERS: usize = 64;

/// What user space tells programs that run, and they it: first one of these, then, by operation, whether a function of the kernel
/// was called that has a program on it.
pub const CONTROL: usize = 1 + NUMBERS;

/// In [`CONTROL`], in the place of an operation: functions that do what another one is known by.
pub mod tried {
    /// do_ftruncate, beside do_sys_ftruncate.
    pub const DO_FTRUNCATE: u8 = 63;
    const _: () = assert!((DO_FTRUNCATE as usize) < super::NUMBERS);
}

/// The first of [`CONTROL`].
pub mod control {
    /// Events are wanted.
    pub const RUN: u32 = 0;
    /// No more events are wanted.
    pub const STOP: u32 = 1;
    /// None yet: it is tried out which functions are called.
    pub const TRY: u32 = 2;
}

/// Byte offsets in this kernel's structures, from its BTF.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
#[expect(missing_docs, reason = "the names are those of the kernel: type, then member")]
pub struct Offsets {
    pub task_tgid: u32,
    pub task_pid: u32,
    pub task_files: u32,
    pub task_fs: u32,
    pub task_mm: u32,
    pub task_signal: u32,
    pub task_group_leader: u32,
    pub task_real_parent: u32,
    pub task_start_boottime: u32,
    pub task_self_exec_id: u32,
    pub task_comm: u32,
    pub task_exit_code: u32,
    pub task_cred: u32,
    pub task_cgroups: u32,
    pub task_stack: u32,
    pub cred_euid: u32,
    pub cred_egid: u32,
    pub files_count: u32,
    pub files_fdt: u32,
    pub fdt_fd: u32,
    pub fdt_max_fds: u32,
    pub file_f_path: u32,
    pub file_f_mode: u32,
    pub path_mnt: u32,
    pub path_dentry: u32,
    pub fs_root: u32,
    pub fs_pwd: u32,
    pub dentry_d_parent: u32,
    pub dentry_d_inode: u32,
    pub dentry_d_hash_pprev: u32,
    pub vfsmount_mnt_root: u32,
    pub mount_mnt: u32,
    pub mount_mnt_parent: u32,
    pub mount_mnt_mountpoint: u32,
    pub mount_mnt_ns: u32,
    pub inode_i_ino: u32,
    pub inode_i_mode: u32,
    pub inode_i_uid: u32,
    pub inode_i_gid: u32,
    pub inode_i_size: u32,
    pub inode_i_sb: u32,
    pub inode_sizeof: u32,
    pub sb_s_dev: u32,
    pub sb_s_magic: u32,
    pub mm_arg_start: u32,
    pub mm_arg_end: u32,
    pub bprm_file: u32,
    pub bprm_filename: u32,
    pub signal_live: u32,
    pub signal_flags: u32,
    pub signal_group_exit_code: u32,
    pub cssset_subsys: u32,
    pub css_cgroup: u32,
    pub css_parent: u32,
    pub cgroup_self: u32,
    pub cgroup_kn: u32,
    pub cgroup_root: u32,
    pub cgroup_root_hierarchy_id: u32,
    pub kn_id: u32,
    /// `struct pt_regs`: the six arguments of a system call, as they are after the call too.
    pub regs_args: [u32; 6],
    /// `struct pt_regs`: the number of the call.
    pub regs_nr: u32,
    pub task_flags: u32,
    /// Within `task_struct`: the word that says whether a task is in a 32-bit call, with [`Config::compat`].
    pub task_compat: u32,
    pub filename_name: u32,
    pub openflags_open_flag: u32,
    pub openflags_mode: u32,
    pub mm_exe_file: u32,
    /// `signal_struct.pids[PIDTYPE_TGID]`
    pub signal_pids_tgid: u32,
    pub pid_level: u32,
    pub pid_numbers: u32,
    pub upid_nr: u32,
    pub upid_sizeof: u32,
    pub cred_user_ns: u32,
    pub userns_level: u32,
    pub userns_uid_map: u32,
    pub userns_gid_map: u32,
    pub idmap_nr_extents: u32,
    pub idmap_extent: u32,
    pub idmap_reverse: u32,
    pub inode_i_generation: u32,
    pub file_f_inode: u32,
    pub inode_ctime_sec: u32,
    pub inode_ctime_nsec: u32,
    pub task_personality: u32,
    pub vma_vm_file: u32,
    pub vma_vm_flags: u32,
    /// `struct backing_file`: where its user's path is; 0 on kernels where `file_f_path` says that.
    pub backing_user_path: u32,
}
const _: () = assert!(size_of::<Offsets>() == 92 * 4);

/// One kind of event on one CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Events in scope.
    pub seen: u64,
    /// Records put into the ring.
    pub emitted: u64,
    /// Records that found no room in the ring.
    pub lost_ring: u64,
    /// Calls that found no room in the map of calls that have begun.
    pub lost_inflight: u64,
    /// Events beyond the rate limit of their control group.
    pub lost_rate: u64,
    /// Events that were counted as repeats.
    pub aggregated: u64,
}
const _: () = assert!(size_of::<Count>() == 48);
