//! A new process inherits the conditions that its parent meets. Loaded only where processes are a condition.

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};
use knark_abi::kind;

use crate::{kernel::field, maps::TGIDS, record};

/// match-proto: sched_process_fork(struct task_struct *parent, struct task_struct *child)
///
/// The child hasn't run yet.
#[raw_tracepoint(tracepoint = "sched_process_fork")]
pub fn process_fork(ctx: RawTracePointContext) -> i32 {
    inherit(ctx.arg(0), ctx.arg(1));
    0
}

#[inline(always)]
fn inherit(parent: u64, child: u64) -> Option<()> {
    let parent = field!(parent, task_tgid as u32)?;
    let child = field!(child, task_tgid as u32)?;
    if parent == child {
        return None; // a thread
    }
    // SAFETY: one byte; a concurrent change gives the old or the new value.
    let met = unsafe { *TGIDS.get(parent)? };
    if TGIDS.insert(child, met, 0).is_err() {
        record::no_room(kind::SCOPE);
    }
    Some(())
}
