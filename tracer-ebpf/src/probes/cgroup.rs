//! Control groups come and go. A new one inherits its parent's verdict and rate limit here in the kernel, before anything runs in it.

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};
use knark_abi::{CgroupBody, kind, scope, verdict};

use crate::{
    head,
    kernel::{config, field, offset, read, stopped},
    maps::{CGROUPS, RATE_OF},
    record::{self, Out},
    scratch,
};

/// match-proto: cgroup_mkdir(struct cgroup *cgrp, const char *path)
#[raw_tracepoint(tracepoint = "cgroup_mkdir")]
pub fn cgroup_mkdir(ctx: RawTracePointContext) -> i32 {
    report(ctx.arg(0), ctx.arg(1), kind::CGROUP_MKDIR);
    0
}

/// match-proto: cgroup_rmdir(struct cgroup *cgrp, const char *path)
#[raw_tracepoint(tracepoint = "cgroup_rmdir")]
pub fn cgroup_rmdir(ctx: RawTracePointContext) -> i32 {
    report(ctx.arg(0), ctx.arg(1), kind::CGROUP_RMDIR);
    0
}

#[inline(always)]
fn report(group: u64, path: u64, kind: u8) -> Option<()> {
    if stopped() {
        return None;
    }
    let root = field!(group, cgroup_root)?;
    if field!(root, cgroup_root_hierarchy_id as u32)? != config!(hierarchy) {
        return None; // ids of different hierarchies collide
    }
    let id = field!(field!(group, cgroup_kn)?, kn_id)?;
    // cgrp->self.parent->cgroup->kn->id
    let parent: u64 = read(group + offset!(cgroup_self) + offset!(css_parent))?;
    let parent = if parent == 0 { 0 } else { field!(field!(field!(parent, css_cgroup)?, cgroup_kn)?, kn_id)? };
    // SAFETY: one byte; a concurrent change gives the old or the new value.
    let inherited = unsafe { CGROUPS.get(if kind == kind::CGROUP_MKDIR { parent } else { id }).copied() };
    if let Some(inherited) = inherited
        && config!(scope) & scope::CGROUP != 0
    {
        if kind == kind::CGROUP_RMDIR {
            let _ = CGROUPS.remove(id);
        } else if CGROUPS.insert(id, inherited, 0).is_err() {
            record::no_room(kind::SCOPE);
        }
    }
    if config!(event_ns) != 0 {
        // SAFETY: one word; a concurrent change gives the old or the new value.
        let shared = unsafe { RATE_OF.get(parent).copied() };
        if kind == kind::CGROUP_RMDIR {
            let _ = RATE_OF.remove(id);
        } else if let Some(shared) = shared {
            // without room its own limit holds
            let _ = RATE_OF.insert(id, shared, 0);
        }
    }
    record::seen(kind);
    // SAFETY: the scratch memory is this program's own.
    let done = scratch::with(|s, _| unsafe {
        let out = &raw mut (*s).out;
        let decided = inherited.unwrap_or(verdict::NONE);
        head::fill(Out::head(out), kind, 0, verdict::TRACE);
        let body = Out::body::<CgroupBody>(out);
        (*body).id = id;
        (*body).parent = parent;
        (*body).path_len = Out::kernel_string(out, path);
        (*body).verdict = decided;
        (*body).pad = [0; 5];
        Out::emit(out, kind, record::WAKE);
    });
    if done.is_none() {
        record::no_room(kind);
    }
    Some(())
}
