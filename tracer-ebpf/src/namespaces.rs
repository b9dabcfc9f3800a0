//! The ids that a process knows itself by: those of its own namespaces. Most are in the first ones, where nothing is looked up but
//! which those are; before Linux 5.11 that, too, takes a helper's reads.

use knark_abi::{UNMAPPED, feature};

use crate::kernel::{current, field, has, offset, pointed, read};

/// So many extents lie in a map of ids itself (`UID_GID_MAP_MAX_BASE_EXTENTS`), ...
const WITHIN: u32 = 5;
/// ... and so many beside it, in the order of the node's ids, at most (`UID_GID_MAP_MAX_EXTENTS`).
const BESIDE: u32 = 340;
/// Halvings that find one of these.
const HALVINGS: u32 = u32::BITS - BESIDE.leading_zeros();

/// The current process's id in its own PID namespace. It is the thread group's, not the thread's, and stays the same for as long as
/// the process lives; `unshare` and `setns` put its children elsewhere, not itself.
#[inline(always)]
pub fn tgid(first: u32) -> u32 {
    if has(feature::TASK_REGS) && pointed!(task_signal, signal_pids_tgid => pid_level as u32) == 0 {
        first
    } else {
        knark_own_tgid(first)
    }
}

/// The current thread's user, and its group, in its own user namespace. They are looked up each time: credentials change, and a
/// namespace's map is written after it is made.
#[inline(always)]
pub fn user(uid: u32, gid: u32) -> (u32, u32) {
    if has(feature::TASK_REGS) && pointed!(task_cred, cred_user_ns => userns_level as u32) == 0 {
        (uid, gid)
    } else {
        (knark_own_id(uid, 0), knark_own_id(gid, 1))
    }
}

/// Global, so that the verifier looks at it once, and that it takes none of the stack of whoever calls it.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn knark_own_tgid(first: u32) -> u32 {
    own_tgid().unwrap_or(first)
}

#[inline(always)]
fn own_tgid() -> Option<u32> {
    let pid: u64 = field!(field!(current(), task_signal)?, signal_pids_tgid)?;
    let level = field!(pid, pid_level as u32)?;
    read(pid + offset!(pid_numbers) + u64::from(level) * offset!(upid_sizeof) + offset!(upid_nr))
}

/// Of a user's id, or of a group's.
///
/// Global, as above.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn knark_own_id(id: u32, is_group: u32) -> u32 {
    let Some(namespace) = namespace() else { return id };
    let map = if is_group == 0 { offset!(userns_uid_map) } else { offset!(userns_gid_map) };
    mapped(namespace + map, id).unwrap_or(UNMAPPED)
}

/// The current thread's user namespace, unless it is the first.
#[inline(always)]
fn namespace() -> Option<u64> {
    let namespace: u64 = field!(field!(current(), task_cred)?, cred_user_ns)?;
    if field!(namespace, userns_level as u32)? == 0 { None } else { Some(namespace) }
}

/// `struct uid_gid_extent`
#[derive(Clone, Copy)]
#[repr(C)]
struct Extent {
    first: u32,
    lower_first: u32,
    count: u32,
}

impl Extent {
    #[inline(always)]
    fn mapped(self, id: u32) -> Option<u32> {
        let at = id.wrapping_sub(self.lower_first);
        if at < self.count { Some(self.first.wrapping_add(at)) } else { None }
    }
}

/// What a `struct uid_gid_map` makes of one of the node's ids: `map_id_up` of kernel/user_namespace.c.
#[inline(always)]
fn mapped(map: u64, id: u32) -> Option<u32> {
    const SIZE: u64 = size_of::<Extent>() as u64;
    let count = field!(map, idmap_nr_extents as u32)?;
    if count <= WITHIN {
        for i in 0..WITHIN {
            if i >= count {
                break;
            }
            let extent: Extent = read(map + offset!(idmap_extent) + u64::from(i) * SIZE)?;
            if let Some(mapped) = extent.mapped(id) {
                return Some(mapped);
            }
        }
        return None;
    }
    let extents: u64 = field!(map, idmap_reverse)?;
    let (mut from, mut to) = (0, if count < BESIDE { count } else { BESIDE });
    for _ in 0..HALVINGS {
        if from >= to {
            break;
        }
        let middle = (from + to) / 2;
        let extent: Extent = read(extents + u64::from(middle) * SIZE)?;
        if let Some(mapped) = extent.mapped(id) {
            return Some(mapped);
        }
        if id < extent.lower_first {
            to = middle;
        } else {
            from = middle + 1;
        }
    }
    None
}
