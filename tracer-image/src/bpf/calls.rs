//! The system calls that are watched: their names, their numbers here, and how their arguments name files.

use knark_abi::{CALLS, Call, NUMBERS, Op, effect};
use knark_specs::frame::FileOp;

use super::Effects;

const NO: u8 = Call::NO;
const CWD: u8 = Call::CWD;

/// A call: the name of its tracepoints, and its number on this architecture if it has it.
pub(super) struct Watched {
    pub(super) op: Op,
    pub(super) name: &'static str,
    pub(super) nr: Option<u32>,
    pub(super) call: Call,
}

impl Watched {
    /// Whether it gives a descriptor.
    pub(super) fn opens(&self) -> bool {
        matches!(self.op, Op::Open | Op::Openat | Op::Openat2 | Op::Creat | Op::OpenByHandleAt)
    }

    /// Whether it is watched where nothing is named that may be done to files.
    pub(super) fn is_usual(&self) -> bool {
        self.effects().has_any(Effects::usual())
    }

    /// The programs of its tracepoints, where it begins and where it ends.
    pub(super) fn programs(&self) -> (Option<&'static str>, Option<&'static str>) {
        match self.op {
            _ if self.opens() => (None, Some("open_exit")),
            Op::Splice | Op::CopyFileRange => (Some("copy_enter"), None),
            Op::Mmap => (Some("map_enter"), None),
            Op::Mprotect | Op::PkeyMprotect => (None, None),
            Op::Close => (Some("close_enter"), None),
            Op::CloseRange => (Some("close_range_enter"), None),
            Op::Dup2 | Op::Dup3 => (Some("dup_enter"), None),
            op if Op::is_told_once(op as u8) => (Some("write_enter"), None),
            _ => (Some("path_enter"), Some("path_exit")),
        }
    }

    /// All that it may do to a file.
    pub(super) fn effects(&self) -> Effects {
        let more: &[FileOp] = match self.op {
            Op::Mmap | Op::Mprotect | Op::PkeyMprotect => &[FileOp::Write],
            Op::Unlinkat => &[FileOp::Rmdir],
            _ if self.opens() => &[FileOp::Create, FileOp::WriteOpen],
            _ => &[],
        };
        Effects::of(file_op(self.op)).with(more)
    }
}

/// What a call does to a file, as far as its name tells.
pub(super) const fn file_op(op: Op) -> FileOp {
    match op {
        Op::Open | Op::Openat | Op::Openat2 | Op::Creat | Op::OpenByHandleAt => FileOp::Open,
        Op::Mknod | Op::Mknodat => FileOp::Create,
        Op::Truncate | Op::Ftruncate => FileOp::Truncate,
        Op::Rename | Op::Renameat | Op::Renameat2 => FileOp::Rename,
        Op::Link | Op::Linkat => FileOp::Link,
        Op::Symlink | Op::Symlinkat => FileOp::Symlink,
        Op::Unlink | Op::Unlinkat => FileOp::Unlink,
        Op::Mkdir | Op::Mkdirat => FileOp::Mkdir,
        Op::Rmdir => FileOp::Rmdir,
        Op::Chmod | Op::Fchmod | Op::Fchmodat | Op::Fchmodat2 => FileOp::Chmod,
        Op::Chown | Op::Lchown | Op::Fchown | Op::Fchownat => FileOp::Chown,
        Op::Setxattr | Op::Lsetxattr | Op::Fsetxattr | Op::Setxattrat => FileOp::Setxattr,
        Op::Removexattr | Op::Lremovexattr | Op::Fremovexattr | Op::Removexattrat => FileOp::Removexattr,
        Op::Mmap | Op::Mprotect | Op::PkeyMprotect => FileOp::MapExec,
        Op::Write | Op::Pwrite64 | Op::Writev | Op::Pwritev | Op::Pwritev2 => FileOp::Write,
        Op::Sendfile | Op::Splice | Op::CopyFileRange | Op::Fallocate => FileOp::Write,
        // It isn't told, but what is told of writes depends on it.
        Op::Close | Op::CloseRange | Op::Dup2 | Op::Dup3 => FileOp::Write,
    }
}

const _: () = {
    assert!(FileOp::Open as u8 == effect::OPEN && FileOp::Create as u8 == effect::CREATE);
    assert!(FileOp::WriteOpen as u8 == effect::WRITE_OPEN);
    assert!(FileOp::Unlink as u8 == effect::UNLINK && FileOp::Rmdir as u8 == effect::RMDIR);
    assert!(FileOp::Rename as u8 == effect::RENAME && FileOp::Link as u8 == effect::LINK);
    assert!(FileOp::Write as u8 == effect::WRITE && FileOp::MapExec as u8 == effect::MAP_EXEC);
    assert!(FileOp::Symlink as u8 == effect::SYMLINK && FileOp::Mkdir as u8 == effect::MKDIR);
};

/// `(directory, name)` of both paths, the extended attribute's name, the `AT_*` flags.
const fn how(op: Op, first: (u8, u8), second: (u8, u8), xattr: u8, at_flags: u8) -> Call {
    let (first_dir, first_name) = first;
    let (second_dir, second_name) = second;
    Call { op: op as u8, first_dir, first_name, second_dir, second_name, xattr, at_flags, effect: file_op(op) as u8 }
}

const NONE: (u8, u8) = (NO, NO);
/// The first argument is a path.
const PATH: (u8, u8) = (CWD, 0);
/// The first argument is a directory's descriptor, the second a path.
const AT: (u8, u8) = (0, 1);
/// The first argument is the file's own descriptor.
const FD: (u8, u8) = (0, NO);

macro_rules! calls {
    ($($op:ident $name:literal $nr:tt $call:expr;)*) => {
        [$(Watched { op: Op::$op, name: $name, nr: number!($nr), call: { let (first, second, xattr, at) = $call; how(Op::$op, first, second, xattr, at) } }),*]
    };
}

// Numbers: `old NAME` is a call that only x86-64 has, being older than its `at` form; `NAME` is everywhere; a number is
// for calls that libc doesn't name yet, which have the same one on all architectures.
macro_rules! number {
    ([old $sys:ident]) => {{
        #[cfg(target_arch = "x86_64")]
        let nr = Some(small(libc::$sys));
        #[cfg(not(target_arch = "x86_64"))]
        let nr = None;
        nr
    }};
    ([$sys:ident]) => {
        Some(small(libc::$sys))
    };
    ([$nr:literal]) => {
        Some($nr)
    };
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "numbers of system calls are small")]
const fn small(nr: libc::c_long) -> u32 {
    nr as u32
}

/// The name of the call, as its manual page has it.
pub fn call_name(op: Op) -> &'static str {
    WATCHED[op as usize - 1].name
}

/// All of them.
pub(super) static WATCHED: [Watched; Op::ALL.len()] = calls! {
    Open "open" [old SYS_open] (PATH, NONE, NO, NO);
    Openat "openat" [SYS_openat] (AT, NONE, NO, NO);
    Openat2 "openat2" [437] (AT, NONE, NO, NO);
    Creat "creat" [old SYS_creat] (PATH, NONE, NO, NO);
    OpenByHandleAt "open_by_handle_at" [SYS_open_by_handle_at] (NONE, NONE, NO, NO);
    Truncate "truncate" [SYS_truncate] (PATH, NONE, NO, NO);
    Ftruncate "ftruncate" [SYS_ftruncate] (FD, NONE, NO, NO);
    Rename "rename" [old SYS_rename] (PATH, (CWD, 1), NO, NO);
    Renameat "renameat" [SYS_renameat] (AT, (2, 3), NO, NO);
    Renameat2 "renameat2" [SYS_renameat2] (AT, (2, 3), NO, NO);
    Link "link" [old SYS_link] (PATH, (CWD, 1), NO, NO);
    Linkat "linkat" [SYS_linkat] (AT, (2, 3), NO, 4);
    Symlink "symlink" [old SYS_symlink] ((CWD, 1), (Call::TEXT, 0), NO, NO);
    Symlinkat "symlinkat" [SYS_symlinkat] ((1, 2), (Call::TEXT, 0), NO, NO);
    Unlink "unlink" [old SYS_unlink] (PATH, NONE, NO, NO);
    Unlinkat "unlinkat" [SYS_unlinkat] (AT, NONE, NO, NO);
    Mkdir "mkdir" [old SYS_mkdir] (PATH, NONE, NO, NO);
    Mkdirat "mkdirat" [SYS_mkdirat] (AT, NONE, NO, NO);
    Rmdir "rmdir" [old SYS_rmdir] (PATH, NONE, NO, NO);
    Chmod "chmod" [old SYS_chmod] (PATH, NONE, NO, NO);
    Fchmod "fchmod" [SYS_fchmod] (FD, NONE, NO, NO);
    Fchmodat "fchmodat" [SYS_fchmodat] (AT, NONE, NO, NO);
    Fchmodat2 "fchmodat2" [452] (AT, NONE, NO, 3);
    Chown "chown" [old SYS_chown] (PATH, NONE, NO, NO);
    Lchown "lchown" [old SYS_lchown] (PATH, NONE, NO, NO);
    Fchown "fchown" [SYS_fchown] (FD, NONE, NO, NO);
    Fchownat "fchownat" [SYS_fchownat] (AT, NONE, NO, 4);
    Setxattr "setxattr" [SYS_setxattr] (PATH, NONE, 1, NO);
    Lsetxattr "lsetxattr" [SYS_lsetxattr] (PATH, NONE, 1, NO);
    Fsetxattr "fsetxattr" [SYS_fsetxattr] (FD, NONE, 1, NO);
    Setxattrat "setxattrat" [463] (AT, NONE, 3, 2);
    Removexattr "removexattr" [SYS_removexattr] (PATH, NONE, 1, NO);
    Lremovexattr "lremovexattr" [SYS_lremovexattr] (PATH, NONE, 1, NO);
    Fremovexattr "fremovexattr" [SYS_fremovexattr] (FD, NONE, 1, NO);
    Removexattrat "removexattrat" [466] (AT, NONE, 3, 2);
    Mknod "mknod" [old SYS_mknod] (PATH, NONE, NO, NO);
    Mknodat "mknodat" [SYS_mknodat] (AT, NONE, NO, NO);
    Write "write" [SYS_write] (FD, NONE, NO, NO);
    Pwrite64 "pwrite64" [SYS_pwrite64] (FD, NONE, NO, NO);
    Writev "writev" [SYS_writev] (FD, NONE, NO, NO);
    Pwritev "pwritev" [SYS_pwritev] (FD, NONE, NO, NO);
    Pwritev2 "pwritev2" [SYS_pwritev2] (FD, NONE, NO, NO);
    Sendfile "sendfile64" [SYS_sendfile] (FD, NONE, NO, NO);
    Splice "splice" [SYS_splice] ((2, NO), NONE, NO, NO);
    CopyFileRange "copy_file_range" [SYS_copy_file_range] ((2, NO), NONE, NO, NO);
    Fallocate "fallocate" [SYS_fallocate] (FD, NONE, NO, NO);
    Mmap "mmap" [SYS_mmap] ((4, NO), NONE, NO, NO);
    Mprotect "mprotect" [SYS_mprotect] (NONE, NONE, NO, NO);
    PkeyMprotect "pkey_mprotect" [SYS_pkey_mprotect] (NONE, NONE, NO, NO);
    Close "close" [SYS_close] (FD, NONE, NO, NO);
    CloseRange "close_range" [436] (NONE, NONE, NO, NO);
    Dup2 "dup2" [old SYS_dup2] ((1, NO), NONE, NO, NO);
    Dup3 "dup3" [SYS_dup3] ((1, NO), NONE, NO, NO);
};

/// By number, for the programs.
pub(super) fn table() -> Box<[Call; CALLS]> {
    let mut table = Box::new([Call::default(); CALLS]);
    for watched in &WATCHED {
        if let Some(place) = watched.nr.and_then(|nr| table.get_mut(nr as usize)) {
            *place = watched.call;
        }
    }
    table
}

/// By operation, for the programs; 0 for calls that this architecture lacks.
pub(super) fn numbers() -> [u16; NUMBERS] {
    let mut numbers = [0; NUMBERS];
    for watched in &WATCHED {
        if let Some(place) = numbers.get_mut(watched.op as usize) {
            *place = watched.nr.and_then(|nr| u16::try_from(nr).ok()).unwrap_or(0);
        }
    }
    numbers
}
