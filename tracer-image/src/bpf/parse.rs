//! From the ring's bytes to [`Record`]s. The ring is the kernel's, but nothing here trusts it: a record that contradicts
//! itself gives None.

use knark_abi::{
    self as abi, ArgsBody, CgroupBody, ExecBody, ExitBody, Header, Op, OpenBody, PathBody, PathPart, kind, mark, text,
};

use super::{
    Ancestors, Cgroup, Exec, ExecArgs, Exit, Head, Inode, Open, PathCall, PathName, Record, Verdict, Xattr,
};

/// Types that any bytes are a valid value of.
#[expect(unsafe_code, reason = "bytes are read as structs of the kernel side")]
unsafe trait Plain: Copy {}

macro_rules! plain {
    ($($type:ty),*) => {
        $(
            // SAFETY: `repr(C)`, integers only.
            #[expect(unsafe_code, reason = "see the trait")]
            unsafe impl Plain for $type {}
        )*
    };
}
plain!(Header, OpenBody, PathBody, ExecBody, ArgsBody, ExitBody, CgroupBody, abi::Ancestor);

/// What is left of a record.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    #[expect(unsafe_code, reason = "bytes are read as structs of the kernel side")]
    fn read<T: Plain>(&mut self) -> Option<T> {
        let bytes = self.take(size_of::<T>())?;
        // SAFETY: the slice is as long as a T, any bytes are a T, and the read doesn't need alignment.
        Some(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
    }
}

/// The record that these bytes are.
pub(super) fn record(bytes: &[u8]) -> Option<Record<'_>> {
    let mut rest = Bytes(bytes);
    let raw: Header = rest.read()?;
    if raw.len as usize != bytes.len() {
        return None;
    }
    let head = head(&raw)?;
    Some(match raw.kind {
        kind::EXEC => Record::Exec(exec(head, rest)?),
        kind::EXEC_ARGS => Record::ExecArgs(args(head, rest)?),
        kind::OPEN => Record::Open(open(head, Op::of(raw.op)?, rest)?),
        kind::PATH => Record::Path(path(head, Op::of(raw.op)?, rest)?),
        kind::EXIT => {
            let body: ExitBody = rest.read()?;
            Record::Exit(Exit { head, status: body.status, lived_ns: body.lived_ns })
        }
        kind::CGROUP_MKDIR => Record::CgroupMkdir(cgroup(head, rest)?),
        kind::CGROUP_RMDIR => Record::CgroupRmdir(cgroup(head, rest)?),
        _ => return None,
    })
}

fn verdict(raw: u8) -> Option<Verdict> {
    match raw {
        abi::verdict::IGNORE => Some(Verdict::Ignore),
        abi::verdict::TRACE => Some(Verdict::Trace),
        abi::verdict::HOLD => Some(Verdict::Hold),
        _ => None,
    }
}

fn head(raw: &Header) -> Option<Head> {
    Some(Head {
        boot_ns: raw.boot_ns,
        cgroup: raw.cgroup,
        verdict: verdict(raw.verdict)?,
        marks: raw.marks,
        tgid: raw.tgid,
        tid: raw.tid,
        ppid: raw.ppid,
        uid: raw.uid,
        gid: raw.gid,
        start_ns: raw.start_ns,
        parent_start_ns: raw.parent_start_ns,
        exec_id: raw.exec_id,
        comm: raw.comm,
    })
}

fn inode(head: &Head, raw: &abi::Inode) -> Option<Inode> {
    head.has(mark::INODE).then_some(Inode {
        ino: raw.ino,
        major: raw.dev >> 20,
        minor: raw.dev & 0xf_ffff,
        mode: raw.mode,
        uid: raw.uid,
        gid: raw.gid,
        size: raw.size,
    })
}

fn exec(head: Head, mut rest: Bytes<'_>) -> Option<Exec<'_>> {
    let body: ExecBody = rest.read()?;
    let ancestors = (body.ancestors as usize).checked_mul(size_of::<abi::Ancestor>())?;
    let ancestors = Ancestors(rest.take(ancestors)?);
    let walked = |walked, walked_flags| PathName { walked, walked_flags, name: b"", name_flags: 0 };
    Some(Exec {
        head,
        exe: walked(rest.take(body.exe_len.into())?, body.exe_flags),
        filename: rest.take(body.filename_len.into())?,
        cwd: walked(rest.take(body.cwd_len.into())?, body.cwd_flags),
        inode: inode(&head, &body.inode),
        args: rest.take(body.args_len as usize)?,
        args_before: body.args_before,
        args_total: body.args_total,
        ancestors,
        old_tid: body.old_tid,
    })
}

/// An ancestor out of its bytes.
pub(super) fn ancestor(bytes: &[u8]) -> super::record::Ancestor {
    let raw = Bytes(bytes).read().unwrap_or(abi::Ancestor { start_ns: 0, tgid: 0, _pad: 0, comm: [0; 16] });
    super::record::Ancestor { tgid: raw.tgid, start_ns: raw.start_ns, comm: raw.comm }
}

fn args(head: Head, mut rest: Bytes<'_>) -> Option<ExecArgs<'_>> {
    let body: ArgsBody = rest.read()?;
    Some(ExecArgs { head, offset: body.offset, bytes: rest.take(body.len as usize)? })
}

fn open(head: Head, op: Op, mut rest: Bytes<'_>) -> Option<Open<'_>> {
    let body: OpenBody = rest.read()?;
    Some(Open {
        head,
        op,
        result: body.result,
        flags: body.flags,
        mode: body.mode,
        dirfd: body.dirfd,
        path: PathName {
            walked: rest.take(body.walked_len.into())?,
            walked_flags: body.walked_flags,
            name: rest.take(body.name_len.into())?,
            name_flags: body.name_flags,
        },
        inode: inode(&head, &body.inode),
    })
}

fn path(head: Head, op: Op, mut rest: Bytes<'_>) -> Option<PathCall<'_>> {
    let body: PathBody = rest.read()?;
    let mut early = |part: &PathPart| {
        let walked = rest.take(part.walked_len.into())?;
        let late = part.name_flags & text::LATE != 0;
        let name = if late { &[][..] } else { rest.take(part.name_len.into())? };
        Some(PathName { walked, walked_flags: part.walked_flags, name, name_flags: part.name_flags })
    };
    let (mut first, mut second) = (early(&body.first)?, early(&body.second)?);
    let mut xattr: &[u8] = &[];
    if body.xattr_flags & text::LATE == 0 {
        xattr = rest.take(body.xattr_len.into())?;
    }
    // those that were copied at the call's end lie behind the others
    for (part, name) in [(&body.first, &mut first), (&body.second, &mut second)] {
        if part.name_flags & text::LATE != 0 {
            name.name = rest.take(part.name_len.into())?;
        }
    }
    if body.xattr_flags & text::LATE != 0 {
        xattr = rest.take(body.xattr_len.into())?;
    }
    Some(PathCall {
        head,
        op,
        result: body.result,
        args: body.args,
        enter_ns: body.enter_ns,
        path: first,
        second: (second.walked_flags != 0 || second.name_flags != 0).then_some(second),
        xattr: (body.xattr_flags != 0).then_some(Xattr { name: xattr, flags: body.xattr_flags }),
        before: inode(&head, &body.inode),
    })
}

fn cgroup(head: Head, mut rest: Bytes<'_>) -> Option<Cgroup<'_>> {
    let body: CgroupBody = rest.read()?;
    Some(Cgroup {
        head,
        id: body.id,
        parent: body.parent,
        path: rest.take(body.path_len.into())?,
        verdict: verdict(body.verdict),
    })
}
