//! Files are cut or stretched, by a name or by a descriptor. What a system call of this architecture does has its tracepoints, and
//! here is added which file it was; what io_uring and 32-bit system calls do begins and ends here.

use aya_ebpf::{
    EbpfContext as _,
    macros::{fentry, fexit},
    programs::{FEntryContext, FExitContext},
};
use knark_abi::{Op, effect, tried};

use super::{put, value};
use crate::{kernel::offset, precise};

/// match-proto: vfs_truncate(const struct path *path, loff_t length)
#[fentry]
pub fn truncate_enter(ctx: FEntryContext) -> i32 {
    precise::begin_found(Op::Truncate, Op::Truncate as u8, |args| put(ctx.as_ptr(), args, [0, 1]));
    0
}

/// match-proto: vfs_truncate(const struct path *path, loff_t length)
#[fexit]
pub fn truncate_exit(ctx: FExitContext) -> i32 {
    precise::end(Op::Truncate, value(ctx.as_ptr(), 2) as i32);
    0
}

/// match-proto: do_sys_ftruncate(unsigned int fd, loff_t length, int small)
#[fentry]
pub fn ftruncate_enter(ctx: FEntryContext) -> i32 {
    precise::begin(Op::Ftruncate, Op::Ftruncate, |args| put(ctx.as_ptr(), args, [0, 1]));
    0
}

/// match-proto: do_sys_ftruncate(unsigned int fd, loff_t length, int small)
#[fexit]
pub fn ftruncate_exit(ctx: FExitContext) -> i32 {
    precise::end(Op::Ftruncate, value(ctx.as_ptr(), 3) as i32);
    0
}

/// match-proto: do_ftruncate(struct file *file, loff_t length, int small)
///
/// From 6.9 on, for io_uring.
#[fentry]
pub fn file_truncate_enter(ctx: FEntryContext) -> i32 {
    precise::begin_found(Op::Ftruncate, tried::DO_FTRUNCATE, |args| {
        put(ctx.as_ptr(), args, [0, 1]);
        path_of_file(args);
    });
    0
}

/// match-proto: do_ftruncate(struct file *file, loff_t length, int small)
#[fexit]
pub fn file_truncate_exit(ctx: FExitContext) -> i32 {
    precise::end(Op::Ftruncate, value(ctx.as_ptr(), 3) as i32);
    0
}

/// match-proto: security_path_truncate(const struct path *path)
///
/// Up to 6.1, for ftruncate as well.
#[fentry]
pub fn truncate_found(ctx: FEntryContext) -> i32 {
    precise::found(effect::TRUNCATE, |args| put(ctx.as_ptr(), args, [0]));
    0
}

/// match-proto: security_file_truncate(struct file *file)
#[fentry]
pub fn file_truncate_found(ctx: FEntryContext) -> i32 {
    precise::found(effect::TRUNCATE, |args| {
        put(ctx.as_ptr(), args, [0]);
        path_of_file(args);
    });
    0
}

/// In place of a `struct file *`, where its path is.
#[inline(always)]
fn path_of_file(args: *mut [u64; 6]) {
    let first = args.cast::<u64>();
    // SAFETY: `put` has written it.
    unsafe { core::ptr::write_volatile(first, core::ptr::read_volatile(first) + offset!(file_f_path)) };
}
