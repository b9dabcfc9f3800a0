//! The ends of open, openat, openat2, creat and open_by_handle_at.
//!
//! There is no probe at their beginnings: all that is needed is there at the end too, and an open that nobody asks for
//! costs one program less.

use aya_ebpf::{macros::tracepoint, programs::TracePointContext};
use knark_abi::{Call, Op, OpenBody, kind, mark};

use crate::{
    kernel::{self, read_user},
    opened::{self, Opened},
    record, scope,
    scratch::{self, Scratch},
};

/// `O_CREAT | O_WRONLY | O_TRUNC`, the same on all architectures
const CREAT_FLAGS: u32 = 0o1101;
/// match-proto: syscalls:sys_exit_openat(int __syscall_nr, long ret)
#[tracepoint]
pub fn open_exit(ctx: TracePointContext) -> u32 {
    if let Some(verdict) = scope::admit() {
        let (nr, result) = (super::number(&ctx), super::result(&ctx));
        let call = kernel::call(nr);
        if call.op != 0 {
            // SAFETY: the scratch memory is this program's own.
            let done = scratch::with(|s, number| unsafe { open(s, number, call, nr, result, verdict) });
            if done.is_none() {
                record::seen(kind::OPEN);
                record::no_room(kind::OPEN);
            }
        }
    }
    0
}

/// # Safety
/// `s` must be the scratch memory of that number.
#[inline(always)]
unsafe fn open(s: *mut Scratch, number: u32, call: Call, nr: u32, result: i64, verdict: u8) {
    // SAFETY: by this function's contract.
    unsafe {
        let body = opened::begin(&raw mut (*s).out, result);
        let (name, marks) = if kernel::arguments(&mut (*s).args, nr) { asked(s, call, body) } else { (0, mark::NO_REGS) };
        opened::report(s, number, Opened { op: call.op, verdict, marks, result, name, file: None, by: 0 });
    }
}

/// Fills in what was asked for; gives the address of the name, and marks.
///
/// # Safety
/// The pointers must be valid.
#[inline(always)]
unsafe fn asked(s: *mut Scratch, call: Call, body: *mut OpenBody) -> (u64, u32) {
    const OPENAT2: u8 = Op::Openat2 as u8;
    const CREAT: u8 = Op::Creat as u8;
    const HANDLE: u8 = Op::OpenByHandleAt as u8;
    // SAFETY: by this function's contract.
    unsafe {
        let args = &raw const (*s).args;
        if call.op == HANDLE {
            (*body).flags = (*args)[2] as u32;
            return (0, 0);
        }
        if call.op == CREAT {
            (*body).flags = CREAT_FLAGS;
            (*body).mode = (*args)[1] as u32;
            return ((*args)[0], 0);
        }
        if call.first_dir == Call::CWD {
            (*body).flags = (*args)[1] as u32;
            (*body).mode = (*args)[2] as u32;
            return ((*args)[0], 0);
        }
        let mut marks = 0;
        (*body).dirfd = (*args)[0] as i32;
        if call.op == OPENAT2 {
            // struct open_how { __u64 flags; __u64 mode; __u64 resolve; }
            match read_user::<[u64; 2]>((*args)[2]) {
                Some([flags, mode]) => {
                    (*body).flags = flags as u32;
                    (*body).mode = mode as u32;
                }
                None => marks = mark::NO_HOW,
            }
        } else {
            (*body).flags = (*args)[2] as u32;
            (*body).mode = (*args)[3] as u32;
        }
        ((*args)[1], marks)
    }
}
