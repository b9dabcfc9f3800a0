//! Records of files: opens and path calls.

use std::borrow::Cow;

use knark_abi::{Op, effect, mark, text, walk};
use knark_specs::frame::FileOp;

use super::{Head, Inode, calls};

/// Where a path comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathSource {
    /// The kernel's own objects.
    Kernel,
    /// The argument, joined to the directory that the kernel would start from.
    Argument,
}

/// A path: what was walked in the kernel and, where there was one, the argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathName<'a> {
    /// The file itself, or the directory that a relative argument starts from; empty where nothing had to be walked.
    pub walked: &'a [u8],
    /// See [`walk`].
    pub walked_flags: u8,
    /// The argument as it was passed.
    pub name: &'a [u8],
    /// See [`text`]; 0 where there was no argument.
    pub name_flags: u8,
}

impl<'a> PathName<'a> {
    /// Whether the walked path is the file itself.
    pub fn source(&self) -> PathSource {
        match self.name_flags & (text::PRESENT | text::BESIDE) {
            text::PRESENT => PathSource::Argument,
            _ => PathSource::Kernel,
        }
    }

    /// The whole path: an argument is joined to its directory, and nothing is resolved.
    pub fn joined(&self) -> Cow<'a, [u8]> {
        if self.name.is_empty() || self.source() == PathSource::Kernel {
            return Cow::Borrowed(self.walked);
        }
        if self.walked.is_empty() || self.name.first() == Some(&b'/') {
            return Cow::Borrowed(self.name);
        }
        let mut path = Vec::with_capacity(self.walked.len() + 1 + self.name.len());
        path.extend_from_slice(self.walked);
        if path.last() != Some(&b'/') {
            path.push(b'/');
        }
        path.extend_from_slice(self.name);
        Cow::Owned(path)
    }

    /// As [`Self::joined`], with empty, `.` and `..` parts of an argument taken out by the letter: what lies behind a
    /// symbolic link is not known here.
    pub fn normalized(&self) -> Cow<'a, [u8]> {
        let joined = self.joined();
        if self.source() == PathSource::Kernel || joined.first() != Some(&b'/') || is_normal(&joined) {
            return joined;
        }
        let mut path = Vec::with_capacity(joined.len());
        for part in joined.split(|b| *b == b'/') {
            match part {
                b"" | b"." => {}
                b".." => path.truncate(path.iter().rposition(|b| *b == b'/').unwrap_or(0)),
                name => {
                    path.push(b'/');
                    path.extend_from_slice(name);
                }
            }
        }
        if path.is_empty() {
            path.push(b'/');
        }
        Cow::Owned(path)
    }

    /// The file has no name any more.
    pub const fn deleted(&self) -> bool {
        self.walked_flags & walk::DELETED != 0
    }

    /// It lies outside the process's root, or in a mount that was taken away.
    pub const fn outside(&self) -> bool {
        self.walked_flags & walk::TOP != 0
    }

    /// A part of it is missing.
    pub const fn cut(&self) -> bool {
        self.walked_flags & walk::TRUNC != 0 || self.name_flags & (text::CUT | text::FAULT) != 0
    }
}

fn is_normal(path: &[u8]) -> bool {
    path.len() > 1 && path[1..].split(|b| *b == b'/').all(|part| !matches!(part, b"" | b"." | b".."))
}

/// A file was opened, or was not.
#[derive(Clone, Debug)]
pub struct Open<'a> {
    /// Who and when.
    pub head: Head,
    /// Which call.
    pub op: Op,
    /// The descriptor, or the negative error.
    pub result: i32,
    /// `O_*` as asked for.
    pub flags: u32,
    /// Permission bits as asked for.
    pub mode: u32,
    /// The directory's descriptor.
    pub dirfd: i32,
    /// The file's path, walked. Of an open that failed: the directory's, and the name as asked for. Where
    /// [`mark::FD_SHARED`] is set both are there, so that their last parts can be compared.
    pub path: PathName<'a>,
    /// The file.
    pub inode: Option<Inode>,
    /// The number of the watched file that it is ([`super::WatchedFiles`]); 0: none of them.
    pub same: u32,
}

impl Open<'_> {
    /// What it does to the file.
    pub const fn file_op(&self) -> FileOp {
        if self.created() {
            FileOp::Create
        } else if self.flags & effect::WRITES != 0 {
            FileOp::WriteOpen
        } else {
            FileOp::Open
        }
    }

    /// This open made the file.
    pub const fn created(&self) -> bool {
        self.head.has(mark::CREATED)
    }

    /// Another thread may have put another file in the descriptor's place before the kernel was asked what is there.
    pub const fn racy(&self) -> bool {
        self.head.has(mark::FD_SHARED | mark::FD_EMPTY)
    }
}

/// A call that names a file, or changes one through its descriptor.
#[derive(Clone, Debug)]
pub struct PathCall<'a> {
    /// Who and when (when the call ended).
    pub head: Head,
    /// Which call.
    pub op: Op,
    /// What it returned: a negative error, else 0.
    pub result: i64,
    /// Its six arguments as they were in registers.
    pub args: [u64; 6],
    /// When it began, ns since boot.
    pub enter_ns: u64,
    /// The file; of a rename or link, where from; of a symlink, the link.
    pub path: PathName<'a>,
    /// Of a rename or link, where to; of a symlink, what it says.
    pub second: Option<PathName<'a>>,
    /// The extended attribute.
    pub xattr: Option<Xattr<'a>>,
    /// The file as it was before, where a descriptor was given.
    pub before: Option<Inode>,
    /// For each path, the number of the watched file ([`super::WatchedFiles`]) that the kernel found; 0: none of them, or it wasn't seen.
    pub same: [u32; 2],
}

/// The name of an extended attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Xattr<'a> {
    /// The name.
    pub name: &'a [u8],
    /// See [`text`].
    pub flags: u8,
}

impl PathCall<'_> {
    /// What it does to the file.
    pub fn file_op(&self) -> FileOp {
        match self.op {
            Op::Unlinkat if self.flags().is_some_and(|flags| flags & effect::REMOVES_DIR != 0) => FileOp::Rmdir,
            Op::Mmap | Op::Mprotect | Op::PkeyMprotect if !self.head.has(mark::CODE) => FileOp::Write,
            op => calls::file_op(op),
        }
    }

    /// The permission bits (and, of mknod, the type) that are asked for.
    pub fn new_mode(&self) -> Option<u32> {
        let at = match self.op {
            Op::Chmod | Op::Fchmod | Op::Mkdir | Op::Mknod => 1,
            Op::Fchmodat | Op::Fchmodat2 | Op::Mkdirat | Op::Mknodat => 2,
            _ => return None,
        };
        Some(low(self.args[at]) & 0xffff)
    }

    /// The owner and group that are asked for; `u32::MAX` leaves one as it is.
    pub fn new_owner(&self) -> Option<(u32, u32)> {
        let at = match self.op {
            Op::Chown | Op::Lchown | Op::Fchown => 1,
            Op::Fchownat => 2,
            _ => return None,
        };
        Some((low(self.args[at]), low(self.args[at + 1])))
    }

    /// The size that is asked for.
    pub fn new_size(&self) -> Option<u64> {
        matches!(self.op, Op::Truncate | Op::Ftruncate).then_some(self.args[1])
    }

    /// The call's flags: `AT_*`, or `RENAME_*` of renameat2, `XATTR_*`, or `MAP_*` of mmap.
    pub fn flags(&self) -> Option<u32> {
        let at = match self.op {
            Op::Unlinkat | Op::Setxattrat | Op::Removexattrat => 2,
            Op::Fchmodat2 | Op::Mmap => 3,
            Op::Linkat | Op::Renameat2 | Op::Fchownat | Op::Setxattr | Op::Lsetxattr | Op::Fsetxattr => 4,
            _ => return None,
        };
        Some(low(self.args[at]))
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the kernel looks at the lower half of such arguments, too")]
const fn low(arg: u64) -> u32 {
    arg as u32
}
