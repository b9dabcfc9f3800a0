//! Whether a file is a watched one, whichever name led to it.

use knark_abi::FileId;

use crate::{
    kernel::{config, field},
    maps::WATCHED,
};

/// The number of the watched file that a dentry leads to; 0 if it is none, or none is watched.
#[inline(always)]
pub fn of(dentry: u64) -> u32 {
    // The verifier removes all of this where no files are watched.
    if config!(same) == 0 || dentry == 0 { 0 } else { knark_same(dentry) }
}

/// Whether an effect is wanted on the watched file of this number.
#[inline(always)]
pub fn is_wanted(number: u32, effect: u8) -> bool {
    number != 0 && config!(same) >> (effect & 31) & 1 != 0
}

/// Global, so that the verifier looks at it once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn knark_same(dentry: u64) -> u32 {
    let Some(id) = identity(dentry) else { return 0 };
    // SAFETY: four bytes; a concurrent change gives the old or the new value.
    unsafe { WATCHED.get(&id) }.copied().unwrap_or(0)
}

/// What tells a dentry's file from others; None if it leads to none.
#[inline(always)]
pub fn identity(dentry: u64) -> Option<FileId> {
    let inode = field!(dentry, dentry_d_inode)?;
    let sb = field!(inode, inode_i_sb)?;
    Some(FileId {
        ino: field!(inode, inode_i_ino)?,
        dev: field!(sb, sb_s_dev as u32)?,
        generation: field!(inode, inode_i_generation as u32)?,
    })
}
