//! A file was opened, or was not: the record of that, whoever says so.

use knark_abi::{Header, Inode, OpenBody, effect, kind, mark, text, walk as found};

use crate::{
    file::{self, Place},
    head,
    kernel::{self, offset, read, read_user},
    record::{self, Out},
    same,
    scratch::Scratch,
    storm,
    walk::knark_walk,
    wanted::{self, Wanted, knark_wanted_argument, knark_wanted_walked},
};

const AT_FDCWD: i32 = -100;
/// `O_CREAT`, and the bit of `O_TMPFILE` that is its own, the same on all architectures
const MAKES: u32 = 0o20_000_100;
/// Where the strings of a record begin.
const STRINGS: u32 = (size_of::<Header>() + size_of::<OpenBody>()) as u32;

/// What is known of an open when it ends.
#[derive(Clone, Copy)]
pub struct Opened {
    /// See [`knark_abi::Op`].
    pub op: u8,
    /// The verdict that let it through.
    pub verdict: u8,
    /// What is missing of what was asked for.
    pub marks: u32,
    /// A descriptor or a negative error.
    pub result: i64,
    /// Where the name is that was asked for; 0 if there is none.
    pub name: u64,
    /// The `struct file *` itself, 0 if there is none, and the name is the kernel's own copy; or None: the descriptor leads to the
    /// file, and the name is the process's.
    pub file: Option<u64>,
    /// A mark for who did it, if it was no system call of this architecture; else 0.
    pub by: u32,
}

/// An empty body, to be filled with what was asked for.
///
/// # Safety
/// `out` must be valid, as a map's value is.
#[inline(always)]
pub unsafe fn begin(out: *mut Out, result: i64) -> *mut OpenBody {
    // SAFETY: by this function's contract.
    unsafe {
        let body = Out::body::<OpenBody>(out);
        (*body) = OpenBody {
            result: result as i32,
            flags: 0,
            inode: Inode { ino: 0, size: 0, dev: 0, mode: 0, uid: 0, gid: 0 },
            mode: 0,
            dirfd: AT_FDCWD,
            walked_len: 0,
            name_len: 0,
            walked_flags: found::NONE,
            name_flags: 0,
            pad: [0; 2],
            same: 0,
            pad_end: 0,
        };
        body
    }
}

/// Hands over the record whose body says what was asked for, if it is wanted.
///
/// # Safety
/// `s` must be the scratch memory of that number.
#[inline(always)]
pub unsafe fn report(s: *mut Scratch, number: u32, of: Opened) {
    let Opened { op, verdict, mut marks, result, name, .. } = of;
    let copied = of.file.is_some();
    // SAFETY: by this function's contract.
    unsafe {
        let out = &raw mut (*s).out;
        let body = Out::at::<OpenBody>(out);
        let mut effect = if (*body).flags & effect::WRITES != 0 { effect::WRITE_OPEN } else { effect::OPEN };
        // without flags it is any of them
        let known = marks == 0;
        let makes = result >= 0 && (*body).flags & MAKES != 0;
        if known && !makes && wanted::effect(effect) == Wanted::No {
            return;
        }
        let task = kernel::current();
        // No Option: up to 5.10 the verifier wants all of it to be written before it goes to the stack and back.
        let mut opened = Place { mnt: 0, dentry: 0 };
        let mut with_name = name != 0;
        let mut beside = 0;
        if result >= 0 {
            let found = if copied { of.file.map(|file| (file, false)) } else { file::of_descriptor(task, result as i32) };
            if let Some((file, shared)) = found {
                opened = file::place(file + offset!(file_f_path)).unwrap_or(opened);
                if file::created(file) {
                    marks |= mark::CREATED;
                    effect = effect::CREATE;
                }
                if shared {
                    marks |= mark::FD_SHARED;
                    beside = text::BESIDE;
                } else {
                    with_name = false;
                }
            }
            if opened.dentry == 0 {
                // Closed meanwhile, maybe just so: then there is nothing to compare with what was asked for.
                marks |= mark::FD_EMPTY;
                beside = 0;
                with_name = name != 0;
            }
        }
        let wanted = if known { wanted::effect(effect) } else { Wanted::Yes };
        if wanted == Wanted::No {
            return;
        }
        let number_of_watched = same::of(opened.dentry);
        (*body).same = number_of_watched;
        let mut from = if opened.dentry != 0 { Some(opened) } else { None };
        let mut absolute = false;
        if from.is_none() && with_name {
            absolute = if copied { read::<u8>(name) } else { read_user(name) } == Some(b'/');
            if absolute {
                (*body).walked_flags = 0;
            } else {
                from = file::directory(task, (*body).dirfd);
            }
        }
        if let Some(place) = from {
            let w = &raw mut (*s).walk;
            knark_walk(number, task, place.mnt, place.dentry);
            if wanted == Wanted::ByPath
                && opened.dentry != 0
                && !same::is_wanted(number_of_watched, effect)
                && knark_wanted_walked(number, u32::from(effect)) == 0
            {
                return;
            }
            (*body).walked_len = Out::walked(out, w);
            (*body).walked_flags = (*w).flags;
        }
        if with_name {
            let (len, flags) = if copied { Out::copied_string(out, name) } else { Out::user_string(out, name) };
            (*body).name_len = len;
            (*body).name_flags = flags | beside;
            // what was cut off or could not be read can't be told
            if wanted == Wanted::ByPath
                && absolute
                && flags == text::PRESENT
                && knark_wanted_argument(number, STRINGS, u32::from(len), u32::from(effect)) == 0
            {
                return;
            }
        }
        record::seen(kind::OPEN);
        let head = Out::head(out);
        head::fill(head, kind::OPEN, op, verdict);
        (*head).marks = marks | of.by;
        if opened.dentry != 0 {
            file::inode(head, &raw mut (*body).inode, opened.dentry);
        }
        if !storm::holds_back(s, number, kind::OPEN) {
            Out::emit(out, kind::OPEN, record::QUIET);
        }
    }
}
