//! The paths that a system call names.

use knark_abi::{Call, PathBody, PathPart, text, walk as found};

use crate::{
    file,
    kernel::{self, offset, read, read_user},
    record::Out,
    same,
    scratch::{self, Scratch},
    walk::knark_walk,
};

const AT_EMPTY_PATH: u64 = 0x1000;
const AT_FDCWD: i32 = -100;

/// How one path is given.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Given {
    /// Where the name is; 0 for a null pointer.
    pub name: u64,
    /// The `AT_*` flags that go for this path.
    pub at_flags: u64,
    /// The descriptor that it starts from, `AT_FDCWD` too.
    pub dir: i32,
    /// See [`given`].
    pub how: u32,
}

/// `Given::how`
pub mod given {
    /// The descriptor is the file itself.
    pub const FILE: u32 = 1;
    /// By a name.
    pub const NAME: u32 = 2;
    /// By a text that is no path, which is what a symbolic link says.
    pub const TEXT: u32 = 3;
    /// With one of those: the kernel has copied the name.
    pub const COPIED: u32 = 4;
}

/// An argument, by its index.
///
/// # Safety
/// `s` must be valid, as a map's value is; this goes for all functions here.
#[inline(always)]
pub unsafe fn argument(s: *const Scratch, index: u8) -> u64 {
    // SAFETY: by this function's contract. The mask is for the verifier, so 6 and 7 need an answer too.
    unsafe {
        let args = (&raw const (*s).args).cast::<u64>();
        let i = (index & 7) as usize;
        if i < 6 { core::ptr::read_volatile(args.add(i)) } else { 0 }
    }
}

/// Appends the first or second path of a call, whose arguments are in the scratch memory, to the record. `copied` is
/// [`given::COPIED`] if the names are `struct filename`, else 0.
///
/// # Safety
/// See [`argument`].
#[inline(always)]
pub unsafe fn part(s: *mut Scratch, number: u32, call: Call, second: bool, copied: u32) {
    let (dir, name) = if second { (call.second_dir, call.second_name) } else { (call.first_dir, call.first_name) };
    let how = match (dir, name) {
        (Call::NO, _) => return,
        (Call::TEXT, _) => given::TEXT | copied,
        (_, Call::NO) => given::FILE,
        _ => given::NAME | copied,
    };
    // SAFETY: by this function's contract.
    unsafe {
        let given = &raw mut (*s).given;
        (*given).how = how;
        (*given).dir = if dir >= Call::TEXT { AT_FDCWD } else { argument(s, dir) as i32 };
        (*given).name = if name == Call::NO { 0 } else { argument(s, name) };
        (*given).at_flags = if second || call.at_flags == Call::NO { 0 } else { argument(s, call.at_flags) };
    }
    knark_append(number, u32::from(second));
}

/// Appends the first or second path to the record as it is given: what is walked, then the argument. An argument that isn't in
/// memory yet is only marked, and `late` appends it when the call has ended.
///
/// Global, so that the verifier looks at it once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn knark_append(number: u32, second: u32) -> u32 {
    let Some(s) = scratch::of(number) else { return 1 };
    // SAFETY: `s` is the caller's own scratch memory.
    unsafe {
        let out = &raw mut (*s).out;
        let body = Out::at::<PathBody>(out);
        let part = if second == 0 { &raw mut (*body).first } else { &raw mut (*body).second };
        append(s, number, part, second != 0);
    }
    0
}

/// # Safety
/// See [`argument`]; `part` must be valid for writes.
#[inline(always)]
unsafe fn append(s: *mut Scratch, number: u32, part: *mut PathPart, second: bool) {
    // SAFETY: by this function's contract.
    unsafe {
        let out = &raw mut (*s).out;
        let given = &raw mut (*s).given;
        let copied = (*given).how & given::COPIED != 0;
        if copied {
            // Where the kernel couldn't copy the name, an error is in place of a pointer.
            let Some(name) = read::<u64>((*given).name + offset!(filename_name)) else {
                (*part).name_flags = text::PRESENT | text::FAULT;
                return;
            };
            (*given).name = name;
        }
        let how = (*given).how & !given::COPIED;
        let name = (*given).name;
        let mut first: Option<u8> = Some(0);
        if how != given::FILE {
            first = match name {
                0 => None,
                _ if copied => read(name),
                _ => read_user(name),
            };
        }
        let itself = how == given::FILE || ((*given).at_flags & AT_EMPTY_PATH != 0 && (name == 0 || first == Some(0)));
        if how != given::TEXT && (itself || first != Some(b'/')) {
            let task = kernel::current();
            // nothing was walked, if there is nothing
            (*part).walked_flags = found::NONE;
            if let Some(place) = file::directory(task, (*given).dir) {
                let w = &raw mut (*s).walk;
                knark_walk(number, task, place.mnt, place.dentry);
                (*part).walked_len = Out::walked(out, w);
                (*part).walked_flags = (*w).flags;
                if itself && !second {
                    (*Out::at::<PathBody>(out)).same[0] = same::of(place.dentry);
                    file::inode(Out::head(out), &raw mut (*Out::at::<PathBody>(out)).inode, place.dentry);
                }
            }
        }
        if !itself {
            let name = (*given).name;
            let (len, flags) = if copied { Out::copied_string(out, name) } else { Out::user_string(out, name) };
            (*part).name_len = len;
            (*part).name_flags = flags;
        }
    }
}

/// Appends an argument that wasn't in memory when the call began. Late strings come after all others.
///
/// # Safety
/// See [`argument`].
#[inline(always)]
pub unsafe fn late(out: *mut Out, from: u64) -> (u16, u8) {
    // SAFETY: by this function's contract.
    let (len, flags) = unsafe { Out::user_string(out, from) };
    (len, flags | text::LATE)
}
