//! Records as the rest of the program sees them. Every path and name is bytes, as the kernel gave them.

use std::borrow::Cow;

use knark_abi::{Op, mark, text, walk};

use super::Verdict;

/// One event, borrowed from the ring buffer.
#[derive(Clone, Debug)]
pub enum Record<'a> {
    /// A process replaced its program.
    Exec(Exec<'a>),
    /// Arguments of an exec whose own record comes later; see [`Exec::args_before`].
    ExecArgs(ExecArgs<'a>),
    /// A file was opened, or was not.
    Open(Open<'a>),
    /// A call that names a file, or changes one through its descriptor.
    Path(PathCall<'a>),
    /// The last thread of a process ended.
    Exit(Exit),
    /// A control group of the chosen hierarchy was made.
    CgroupMkdir(Cgroup<'a>),
    /// A control group of the chosen hierarchy was removed.
    CgroupRmdir(Cgroup<'a>),
}

impl<'a> Record<'a> {
    /// The record that these bytes are, as [`super::Probes::drain`] gave them; None if they contradict themselves.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        super::parse::record(bytes)
    }

    /// Who did it, and when.
    pub fn head(&self) -> &Head {
        match self {
            Record::Exec(r) => &r.head,
            Record::ExecArgs(r) => &r.head,
            Record::Open(r) => &r.head,
            Record::Path(r) => &r.head,
            Record::Exit(r) => &r.head,
            Record::CgroupMkdir(r) | Record::CgroupRmdir(r) => &r.head,
        }
    }
}

/// Who did it, and when. Ids are those of the first pid and user namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Nanoseconds since boot, sleep included.
    pub boot_ns: u64,
    /// The kernfs id of the control group, in the chosen hierarchy.
    pub cgroup: u64,
    /// The verdict that let it through.
    pub verdict: Verdict,
    /// See [`mark`].
    pub marks: u32,
    /// Process.
    pub tgid: u32,
    /// Thread.
    pub tid: u32,
    /// Parent process.
    pub ppid: u32,
    /// Real user.
    pub uid: u32,
    /// Real group.
    pub gid: u32,
    /// When the process started, ns since boot.
    pub start_ns: u64,
    /// When its parent started.
    pub parent_start_ns: u64,
    /// How many programs the process has executed: together with `tgid` and `start_ns` it names this one.
    pub exec_id: u64,
    /// Thread name, zero padded.
    pub comm: [u8; 16],
}

impl Head {
    /// The thread's name without its padding.
    pub fn comm(&self) -> &[u8] {
        trim(&self.comm)
    }

    /// Whether one of these [`mark`]s is set.
    pub const fn has(&self, marks: u32) -> bool {
        self.marks & marks != 0
    }
}

pub(super) fn trim(name: &[u8]) -> &[u8] {
    &name[..name.iter().position(|b| *b == 0).unwrap_or(name.len())]
}

/// A file's inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inode {
    /// Number.
    pub ino: u64,
    /// Device, major part.
    pub major: u32,
    /// Device, minor part.
    pub minor: u32,
    /// Type and permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Owning group.
    pub gid: u32,
    /// Bytes.
    pub size: u64,
}

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
}

impl Open<'_> {
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

    /// The call's flags: `AT_*`, or `RENAME_*` of renameat2, or `XATTR_*`.
    pub fn flags(&self) -> Option<u32> {
        let at = match self.op {
            Op::Unlinkat | Op::Setxattrat | Op::Removexattrat => 2,
            Op::Fchmodat2 => 3,
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

/// A process replaced its program.
#[derive(Clone, Debug)]
pub struct Exec<'a> {
    /// Who and when.
    pub head: Head,
    /// The file that runs: of a script, its interpreter.
    pub exe: PathName<'a>,
    /// The name as asked for: of a script, the script.
    pub filename: &'a [u8],
    /// Working directory.
    pub cwd: PathName<'a>,
    /// The exe's inode.
    pub inode: Option<Inode>,
    /// The first arguments, each ended by a zero byte. If [`Self::args_before`] is not 0, the rest came in [`ExecArgs`]
    /// before; [`Args`] puts them together.
    pub args: &'a [u8],
    /// Bytes of arguments that came in continuation records before this one, of the same thread.
    pub args_before: u32,
    /// Bytes of arguments in the process's memory.
    pub args_total: u64,
    /// Nearest first.
    pub ancestors: Ancestors<'a>,
    /// The id of the thread that called, before it became the leader.
    pub old_tid: u32,
}

/// Whether a file lies in the upper (the container's own, writable) layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upper {
    /// It does: it was put or changed there after the container was made.
    Yes,
    /// It comes from the image.
    No,
    /// The file isn't on an overlay.
    NotOverlay,
    /// It can't be said.
    Unknown,
}

impl Exec<'_> {
    /// Where in an overlay the file lies.
    pub const fn upper(&self) -> Upper {
        if !self.head.has(mark::OVERLAY) {
            Upper::NotOverlay
        } else if self.head.has(mark::UPPER_UNKNOWN) {
            Upper::Unknown
        } else if self.head.has(mark::UPPER) {
            Upper::Yes
        } else {
            Upper::No
        }
    }

    /// The exe lives in memory only.
    pub const fn memfd(&self) -> bool {
        self.head.has(mark::MEMFD)
    }

    /// There are more arguments than were copied.
    pub const fn args_cut(&self) -> bool {
        self.head.has(mark::ARGS_CUT | mark::ARGS_HOLE)
    }

    /// There are more ancestors than were recorded.
    pub const fn more_ancestors(&self) -> bool {
        self.head.has(mark::MORE_ANCESTORS)
    }
}

/// A part of the arguments of an exec whose own record comes later.
#[derive(Clone, Debug)]
pub struct ExecArgs<'a> {
    /// Who and when.
    pub head: Head,
    /// Where these bytes belong.
    pub offset: u32,
    /// The bytes.
    pub bytes: &'a [u8],
}

/// The processes that one descends from, nearest first.
#[derive(Clone, Copy, Debug)]
pub struct Ancestors<'a>(pub(super) &'a [u8]);

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ancestor {
    /// Process.
    pub tgid: u32,
    /// When it started, ns since boot.
    pub start_ns: u64,
    /// Its name, zero padded.
    pub comm: [u8; 16],
}

impl Ancestor {
    /// Its name without padding.
    pub fn comm(&self) -> &[u8] {
        trim(&self.comm)
    }
}

impl Ancestors<'_> {
    /// One after another.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Ancestor> + '_ {
        self.0.chunks_exact(size_of::<knark_abi::Ancestor>()).map(super::parse::ancestor)
    }
}

/// Keeps continuation records until the exec comes that they belong to.
#[derive(Debug, Default)]
pub struct Args {
    /// By process; few are in between at any time, and what is never asked for is dropped.
    waiting: std::collections::VecDeque<(u32, Vec<u8>)>,
}

impl Args {
    /// Execs whose own record was lost leave their arguments behind; no more than these are kept.
    const WAITING: usize = 64;

    /// Keeps a continuation.
    pub fn push(&mut self, part: &ExecArgs<'_>) {
        const INLINE: u32 = knark_abi::ARGS_INLINE as u32;
        let at = self.waiting.iter().position(|(tgid, _)| *tgid == part.head.tgid);
        if part.offset == INLINE || at.is_none() {
            if let Some(at) = at {
                self.waiting.remove(at);
            }
            if self.waiting.len() == Self::WAITING {
                self.waiting.pop_front();
            }
            // a first part that was lost leaves a gap: what follows it has no place
            let bytes = if part.offset == INLINE { part.bytes.to_vec() } else { Vec::new() };
            self.waiting.push_back((part.head.tgid, bytes));
        } else if let Some((_, bytes)) = at.and_then(|at| self.waiting.get_mut(at))
            && (part.offset - INLINE) as usize == bytes.len()
        {
            bytes.extend_from_slice(part.bytes);
        }
    }

    /// All arguments of an exec up to the first gap, each ended by a zero byte; and forgets them.
    pub fn join<'a>(&mut self, exec: &Exec<'a>) -> Cow<'a, [u8]> {
        let at = self.waiting.iter().position(|(tgid, _)| *tgid == exec.head.tgid);
        let rest = at.and_then(|at| self.waiting.remove(at));
        match rest {
            Some((_, rest)) if exec.args_before > 0 => [exec.args, &rest].concat().into(),
            _ => Cow::Borrowed(exec.args),
        }
    }
}

/// The last thread of a process ended.
#[derive(Clone, Debug)]
pub struct Exit {
    /// Who and when.
    pub head: Head,
    /// As `wait` reports it.
    pub status: i32,
    /// How long it lived.
    pub lived_ns: u64,
}

impl Exit {
    /// The exit code, unless a signal ended it.
    pub const fn code(&self) -> Option<i32> {
        if self.status & 0x7f == 0 { Some(self.status >> 8 & 0xff) } else { None }
    }

    /// The signal that ended it.
    pub const fn signal(&self) -> Option<i32> {
        if self.status & 0x7f == 0 { None } else { Some(self.status & 0x7f) }
    }
}

/// A control group was made or removed.
#[derive(Clone, Debug)]
pub struct Cgroup<'a> {
    /// Who and when.
    pub head: Head,
    /// Its kernfs id.
    pub id: u64,
    /// Its parent's.
    pub parent: u64,
    /// Its path in its hierarchy.
    pub path: &'a [u8],
    /// What it got from its parent; already in force.
    pub verdict: Option<Verdict>,
}
