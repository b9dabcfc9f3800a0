//! What is told once: that a process writes through an open file, and that it maps a file to be executed. What comes after is like
//! the first.
//!
//! Nothing may be taken for told that wasn't. So a file is known by more than its address, which another one may have later: by when
//! it was first written to, which is forgotten when it is closed, and by its inode; a name by its folder and its hash. A process is
//! told anew once it executes another program. Where in doubt, it is told a second time.

use aya_ebpf::maps::LruHashMap;
use knark_abi::{Header, Inode, NO_PART, Op, PathBody, effect, kind, mark};

use crate::{
    file::{self, Place},
    head,
    kernel::{self, Entry, config, field, offset, read, typed},
    maps::{FILES, MAPPINGS, WRITERS},
    record::{self, Out},
    same, scratch, storm,
    walk::knark_walk,
    wanted::{self, Wanted, knark_wanted_walked},
};

/// `FMODE_WRITE`
const FMODE_WRITE: u32 = 2;
/// `S_IFMT` and `S_IFREG`
const FORMAT: u16 = 0o170_000;
const REGULAR: u16 = 0o100_000;
/// `PROT_*`
const PROT_READ: u64 = 1;
const PROT_WRITE: u64 = 2;
const PROT_EXEC: u64 = 4;
/// `READ_IMPLIES_EXEC`
const READ_IMPLIES_EXEC: u32 = 0x40_0000;
/// `MNT_NS_INTERNAL`: a mount of the kernel's own.
const INTERNAL: u64 = 0u64.wrapping_sub(22);
/// `BPF_NOEXIST`, and what it gives where there is one.
const NEW: u64 = 1;
const EEXIST: i32 = -17;
/// Of [`knark_first_write`] and [`knark_first_mapping`].
const TAKE_BACK: u32 = 1;

/// An open file that was written to.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct OpenFile {
    /// When that was first seen.
    since: u64,
    inode: u64,
}

/// Who wrote to which file, under which name.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Writer {
    who: Who,
    file: u64,
    since: u64,
    folder: u64,
    name: u64,
    is_forbidden: u64,
}

/// Who mapped which file, under which name, in which state of its contents.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Mapping {
    who: Who,
    mnt: u64,
    folder: u64,
    name: u64,
    inode: u64,
    number: u64,
    changed_sec: u64,
    changed_nsec: u32,
    is_forbidden: u32,
}

/// A process, while it runs one program as one user.
#[repr(C)]
#[derive(Clone, Copy)]
struct Who {
    start_ns: u64,
    exec_id: u64,
    tgid: u32,
    uid: u32,
}

/// What is done.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Deed {
    /// See [`Header::op`].
    op: u8,
    /// See [`effect`].
    effect: u8,
    /// See [`Header::verdict`].
    verdict: u8,
    pad: u8,
    /// See [`mark`].
    marks: u32,
    /// 0, or the error with which a security module forbids it.
    result: i64,
    /// `PROT_*` and `MAP_*` of a mapping.
    prot: u64,
    flags: u64,
    /// The file's.
    place: Place,
}

/// How it comes about.
#[derive(Clone, Copy)]
pub struct Way {
    /// The operation ([`Op`]), where the current task is in no system call that says it.
    pub op: u8,
    /// Whether the system call is known to be that of the operation.
    pub is_call: bool,
    /// See [`Deed::result`].
    pub result: i64,
    /// `PROT_*` and `MAP_*` of a mapping, else 0.
    pub prot: u64,
    /// See `prot`.
    pub flags: u64,
}

/// The current task, which that verdict has let through, is about to write to a file (`struct file *`).
#[inline(always)]
pub fn written(verdict: u8, file: u64, way: Way) {
    if wanted::effect(effect::WRITE) != Wanted::No {
        write(verdict, file, way);
    }
}

/// The same of a mapping. `is_shared`: what is written there goes to the file.
#[inline(always)]
pub fn mapped(verdict: u8, file: u64, is_shared: bool, way: Way) {
    let may_write = || field!(file, file_f_mode as u32).unwrap_or(FMODE_WRITE) & FMODE_WRITE != 0;
    if wanted::effect(effect::WRITE) != Wanted::No && is_shared && way.prot & PROT_WRITE != 0 && may_write() {
        write(verdict, file, way);
    }
    let implied = || field!(kernel::current(), task_personality as u32).unwrap_or(0) & READ_IMPLIES_EXEC != 0;
    if wanted::effect(effect::MAP_EXEC) != Wanted::No && (way.prot & PROT_EXEC != 0 || way.prot & PROT_READ != 0 && implied()) {
        map_code(verdict, file, way);
    }
}

/// The file is closed, as far as can be told, or was opened just now: what comes through it is told anew.
#[inline(always)]
pub fn forget(file: u64) {
    // Looking is cheaper than removing.
    if FILES.get_ptr(file).is_some() {
        let _ = FILES.remove(file);
    }
}

#[inline(always)]
fn write(verdict: u8, file: u64, way: Way) {
    let is_forbidden = u32::from(way.result < 0);
    if knark_first_write(file, is_forbidden, 0) == 0 {
        return;
    }
    let place = if way.op == Op::Mprotect as u8 {
        // A mapping of an overlay's file is to the kernel one of the file behind, and nothing else tells of it.
        shown(file)
    } else {
        file::place(file + offset!(file_f_path)).filter(|place| !is_behind(file, *place))
    };
    let Some(place) = place else { return };
    if !tell(verdict, effect::WRITE, way, place) {
        knark_first_write(file, is_forbidden, TAKE_BACK);
    }
}

/// Notes that the current process writes through this open file, and gives 1 if that is new and the file a regular one. With
/// [`TAKE_BACK`]: takes the note back.
///
/// Global, so that its memory on the stack is free again when more is done.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn knark_first_write(file: u64, is_forbidden: u32, take_back: u32) -> u32 {
    writer(file, is_forbidden).map_or(0, |writer| note(&WRITERS, &writer, take_back))
}

#[inline(always)]
fn writer(file: u64, is_forbidden: u32) -> Option<Writer> {
    let inode = field!(file, file_f_inode)?;
    if !is_regular(inode) {
        return None;
    }
    let dentry = file::place(file + offset!(file_f_path))?.dentry;
    let [folder, name] = parent_and_name(dentry)?;
    Some(Writer { who: who(), file, since: since(file, inode), folder, name, is_forbidden: u64::from(is_forbidden) })
}

/// The folder of a dentry, and hash and length of its name.
#[inline(always)]
fn parent_and_name(dentry: u64) -> Option<[u64; 2]> {
    // struct dentry { ..; struct dentry *d_parent; struct qstr { u32 hash; u32 len; const char *name; } d_name; .. }
    read(dentry + offset!(dentry_d_parent))
}

#[inline(always)]
fn is_regular(inode: u64) -> bool {
    field!(inode, inode_i_mode as u16).is_some_and(|mode| mode & FORMAT == REGULAR)
}

#[inline(always)]
fn note<K>(told: &LruHashMap<K, u8>, key: &K, take_back: u32) -> u32 {
    if take_back != 0 {
        let _ = told.remove(key);
        return 0;
    }
    // Another CPU may be faster. Where the map has no room at all, it is told.
    u32::from(told.get_ptr(key).is_none() && told.insert(key, 1, NEW) != Err(EEXIST))
}

/// When this open file was first written to.
#[inline(always)]
fn since(file: u64, inode: u64) -> u64 {
    if let Some(known) = FILES.get_ptr(file) {
        // SAFETY: a map's value, made of integers; if it is another's by now, that one is told a second time.
        let known = unsafe { *known };
        if known.inode == inode {
            return known.since;
        }
    }
    let since = head::now();
    let _ = FILES.insert(file, OpenFile { since, inode }, 0);
    since
}

/// Whether a file system has opened the file for itself, to carry out what is done to a file of its own, as overlays do: in a mount
/// of the kernel's own, or, before 6.7, under the name of its own file.
#[inline(always)]
fn is_behind(file: u64, place: Place) -> bool {
    field!(file, file_f_inode) != field!(place.dentry, dentry_d_inode) || is_internal(place)
}

/// Whether a file has a folder, in a mount of the kernel's own: what lives in memory only is in such mounts, too, and in no folder.
#[inline(always)]
fn is_internal(place: Place) -> bool {
    field!(place.mnt - offset!(mount_mnt), mount_mnt_ns) == Some(INTERNAL)
        && field!(place.dentry, dentry_d_parent) != Some(place.dentry)
}

/// Where the file is to those who opened it, and not only to the file system that opened it for itself.
#[inline(always)]
fn shown(file: u64) -> Option<Place> {
    let user_path = offset!(backing_user_path);
    let place = file::place(file + offset!(file_f_path))?;
    if user_path != 0 && is_internal(place) {
        return Some(file::place(file + user_path).unwrap_or(place));
    }
    Some(place)
}

#[inline(always)]
fn map_code(verdict: u8, file: u64, way: Way) {
    if !way.is_call && kernel::entry().executes() {
        return;
    }
    let Some(place) = shown(file) else { return };
    let is_forbidden = u32::from(way.result < 0);
    if knark_first_mapping(place.mnt, place.dentry, is_forbidden, 0) != 0 && !tell(verdict, effect::MAP_EXEC, way, place) {
        knark_first_mapping(place.mnt, place.dentry, is_forbidden, TAKE_BACK);
    }
}

/// The same as [`knark_first_write`], of mapping the file of this dentry in this mount to execute it.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn knark_first_mapping(mnt: u64, dentry: u64, is_forbidden: u32, take_back: u32) -> u32 {
    mapping(mnt, dentry, is_forbidden).map_or(0, |mapping| note(&MAPPINGS, &mapping, take_back))
}

#[inline(always)]
fn mapping(mnt: u64, dentry: u64, is_forbidden: u32) -> Option<Mapping> {
    let inode = field!(dentry, dentry_d_inode)?;
    if !is_regular(inode) {
        return None;
    }
    let [folder, name] = parent_and_name(dentry)?;
    Some(Mapping {
        who: who(),
        mnt,
        folder,
        name,
        inode,
        number: field!(inode, inode_i_ino)?,
        changed_sec: field!(inode, inode_ctime_sec)?,
        changed_nsec: field!(inode, inode_ctime_nsec as u32)?,
        is_forbidden,
    })
}

/// Tells it, if it is wanted. Gives false if it is lost.
#[inline(always)]
fn tell(verdict: u8, effect: u8, way: Way, place: Place) -> bool {
    // SAFETY: the scratch memory is this program's own.
    let done = scratch::with(|s, number| unsafe {
        let Some((op, marks)) = name(way) else { return true };
        let marks = if effect == effect::MAP_EXEC { marks | mark::CODE } else { marks };
        (*s).deed = Deed { op, effect, verdict, pad: 0, marks, result: way.result, prot: way.prot, flags: way.flags, place };
        if knark_describe(number) == 0 || knark_begin(number) == 0 || knark_file(number) == 0 {
            return true;
        }
        if storm::holds_back(s, number, kind::PATH) {
            // If it was too much, it is lost.
            return config!(event_ns) == 0;
        }
        Out::emit(&raw mut (*s).out, kind::PATH, record::QUIET)
    });
    if done.is_none() {
        record::seen(kind::PATH);
        record::no_room(kind::PATH);
    }
    done == Some(true)
}

/// The operation and marks; None if no process does it.
#[inline(always)]
fn name(way: Way) -> Option<(u8, u32)> {
    let op = way.op;
    if way.is_call {
        return Some((op, 0));
    }
    match kernel::entry() {
        Entry::Kernel => None,
        Entry::IoUring => Some((op, mark::IO_URING)),
        Entry::Compat(_) => Some((op, mark::COMPAT)),
        Entry::Call(nr) => {
            let own = kernel::call(nr).op;
            Some(if Op::is_told_once(own) { (own, 0) } else { (op, mark::OTHER_CALL) })
        }
    }
}

#[inline(always)]
fn who() -> Who {
    let (tgid, _) = kernel::ids();
    Who {
        start_ns: typed!(task_group_leader => task_start_boottime as u64),
        exec_id: typed!(task_group_leader => task_self_exec_id as u64),
        tgid,
        uid: typed!(task_cred => cred_euid as u32),
    }
}

/// Makes the body of the deed's record in that scratch memory. Gives 0 if it isn't wanted.
///
/// Global, so that the verifier looks at it once; and apart from what comes next, so that they share memory on the stack.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn knark_describe(number: u32) -> u32 {
    let Some(s) = scratch::of(number) else { return 0 };
    // SAFETY: `s` is the caller's own scratch memory.
    unsafe {
        let deed = &raw const (*s).deed;
        let effect = (*deed).effect;
        let same = same::of((*deed).place.dentry);
        knark_walk(number, kernel::current(), (*deed).place.mnt, (*deed).place.dentry);
        let by_path = wanted::effect(effect) == Wanted::ByPath && !same::is_wanted(same, effect);
        if by_path && knark_wanted_walked(number, u32::from(effect)) == 0 {
            return 0;
        }
        let out = &raw mut (*s).out;
        let body = Out::body::<PathBody>(out);
        (*body).result = (*deed).result;
        (*body).args = [0, 0, (*deed).prot, (*deed).flags, 0, 0];
        (*body).first = NO_PART;
        (*body).second = NO_PART;
        (*body).nr = 0;
        (*body).xattr_len = 0;
        (*body).xattr_flags = 0;
        (*body).note = effect;
        (*body).same = [same, 0];
        let w = &raw mut (*s).walk;
        (*body).first.walked_len = Out::walked(out, w);
        (*body).first.walked_flags = (*w).flags;
    }
    1
}

/// Counts the deed in that scratch memory, and puts before its record's body who did it.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn knark_begin(number: u32) -> u32 {
    let Some(s) = scratch::of(number) else { return 0 };
    record::seen(kind::PATH);
    // SAFETY: `s` is the caller's own scratch memory.
    unsafe {
        let deed = &raw const (*s).deed;
        let out = &raw mut (*s).out;
        let head = Out::head(out);
        head::fill(head, kind::PATH, (*deed).op, (*deed).verdict);
        (*head).marks = (*deed).marks;
        (*Out::at::<PathBody>(out)).enter_ns = (*head).boot_ns;
    }
    1
}

/// Puts into the record what file it is.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn knark_file(number: u32) -> u32 {
    let Some(s) = scratch::of(number) else { return 0 };
    // SAFETY: `s` is the caller's own scratch memory.
    unsafe {
        let out = &raw mut (*s).out;
        let body = Out::at::<PathBody>(out);
        (*body).inode = Inode { ino: 0, size: 0, dev: 0, mode: 0, uid: 0, gid: 0 };
        file::inode(Out::head(out), &raw mut (*body).inode, (*s).deed.place.dentry);
    }
    1
}

const _: () = assert!(size_of::<Writer>() == 64 && size_of::<Mapping>() == 80 && size_of::<Deed>() == 48);
const _: () = assert!(size_of::<Header>() + size_of::<PathBody>() < 0x200, "where strings begin");
