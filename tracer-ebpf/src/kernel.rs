//! Constants from user space, and reads of kernel and user memory.

use aya_ebpf::helpers::{bpf_probe_read_kernel, bpf_probe_read_user, generated};
use knark_abi::{CALLS, Call, Config, Offsets, Op, control, feature};

// User space overwrites these before loading; they are read-only afterwards, so the verifier knows their values, and
// drops what they make unreachable. They are read by `read_volatile`, since the compiler knows other values.

/// What is wanted.
#[unsafe(no_mangle)]
pub static CONFIG: Config = Config {
    scope: 0,
    features: 0,
    exclude: [0; knark_abi::EXCLUDED],
    hierarchy: 0,
    cgroup_subsys: 0,
    thread_size: 0,
    regs_size: 0,
    anywhere: 0,
    somewhere: 0,
    body_bytes: 0,
    compat: 0,
    copied_names: 0,
    event_ns: 0,
    joined: 0,
    same: 0,
    pad: 0,
};

/// Offsets in this kernel's structures.
#[unsafe(no_mangle)]
// SAFETY: a struct of integers.
pub static OFFSETS: Offsets = unsafe { core::mem::zeroed() };

/// Calls by their number on this architecture.
#[unsafe(no_mangle)]
// SAFETY: an array of structs of integers.
pub static CALL_TABLE: [Call; CALLS] = unsafe { core::mem::zeroed() };

/// Numbers of calls by their operation on this architecture.
#[unsafe(no_mangle)]
pub static NUMBERS: [u16; knark_abi::NUMBERS] = [0; knark_abi::NUMBERS];

/// See [`knark_abi::CONTROL`]: detaching takes the kernel seconds, so programs are told when no events are wanted.
#[unsafe(no_mangle)]
pub static mut CONTROL: [u32; knark_abi::CONTROL] = [0; knark_abi::CONTROL];

/// Whether no events are wanted.
#[inline(always)]
pub fn stopped() -> bool {
    // SAFETY: user space writes it at any time, so the read is volatile; the old and the new value are both fine.
    unsafe { core::ptr::read_volatile((&raw const CONTROL).cast::<u32>()) != control::RUN }
}

/// Whether no events are wanted; then it is noted that the kernel's function was called for an operation ([`Op`]), or one of
/// [`knark_abi::tried`].
#[inline(always)]
pub fn tried(by: u8) -> bool {
    let stopped = stopped();
    if stopped {
        let place = 1 + (by as usize & (knark_abi::NUMBERS - 1));
        // SAFETY: the index is within; all that anybody writes there is the same.
        unsafe { core::ptr::write_volatile((&raw mut CONTROL).cast::<u32>().add(place), 1) };
    }
    stopped
}

/// The value that user space gave, not the one that the compiler sees.
#[inline(always)]
pub fn constant<T: Copy>(of: &'static T) -> T {
    // SAFETY: a reference is valid.
    unsafe { core::ptr::read_volatile(of) }
}

/// A field of [`CONFIG`].
macro_rules! config {
    ($field:ident) => {
        $crate::kernel::constant(&$crate::kernel::CONFIG.$field)
    };
}

/// An offset out of [`OFFSETS`].
macro_rules! offset {
    ($field:ident) => {
        u64::from($crate::kernel::constant(&$crate::kernel::OFFSETS.$field))
    };
}

/// A member of a kernel structure: `field!(task, task_mm)` reads a pointer, `field!(task, task_tgid as u32)` a number.
macro_rules! field {
    ($base:expr, $field:ident) => {
        $crate::kernel::read::<u64>($base + $crate::kernel::offset!($field))
    };
    ($base:expr, $field:ident as $type:ty) => {
        $crate::kernel::read::<$type>($base + $crate::kernel::offset!($field))
    };
}

/// Members of the current task, and of what its pointers lead to, at the price of a load: the verifier knows their types. Only with
/// `feature::TASK_REGS`.
macro_rules! pointed {
    ($($step:ident),+ => $last:ident as $type:ty) => {{
        // SAFETY: has no preconditions; the verifier checks that each offset is that of a member, and the kernel that each
        // address is good.
        #[allow(unused_unsafe, reason = "it may stand within a block that is unsafe for other reasons")]
        let value = unsafe {
            let at = aya_ebpf::helpers::generated::bpf_get_current_task_btf() as *const u8;
            $(let at = core::ptr::read_volatile(at.wrapping_add($crate::kernel::offset!($step) as usize).cast::<*const u8>());)+
            core::ptr::read_volatile(at.wrapping_add($crate::kernel::offset!($last) as usize).cast::<$type>())
        };
        value
    }};
}

/// The same, `typed!(task_real_parent => task_tgid as u32)`; on kernels without such pointers a helper reads each.
macro_rules! typed {
    ($($step:ident),+ => $last:ident as $type:ty) => {
        if $crate::kernel::has(knark_abi::feature::TASK_REGS) {
            $crate::kernel::pointed!($($step),+ => $last as $type)
        } else {
            let at = $crate::kernel::current();
            $(let at = $crate::kernel::field!(at, $step).unwrap_or(0);)+
            $crate::kernel::field!(at, $last as $type).unwrap_or(0)
        }
    };
}

pub(crate) use {config, field, offset, pointed, typed};

/// Whether this kernel has it, or user space wants it.
#[inline(always)]
pub fn has(feature: u32) -> bool {
    config!(features) & feature != 0
}

/// How the arguments of call number `nr` are to be read.
#[inline(always)]
pub fn call(nr: u32) -> Call {
    // SAFETY: the index is within the table.
    unsafe { core::ptr::read_volatile((&raw const CALL_TABLE).cast::<Call>().add(nr as usize & (CALLS - 1))) }
}

/// The number of the call that does this operation on this architecture.
#[inline(always)]
pub fn number(op: Op) -> u32 {
    u32::from(constant(&NUMBERS[op as usize]))
}

/// How the arguments of the call are to be read that does the operation of this number.
#[inline(always)]
pub fn call_of(op: u8) -> Call {
    call(u32::from(constant(&NUMBERS[op as usize & (knark_abi::NUMBERS - 1)])))
}

/// Whether programs on the kernel's functions add to what the tracepoints of this operation begin.
#[inline(always)]
pub fn joined(op: u8) -> bool {
    config!(joined) >> (op & 63) & 1 != 0
}

/// Reads kernel memory; None if the address is bad.
#[inline(always)]
pub fn read<T: Copy>(address: u64) -> Option<T> {
    // SAFETY: the helper checks the address, and every T that is asked for is made of integers.
    unsafe { bpf_probe_read_kernel(address as *const T) }.ok()
}

/// Reads user memory of the current process; None if the page isn't in memory or isn't mapped.
#[inline(always)]
pub fn read_user<T: Copy>(address: u64) -> Option<T> {
    // SAFETY: as in `read`.
    unsafe { bpf_probe_read_user(address as *const T) }.ok()
}

/// Copies kernel memory.
///
/// # Safety
/// `to` must have room for `len` bytes; the verifier must be able to see that.
#[inline(always)]
pub unsafe fn copy(to: *mut u8, len: u32, from: u64) -> bool {
    // aya's wrapper wants a slice, and the verifier can't follow the checks that slices bring
    // SAFETY: by this function's contract.
    unsafe { generated::bpf_probe_read_kernel(to.cast(), len, from as *const _) == 0 }
}

/// Copies user memory.
///
/// # Safety
/// As [`copy`].
#[inline(always)]
pub unsafe fn copy_user(to: *mut u8, len: u32, from: u64) -> bool {
    // SAFETY: by this function's contract.
    unsafe { generated::bpf_probe_read_user(to.cast(), len, from as *const _) == 0 }
}

/// Adds atomically, without a result: that works on all kernels.
///
/// # Safety
/// `to` must be valid and aligned.
#[inline(always)]
pub unsafe fn add(to: *mut u64, n: u64) {
    // SAFETY: by this function's contract.
    unsafe { core::intrinsics::atomic_xadd::<u64, u64, { core::intrinsics::AtomicOrdering::Relaxed }>(to, n) };
}

/// The current `struct task_struct`.
#[inline(always)]
pub fn current() -> u64 {
    // SAFETY: has no preconditions.
    unsafe { generated::bpf_get_current_task() }
}

/// The current (thread group, thread).
#[inline(always)]
pub fn ids() -> (u32, u32) {
    let ids = pid_tgid();
    ((ids >> 32) as u32, ids as u32)
}

/// Both in one number.
#[inline(always)]
pub fn pid_tgid() -> u64 {
    aya_ebpf::helpers::bpf_get_current_pid_tgid()
}

/// The kernfs id of the current process's control group.
#[inline(always)]
pub fn cgroup() -> u64 {
    if has(feature::CGROUP_V1) {
        cgroup_v1(current()).unwrap_or(0)
    } else {
        // SAFETY: has no preconditions.
        unsafe { generated::bpf_get_current_cgroup_id() }
    }
}

/// `task->cgroups->subsys[n]->cgroup->kn->id`
#[inline(always)]
fn cgroup_v1(task: u64) -> Option<u64> {
    let set: u64 = field!(task, task_cgroups)?;
    let state: u64 = read(set + offset!(cssset_subsys) + 8 * u64::from(config!(cgroup_subsys)))?;
    let group: u64 = field!(state, css_cgroup)?;
    field!(field!(group, cgroup_kn)?, kn_id)
}

/// How the current task came into the kernel.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// By the system call of this number.
    Call(u32),
    /// By the 32-bit system call of this number.
    Compat(u32),
    /// By io_uring, or it is io_uring's own thread.
    IoUring,
    /// It is a thread of the kernel.
    Kernel,
}

/// How the current task came into the kernel.
#[inline(always)]
pub fn entry() -> Entry {
    const PF_IO_WORKER: u32 = 0x10;
    const PF_KTHREAD: u32 = 0x20_0000;
    /// The number of io_uring_enter, the same on all architectures and for 32-bit calls.
    const ENTER: u32 = 426;
    let task = current();
    let flags = field!(task, task_flags as u32).unwrap_or(0);
    if flags & PF_IO_WORKER != 0 {
        return Entry::IoUring;
    }
    if flags & PF_KTHREAD != 0 {
        return Entry::Kernel;
    }
    let nr = if has(feature::TASK_REGS) {
        // SAFETY: no preconditions; the verifier checks that the offset is that of a member.
        unsafe {
            let regs = generated::bpf_task_pt_regs(generated::bpf_get_current_task_btf()) as *const u8;
            core::ptr::read_volatile(regs.wrapping_add(offset!(regs_nr) as usize).cast::<u32>())
        }
    } else {
        registers().and_then(|regs| field!(regs, regs_nr as u32)).unwrap_or(0)
    };
    let compat = field!(task, task_compat as u32).unwrap_or(0) & config!(compat) != 0;
    match nr {
        ENTER => Entry::IoUring,
        nr if compat => Entry::Compat(nr),
        nr => Entry::Call(nr),
    }
}

impl Entry {
    /// Whether it is the execution of a program, which has events of its own.
    pub fn executes(self) -> bool {
        const ARM: bool = cfg!(bpf_target_arch = "aarch64");
        const EXECVE: u32 = if ARM { 221 } else { 59 };
        const EXECVEAT: u32 = if ARM { 281 } else { 322 };
        const EXECVE_32: u32 = 11;
        const EXECVEAT_32: u32 = if ARM { 387 } else { 358 };
        match self {
            Entry::Call(nr) => nr == EXECVE || nr == EXECVEAT,
            Entry::Compat(nr) => nr == EXECVE_32 || nr == EXECVEAT_32,
            _ => false,
        }
    }
}

/// Where the registers lie that the current task entered the kernel with, on kernels that don't tell.
#[inline(always)]
fn registers() -> Option<u64> {
    Some(field!(current(), task_stack)? + u64::from(config!(thread_size)) - u64::from(config!(regs_size)))
}

/// The arguments of the system call that the current task is in, from the registers that it entered the kernel with;
/// they are still there when the call ends. False if these registers belong to another call.
#[inline(always)]
pub fn arguments(args: &mut [u64; 6], nr: u32) -> bool {
    macro_rules! each {
        ($get:expr) => {{
            each!($get, 0);
            each!($get, 1);
            each!($get, 2);
            each!($get, 3);
            each!($get, 4);
            each!($get, 5);
        }};
        ($get:expr, $i:literal) => {
            args[$i] = $get(u64::from(constant(&OFFSETS.regs_args[$i])));
        };
    }
    if has(feature::TASK_REGS) {
        // SAFETY: no preconditions; the result is a typed pointer to the verifier, which is read in place.
        let regs = unsafe { generated::bpf_task_pt_regs(generated::bpf_get_current_task_btf()) } as *const u8;
        // SAFETY: the verifier checks that the offset is that of a member.
        each!(|at: u64| unsafe { core::ptr::read_volatile(regs.wrapping_add(at as usize).cast::<u64>()) });
        return true;
    }
    let Some(regs) = registers() else { return false };
    arguments_at(args, regs);
    // where the stack ends isn't in the BTF: make sure
    field!(regs, regs_nr as u32) == Some(nr)
}

/// The arguments of a system call whose registers lie there.
#[inline(always)]
pub fn arguments_at(args: &mut [u64; 6], regs: u64) {
    for (i, argument) in args.iter_mut().enumerate() {
        *argument = read(regs + u64::from(constant(&OFFSETS.regs_args[i]))).unwrap_or(0);
    }
}
