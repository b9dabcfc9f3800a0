//! The beginnings of path calls: their arguments, before another thread can change them.
//!
//! The record is built here and kept until the call ends, when only its result is missing.

use aya_ebpf::{macros::tracepoint, programs::TracePointContext};
use knark_abi::{Call, Header, Inode, NO_PART, Op, PRECISE, PathBody, PathPart, effect, kind, mark, note, text, walk as found};

use crate::{
    begun,
    call::{argument, part},
    head, kernel,
    record::{self, Out},
    same, scope,
    scratch::{self, Scratch},
    wanted::{self, Wanted, knark_wanted_argument, knark_wanted_walked},
};

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
                begun::forget();
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
        // What is found later decides then.
        let joined = kernel::joined(call.op);
        (*body).nr = if joined { nr | PRECISE } else { nr };
        (*body).enter_ns = (*head).boot_ns;
        (*body).inode = Inode { ino: 0, size: 0, dev: 0, mode: 0, uid: 0, gid: 0 };
        (*body).xattr_len = 0;
        (*body).xattr_flags = 0;
        (*body).same = [0; 2];
        (*body).note = effect | note::WANTED;
        if !known {
            (*head).marks |= mark::NO_REGS;
            (*s).args = [0; 6];
        }
        (*body).args = (*s).args;
        (*body).first = NO_PART;
        (*body).second = NO_PART;
        if known {
            parts(s, number, call);
        }
        if wanted == Wanted::ByPath && call.second_dir == Call::NO && !by_path(number, body, effect) {
            if !joined {
                return false;
            }
            (*body).note = effect;
        }
        if !joined {
            record::seen(kind::PATH);
        }
        (*head).len = Out::len(out) as u32;
        begun::keep(out);
    }
    true
}

/// Whether a call with one path is wanted on it. Its strings are the first of the record.
///
/// # Safety
/// `body` must be valid.
#[inline(always)]
pub unsafe fn by_path(number: u32, body: *const PathBody, effect: u8) -> bool {
    const STRINGS: u32 = (size_of::<Header>() + size_of::<PathBody>()) as u32;
    // SAFETY: by this function's contract.
    let PathPart { walked_len, name_len, walked_flags, name_flags, .. } = unsafe { (*body).first };
    // SAFETY: by this function's contract.
    if same::is_wanted(unsafe { (*body).same[0] }, effect) {
        true
    } else if name_flags == 0 && walked_flags & found::NONE == 0 {
        knark_wanted_walked(number, u32::from(effect)) != 0
    } else if name_flags == text::PRESENT && walked_flags == 0 && walked_len == 0 {
        knark_wanted_argument(number, STRINGS, u32::from(name_len), u32::from(effect)) != 0
    } else {
        true
    }
}

/// # Safety
/// `s` must be valid.
#[inline(always)]
unsafe fn parts(s: *mut Scratch, number: u32, call: Call) {
    // SAFETY: by this function's contract.
    unsafe {
        let out = &raw mut (*s).out;
        let body = Out::at::<PathBody>(out);
        part(s, number, call, false, 0);
        part(s, number, call, true, 0);
        if call.xattr != Call::NO {
            let (len, flags) = Out::user_string(out, argument(s, call.xattr));
            (*body).xattr_len = len;
            (*body).xattr_flags = flags;
        }
    }
}
