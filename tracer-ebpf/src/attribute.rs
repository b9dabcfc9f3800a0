//! The precise tier's extended attributes.
//!
//! The kernel's functions for them are given the file without its mount, which the path can't be told without. But just before,
//! the kernel asks that mount for leave to write: there it is noted.

use knark_abi::{Op, PRECISE, effect, kind, mark, note};

use crate::{
    begun,
    call::argument,
    file::Place,
    kernel::{self, Entry, field, offset},
    maps::MOUNTS,
    precise::{self, knark_real},
    probes,
    record::{self, Out},
    scope,
    scratch::{self, Scratch},
    wanted::{self, Wanted},
};

/// `ERR_PTR`: the largest errno.
const ERRORS: u64 = 4095;

/// Leave to write to this mount is asked for. It is noted if that may be for an extended attribute.
#[inline(always)]
pub fn mount(mnt: impl FnOnce() -> u64) {
    if scope::admit().is_none() {
        return;
    }
    let may_be = match kernel::entry() {
        Entry::Call(nr) => matches!(kernel::call(nr).effect, effect::SETXATTR | effect::REMOVEXATTR),
        Entry::Compat(nr) => changes(nr),
        Entry::IoUring => true,
        Entry::Kernel => false,
    };
    if may_be {
        // Of a thread that there is no room for, the path is what it asked for.
        let _ = MOUNTS.insert(kernel::pid_tgid(), mnt(), 0);
    }
}

/// An attribute is about to be changed. `fill` puts down the dentry, then what follows the descriptor in a system call that does
/// this. What a system call of this architecture does has its record already.
#[inline(always)]
pub fn begin(op: Op, fill: impl FnOnce(*mut [u64; 6])) {
    if kernel::tried(op as u8) {
        return;
    }
    let Some(verdict) = scope::admit() else { return };
    let key = kernel::pid_tgid();
    let mnt = match MOUNTS.get_ptr(key) {
        // SAFETY: a map's value, and no other thread uses this key.
        Some(mnt) => unsafe { *mnt },
        None => 0,
    };
    if mnt != 0 {
        let _ = MOUNTS.remove(key);
    }
    let by = match kernel::entry() {
        Entry::Compat(_) => mark::COMPAT,
        Entry::IoUring => mark::IO_URING,
        _ => 0,
    };
    // SAFETY: the scratch memory is this program's own.
    let done = scratch::with(|s, number| unsafe {
        fill(&raw mut (*s).args);
        let at = Place { mnt, dentry: argument(s, 0) };
        // Else it is part of what was begun before, or of something else.
        let is_asked = mnt != 0 && !is_internal(mnt) && shares_file_system(mnt, at.dentry);
        if by == 0 || !is_asked {
            let nr = kernel::number(op);
            precise::add(s, number, kernel::call(nr).effect, nr | PRECISE, at);
        } else {
            enter(s, number, op, by, verdict, at);
        }
    });
    if done.is_none() && !begun::miss(kernel::call(kernel::number(op)).effect) && by != 0 && mnt != 0 {
        record::seen(kind::PATH);
        record::no_room(kind::PATH);
    }
}

/// # Safety
/// `s` must be the scratch memory of that number.
#[inline(always)]
unsafe fn enter(s: *mut Scratch, number: u32, op: Op, by: u32, verdict: u8, at: Place) {
    // SAFETY: by this function's contract.
    unsafe {
        let effect = kernel::call(kernel::number(op)).effect;
        let wanted = wanted::effect(effect);
        if wanted == Wanted::No {
            begun::forget();
            return;
        }
        let (head, body) = precise::blank(s, op, verdict);
        let out = &raw mut (*s).out;
        (*head).marks |= by;
        (*body).args[0] = 0;
        let (len, flags) = Out::copied_string(out, argument(s, 1));
        (*body).xattr_len = len;
        (*body).xattr_flags = flags;
        knark_real(number, at.mnt, at.dentry, 0);
        let is_wanted = wanted == Wanted::Yes || probes::by_path(number, body, effect);
        (*body).note = if is_wanted { effect | note::WANTED } else { effect };
        (*head).len = Out::len(out) as u32;
        begun::keep(out);
    }
}

/// Whether a 32-bit call of that number changes an extended attribute: setxattr, removexattr and their kin.
#[inline(always)]
fn changes(nr: u32) -> bool {
    matches!(nr, 226..=228 | 235..=237 | 463 | 466)
}

/// Whether a dentry can lie in a mount. What a file system does on another one to carry out a call may not.
#[inline(always)]
fn shares_file_system(mnt: u64, dentry: u64) -> bool {
    let of = |dentry: u64| field!(field!(dentry, dentry_d_inode)?, inode_i_sb);
    let root = field!(mnt, vfsmount_mnt_root).and_then(of);
    root.is_some() && root == of(dentry)
}

/// Whether a mount is the kernel's own: what happens there was asked of another one, by an overlay for example, which copies
/// attributes when it copies a file.
#[inline(always)]
fn is_internal(mnt: u64) -> bool {
    // `MNT_NS_INTERNAL` is an error in place of a pointer.
    field!(mnt - offset!(mount_mnt), mount_mnt_ns).is_none_or(|namespace| namespace >= 0u64.wrapping_sub(ERRORS))
}
