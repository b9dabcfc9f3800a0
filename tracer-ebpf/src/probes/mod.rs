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
mod fork;
mod open_exit;
mod path_enter;
mod path_exit;

/// What the tracepoints of single system calls pass: `struct syscall_tp_t` of kernel/trace/trace_syscalls.c.
#[inline(always)]
fn number(ctx: &aya_ebpf::programs::TracePointContext) -> u32 {
    use aya_ebpf::EbpfContext as _;
    // SAFETY: an aligned read within the context; the kernel's field is an int or a long, and this is its lower half.
    unsafe { *ctx.as_ptr().cast::<u32>().add(2) }
}

/// What the call returned; in exit tracepoints only.
#[inline(always)]
fn result(ctx: &aya_ebpf::programs::TracePointContext) -> i64 {
    use aya_ebpf::EbpfContext as _;
    // SAFETY: an aligned read within the context.
    unsafe { *ctx.as_ptr().cast::<i64>().add(2) }
}
