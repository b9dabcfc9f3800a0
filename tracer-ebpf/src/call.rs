//! The paths that a system call names.

use knark_abi::{Call, Header, Inode, PathPart, text, walk as found};

use crate::{
    file,
    kernel::{self, read_user},
    record::Out,
    scratch::Scratch,
    walk::knark_walk,
};

const AT_EMPTY_PATH: u64 = 0x1000;

/// How one path is given: the descriptor of its directory (`Call::CWD`, or `Call::TEXT` for what is no path) and its
/// name, as indices of arguments.
#[derive(Clone, Copy)]
pub struct Given {
    /// Directory.
    pub dir: u8,
    /// Name; `Call::NO` if the descriptor is the file itself.
    pub name: u8,
    /// The flags that go for this path.
    pub at_flags: u64,
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

/// Appends a path to the record: what is walked, then the argument. An argument that isn't in memory yet is only marked,
/// and `late` appends it when the call has ended.
///
/// # Safety
/// See [`argument`]; the other pointers must be valid for writes.
#[inline(always)]
pub unsafe fn append(s: *mut Scratch, number: u32, part: *mut PathPart, given: Given, before: Option<(*mut Header, *mut Inode)>) {
    // SAFETY: by this function's contract.
    unsafe {
        (*part) = PathPart { walked_len: 0, name_len: 0, walked_flags: 0, name_flags: 0, pad: [0; 2] };
        if given.dir == Call::NO {
            return;
        }
        let out = &raw mut (*s).out;
        let mut name = 0;
        let mut first: Option<u8> = Some(0);
        if given.name != Call::NO {
            name = argument(s, given.name);
            first = if name == 0 { None } else { read_user(name) };
        }
        let itself = given.name == Call::NO || (given.at_flags & AT_EMPTY_PATH != 0 && (name == 0 || first == Some(0)));
        if given.dir != Call::TEXT && (itself || first != Some(b'/')) {
            let dir = if given.dir == Call::CWD { -100 } else { argument(s, given.dir) as i32 };
            let task = kernel::current();
            // nothing was walked, if there is nothing
            (*part).walked_flags = found::NONE;
            if let Some(place) = file::directory(task, dir) {
                let w = &raw mut (*s).walk;
                knark_walk(number, task, place.mnt, place.dentry);
                (*part).walked_len = Out::walked(out, w);
                (*part).walked_flags = (*w).flags;
                if itself && let Some((head, to)) = before {
                    file::inode(head, to, place.dentry);
                }
            }
        }
        if !itself {
            let (len, flags) = Out::user_string(out, name);
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
