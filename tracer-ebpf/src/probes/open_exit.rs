//! The ends of open, openat, openat2, creat and open_by_handle_at.
//!
//! There is no probe at their beginnings: all that is needed is there at the end too, and an open that nobody asks for
//! costs one program less.

use aya_ebpf::{macros::tracepoint, programs::TracePointContext};
use knark_abi::{Call, Op, OpenBody, kind, mark, text, walk as found};

use crate::{
    file, head,
    kernel::{self, offset, read_user},
    record::{self, Out},
    scope,
    scratch::{self, Scratch},
    walk::knark_walk,
};

const AT_FDCWD: i32 = -100;
/// `O_CREAT | O_WRONLY | O_TRUNC`, the same on all architectures
const CREAT_FLAGS: u32 = 0o1101;

/// match-proto: syscalls:sys_exit_openat(int __syscall_nr, long ret)
#[tracepoint]
pub fn open_exit(ctx: TracePointContext) -> u32 {
    if let Some(verdict) = scope::admit() {
        let (nr, result) = (super::number(&ctx), super::result(&ctx));
        let call = kernel::call(nr);
        if call.op != 0 {
            record::seen(kind::OPEN);
            // SAFETY: the scratch memory is this program's own.
            let done = scratch::with(|s, number| unsafe { open(s, number, call, nr, result, verdict) });
            if done.is_none() {
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
        let out = &raw mut (*s).out;
        let head = Out::head(out);
        head::fill(head, kind::OPEN, call.op, verdict);
        let body = Out::body::<OpenBody>(out);
        (*body) = OpenBody {
            result: result as i32,
            flags: 0,
            inode: knark_abi::Inode { ino: 0, size: 0, dev: 0, mode: 0, uid: 0, gid: 0 },
            mode: 0,
            dirfd: AT_FDCWD,
            walked_len: 0,
            name_len: 0,
            walked_flags: found::NONE,
            name_flags: 0,
            pad: [0; 2],
        };
        let name = if kernel::arguments(&mut (*s).args, nr) {
            asked(s, call, head, body)
        } else {
            (*head).marks |= mark::NO_REGS;
            0
        };
        let task = kernel::current();
        let mut from = None;
        let mut with_name = name != 0;
        let mut beside = 0;
        if result >= 0 {
            if let Some((file, shared)) = file::of_descriptor(task, result as i32) {
                from = file::place(file + offset!(file_f_path));
                if file::created(file) {
                    (*head).marks |= mark::CREATED;
                }
                if let Some(place) = from {
                    file::inode(head, &raw mut (*body).inode, place.dentry);
                }
                if shared {
                    (*head).marks |= mark::FD_SHARED;
                    beside = text::BESIDE;
                } else {
                    with_name = false;
                }
            } else {
                (*head).marks |= mark::FD_EMPTY;
            }
        }
        if from.is_none() && with_name {
            if read_user::<u8>(name) == Some(b'/') {
                (*body).walked_flags = 0;
            } else {
                from = file::directory(task, (*body).dirfd);
            }
        }
        if let Some(place) = from {
            let w = &raw mut (*s).walk;
            knark_walk(number, task, place.mnt, place.dentry);
            (*body).walked_len = Out::walked(out, w);
            (*body).walked_flags = (*w).flags;
        }
        if with_name {
            let (len, flags) = Out::user_string(out, name);
            (*body).name_len = len;
            (*body).name_flags = flags | beside;
        }
        Out::emit(out, kind::OPEN, record::QUIET);
    }
}

/// Fills in what was asked for; gives the address of the name.
///
/// # Safety
/// The pointers must be valid.
#[inline(always)]
unsafe fn asked(s: *mut Scratch, call: Call, head: *mut knark_abi::Header, body: *mut OpenBody) -> u64 {
    const OPENAT2: u8 = Op::Openat2 as u8;
    const CREAT: u8 = Op::Creat as u8;
    const HANDLE: u8 = Op::OpenByHandleAt as u8;
    // SAFETY: by this function's contract.
    unsafe {
        let args = &raw const (*s).args;
        if call.op == HANDLE {
            (*body).flags = (*args)[2] as u32;
            return 0;
        }
        if call.op == CREAT {
            (*body).flags = CREAT_FLAGS;
            (*body).mode = (*args)[1] as u32;
            return (*args)[0];
        }
        if call.first_dir == Call::CWD {
            (*body).flags = (*args)[1] as u32;
            (*body).mode = (*args)[2] as u32;
            return (*args)[0];
        }
        (*body).dirfd = (*args)[0] as i32;
        if call.op == OPENAT2 {
            // struct open_how { __u64 flags; __u64 mode; __u64 resolve; }
            match read_user::<[u64; 2]>((*args)[2]) {
                Some([flags, mode]) => {
                    (*body).flags = flags as u32;
                    (*body).mode = mode as u32;
                }
                None => (*head).marks |= mark::NO_HOW,
            }
        } else {
            (*body).flags = (*args)[2] as u32;
            (*body).mode = (*args)[3] as u32;
        }
        (*args)[1]
    }
}
