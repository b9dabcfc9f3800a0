//! Where the kernel asks security modules for leave to write to a file and to map one, whoever wants to; and where a file ends.

use aya_ebpf::{
    EbpfContext as _,
    macros::{fentry, fexit},
    programs::{FEntryContext, FExitContext},
};
use knark_abi::Op;

use super::value;
use crate::{
    kernel::{self, field, read},
    once::{self, Way},
    scope,
};

/// `MAY_WRITE`
const MAY_WRITE: u64 = 2;
/// What `MAP_SHARED` and `MAP_SHARED_VALIDATE` have in common
const MAP_SHARED: u64 = 1;
/// `VM_SHARED`
const VM_SHARED: u64 = 8;

/// match-proto: security_file_permission(struct file *file, int mask)
#[fexit]
pub fn file_write_exit(ctx: FExitContext) -> i32 {
    let ctx = ctx.as_ptr();
    if value(ctx, 1) & MAY_WRITE == 0 || kernel::tried(Op::Write as u8) {
        return 0;
    }
    if let Some(verdict) = scope::admit() {
        once::written(verdict, number(ctx, 0), way(Op::Write, value(ctx, 2), 0, 0));
    }
    0
}

/// match-proto: security_file_free(struct file *file)
#[fentry]
pub fn file_freed(ctx: FEntryContext) -> i32 {
    if !kernel::tried(Op::Close as u8) {
        once::forget(number(ctx.as_ptr(), 0));
    }
    0
}

/// match-proto: security_mmap_file(struct file *file, unsigned long prot, unsigned long flags)
#[fexit]
pub fn file_map_exit(ctx: FExitContext) -> i32 {
    let ctx = ctx.as_ptr();
    let file = number(ctx, 0);
    if kernel::tried(Op::Mmap as u8) || file == 0 {
        return 0;
    }
    if let Some(verdict) = scope::admit() {
        let flags = value(ctx, 2);
        once::mapped(verdict, file, flags & MAP_SHARED != 0, way(Op::Mmap, value(ctx, 3), value(ctx, 1), flags));
    }
    0
}

/// match-proto: security_file_mprotect(struct vm_area_struct *vma, unsigned long reqprot, unsigned long prot)
#[fexit]
pub fn file_protect_exit(ctx: FExitContext) -> i32 {
    let ctx = ctx.as_ptr();
    if kernel::tried(Op::Mprotect as u8) {
        return 0;
    }
    if let Some(verdict) = scope::admit() {
        let area = number(ctx, 0);
        let file = field!(area, vma_vm_file).unwrap_or(0);
        if file != 0 {
            let is_shared = field!(area, vma_vm_flags).unwrap_or(0) & VM_SHARED != 0;
            once::mapped(verdict, file, is_shared, way(Op::Mprotect, value(ctx, 3), value(ctx, 2), 0));
        }
    }
    0
}

/// What a security module says of it is the function's result.
#[inline(always)]
fn way(op: Op, result: u64, prot: u64, flags: u64) -> Way {
    Way { op: op as u8, is_call: false, result: i64::from(result as i32), prot, flags }
}

/// A pointer as a number: what the verifier knows of it would keep it from being given to the functions that it looks at by themselves.
#[inline(always)]
fn number(ctx: *const core::ffi::c_void, index: u64) -> u64 {
    read(ctx as u64 + index * 8).unwrap_or(0)
}
