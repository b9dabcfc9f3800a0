//! The programs of the precise tier, by the calls that they see.

use knark_abi::{Op, tried};

/// A program, and the kernel's function that it goes to.
#[derive(Clone, Copy)]
pub(super) struct Probe {
    pub(super) program: &'static str,
    /// By the names that it has had.
    pub(super) functions: &'static [&'static str],
    /// How many parameters it must have.
    pub(super) parameters: usize,
    pub(super) when: When,
    /// Whether it does without: a kernel that lacks this function lacks the call, too, or another program is for what it has.
    pub(super) optional: bool,
    /// What is tried out must be seen to come by this function as well, if it is there; by what it is known then
    /// ([`knark_abi::tried`]).
    pub(super) tried: Option<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    /// Where it ends: attached first, so that what is seen to begin is seen to end.
    End,
    /// Where it begins.
    Begin,
}

/// What the tracepoints of a group's calls are for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Tracepoints {
    /// Nothing: the programs see it all.
    Needless,
    /// They see the calls that they belong to, and the programs what no such call makes.
    Apart,
    /// They begin and end the calls that they belong to, and the programs add which file it was. What no such call makes, the
    /// programs see by themselves.
    Joined,
}

/// Programs that together see all that some system calls do, by whichever way.
pub(super) struct Group {
    pub(super) calls: &'static [Op],
    pub(super) tracepoints: Tracepoints,
    /// The one whose arguments the function takes that is given names.
    pub(super) op: Op,
    /// What is tried out must be seen to do these: a compiler may have put a function into its callers, so that nothing comes by it.
    pub(super) tried: &'static [Op],
    pub(super) probes: &'static [Probe],
}

const fn end(program: &'static str, functions: &'static [&'static str], parameters: usize) -> Probe {
    Probe { program, functions, parameters, when: When::End, optional: false, tried: None }
}

const fn begin(program: &'static str, functions: &'static [&'static str], parameters: usize) -> Probe {
    Probe { program, functions, parameters, when: When::Begin, optional: false, tried: None }
}

/// The same for a function that not every kernel has, or not with these parameters.
const fn if_there(probe: Probe) -> Probe {
    Probe { optional: true, ..probe }
}

/// On the function of a system call, which is given its registers.
const fn call(program: &'static str, functions: &'static [&'static str], when: When) -> Probe {
    Probe { program, functions, parameters: 1, when, optional: true, tried: None }
}

/// The function of a system call.
#[cfg(target_arch = "x86_64")]
macro_rules! system_call {
    ($name:literal) => {
        &[concat!("__x64_sys_", $name)]
    };
}
#[cfg(target_arch = "aarch64")]
macro_rules! system_call {
    ($name:literal) => {
        &[concat!("__arm64_sys_", $name)]
    };
}

/// The first probe of a group is on the function that is given names.
pub(super) static GROUPS: [Group; 14] = [
    Group {
        calls: &[Op::Chmod, Op::Fchmod, Op::Fchmodat, Op::Fchmodat2],
        tracepoints: Tracepoints::Needless,
        op: Op::Fchmodat,
        tried: &[Op::Fchmod],
        probes: &[
            call("call_chmod_enter", system_call!("chmod"), When::Begin),
            call("call_chmod_exit", system_call!("chmod"), When::End),
            call("call_fchmodat_enter", system_call!("fchmodat"), When::Begin),
            call("call_fchmodat_exit", system_call!("fchmodat"), When::End),
            call("call_fchmodat2_enter", system_call!("fchmodat2"), When::Begin),
            call("call_fchmodat2_exit", system_call!("fchmodat2"), When::End),
            begin("chmod_enter", &["chmod_common"], 2),
            end("chmod_exit", &["chmod_common"], 2),
        ],
    },
    Group {
        calls: &[Op::Chown, Op::Lchown, Op::Fchown, Op::Fchownat],
        tracepoints: Tracepoints::Needless,
        op: Op::Fchownat,
        tried: &[Op::Fchown, Op::Fchownat],
        probes: &[
            begin("fchownat_enter", &["do_fchownat"], 5),
            end("fchownat_exit", &["do_fchownat"], 5),
            begin("chown_enter", &["chown_common"], 3),
            end("chown_exit", &["chown_common"], 3),
        ],
    },
    Group {
        calls: &[Op::Unlink, Op::Unlinkat, Op::Rmdir],
        tracepoints: Tracepoints::Needless,
        op: Op::Unlinkat,
        tried: &[Op::Unlinkat, Op::Rmdir],
        probes: &[
            begin("unlinkat_enter", &["do_unlinkat", "filename_unlinkat"], 2),
            end("unlinkat_exit", &["do_unlinkat", "filename_unlinkat"], 2),
            begin("rmdir_enter", &["do_rmdir", "filename_rmdir"], 2),
            end("rmdir_exit", &["do_rmdir", "filename_rmdir"], 2),
            begin("unlink_found", &["security_path_unlink"], 2),
            begin("rmdir_found", &["security_path_rmdir"], 2),
        ],
    },
    Group {
        calls: &[Op::Rename, Op::Renameat, Op::Renameat2],
        tracepoints: Tracepoints::Needless,
        op: Op::Renameat2,
        tried: &[Op::Renameat2],
        probes: &[
            begin("renameat2_enter", &["do_renameat2", "filename_renameat2"], 5),
            end("renameat2_exit", &["do_renameat2", "filename_renameat2"], 5),
            begin("rename_found", &["security_path_rename"], 5),
        ],
    },
    Group {
        calls: &[Op::Link, Op::Linkat],
        tracepoints: Tracepoints::Needless,
        op: Op::Linkat,
        tried: &[Op::Linkat],
        probes: &[
            begin("linkat_enter", &["do_linkat", "filename_linkat"], 5),
            end("linkat_exit", &["do_linkat", "filename_linkat"], 5),
            begin("link_found", &["security_path_link"], 3),
        ],
    },
    Group {
        calls: &[Op::Symlink, Op::Symlinkat],
        tracepoints: Tracepoints::Needless,
        op: Op::Symlinkat,
        tried: &[Op::Symlinkat],
        probes: &[
            begin("symlinkat_enter", &["do_symlinkat", "filename_symlinkat"], 3),
            end("symlinkat_exit", &["do_symlinkat", "filename_symlinkat"], 3),
            begin("symlink_found", &["security_path_symlink"], 3),
        ],
    },
    Group {
        calls: &[Op::Mkdir, Op::Mkdirat],
        tracepoints: Tracepoints::Needless,
        op: Op::Mkdirat,
        tried: &[Op::Mkdirat],
        probes: &[
            begin("mkdirat_enter", &["do_mkdirat", "filename_mkdirat"], 3),
            end("mkdirat_exit", &["do_mkdirat", "filename_mkdirat"], 3),
            begin("mkdir_found", &["security_path_mkdir"], 3),
        ],
    },
    Group {
        calls: &[Op::Mknod, Op::Mknodat],
        tracepoints: Tracepoints::Needless,
        op: Op::Mknodat,
        tried: &[Op::Mknodat],
        probes: &[
            begin("mknodat_enter", &["do_mknodat", "filename_mknodat"], 4),
            end("mknodat_exit", &["do_mknodat", "filename_mknodat"], 4),
            begin("mknod_found", &["security_path_mknod"], 4),
        ],
    },
    Group {
        calls: &[Op::Open, Op::Openat, Op::Openat2, Op::Creat],
        tracepoints: Tracepoints::Apart,
        op: Op::Openat,
        tried: &[Op::Openat],
        probes: &[end("file_open_exit", &["do_filp_open", "do_file_open"], 3)],
    },
    Group {
        calls: &[Op::Truncate],
        tracepoints: Tracepoints::Joined,
        op: Op::Truncate,
        tried: &[Op::Truncate],
        probes: &[begin("truncate_enter", &["vfs_truncate"], 2), end("truncate_exit", &["vfs_truncate"], 2)],
    },
    Group {
        calls: &[Op::Ftruncate],
        tracepoints: Tracepoints::Joined,
        op: Op::Ftruncate,
        tried: &[Op::Ftruncate],
        probes: &[
            if_there(begin("ftruncate_enter", &["do_sys_ftruncate", "ksys_ftruncate"], 3)),
            if_there(end("ftruncate_exit", &["do_sys_ftruncate", "ksys_ftruncate"], 3)),
            Probe { tried: Some(tried::DO_FTRUNCATE), ..if_there(begin("file_truncate_enter", &["do_ftruncate"], 3)) },
            if_there(end("file_truncate_exit", &["do_ftruncate"], 3)),
            begin("truncate_found", &["security_path_truncate"], 1),
            if_there(begin("file_truncate_found", &["security_file_truncate"], 1)),
        ],
    },
    Group {
        calls: &[
            Op::Setxattr,
            Op::Lsetxattr,
            Op::Fsetxattr,
            Op::Setxattrat,
            Op::Removexattr,
            Op::Lremovexattr,
            Op::Fremovexattr,
            Op::Removexattrat,
        ],
        tracepoints: Tracepoints::Joined,
        op: Op::Fsetxattr,
        tried: &[Op::Fsetxattr, Op::Fremovexattr],
        probes: &[
            begin("mount_written", &["mnt_want_write"], 1),
            begin("mount_of_file_written", &["mnt_want_write_file"], 1),
            if_there(begin("setxattr_enter", &["vfs_setxattr"], 6)),
            if_there(end("setxattr_exit", &["vfs_setxattr"], 6)),
            if_there(begin("old_setxattr_enter", &["vfs_setxattr"], 5)),
            if_there(end("old_setxattr_exit", &["vfs_setxattr"], 5)),
            if_there(begin("removexattr_enter", &["vfs_removexattr"], 3)),
            if_there(end("removexattr_exit", &["vfs_removexattr"], 3)),
            if_there(begin("old_removexattr_enter", &["vfs_removexattr"], 2)),
            if_there(end("old_removexattr_exit", &["vfs_removexattr"], 2)),
            if_there(begin("set_acl_enter", &["vfs_set_acl"], 4)),
            if_there(end("set_acl_exit", &["vfs_set_acl"], 4)),
            if_there(begin("remove_acl_enter", &["vfs_remove_acl"], 3)),
            if_there(end("remove_acl_exit", &["vfs_remove_acl"], 3)),
        ],
    },
    Group {
        calls: &[
            Op::Write,
            Op::Pwrite64,
            Op::Writev,
            Op::Pwritev,
            Op::Pwritev2,
            Op::Sendfile,
            Op::Splice,
            Op::CopyFileRange,
            Op::Fallocate,
            Op::Close,
            Op::CloseRange,
            Op::Dup2,
            Op::Dup3,
        ],
        tracepoints: Tracepoints::Needless,
        op: Op::Write,
        tried: &[Op::Write, Op::Close],
        probes: &[end("file_write_exit", &["security_file_permission"], 2), begin("file_freed", &["security_file_free"], 1)],
    },
    Group {
        calls: &[Op::Mmap, Op::Mprotect, Op::PkeyMprotect],
        tracepoints: Tracepoints::Needless,
        op: Op::Mmap,
        tried: &[Op::Mmap, Op::Mprotect],
        probes: &[end("file_map_exit", &["security_mmap_file"], 3), end("file_protect_exit", &["security_file_mprotect"], 3)],
    },
];
