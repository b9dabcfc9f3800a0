//! A thread ends: what was kept for it goes, and of the last one of a process the exit is reported.

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};
use knark_abi::{ExitBody, Header, feature, kind, scope};

use crate::{
    begun, head,
    kernel::{self, config, field, has},
    maps::{EXITED, TGIDS},
    record::{self, hand_over},
};

/// `SIGNAL_GROUP_EXIT`
const GROUP_EXIT: u32 = 4;
/// `BPF_NOEXIST`
const NEW: u64 = 1;

/// match-proto: sched_process_exit(struct task_struct *p)
#[raw_tracepoint(tracepoint = "sched_process_exit")]
pub fn process_exit(ctx: RawTracePointContext) -> i32 {
    begun::abandon();
    last(ctx.arg(0));
    0
}

#[inline(always)]
fn last(task: u64) -> Option<()> {
    let signal = field!(task, task_signal)?;
    if field!(signal, signal_live as i32)? != 0 {
        return None;
    }
    // admitted before its place in the scope is taken away
    let admitted = if has(feature::EXIT) { crate::scope::admit() } else { None };
    let (tgid, _) = kernel::ids();
    if config!(scope) & (scope::TGID | scope::EXE) != 0 {
        let _ = TGIDS.remove(tgid);
    }
    let verdict = admitted?;
    let leader = field!(task, task_group_leader)?;
    let start = field!(leader, task_start_boottime)?;
    if EXITED.insert([u64::from(tgid), start], 1, NEW).is_err() {
        return None;
    }
    record::seen(kind::EXIT);
    let mut record = Record {
        // SAFETY: a struct of integers.
        head: unsafe { core::mem::zeroed() },
        body: ExitBody { status: 0, pad: 0, lived_ns: 0 },
    };
    // SAFETY: the pointer is to the stack.
    unsafe { head::fill(&raw mut record.head, kind::EXIT, 0, verdict) };
    // as wait_task_zombie() of kernel/exit.c chooses
    record.body.status = if field!(signal, signal_flags as u32)? & GROUP_EXIT != 0 {
        field!(signal, signal_group_exit_code as i32)?
    } else {
        field!(leader, task_exit_code as i32)?
    };
    record.body.lived_ns = record.head.boot_ns.wrapping_sub(start);
    record.head.len = size_of::<Record>() as u32;
    // SAFETY: the record is on the stack, and of that size.
    unsafe { hand_over((&raw mut record).cast(), size_of::<Record>() as u64, kind::EXIT, record::QUIET) };
    Some(())
}

#[repr(C)]
struct Record {
    head: Header,
    body: ExitBody,
}
