//! Calls that take a file from a descriptor, where no function of the kernel tells of its end.

use aya_ebpf::{macros::tracepoint, programs::TracePointContext};

use crate::{
    file,
    kernel::{self, field, read},
    once,
};

/// `CLOSE_RANGE_CLOEXEC`: they are closed by an execution, later.
const LATER: u64 = 4;
/// So many descriptors of a range are looked at.
const MOST: u64 = 1024;

/// match-proto: syscalls:sys_enter_close(int __syscall_nr, unsigned int fd)
#[tracepoint]
pub fn close_enter(ctx: TracePointContext) -> u32 {
    forget(super::passed(&ctx, 0));
    0
}

/// match-proto: syscalls:sys_enter_dup2(int __syscall_nr, unsigned int oldfd, unsigned int newfd), and dup3
#[tracepoint]
pub fn dup_enter(ctx: TracePointContext) -> u32 {
    forget(super::passed(&ctx, 1));
    0
}

/// match-proto: syscalls:sys_enter_close_range(int __syscall_nr, unsigned int fd, unsigned int max_fd, unsigned int flags)
#[tracepoint]
pub fn close_range_enter(ctx: TracePointContext) -> u32 {
    let [first, last, flags] = [0, 1, 2].map(|index| super::passed(&ctx, index) & 0xffff_ffff);
    if flags & LATER == 0 && !kernel::stopped() {
        let _ = range(first, last);
    }
    0
}

#[inline(always)]
fn forget(fd: u64) {
    // Whoever closes it: a task whose writes aren't wanted may share the descriptors of one whose are.
    if !kernel::stopped()
        && let Some((file, _)) = file::of_descriptor(kernel::current(), fd as i32)
    {
        once::forget(file);
    }
}

#[inline(always)]
fn range(first: u64, last: u64) -> Option<()> {
    let table = field!(field!(kernel::current(), task_files)?, files_fdt)?;
    let (slots, count) = (field!(table, fdt_fd)?, u64::from(field!(table, fdt_max_fds as u32)?));
    for index in 0..MOST {
        let fd = first + index;
        if fd > last || fd >= count {
            break;
        }
        let file: u64 = read(slots + fd * 8)?;
        if file != 0 {
            once::forget(file);
        }
    }
    Some(())
}
