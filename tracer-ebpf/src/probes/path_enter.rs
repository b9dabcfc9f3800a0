//! The beginnings of path calls: their arguments, before another thread can change them.
//!
//! The record is built here and kept until the call ends, when only its result is missing.

use aya_ebpf::{helpers::generated, macros::tracepoint, programs::TracePointContext};
use knark_abi::{Call, Header, INFLIGHT_SMALL, Inode, Op, PathBody, PathPart, effect, kind, mark, text, walk as found};

use crate::{
    call::{Given, append, argument},
    head, kernel,
    maps::{INFLIGHT, INFLIGHT_LONG},
    record::{self, Out},
    scope,
    scratch::{self, Scratch},
    wanted::{self, Wanted, knark_wanted_argument, knark_wanted_walked},
};

/// `BPF_NOEXIST`
const NEW: u64 = 1;
const EEXIST: i64 = -17;

/// match-proto: syscalls:sys_enter_chmod(int __syscall_nr, const char *filename, umode_t mode), and others
#[tracepoint]
pub fn path_enter(ctx: TracePointContext) -> u32 {
    if let Some(verdict) = scope::admit() {
        let nr = super::number(&ctx);
        let call = kernel::call(nr);
        if call.op != 0 {
            // SAFETY: the scratch memory is this program's own.
            let done = scratch::with(|s, number| unsafe { enter(s, number, call, nr, verdict) });
            if done.is_none() {
                record::seen(kind::PATH);
                record::no_room(kind::PATH);
            } else if done == Some(false) {
                forget();
            }
        }
    }
    0
}

/// Gives false if the call isn't wanted.
///
/// # Safety
/// `s` must be the scratch memory of that number.
#[inline(always)]
unsafe fn enter(s: *mut Scratch, number: u32, call: Call, nr: u32, verdict: u8) -> bool {
    // SAFETY: by this function's contract.
    unsafe {
        let known = kernel::arguments(&mut (*s).args, nr);
        let mut effect = call.effect;
        if call.op == Op::Unlinkat as u8 && (*s).args[2] & u64::from(effect::REMOVES_DIR) != 0 {
            effect = effect::RMDIR;
        }
        let wanted = if known { wanted::effect(effect) } else { Wanted::Yes };
        if wanted == Wanted::No {
            return false;
        }
        let out = &raw mut (*s).out;
        let head = Out::head(out);
        head::fill(head, kind::PATH, call.op, verdict);
        let body = Out::body::<PathBody>(out);
        (*body).result = 0;
        (*body).nr = nr;
        (*body).enter_ns = (*head).boot_ns;
        (*body).inode = Inode { ino: 0, size: 0, dev: 0, mode: 0, uid: 0, gid: 0 };
        (*body).xattr_len = 0;
        (*body).xattr_flags = 0;
        (*body).pad = 0;
        if !known {
            (*head).marks |= mark::NO_REGS;
            (*s).args = [0; 6];
        }
        (*body).args = (*s).args;
        (*body).first = NO_PART;
        (*body).second = NO_PART;
        if known {
            parts(s, number, nr, call);
        }
        if wanted == Wanted::ByPath && call.second_dir == Call::NO && !by_path(number, &raw const (*body).first, effect) {
            return false;
        }
        record::seen(kind::PATH);
        (*head).len = Out::len(out) as u32;
        keep(out);
    }
    true
}

/// Whether a call with one path is wanted on it. Its strings are the first of the record.
///
/// # Safety
/// `part` must be valid.
#[inline(always)]
unsafe fn by_path(number: u32, part: *const PathPart, effect: u8) -> bool {
    const STRINGS: u32 = (size_of::<Header>() + size_of::<PathBody>()) as u32;
    // SAFETY: by this function's contract.
    let PathPart { walked_len, name_len, walked_flags, name_flags, .. } = unsafe { *part };
    if name_flags == 0 && walked_flags & found::NONE == 0 {
        knark_wanted_walked(number, u32::from(effect)) != 0
    } else if name_flags == text::PRESENT && walked_flags == 0 && walked_len == 0 {
        knark_wanted_argument(number, STRINGS, u32::from(name_len), u32::from(effect)) != 0
    } else {
        true
    }
}

const NO_PART: PathPart = PathPart { walked_len: 0, name_len: 0, walked_flags: 0, name_flags: 0, pad: [0; 2] };

/// Appends the first or second path of call number `nr` to the record.
///
/// Global, so that the verifier looks at it once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn knark_part(number: u32, nr: u32, second: u32) -> u32 {
    let Some(s) = scratch::of(number) else { return 1 };
    let call = kernel::call(nr);
    // SAFETY: `s` is the caller's own scratch memory.
    unsafe {
        let out = &raw mut (*s).out;
        let body = Out::at::<PathBody>(out);
        if second == 0 {
            let at_flags = if call.at_flags == Call::NO { 0 } else { argument(s, call.at_flags) };
            let given = Given { dir: call.first_dir, name: call.first_name, at_flags };
            append(s, number, &raw mut (*body).first, given, Some((Out::head(out), &raw mut (*body).inode)));
        } else {
            let given = Given { dir: call.second_dir, name: call.second_name, at_flags: 0 };
            append(s, number, &raw mut (*body).second, given, None);
        }
    }
    0
}

/// # Safety
/// `s` must be valid.
#[inline(always)]
unsafe fn parts(s: *mut Scratch, number: u32, nr: u32, call: Call) {
    // SAFETY: by this function's contract.
    unsafe {
        let out = &raw mut (*s).out;
        let body = Out::at::<PathBody>(out);
        if call.first_dir != Call::NO {
            knark_part(number, nr, 0);
        }
        if call.second_dir != Call::NO {
            knark_part(number, nr, 1);
        }
        if call.xattr != Call::NO {
            let (len, flags) = Out::user_string(out, argument(s, call.xattr));
            (*body).xattr_len = len;
            (*body).xattr_flags = flags;
        }
    }
}

/// Sees to it that the end of a call that isn't wanted is not taken for that of an earlier one of this thread, whose own end was
/// not seen. That one is lost.
#[inline(always)]
fn forget() {
    let key = kernel::pid_tgid();
    let lost = u64::from(INFLIGHT.remove(key).is_ok()) + u64::from(INFLIGHT_LONG.remove(key).is_ok());
    if lost != 0 {
        record::count(kind::PATH, |c| &raw mut c.lost_inflight, lost);
    }
}

/// Keeps the record until the call ends.
///
/// # Safety
/// `out` must be valid.
#[inline(always)]
unsafe fn keep(out: *mut Out) {
    let key = kernel::pid_tgid();
    // SAFETY: by this function's contract; the maps' values are no larger than the buffer.
    unsafe {
        let value = Out::bytes(out).cast();
        let key: *const u64 = &raw const key;
        let insert = |map: *mut core::ffi::c_void, how| generated::bpf_map_update_elem(map, key.cast(), value, how);
        let short = (&raw const INFLIGHT).cast_mut().cast();
        let long = (&raw const INFLIGHT_LONG).cast_mut().cast();
        let fits = Out::len(out) <= INFLIGHT_SMALL as u64;
        let map = if fits { short } else { long };
        // What is there already belongs to a call whose end was not seen. It is lost, but not forgotten.
        let mut lost = 0;
        if !fits && generated::bpf_map_delete_elem(short, key.cast()) == 0 {
            lost += 1;
        }
        let mut failed = insert(map, NEW);
        if failed as i32 as i64 == EEXIST {
            lost += 1;
            failed = insert(map, 0);
        }
        if failed != 0 {
            lost += 1;
        }
        if lost != 0 {
            record::count(kind::PATH, |c| &raw mut c.lost_inflight, lost);
        }
    }
}
