//! Not a probe: user space runs it by itself (`BPF_PROG_TEST_RUN`) to learn how the kernel knows a file that it has opened.
//! stat(2) doesn't tell: what it shows of files in an overlay or in btrfs is made up for it.

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};

use crate::{file, kernel, kernel::offset, maps::IDENTITY, same};

/// Puts down the identity of what the descriptor leads to that is its argument; gives 0, or 1 if it leads to no file.
#[raw_tracepoint(tracepoint = "sys_enter")]
pub fn identify(ctx: RawTracePointContext) -> i32 {
    let fd: u64 = ctx.arg(0);
    i32::from(put_down(fd as i32).is_none())
}

#[inline(always)]
fn put_down(fd: i32) -> Option<()> {
    let (file, _) = file::of_descriptor(kernel::current(), fd)?;
    let id = same::identity(file::place(file + offset!(file_f_path))?.dentry)?;
    let to = IDENTITY.get_ptr_mut(0)?;
    // SAFETY: a map's value; user space runs this in one thread at a time.
    unsafe { *to = id };
    Some(())
}
