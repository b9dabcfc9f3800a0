//! Operations.

use crate::NUMBERS;

/// What an open or path call does; `Header::op`.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names are those of the system calls")]
pub enum Op {
    Open = 1,
    Openat,
    Openat2,
    Creat,
    OpenByHandleAt,
    Truncate,
    Ftruncate,
    Rename,
    Renameat,
    Renameat2,
    Link,
    Linkat,
    Symlink,
    Symlinkat,
    Unlink,
    Unlinkat,
    Mkdir,
    Mkdirat,
    Rmdir,
    Chmod,
    Fchmod,
    Fchmodat,
    Fchmodat2,
    Chown,
    Lchown,
    Fchown,
    Fchownat,
    Setxattr,
    Lsetxattr,
    Fsetxattr,
    Setxattrat,
    Removexattr,
    Lremovexattr,
    Fremovexattr,
    Removexattrat,
    Mknod,
    Mknodat,
    Write,
    Pwrite64,
    Writev,
    Pwritev,
    Pwritev2,
    Sendfile,
    Splice,
    CopyFileRange,
    Fallocate,
    Mmap,
    Mprotect,
    PkeyMprotect,
    Close,
    CloseRange,
    Dup2,
    Dup3,
}

impl Op {
    /// Whether it writes through a descriptor or maps a file: of these, the first is told alone.
    pub const fn is_told_once(op: u8) -> bool {
        op >= Op::Write as u8 && op <= Op::PkeyMprotect as u8
    }

    /// How many arguments the call has. In the registers of the others there is anything.
    pub const fn arguments(self) -> u8 {
        match self {
            Op::Unlink | Op::Rmdir | Op::Close => 1,
            Op::Creat
            | Op::Truncate
            | Op::Ftruncate
            | Op::Rename
            | Op::Link
            | Op::Symlink
            | Op::Mkdir
            | Op::Chmod
            | Op::Fchmod
            | Op::Removexattr
            | Op::Lremovexattr
            | Op::Fremovexattr
            | Op::Dup2 => 2,
            Op::Open
            | Op::Openat
            | Op::OpenByHandleAt
            | Op::Symlinkat
            | Op::Unlinkat
            | Op::Mkdirat
            | Op::Fchmodat
            | Op::Chown
            | Op::Lchown
            | Op::Fchown
            | Op::Mknod
            | Op::Write
            | Op::Writev
            | Op::Mprotect
            | Op::CloseRange
            | Op::Dup3 => 3,
            Op::Openat2
            | Op::Renameat
            | Op::Fchmodat2
            | Op::Removexattrat
            | Op::Mknodat
            | Op::Pwrite64
            | Op::Sendfile
            | Op::Fallocate
            | Op::PkeyMprotect => 4,
            Op::Renameat2 | Op::Linkat | Op::Fchownat | Op::Setxattr | Op::Lsetxattr | Op::Fsetxattr | Op::Pwritev => 5,
            Op::Setxattrat | Op::Pwritev2 | Op::Splice | Op::CopyFileRange | Op::Mmap => 6,
        }
    }

    /// [`Op::arguments`] by number.
    pub const ARGUMENTS: [u8; NUMBERS] = {
        let (mut all, mut i) = ([0; NUMBERS], 0);
        while i < Op::ALL.len() {
            all[Op::ALL[i] as usize] = Op::ALL[i].arguments();
            i += 1;
        }
        all
    };

    /// All of them, in the order of their numbers.
    pub const ALL: [Op; 53] = [
        Op::Open,
        Op::Openat,
        Op::Openat2,
        Op::Creat,
        Op::OpenByHandleAt,
        Op::Truncate,
        Op::Ftruncate,
        Op::Rename,
        Op::Renameat,
        Op::Renameat2,
        Op::Link,
        Op::Linkat,
        Op::Symlink,
        Op::Symlinkat,
        Op::Unlink,
        Op::Unlinkat,
        Op::Mkdir,
        Op::Mkdirat,
        Op::Rmdir,
        Op::Chmod,
        Op::Fchmod,
        Op::Fchmodat,
        Op::Fchmodat2,
        Op::Chown,
        Op::Lchown,
        Op::Fchown,
        Op::Fchownat,
        Op::Setxattr,
        Op::Lsetxattr,
        Op::Fsetxattr,
        Op::Setxattrat,
        Op::Removexattr,
        Op::Lremovexattr,
        Op::Fremovexattr,
        Op::Removexattrat,
        Op::Mknod,
        Op::Mknodat,
        Op::Write,
        Op::Pwrite64,
        Op::Writev,
        Op::Pwritev,
        Op::Pwritev2,
        Op::Sendfile,
        Op::Splice,
        Op::CopyFileRange,
        Op::Fallocate,
        Op::Mmap,
        Op::Mprotect,
        Op::PkeyMprotect,
        Op::Close,
        Op::CloseRange,
        Op::Dup2,
        Op::Dup3,
    ];

    /// The operation of that number.
    pub const fn of(n: u8) -> Option<Op> {
        if n == 0 || n as usize > Self::ALL.len() { None } else { Some(Self::ALL[n as usize - 1]) }
    }
}
const _: () = {
    let mut i = 0;
    while i < Op::ALL.len() {
        assert!(Op::ALL[i] as usize == i + 1);
        i += 1;
    }
};
