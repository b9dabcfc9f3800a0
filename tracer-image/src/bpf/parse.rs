//! From the ring's bytes to [`Record`]s. The ring is the kernel's, but nothing here trusts it: a record that contradicts
//! itself gives None.

use knark_abi::{
    self as abi, ApiBody, ApiChunk, ArgsBody, CgroupBody, ExecBody, ExitBody, Header, Op, OpenBody, PathBody, PathPart, kind,
    mark, text,
};

use super::{Ancestors, Api, Cgroup, Exec, ExecArgs, Exit, Head, Inode, Open, PathCall, PathName, Record, Verdict, Xattr};

/// Types that any bytes are a valid value of.
///
/// # Safety
/// The type must be `repr(C)` and made of integers.
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
plain!(Header, abi::Repeats, ApiBody, ApiChunk, OpenBody, PathBody, ExecBody, ArgsBody, ExitBody, CgroupBody, abi::Ancestor);

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
    let mut head = head(&raw)?;
    if head.has(mark::REPEATS) {
        let strings = rest.0.len().checked_sub(size_of::<abi::Repeats>())?;
        let (strings, behind) = rest.0.split_at_checked(strings)?;
        let abi::Repeats { count, first_ns, last_ns } = Bytes(behind).read()?;
        head.repeats = Some(super::Repeats { count, first_ns, last_ns });
        rest = Bytes(strings);
    }
    Some(match raw.kind {
        kind::EXEC => Record::Exec(exec(head, rest)?),
        kind::EXEC_ARGS => Record::ExecArgs(args(head, rest)?),
        kind::OPEN => Record::Open(open(head, Op::of(raw.op)?, rest)?),
        kind::PATH => Record::Path(path(head, Op::of(raw.op)?, rest)?),
        kind::EXIT => {
            let body: ExitBody = rest.read()?;
            Record::Exit(Exit { head, status: body.status, lived_ns: body.lived_ns })
        }
        kind::API => Record::Api(api(head, raw.op, rest)?),
        kind::API_BODY => Record::ApiBody(api_body(head, raw.op, rest)?),
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
        ns_tgid: raw.ns_tgid,
        ns_uid: raw.ns_uid,
        ns_gid: raw.ns_gid,
        start_ns: raw.start_ns,
        parent_start_ns: raw.parent_start_ns,
        exec_id: raw.exec_id,
        comm: raw.comm,
        repeats: None,
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

fn api(head: Head, site: u8, mut rest: Bytes<'_>) -> Option<Api<'_>> {
    let body: ApiBody = rest.read()?;
    let lengths = body.texts.iter().filter(|text| *text & abi::api_text::FAULT == 0);
    let length = lengths.map(|text| usize::from(text & abi::api_text::LENGTH)).sum();
    Some(Api {
        head,
        site,
        goroutine: body.goroutine,
        parent: body.parent,
        status: body.status,
        bytes: body.bytes,
        texts: rest.take(length)?,
        marks: body.texts,
        groups: body.groups,
    })
}

fn api_body(head: Head, whose: u8, mut rest: Bytes<'_>) -> Option<super::ApiBody<'_>> {
    let chunk: ApiChunk = rest.read()?;
    let response = match whose {
        abi::body::REQUEST => false,
        abi::body::RESPONSE => true,
        _ => return None,
    };
    let ApiChunk { goroutine, parent, offset, total, .. } = chunk;
    Some(super::ApiBody { head, response, goroutine, parent, offset, total, bytes: rest.take(chunk.len as usize)? })
}

/// An ancestor out of its bytes.
pub(super) fn ancestor(bytes: &[u8]) -> super::Ancestor {
    let raw = Bytes(bytes).read().unwrap_or(abi::Ancestor { start_ns: 0, tgid: 0, pad: 0, comm: [0; 16] });
    super::Ancestor { tgid: raw.tgid, start_ns: raw.start_ns, comm: raw.comm }
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
        same: body.same,
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
    let parts = [(&body.first, &mut first), (&body.second, &mut second)];
    // what was found lies behind what was asked for, and what was copied at the call's end behind that
    for (part, name) in parts {
        if part.real_len > 0 {
            name.walked = rest.take(part.real_len.into())?;
        }
    }
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
        same: body.same,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bpf::PathSource;

    fn bytes_of<T: Plain>(value: &T) -> Vec<u8> {
        #[expect(unsafe_code, reason = "the reverse of what is tested")]
        // SAFETY: the types have no padding.
        unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast(), size_of::<T>()) }.to_vec()
    }

    fn head_of(kind: u8, op: Op) -> Header {
        Header {
            len: 0,
            kind,
            op: op as u8,
            verdict: 1,
            pad: 0,
            marks: mark::INODE,
            tgid: 1,
            tid: 2,
            ppid: 3,
            uid: 4,
            gid: 5,
            ns_tgid: 1,
            ns_uid: 4,
            ns_gid: 5,
            pad2: 0,
            boot_ns: 6,
            cgroup: 7,
            start_ns: 8,
            parent_start_ns: 9,
            exec_id: 10,
            comm: *b"name\0\0\0\0\0\0\0\0\0\0\0\0",
        }
    }

    fn whole(kind: u8, op: Op, body: &[u8], strings: &[u8]) -> Vec<u8> {
        let mut head = head_of(kind, op);
        head.len = u32::try_from(size_of::<Header>() + body.len() + strings.len()).unwrap();
        [&bytes_of(&head)[..], body, strings].concat()
    }

    fn part(walked: u16, name: u16, name_flags: u8) -> PathPart {
        PathPart { walked_len: walked, name_len: name, walked_flags: 1, name_flags, real_len: 0 }
    }

    fn rename(first_flags: u8) -> Vec<u8> {
        let body = PathBody {
            result: -2,
            args: [1, 2, 3, 4, 5, 6],
            enter_ns: 5,
            inode: abi::Inode::default(),
            first: part(2, 3, first_flags),
            second: part(1, 2, text::PRESENT),
            nr: 82,
            xattr_len: 0,
            xattr_flags: 0,
            note: 0,
            same: [3, 4],
        };
        let late = first_flags & text::LATE != 0;
        whole(kind::PATH, Op::Rename, &bytes_of(&body), if late { b"/w/toone" } else { b"/wone/to" })
    }

    #[test]
    fn strings_are_where_they_belong() {
        for flags in [text::PRESENT, text::PRESENT | text::LATE] {
            let bytes = rename(flags);
            let Some(Record::Path(call)) = record(&bytes) else { panic!() };
            assert_eq!((call.result, call.op), (-2, Op::Rename));
            assert_eq!(&call.path.joined()[..], b"/w/one");
            assert_eq!(&call.second.unwrap().joined()[..], b"/to");
            assert_eq!((call.head.comm(), call.head.tgid), (&b"name"[..], 1));
        }
    }

    /// The same record, standing for several events.
    fn repeated(mut bytes: Vec<u8>) -> Vec<u8> {
        let repeats = bytes_of(&abi::Repeats { count: 5, first_ns: 6, last_ns: 7 });
        let marks = mark::INODE | mark::REPEATS;
        let len = u32::try_from(bytes.len() + repeats.len()).unwrap();
        bytes[..4].copy_from_slice(&len.to_ne_bytes());
        bytes[8..12].copy_from_slice(&marks.to_ne_bytes());
        [bytes, repeats].concat()
    }

    #[test]
    fn what_stands_for_several_says_so() {
        let bytes = repeated(rename(text::PRESENT));
        let Some(Record::Path(call)) = record(&bytes) else { panic!() };
        assert_eq!(&call.path.joined()[..], b"/w/one");
        assert_eq!(call.head.repeats, Some(crate::bpf::Repeats { count: 5, first_ns: 6, last_ns: 7 }));
        assert_eq!((call.head.events(), record(&rename(text::PRESENT)).unwrap().head().events()), (5, 1));
    }

    #[test]
    fn what_was_found_goes_before_what_was_asked_for() {
        let mut body = PathBody {
            result: 0,
            args: [0; 6],
            enter_ns: 5,
            inode: abi::Inode { mode: 0o100_644, ..abi::Inode::default() },
            first: part(2, 4, text::PRESENT | text::BESIDE),
            second: part(0, 3, text::PRESENT),
            nr: abi::PRECISE | 1,
            xattr_len: 0,
            xattr_flags: 0,
            note: 0,
            same: [3, 4],
        };
        body.first.real_len = 5;
        let bytes = whole(kind::PATH, Op::Renameat, &bytes_of(&body), b"/wlink/to/r/al");
        let Some(Record::Path(call)) = record(&bytes) else { panic!() };
        assert_eq!(
            (&call.path.joined()[..], call.path.name, call.path.source()),
            (&b"/r/al"[..], &b"link"[..], PathSource::Kernel)
        );
        let second = call.second.unwrap();
        assert_eq!((&second.joined()[..], second.source()), (&b"/to"[..], PathSource::Argument));
        assert_eq!((call.before.unwrap().mode, call.same), (0o100_644, [3, 4]));
        for len in 0..bytes.len() {
            assert!(record(&bytes[..len]).is_none());
        }
    }

    #[test]
    fn damage_is_no_panic() {
        let open = OpenBody {
            result: 3,
            flags: 0,
            inode: abi::Inode::default(),
            mode: 0,
            dirfd: 0,
            walked_len: 4,
            name_len: 0,
            walked_flags: 1,
            name_flags: 0,
            pad: [0; 2],
            same: 5,
            pad_end: 0,
        };
        let exec = ExecBody {
            inode: abi::Inode::default(),
            args_total: 3,
            args_len: 3,
            args_before: 0,
            exe_len: 2,
            filename_len: 1,
            cwd_len: 1,
            exe_flags: 1,
            cwd_flags: 1,
            ancestors: 1,
            old_tid: 1,
        };
        let ancestor = bytes_of(&abi::Ancestor { start_ns: 1, tgid: 1, pad: 0, comm: [65; 16] });
        let all = [
            rename(text::PRESENT),
            whole(kind::OPEN, Op::Openat, &bytes_of(&open), b"/etc"),
            repeated(whole(kind::OPEN, Op::Openat, &bytes_of(&open), b"/etc")),
            whole(kind::EXEC, Op::Open, &bytes_of(&exec), &[&ancestor[..], b"/xx/abc"].concat()),
            whole(kind::EXEC_ARGS, Op::Open, &bytes_of(&ArgsBody { offset: 0, len: 3 }), b"abc"),
            whole(
                kind::API_BODY,
                Op::Open,
                &bytes_of(&ApiChunk { goroutine: 1, parent: 2, offset: 3, total: 9, len: 3, pad: 0 }),
                b"abc",
            ),
            whole(kind::EXIT, Op::Open, &bytes_of(&ExitBody { status: 256, pad: 0, lived_ns: 1 }), b""),
        ];
        for good in all {
            assert!(record(&good).is_some());
            for len in 0..good.len() {
                assert!(record(&good[..len]).is_none());
            }
            for at in 4..good.len() {
                for value in [0, 1, 0x7f, 0xff] {
                    let mut bad = good.clone();
                    bad[at] = value;
                    if let Some(record) = record(&bad) {
                        let _ = format!("{record:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn continuations_are_put_together_up_to_a_gap() {
        let part = |tgid: u32, offset: u32, bytes: &'static [u8]| {
            let mut raw = head_of(kind::EXEC_ARGS, Op::Open);
            raw.tgid = tgid;
            ExecArgs { head: head(&raw).unwrap(), offset, bytes }
        };
        let inline = u32::try_from(abi::ARGS_INLINE).unwrap();
        let exec = |tgid: u32| {
            let mut raw = head_of(kind::EXEC, Op::Open);
            raw.tgid = tgid;
            Exec {
                head: head(&raw).unwrap(),
                exe: PathName { walked: b"/x", walked_flags: 1, name: b"", name_flags: 0 },
                filename: b"x",
                cwd: PathName { walked: b"/", walked_flags: 1, name: b"", name_flags: 0 },
                inode: None,
                args: b"first,",
                args_before: 1,
                args_total: 99,
                ancestors: Ancestors(&[]),
                old_tid: tgid,
            }
        };
        let mut args = super::super::Args::default();
        args.push(&part(1, inline, b"a"));
        args.push(&part(2, inline, b"x"));
        args.push(&part(1, inline + 1, b"b"));
        args.push(&part(2, inline + 2, b"after a gap"));
        args.push(&part(3, inline + 1, b"without a start"));
        assert_eq!(&args.join(&exec(1))[..], b"first,ab");
        assert_eq!(&args.join(&exec(2))[..], b"first,x");
        assert_eq!(&args.join(&exec(3))[..], b"first,");
        // asked for once
        assert_eq!(&args.join(&exec(1))[..], b"first,");
    }
}
