//! One probe per file. Each names the kernel's prototype that it rests on.

mod api_aborted;
mod api_attributes;
mod api_begin;
mod api_body;
mod api_closed;
mod api_denied;
mod api_end;
mod api_user;
mod cgroup;
mod exec;
mod exit;
mod forget;
mod fork;
mod identify;
mod open_exit;
mod path_enter;
mod path_exit;
mod precise_attributes;
mod precise_names;
mod precise_once;
mod precise_open;
mod precise_truncate;
mod precise_xattr;
mod write;

/// What the tracepoints of single system calls pass: `struct syscall_tp_t` of kernel/trace/trace_syscalls.c.
#[inline(always)]
fn number(ctx: &aya_ebpf::programs::TracePointContext) -> u32 {
    use aya_ebpf::EbpfContext as _;
    // SAFETY: an aligned read within the context; the kernel's field is an int or a long, and this is its lower half.
    unsafe { *ctx.as_ptr().cast::<u32>().add(2) }
}

/// An argument of the call, as it was passed; in enter tracepoints only, of a call that has so many.
#[inline(always)]
fn passed(ctx: &aya_ebpf::programs::TracePointContext, index: usize) -> u64 {
    use aya_ebpf::EbpfContext as _;
    // SAFETY: an aligned read within the context, as the kernel makes sure of when the program is attached.
    unsafe { *ctx.as_ptr().cast::<u64>().add(2 + index) }
}

/// What the call returned; in exit tracepoints only.
#[inline(always)]
fn result(ctx: &aya_ebpf::programs::TracePointContext) -> i64 {
    use aya_ebpf::EbpfContext as _;
    // SAFETY: an aligned read within the context.
    unsafe { *ctx.as_ptr().cast::<i64>().add(2) }
}

pub use path_enter::by_path;
pub use path_exit::addresses;

/// What the kernel passes to programs on its functions: an argument as it was in its register or, after all of them, the result.
#[inline(always)]
fn value(ctx: *const core::ffi::c_void, index: usize) -> u64 {
    // SAFETY: an aligned read within the context, as the verifier makes sure of.
    unsafe { core::ptr::read_volatile(ctx.cast::<u64>().add(index)) }
}

/// In place of an argument that isn't wanted.
const NONE: usize = usize::MAX;

/// Puts down arguments of the kernel's function, and 0 for the others. They go through memory: what the verifier knows of them
/// would keep it from taking them for numbers.
#[inline(always)]
fn put<const N: usize>(ctx: *const core::ffi::c_void, args: *mut [u64; 6], indices: [usize; N]) {
    let args = args.cast::<u64>();
    for to in 0..6 {
        let argument = if to < N && indices[to] != NONE { value(ctx, indices[to]) } else { 0 };
        // SAFETY: there is room for six, in memory of the program's own.
        unsafe { core::ptr::write_volatile(args.add(to), argument) };
    }
}
