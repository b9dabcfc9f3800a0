//! The full path of a file, from its dentry up to the root of the current process, without `bpf_d_path` (which
//! tracepoints may not call).
//!
//! The path grows from right to left. All state lies in a map value and none on the stack, so that a step needs to know
//! nothing but where that is.

use knark_abi::walk as found;

use crate::{
    kernel::{self, field, offset, read},
    scratch,
};

/// Components and crossed mounts.
const STEPS: u32 = 128;
/// Where the path ends in its buffer.
const END: u64 = 4096;
/// A component and its slash.
const MOST: u64 = 255 + 1;

/// The state of a walk.
#[repr(C)]
pub struct Walk {
    dentry: u64,
    mnt: u64,
    mnt_root: u64,
    root_dentry: u64,
    root_mnt: u64,
    /// Where the path begins in its buffer.
    pos: u64,
    /// See [`found`].
    pub flags: u8,
    pad: [u8; 7],
    link: Link,
    buf: [u8; END as usize + 256],
}

/// `dentry.d_parent` and `dentry.d_name`, which lie side by side (user space checks that): read at once.
#[repr(C)]
#[derive(Clone, Copy)]
struct Link {
    parent: u64,
    hash: u32,
    len: u32,
    name: u64,
}

/// One step up in the walk of that scratch memory; 0 if there is another one to take.
///
/// A function with global linkage and numbers for arguments: the verifier looks at it once, and not at each turn of the
/// loop that calls it. Otherwise loading takes seconds.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn knark_step(number: u32) -> u32 {
    let Some(s) = scratch::of(number) else { return 1 };
    // SAFETY: `s` is the caller's own scratch memory.
    u32::from(unsafe { step(&raw mut (*s).walk) })
}

/// One step up; true at the end.
///
/// # Safety
/// `w` must be valid, as a map's value is.
#[inline(always)]
unsafe fn step(w: *mut Walk) -> bool {
    // SAFETY: by this function's contract; positions are masked to the buffer.
    unsafe {
        let (dentry, mnt) = ((*w).dentry, (*w).mnt);
        if dentry == (*w).root_dentry && mnt == (*w).root_mnt {
            (*w).flags = found::ROOT;
            return true;
        }
        if !kernel::copy((&raw mut (*w).link).cast(), size_of::<Link>() as u32, dentry + offset!(dentry_d_parent)) {
            return true;
        }
        let parent = (*w).link.parent;
        if dentry == (*w).mnt_root || dentry == parent {
            // the top of this mount; `mnt` is within a struct mount, which knows what it is mounted on
            let mount = mnt - offset!(mount_mnt);
            let (Some(above), Some(point)) = (field!(mount, mount_mnt_parent), field!(mount, mount_mnt_mountpoint)) else {
                return true;
            };
            if above == mount || dentry != (*w).mnt_root {
                (*w).flags = found::TOP;
                return true;
            }
            (*w).dentry = point;
            (*w).mnt = above + offset!(mount_mnt);
            (*w).mnt_root = field!((*w).mnt, vfsmount_mnt_root).unwrap_or(0);
            return false;
        }
        let len = u64::from((*w).link.len & 0xff);
        // Compared with a constant: after a comparison with `len` the verifier of 6.12 forgets that `len` is below 256.
        if (*w).pos < MOST {
            return true;
        }
        let pos = (*w).pos - len;
        let buf = (&raw mut (*w).buf).cast::<u8>();
        kernel::copy(buf.add((pos & (END - 1)) as usize), len as u32, (*w).link.name);
        let pos = pos - 1;
        *buf.add((pos & (END - 1)) as usize) = b'/';
        (*w).pos = pos;
        (*w).dentry = parent;
        false
    }
}

/// Walks from a dentry in a mount up to the root of `task`, in the walk of that scratch memory.
///
/// Global for the same reason as [`knark_step`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn knark_walk(number: u32, task: u64, mnt: u64, dentry: u64) -> u32 {
    let Some(s) = scratch::of(number) else { return 1 };
    // SAFETY: `s` is the caller's own scratch memory.
    unsafe {
        let w = &raw mut (*s).walk;
        begin(w, task, mnt, dentry);
        for _ in 0..STEPS {
            if knark_step(number) != 0 {
                break;
            }
        }
        end(w, dentry);
    }
    0
}

/// # Safety
/// `w` must be valid.
#[inline(always)]
unsafe fn begin(w: *mut Walk, task: u64, mnt: u64, dentry: u64) {
    // SAFETY: by this function's contract.
    unsafe {
        let root = field!(task, task_fs).unwrap_or(0) + offset!(fs_root);
        let [root_mnt, root_dentry] = read(root + offset!(path_mnt)).unwrap_or([0; 2]);
        (*w).mnt = mnt;
        (*w).dentry = dentry;
        (*w).root_mnt = root_mnt;
        (*w).root_dentry = root_dentry;
        (*w).mnt_root = field!(mnt, vfsmount_mnt_root).unwrap_or(0);
        (*w).pos = END;
        (*w).flags = found::TRUNC;
    }
}

/// # Safety
/// `w` must be valid.
#[inline(always)]
unsafe fn end(w: *mut Walk, dentry: u64) {
    // SAFETY: by this function's contract; positions are masked to the buffer.
    unsafe {
        if (*w).pos != END {
            // what is not in the cache of names, unless it is the top of a mount, which never is
            if field!(dentry, dentry_d_hash_pprev) == Some(0) && field!(dentry, dentry_d_parent) != Some(dentry) {
                (*w).flags |= found::DELETED;
            }
            return;
        }
        // No component: the root itself, or something without a place in any tree, whose dentry bears its name.
        let buf = (&raw mut (*w).buf).cast::<u8>();
        if (*w).flags & found::TOP != 0 {
            let len = u64::from((*w).link.len & 0xff);
            let first: u8 = read((*w).link.name).unwrap_or(b'/');
            if len > 0 && first != b'/' {
                (*w).flags |= found::ANON;
                (*w).pos = END - len;
                kernel::copy(buf.add(((END - len) & (END - 1)) as usize), len as u32, (*w).link.name);
                return;
            }
        }
        (*w).pos = END - 1;
        *buf.add(END as usize - 1) = b'/';
    }
}

impl Walk {
    /// Where the path lies, and how long it is.
    ///
    /// # Safety
    /// `w` must be valid.
    #[inline(always)]
    pub unsafe fn path(w: *const Walk) -> (u64, u64) {
        // SAFETY: by this function's contract.
        unsafe {
            let pos = (*w).pos & (END - 1);
            ((&raw const (*w).buf) as u64 + pos, END - pos)
        }
    }
}
