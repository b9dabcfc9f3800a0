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
    scratch::{self, Scratch},
    storm,
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

/// Who mapped which file, in which state of its contents.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Mapping {
    who: Who,
    inode: u64,
    number: u64,
    changed_sec: u64,
    changed_nsec: u32,
    is_forbidden: u32,
}

/// A process, while it runs one program.
#[repr(C)]
#[derive(Clone, Copy)]
struct Who {
    start_ns: u64,
    exec_id: u64,
    tgid: u64,
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
    if wanted::effect(effect::MAP_EXEC) != Wanted::No
        && (way.prot & PROT_EXEC != 0 || way.prot & PROT_READ != 0 && implied())
    {
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
fn write(verdict: u8, file: u64, way: Way) -> Option<()> {
    let inode = field!(file, file_f_inode)?;
    if field!(inode, inode_i_mode as u16)? & FORMAT != REGULAR {
        return None;
    }
    let place = file::place(file + offset!(file_f_path))?;
    // struct dentry { ..; struct dentry *d_parent; struct qstr { u32 hash; u32 len; const char *name; } d_name; .. }
    let [folder, name] = read::<[u64; 2]>(place.dentry + offset!(dentry_d_parent))?;
    let since = since(file, inode);
    let writer = Writer { who: who(), file, since, folder, name, is_forbidden: u64::from(way.result < 0) };
    if WRITERS.get_ptr(writer).is_none() {
        tell(&WRITERS, writer, verdict, effect::WRITE, way, place, is_behind(inode, place, folder));
    }
    Some(())
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
fn is_behind(inode: u64, place: Place, folder: u64) -> bool {
    let of_mount = || field!(place.mnt - offset!(mount_mnt), mount_mnt_ns) == Some(INTERNAL);
    // What lives in memory only is in such a mount, too, and in no folder.
    field!(place.dentry, dentry_d_inode) != Some(inode) || folder != place.dentry && of_mount()
}

#[inline(always)]
fn map_code(verdict: u8, file: u64, way: Way) -> Option<()> {
    let mut place = file::place(file + offset!(file_f_path))?;
    let user_path = offset!(backing_user_path);
    if user_path != 0 && field!(place.mnt - offset!(mount_mnt), mount_mnt_ns)? == INTERNAL {
        let folder = field!(place.dentry, dentry_d_parent)?;
        if folder != place.dentry {
            place = file::place(file + user_path)?;
        }
    }
    let inode = field!(place.dentry, dentry_d_inode)?;
    if field!(inode, inode_i_mode as u16)? & FORMAT != REGULAR {
        return None;
    }
    let mapping = Mapping {
        who: who(),
        inode,
        number: field!(inode, inode_i_ino)?,
        changed_sec: field!(inode, inode_ctime_sec)?,
        changed_nsec: field!(inode, inode_ctime_nsec as u32)?,
        is_forbidden: u32::from(way.result < 0),
    };
    if MAPPINGS.get_ptr(mapping).is_none() && !(!way.is_call && kernel::entry().executes()) {
        tell(&MAPPINGS, mapping, verdict, effect::MAP_EXEC, way, place, false);
    }
    Some(())
}

/// Tells it, unless another CPU was faster. `is_nobodys`: not even that.
#[inline(always)]
fn tell<K>(told: &LruHashMap<K, u8>, key: K, verdict: u8, effect: u8, way: Way, place: Place, is_nobodys: bool)
where
    K: Copy,
{
    // SAFETY: the scratch memory is this program's own.
    let done = scratch::with(|s, number| unsafe {
        if told.insert(key, 1, NEW) == Err(EEXIST) || is_nobodys {
            return;
        }
        let Some((op, marks)) = name(way) else { return };
        let marks = if effect == effect::MAP_EXEC { marks | mark::CODE } else { marks };
        (*s).deed = Deed { op, effect, verdict, pad: 0, marks, result: way.result, prot: way.prot, flags: way.flags, place };
        if knark_tell(number) == 0 {
            let _ = told.remove(key);
        }
    });
    if done.is_none() {
        record::seen(kind::PATH);
        record::no_room(kind::PATH);
    }
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
        tgid: u64::from(tgid),
    }
}

/// Hands over the record of the deed in that scratch memory, if it is wanted. Gives 0 if it was to be told and is lost: then the next
/// one like it is told.
///
/// Global, so that the verifier looks at it once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn knark_tell(number: u32) -> u32 {
    let Some(s) = scratch::of(number) else { return 0 };
    // SAFETY: `s` is the caller's own scratch memory.
    u32::from(unsafe { report(s, number) })
}

/// # Safety
/// `s` must be the scratch memory of that number.
#[inline(always)]
unsafe fn report(s: *mut Scratch, number: u32) -> bool {
    // SAFETY: by this function's contract.
    unsafe {
        let deed = &raw const (*s).deed;
        let effect = (*deed).effect;
        let dentry = (*deed).place.dentry;
        knark_walk(number, kernel::current(), (*deed).place.mnt, dentry);
        if wanted::effect(effect) == Wanted::ByPath && knark_wanted_walked(number, u32::from(effect)) == 0 {
            return true;
        }
        record::seen(kind::PATH);
        let out = &raw mut (*s).out;
        let head = Out::head(out);
        let body = Out::body::<PathBody>(out);
        head::fill(head, kind::PATH, (*deed).op, (*deed).verdict);
        (*head).marks = (*deed).marks;
        (*body).result = (*deed).result;
        (*body).args = [0, 0, (*deed).prot, (*deed).flags, 0, 0];
        (*body).enter_ns = (*head).boot_ns;
        (*body).inode = Inode { ino: 0, size: 0, dev: 0, mode: 0, uid: 0, gid: 0 };
        (*body).first = NO_PART;
        (*body).second = NO_PART;
        (*body).nr = 0;
        (*body).xattr_len = 0;
        (*body).xattr_flags = 0;
        (*body).note = effect;
        let w = &raw mut (*s).walk;
        (*body).first.walked_len = Out::walked(out, w);
        (*body).first.walked_flags = (*w).flags;
        file::inode(head, &raw mut (*body).inode, dentry);
        if storm::holds_back(s, number, kind::PATH) {
            // If it was too much, it is lost.
            return config!(event_ns) == 0;
        }
        Out::emit(out, kind::PATH, record::QUIET)
    }
}

const _: () = assert!(size_of::<Writer>() == 64 && size_of::<Mapping>() == 56 && size_of::<Deed>() == 48);
const _: () = assert!(size_of::<Header>() + size_of::<PathBody>() < 0x200, "where strings begin");
