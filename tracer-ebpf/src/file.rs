//! Descriptors, directories and inodes of the current process.

use knark_abi::{Header, Inode, mark};

use crate::kernel::{field, offset, read};

const AT_FDCWD: i32 = -100;
/// `FMODE_CREATED`
const CREATED: u32 = 0x10_0000;
/// `OVERLAYFS_SUPER_MAGIC`
const OVERLAY: u64 = 0x794c_7630;
/// `TMPFS_MAGIC`
const TMPFS: u64 = 0x0102_1994;

/// A place in the tree of files.
#[derive(Clone, Copy)]
pub struct Place {
    /// `struct vfsmount *`
    pub mnt: u64,
    /// `struct dentry *`
    pub dentry: u64,
}

/// A descriptor's `struct file *`, and whether the table is shared with another task. None if it is not open.
#[inline(always)]
pub fn of_descriptor(task: u64, fd: i32) -> Option<(u64, bool)> {
    let files = field!(task, task_files)?;
    let table = field!(files, files_fdt)?;
    if fd as u32 >= field!(table, fdt_max_fds as u32)? {
        return None;
    }
    let slots = field!(table, fdt_fd)?;
    let file: u64 = read(slots + u64::from(fd as u32) * 8)?;
    if file == 0 {
        return None;
    }
    Some((file, field!(files, files_count as i32)? > 1))
}

/// What a `struct path` says.
#[inline(always)]
pub fn place(path: u64) -> Option<Place> {
    // struct path { struct vfsmount *mnt; struct dentry *dentry; }, as user space has made sure of
    let [mnt, dentry] = read::<[u64; 2]>(path + offset!(path_mnt))?;
    Some(Place { mnt, dentry })
}

/// The working directory.
#[inline(always)]
pub fn working_directory(task: u64) -> Option<Place> {
    place(field!(task, task_fs)? + offset!(fs_pwd))
}

/// What a directory's descriptor stands for, `AT_FDCWD` too.
#[inline(always)]
pub fn directory(task: u64, fd: i32) -> Option<Place> {
    if fd == AT_FDCWD {
        return working_directory(task);
    }
    let (file, _) = of_descriptor(task, fd)?;
    place(file + offset!(file_f_path))
}

/// Whether the open that gave this `struct file *` made the file.
#[inline(always)]
pub fn created(file: u64) -> bool {
    field!(file, file_f_mode as u32).is_some_and(|mode| mode & CREATED != 0)
}

/// Reads a dentry's inode into a record, and marks that it is there. Gives the inode's and super block's addresses.
///
/// # Safety
/// Both pointers must be valid for writes.
#[inline(always)]
pub unsafe fn inode(head: *mut Header, to: *mut Inode, dentry: u64) -> Option<(u64, u64)> {
    let inode = field!(dentry, dentry_d_inode)?;
    // All that is wanted lies at the front: one read for it. Elsewhere `front` reads again.
    let bytes: [u64; FRONT / 8] = read(inode)?;
    let bytes = (&raw const bytes).cast::<u8>();
    // SAFETY: by this function's contract, and `bytes` is as long as FRONT.
    unsafe {
        let sb: u64 = front(bytes, inode, offset!(inode_i_sb))?;
        (*to).ino = front(bytes, inode, offset!(inode_i_ino))?;
        (*to).size = front(bytes, inode, offset!(inode_i_size))?;
        (*to).mode = u32::from(front::<u16>(bytes, inode, offset!(inode_i_mode))?);
        (*to).uid = front(bytes, inode, offset!(inode_i_uid))?;
        (*to).gid = front(bytes, inode, offset!(inode_i_gid))?;
        (*to).dev = field!(sb, sb_s_dev as u32)?;
        (*head).marks |= mark::INODE;
        Some((inode, sb))
    }
}

/// So much of an inode is read at once.
const FRONT: usize = 96;

/// A member out of what was read, if it lies there.
///
/// # Safety
/// `bytes` must be valid for [`FRONT`] bytes.
#[inline(always)]
unsafe fn front<T: Copy>(bytes: *const u8, inode: u64, at: u64) -> Option<T> {
    if at <= (FRONT - size_of::<T>()) as u64 {
        // SAFETY: the member lies within.
        Some(unsafe { core::ptr::read_volatile(bytes.add(at as usize).cast::<T>()) })
    } else {
        read(inode + at)
    }
}

/// Marks for an exe: in memory only, or in which layer of an overlay.
#[inline(always)]
pub fn origin(inode: u64, sb: u64, anonymous: bool) -> u32 {
    let Some(magic) = field!(sb, sb_s_magic) else { return 0 };
    if magic == TMPFS && anonymous {
        return mark::MEMFD;
    }
    if magic != OVERLAY {
        return 0;
    }
    // `struct ovl_inode { ..; struct inode vfs_inode; struct dentry *__upperdentry; ..}`: overlay is a module on many
    // kernels, and its types aren't in their BTF, but this order has held from 4.13 to 7.x.
    match read::<u64>(inode + offset!(inode_sizeof)) {
        None => mark::OVERLAY | mark::UPPER_UNKNOWN,
        Some(0) => mark::OVERLAY,
        // Anything but an aligned kernel address, whose first byte is FF on all architectures and widths of addresses, says
        // that the order has changed.
        Some(upper) if upper >> 56 != 0xff || upper & 7 != 0 => mark::OVERLAY | mark::UPPER_UNKNOWN,
        Some(_) => mark::OVERLAY | mark::UPPER,
    }
}
