//! The header: who did it, and when.

use aya_ebpf::helpers::{bpf_get_current_comm, generated::bpf_ktime_get_boot_ns};
use knark_abi::Header;

use crate::{
    kernel::{self, typed},
    namespaces,
};

/// Now, in ns since boot, sleep included.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: has no preconditions.
    unsafe { bpf_ktime_get_boot_ns() }
}

/// Fills in no more than which thread it is, and when. The rest is zero, and costs nothing.
///
/// # Safety
/// `head` must be valid for writes.
#[inline(always)]
pub unsafe fn brief(head: *mut Header, kind: u8, op: u8, verdict: u8) {
    let (tgid, tid) = kernel::ids();
    // SAFETY: by this function's contract.
    unsafe {
        *head = Header {
            len: 0,
            kind,
            op,
            verdict,
            pad: 0,
            marks: 0,
            tgid,
            tid,
            ppid: 0,
            uid: 0,
            gid: 0,
            ns_tgid: 0,
            ns_uid: 0,
            ns_gid: 0,
            pad2: 0,
            boot_ns: now(),
            cgroup: 0,
            start_ns: 0,
            parent_start_ns: 0,
            exec_id: 0,
            comm: [0; 16],
        };
    }
}

/// Fills in a header for the current task.
///
/// # Safety
/// `head` must be valid for writes.
#[inline(always)]
pub unsafe fn fill(head: *mut Header, kind: u8, op: u8, verdict: u8) {
    let (tgid, tid) = kernel::ids();
    // Each is put down before the next is looked up: what is kept meanwhile takes room on the stack.
    // SAFETY: by this function's contract.
    unsafe {
        (*head).len = 0;
        (*head).kind = kind;
        (*head).op = op;
        (*head).verdict = verdict;
        (*head).pad = 0;
        (*head).marks = 0;
        (*head).tgid = tgid;
        (*head).tid = tid;
        (*head).ns_tgid = namespaces::tgid(tgid);
        (*head).ppid = typed!(task_real_parent => task_tgid as u32);
        // The helper for this tells the real ids; what a process may do is decided by the effective ones.
        let uid = typed!(task_cred => cred_euid as u32);
        let gid = typed!(task_cred => cred_egid as u32);
        (*head).uid = uid;
        (*head).gid = gid;
        ((*head).ns_uid, (*head).ns_gid) = namespaces::user(uid, gid);
        (*head).pad2 = 0;
        (*head).boot_ns = now();
        (*head).cgroup = kernel::cgroup();
        (*head).start_ns = typed!(task_group_leader => task_start_boottime as u64);
        (*head).parent_start_ns = typed!(task_real_parent, task_group_leader => task_start_boottime as u64);
        (*head).exec_id = typed!(task_group_leader => task_self_exec_id as u64);
        (*head).comm = bpf_get_current_comm().unwrap_or([0; 16]);
    }
}
