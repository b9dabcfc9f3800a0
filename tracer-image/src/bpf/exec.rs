//! Records of programs that start.

use std::{borrow::Cow, collections::VecDeque};

use knark_abi::mark;

use super::{Head, Inode, PathName, record::trim};

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
    waiting: VecDeque<(u32, Vec<u8>)>,
}

impl Args {
    /// Execs whose own record was lost leave their arguments behind; no more than these are kept.
    const WAITING: usize = 64;

    /// Keeps a continuation.
    pub fn push(&mut self, part: &ExecArgs<'_>) {
        #[expect(clippy::cast_possible_truncation, reason = "a small constant")]
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
