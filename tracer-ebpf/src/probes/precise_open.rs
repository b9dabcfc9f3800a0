//! Opens that no system call of this architecture makes: by io_uring and by 32-bit system calls. Those that one makes have their
//! tracepoints, which know the descriptor.

use aya_ebpf::{EbpfContext as _, macros::fexit, programs::FExitContext};
use knark_abi::{Op, kind, mark};

use super::put;
use crate::{
    call::argument,
    kernel::{self, Entry, field},
    opened::{self, Opened},
    record, scope,
    scratch::{self, Scratch},
};

/// `__FMODE_EXEC`: a program is opened, to be executed.
const EXEC: u32 = 0x20;
const EAGAIN: i64 = 11;
/// The largest errno.
const ERRORS: u64 = 4095;

/// match-proto: do_filp_open(int dfd, struct filename *pathname, const struct open_flags *op)
///
/// From 7 on it is called do_file_open.
#[fexit]
pub fn file_open_exit(ctx: FExitContext) -> i32 {
    if kernel::tried(Op::Openat as u8) {
        return 0;
    }
    let Some(verdict) = scope::admit() else { return 0 };
    let by = match kernel::entry() {
        Entry::IoUring => mark::IO_URING,
        Entry::Compat(nr) if opens(nr) => mark::COMPAT,
        _ => return 0,
    };
    // SAFETY: the scratch memory is this program's own.
    let done = scratch::with(|s, number| unsafe {
        put(ctx.as_ptr(), &raw mut (*s).args, [0, 1, 2, 3]);
        open(s, number, by, verdict)
    });
    if done.is_none() {
        record::seen(kind::OPEN);
        record::no_room(kind::OPEN);
    }
    0
}

/// # Safety
/// `s` must be the scratch memory of that number, with the function's arguments and its result.
#[inline(always)]
unsafe fn open(s: *mut Scratch, number: u32, by: u32, verdict: u8) {
    // SAFETY: by this function's contract.
    unsafe {
        let (pathname, asked, file) = (argument(s, 1), argument(s, 2), argument(s, 3));
        let failed = file >= 0u64.wrapping_sub(ERRORS);
        let result = if failed { file as i64 } else { 0 };
        let flags = field!(asked, openflags_open_flag as u32).unwrap_or(0);
        // io_uring tries what needs no waiting first, and then again in a thread of its own
        if flags & EXEC != 0 || by == mark::IO_URING && result == -EAGAIN {
            return;
        }
        let body = opened::begin(&raw mut (*s).out, result);
        (*body).flags = flags;
        (*body).mode = u32::from(field!(asked, openflags_mode as u16).unwrap_or(0));
        (*body).dirfd = argument(s, 0) as i32;
        let name = field!(pathname, filename_name).unwrap_or(0);
        let file = Some(if failed { 0 } else { file });
        opened::report(s, number, Opened { op: Op::Openat as u8, verdict, marks: 0, result, name, file, by });
    }
}

/// Whether a 32-bit call of that number opens a file: open, creat, openat or openat2.
#[inline(always)]
fn opens(nr: u32) -> bool {
    const OPENAT: u32 = if cfg!(bpf_target_arch = "aarch64") { 322 } else { 295 };
    matches!(nr, 5 | 8 | OPENAT | 437)
}
