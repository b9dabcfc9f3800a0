//! The beginnings of calls that write through a descriptor or map a file: what is there then may be gone when they end.

use aya_ebpf::{macros::tracepoint, programs::TracePointContext};
use knark_abi::Op;

use crate::{
    file,
    kernel::{self, field},
    once::{self, Way},
    scope,
};

/// `FMODE_WRITE`
const WRITE: u32 = 2;
/// `MAP_ANONYMOUS`, and what `MAP_SHARED` and `MAP_SHARED_VALIDATE` have in common
const ANONYMOUS: u64 = 0x20;
const SHARED: u64 = 1;

/// match-proto: syscalls:sys_enter_write(int __syscall_nr, unsigned int fd, const char *buf, size_t count), and others
#[tracepoint]
pub fn write_enter(ctx: TracePointContext) -> u32 {
    write(&ctx, super::passed(&ctx, 0));
    0
}

/// match-proto: syscalls:sys_enter_splice(int __syscall_nr, int fd_in, loff_t *off_in, int fd_out, ...), and copy_file_range
#[tracepoint]
pub fn copy_enter(ctx: TracePointContext) -> u32 {
    write(&ctx, super::passed(&ctx, 2));
    0
}

/// match-proto: syscalls:sys_enter_mmap(int __syscall_nr, unsigned long addr, unsigned long len, unsigned long prot,
/// unsigned long flags, unsigned long fd, unsigned long off)
#[tracepoint]
pub fn map_enter(ctx: TracePointContext) -> u32 {
    let (prot, flags) = (super::passed(&ctx, 2), super::passed(&ctx, 3));
    if flags & ANONYMOUS == 0
        && let Some(verdict) = scope::admit()
        && let Some((file, _)) = file::of_descriptor(kernel::current(), super::passed(&ctx, 4) as i32)
    {
        once::mapped(verdict, file, flags & SHARED != 0, Way { op: Op::Mmap as u8, is_call: true, result: 0, prot, flags });
    }
    0
}

#[inline(always)]
fn write(ctx: &TracePointContext, fd: u64) {
    if let Some(verdict) = scope::admit()
        && let Some((file, _)) = file::of_descriptor(kernel::current(), fd as i32)
        && field!(file, file_f_mode as u32).unwrap_or(WRITE) & WRITE != 0
    {
        let op = kernel::call(super::number(ctx)).op;
        once::written(verdict, file, Way { op, is_call: true, result: 0, prot: 0, flags: 0 });
    }
}
