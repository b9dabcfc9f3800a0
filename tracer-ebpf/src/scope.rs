//! Whether an event is wanted. This runs for every open on the machine, so it does the least that settles it.

use aya_ebpf::helpers::bpf_get_current_comm;
use knark_abi::{EXCLUDED, scope, verdict};

use crate::{
    kernel::{self, config},
    maps::{CGROUPS, COMMS, TGIDS},
};

/// The verdict for the current task, or None if its events are not wanted.
#[inline(always)]
pub fn admit() -> Option<u8> {
    if kernel::stopped() {
        return None;
    }
    let wanted = config!(scope);
    let mut decided = verdict::TRACE;
    if wanted & scope::CGROUP != 0 {
        // SAFETY: the value is one byte; a concurrent change gives the old or the new one.
        decided = unsafe { *CGROUPS.get(kernel::cgroup())? };
        if decided == verdict::IGNORE {
            return None;
        }
    }
    let (tgid, _) = kernel::ids();
    let conditions = (wanted & (scope::TGID | scope::EXE)) as u8;
    if conditions != 0 {
        // SAFETY: as above.
        let met = unsafe { *TGIDS.get(tgid)? };
        if met & conditions != conditions {
            return None;
        }
    }
    if wanted & scope::COMM != 0 {
        let name = bpf_get_current_comm().ok()?;
        // SAFETY: as above.
        unsafe { COMMS.get(name)? };
    }
    for i in 0..EXCLUDED {
        if kernel::constant(&kernel::CONFIG.exclude[i]) == tgid {
            return None;
        }
    }
    Some(decided)
}
