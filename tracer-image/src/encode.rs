//! Records of the kernel as items of the stream.

use std::{borrow::Cow, collections::BTreeSet};

use knark_specs::{
    frame::{self, Exec, Exit, File, FileOp, Item, Path, Repeats},
    path,
};
use minicbor::bytes::ByteSlice;

use crate::{
    batch,
    bpf::{self, Op, PathName, PathSource, mark, text},
    same::Paths,
};

/// So many watched paths of its files an event tells, of each as many.
const SAME_AS: usize = 32;

/// Encodes an exec, whose process has just been defined in `process`.
pub fn exec(record: &bpf::Exec<'_>, process: u32, batch: &mut Vec<u8>) {
    let inode = record.inode.as_ref();
    let item = Item::Exec(Exec {
        time_ns: record.head.boot_ns,
        process,
        filename: record.filename,
        inode: inode.map_or(0, |i| i.ino),
        device: inode.map_or(0, device),
        mode: inode.map_or(0, |i| i.mode),
        uid: inode.map_or(0, |i| i.uid),
        gid: inode.map_or(0, |i| i.gid),
        deleted: record.exe.deleted() && !record.memfd(),
        exe_cut: record.exe.cut(),
    });
    batch::put(&item, batch);
}

/// Encodes an exit.
pub fn exit(record: &bpf::Exit, process: u32, batch: &mut Vec<u8>) {
    batch::put(&Item::Exit(Exit { time_ns: record.head.boot_ns, process, code: record.status }), batch);
}

/// Encodes an open, failed or not. `comm` is the process's name, `watched` holds the watched paths of its file.
pub fn open(record: &bpf::Open<'_>, process: u32, comm: &[u8], watched: &[Paths], batch: &mut Vec<u8>) {
    let opened = open_path(record);
    let path = described(&record.path, &opened);
    let same_as = same_as(watched, &opened, None);
    let path = match opened {
        Cow::Owned(_) => Path { argument: true, ..path },
        Cow::Borrowed(_) => Path { asked: b"", ..path },
    };
    let inode = record.inode.as_ref();
    let item = Item::File(File {
        path: Path { raced: raced(record), ..path },
        flags: Some(u64::from(record.flags)),
        created: record.created(),
        mode: inode.map(|i| i.mode),
        uid: inode.map(|i| i.uid),
        gid: inode.map(|i| i.gid),
        inode: inode.map(|i| i.ino),
        device: inode.map(device),
        same_as,
        ..file(&record.head, process, comm, record.file_op(), i64::from(record.result), record.op)
    });
    batch::put(&item, batch);
}

/// Encodes a call that names a file, or changes one through its descriptor. `comm` is the process's name, `watched` holds the watched
/// paths of its files.
pub fn path_call(record: &bpf::PathCall<'_>, process: u32, comm: &[u8], watched: &[Paths], batch: &mut Vec<u8>) {
    let (from, to) = call_paths(record);
    let path = described(&record.path, &from);
    let second = record.second.as_ref().zip(to.as_ref()).map(|(second, to)| described(second, to));
    let owner = |id: u32| (id != u32::MAX).then_some(id);
    let before = record.before.as_ref();
    let item = Item::File(File {
        path: Path { raced: record.head.has(mark::FD_SHARED | mark::FD_EMPTY), ..path },
        to: second,
        flags: record.flags().map(u64::from),
        mode: record.new_mode(),
        old_mode: before.map(|i| i.mode).filter(|_| record.new_mode().is_some()),
        uid: record.new_owner().and_then(|(uid, _)| owner(uid)),
        gid: record.new_owner().and_then(|(_, gid)| owner(gid)),
        old_uid: before.map(|i| i.uid).filter(|_| record.new_owner().is_some()),
        old_gid: before.map(|i| i.gid).filter(|_| record.new_owner().is_some()),
        inode: before.map(|i| i.ino),
        device: before.map(device),
        size: record.new_size(),
        xattr: record.xattr.as_ref().map_or(b"", |xattr| xattr.name),
        same_as: same_as(watched, &from, to.as_deref()),
        ..file(&record.head, process, comm, record.file_op(), record.result, record.op)
    });
    batch::put(&item, batch);
}

/// The watched paths but for the event's own, which it says already.
fn same_as<'a>(watched: &'a [Paths], own: &[u8], other: Option<&[u8]>) -> Option<Vec<&'a ByteSlice>> {
    // Their order stays: what must not be cut comes first.
    let each = SAME_AS / watched.len().max(1);
    let of_one = |paths: &'a Paths| {
        let others = paths.iter().map(AsRef::as_ref).filter(|path: &&[u8]| *path != own && Some(*path) != other);
        others.take(each).collect::<Vec<&[u8]>>()
    };
    let mut seen = BTreeSet::new();
    let paths: Vec<&[u8]> = watched.iter().flat_map(of_one).filter(|path| seen.insert(*path)).collect();
    (!paths.is_empty()).then(|| paths.into_iter().map(<&ByteSlice>::from).collect())
}

/// The path that an open's event says: borrowed if the kernel resolved it, owned if it is made of the argument.
pub fn open_path<'a>(record: &bpf::Open<'a>) -> Cow<'a, [u8]> {
    if record.result < 0 || record.head.has(mark::FD_EMPTY) {
        Cow::Owned(path::join(record.path.walked, record.path.name))
    } else {
        // Of an open that succeeded the walked path is the file itself, whatever the argument was.
        Cow::Borrowed(record.path.walked)
    }
}

/// The path that a path call's event says, and the other one of a call with two.
pub fn call_paths<'a>(record: &bpf::PathCall<'a>) -> (Cow<'a, [u8]>, Option<Cow<'a, [u8]>>) {
    let whole = |name: &PathName<'a>| match name.source() {
        PathSource::Kernel => Cow::Borrowed(name.walked),
        PathSource::Argument => Cow::Owned(path::join(name.walked, name.name)),
    };
    let to = record.second.as_ref().map(|second| match record.op {
        // What a symbolic link says is no path yet: it stands as it is.
        Op::Symlink | Op::Symlinkat => Cow::Borrowed(second.name),
        _ => whole(second),
    });
    (whole(&record.path), to)
}

fn file<'a>(head: &'a bpf::Head, process: u32, comm: &[u8], op: FileOp, result: i64, call: Op) -> File<'a> {
    File {
        time_ns: head.boot_ns,
        process,
        tid: head.tid,
        op,
        result,
        path: Path::default(),
        to: None,
        flags: None,
        created: false,
        mode: None,
        old_mode: None,
        uid: None,
        gid: None,
        old_uid: None,
        old_gid: None,
        inode: None,
        device: None,
        size: None,
        xattr: b"",
        thread: if head.tid != head.tgid && head.comm() != comm { head.comm() } else { b"" },
        syscall: match head.marks {
            marks if marks & mark::IO_URING != 0 => "io_uring",
            marks if marks & mark::COMPAT != 0 => "32-bit",
            marks if marks & mark::OTHER_CALL != 0 => "other",
            _ => bpf::call_name(call),
        },
        repeats: head.repeats.map(|bpf::Repeats { count, first_ns, last_ns }| Repeats { count, first_ns, last_ns }),
        same_as: None,
    }
}

fn described<'a>(name: &PathName<'a>, path: &'a [u8]) -> frame::Path<'a> {
    Path {
        path,
        argument: name.source() == PathSource::Argument,
        deleted: name.deleted(),
        cut: name.cut(),
        unreachable: name.outside(),
        late: name.name_flags & text::LATE != 0,
        raced: false,
        asked: if name.name == path { b"" } else { name.name },
    }
}

/// Another thread shares the table of descriptors, and the file found there isn't called what was asked for: a symbolic
/// link, or a close and dup2 in between.
fn raced(record: &bpf::Open<'_>) -> bool {
    let last = |path: &[u8]| path.rsplit(|b| *b == b'/').find(|part| !part.is_empty()).map(<[u8]>::to_vec);
    record.head.has(mark::FD_EMPTY) || record.racy() && record.result >= 0 && last(record.path.walked) != last(record.path.name)
}

fn device(inode: &bpf::Inode) -> u32 {
    inode.major << 20 | inode.minor & 0xf_ffff
}
