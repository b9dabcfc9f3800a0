//! The ends of open, openat, openat2, creat and open_by_handle_at.
//!
//! There is no probe at their beginnings: all that is needed is there at the end too, and an open that nobody asks for
//! costs one program less.

use aya_ebpf::{macros::tracepoint, programs::TracePointContext};
use knark_abi::{Call, Header, Op, OpenBody, effect, kind, mark, text, walk as found};

use crate::{
    file::{self, Place},
    head,
    kernel::{self, offset, read_user},
    record::{self, Out},
    scope,
    scratch::{self, Scratch},
    walk::knark_walk,
    wanted::{self, Wanted, knark_wanted_argument, knark_wanted_walked},
};

const AT_FDCWD: i32 = -100;
/// `O_CREAT | O_WRONLY | O_TRUNC`, the same on all architectures
const CREAT_FLAGS: u32 = 0o1101;
/// `O_CREAT`, and the bit of `O_TMPFILE` that is its own, likewise
const MAKES: u32 = 0o20_000_100;
/// Where the strings of a record begin.
const STRINGS: u32 = (size_of::<Header>() + size_of::<OpenBody>()) as u32;

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
        let out = &raw mut (*s).out;
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
        let (name, mut marks) = if kernel::arguments(&mut (*s).args, nr) { asked(s, call, body) } else { (0, mark::NO_REGS) };
        let mut effect = if (*body).flags & effect::WRITES != 0 { effect::WRITE_OPEN } else { effect::OPEN };
        // without flags it is any of them
        let known = marks == 0;
        let makes = result >= 0 && (*body).flags & MAKES != 0;
        if known && !makes && wanted::effect(effect) == Wanted::No {
            return;
        }
        let task = kernel::current();
        // No Option: up to 5.10 the verifier wants all of it to be written before it goes to the stack and back.
        let mut opened = Place { mnt: 0, dentry: 0 };
        let mut with_name = name != 0;
        let mut beside = 0;
        if result >= 0 {
            if let Some((file, shared)) = file::of_descriptor(task, result as i32) {
                opened = file::place(file + offset!(file_f_path)).unwrap_or(opened);
                if file::created(file) {
                    marks |= mark::CREATED;
                    effect = effect::CREATE;
                }
                if shared {
                    marks |= mark::FD_SHARED;
                    beside = text::BESIDE;
                } else {
                    with_name = false;
                }
            } else {
                marks |= mark::FD_EMPTY;
            }
        }
        let wanted = if known { wanted::effect(effect) } else { Wanted::Yes };
        if wanted == Wanted::No {
            return;
        }
        let mut from = if opened.dentry != 0 { Some(opened) } else { None };
        let mut absolute = false;
        if from.is_none() && with_name {
            absolute = read_user::<u8>(name) == Some(b'/');
            if absolute {
                (*body).walked_flags = 0;
            } else {
                from = file::directory(task, (*body).dirfd);
            }
        }
        if let Some(place) = from {
            let w = &raw mut (*s).walk;
            knark_walk(number, task, place.mnt, place.dentry);
            if wanted == Wanted::ByPath && opened.dentry != 0 && knark_wanted_walked(number, u32::from(effect)) == 0 {
                return;
            }
            (*body).walked_len = Out::walked(out, w);
            (*body).walked_flags = (*w).flags;
        }
        if with_name {
            let (len, flags) = Out::user_string(out, name);
            (*body).name_len = len;
            (*body).name_flags = flags | beside;
            // what was cut off or could not be read can't be told
            if wanted == Wanted::ByPath
                && absolute
                && flags == text::PRESENT
                && knark_wanted_argument(number, STRINGS, u32::from(len), u32::from(effect)) == 0
            {
                return;
            }
        }
        record::seen(kind::OPEN);
        let head = Out::head(out);
        head::fill(head, kind::OPEN, call.op, verdict);
        (*head).marks = marks;
        if opened.dentry != 0 {
            file::inode(head, &raw mut (*body).inode, opened.dentry);
        }
        Out::emit(out, kind::OPEN, record::QUIET);
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
