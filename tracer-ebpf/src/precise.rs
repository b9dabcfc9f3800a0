//! The precise tier: functions of the kernel that every call on a file comes to, by whichever way, as path calls.
//!
//! Where such a function begins, the record is made as where a call begins: what was asked for. Once the kernel has found
//! what it is going to change, the path of that is added, which nobody can change any more. Where the function ends, the record
//! goes.

use knark_abi::{Call, Header, Inode, NO_PART, Op, PRECISE, PathBody, effect, kind, mark, note, text, walk as found};

use crate::{
    begun::{self, Addresses, Ending},
    call::{argument, given, part},
    file::{self, Place},
    head,
    kernel::{self, Entry, config, offset, read},
    probes,
    record::{self, Out},
    same, scope,
    scratch::{self, Scratch},
    walk::knark_walk,
    wanted::{self, Wanted, knark_wanted_walked},
};

/// A function begins that takes the arguments of a system call, which `fill` puts down; `by` is what it does.
#[inline(always)]
pub fn begin(op: Op, by: Op, fill: impl FnOnce(*mut [u64; 6])) {
    if !kernel::tried(by as u8) {
        start(op, false, fill);
    }
}

/// A system call begins, by itself. `fill` puts down where its registers lie.
#[inline(always)]
pub fn begin_call(op: Op, fill: impl FnOnce(*mut [u64; 6])) {
    start(op, false, |args| {
        fill(args);
        // SAFETY: `start` gives room for six arguments. The read is volatile since it is to yield a number, see `probes::put`.
        unsafe { kernel::arguments_at(&mut *args, core::ptr::read_volatile(args.cast())) };
    });
}

/// A function begins that has found the file already: its first argument is a `struct path *`, the others are those of a system
/// call on a descriptor; `by` is what it does, or which of the functions that do it. Where it is part of one that is being watched, it
/// adds to that what was found.
#[inline(always)]
pub fn begin_found(op: Op, by: u8, fill: impl FnOnce(*mut [u64; 6])) {
    if !kernel::tried(by) {
        start(op, true, fill);
    }
}

#[inline(always)]
fn start(op: Op, is_found: bool, fill: impl FnOnce(*mut [u64; 6])) {
    let Some(verdict) = scope::admit() else { return };
    let entry = kernel::entry();
    let has_tracepoint = kernel::joined(op as u8) && matches!(entry, Entry::Call(_));
    if entry == Entry::Kernel || has_tracepoint && !is_found {
        return;
    }
    // SAFETY: the scratch memory is this program's own.
    let done = scratch::with(|s, number| unsafe {
        fill(&raw mut (*s).args);
        is_found && add(s, number, kernel::call(kernel::number(op)).effect, 0, place(s))
            || has_tracepoint
            || enter(s, number, op, is_found, entry, verdict)
    });
    match done {
        // Where there is a tracepoint, it counts its own.
        None if is_found && begun::miss(kernel::call(kernel::number(op)).effect) || has_tracepoint => {}
        None => {
            record::seen(kind::PATH);
            record::no_room(kind::PATH);
        }
        Some(false) if !has_tracepoint => begun::forget(),
        Some(_) => {}
    }
}

/// Adds to the record of the call that does this ([`effect`]), if this thread is in it, which file was found. `fill` puts down where
/// its `struct path` is.
#[inline(always)]
pub fn found(effect: u8, fill: impl FnOnce(*mut [u64; 6])) {
    if kernel::stopped() {
        return;
    }
    // SAFETY: the scratch memory is this program's own. Without any, the event has its arguments alone, if they are wanted.
    let done = scratch::with(|s, number| unsafe {
        fill(&raw mut (*s).args);
        add(s, number, effect, 0, place(s));
    });
    if done.is_none() {
        begun::miss(effect);
    }
}

/// Where the first argument leads, if it is a `struct path *`.
///
/// # Safety
/// `s` must be valid.
#[inline(always)]
unsafe fn place(s: *const Scratch) -> Place {
    // SAFETY: by this function's contract.
    file::place(unsafe { argument(s, 0) }).unwrap_or(Place { mnt: 0, dentry: 0 })
}

/// Adds to the record of the call that has this effect the file that was found, unless it has one: what comes later is done to carry
/// it out. Gives false if this thread is in no such call. `nr` is that of records which a function of this kind would end: one more of
/// them ends first now.
///
/// # Safety
/// `s` must be the scratch memory of that number.
#[inline(always)]
pub unsafe fn add(s: *mut Scratch, number: u32, effect: u8, nr: u32, at: Place) -> bool {
    // SAFETY: by this function's contract.
    unsafe {
        if !begun::take_up(s, effect) {
            return false;
        }
        let body = Out::at::<PathBody>(&raw mut (*s).out);
        if (*body).nr == nr {
            (*body).result += 1;
        }
        knark_real(number, at.mnt, at.dentry, 0);
        settle(s, number);
        begun::put_back(&raw mut (*s).out);
    }
    true
}

/// Adds to the record of the function that does this ([`effect`]), if this thread is in it, what is about to be changed: one or
/// two names in directories. `fill` puts down for each of them where the `struct path` of its mount and its dentry are.
#[inline(always)]
pub fn names(effect: u8, two: bool, fill: impl FnOnce(*mut [u64; 6])) {
    if kernel::stopped() {
        return;
    }
    // SAFETY: the scratch memory is this program's own. Without any, the event has its arguments alone, if they are wanted.
    let done = scratch::with(|s, number| unsafe {
        if !begun::take_up(s, effect) {
            return;
        }
        fill(&raw mut (*s).args);
        for second in 0..1 + u8::from(two) {
            let mount: u64 = read(argument(s, second * 2) + offset!(path_mnt)).unwrap_or(0);
            knark_real(number, mount, argument(s, second * 2 + 1), u32::from(second));
            // A name that is about to be made isn't in the cache of names yet, nor is it deleted.
            let body = Out::at::<PathBody>(&raw mut (*s).out);
            let part = if second == 0 { &raw mut (*body).first } else { &raw mut (*body).second };
            (*part).walked_flags &= !found::DELETED;
        }
        settle(s, number);
        begun::put_back(&raw mut (*s).out);
    });
    if done.is_none() {
        begun::miss(effect);
    }
}

/// The function for `op` ends.
#[inline(always)]
pub fn end(op: Op, result: i32) {
    let nr = kernel::number(op);
    // SAFETY: the record that is ended is this thread's own.
    unsafe {
        begun::end(Ending::Function, nr | PRECISE, i64::from(result), |body| {
            let call = match kernel::entry() {
                Entry::Call(own) if kernel::call(own).effect == kernel::call(nr).effect => kernel::call(own),
                _ if config!(copied_names) >> (op as u32) & 1 == 0 => kernel::call(nr),
                _ => return Addresses { first: 0, second: 0, xattr: 0 },
            };
            probes::addresses(body, call)
        });
    }
}

/// Gives false if it isn't wanted.
///
/// # Safety
/// `s` must be the scratch memory of that number.
#[inline(always)]
unsafe fn enter(s: *mut Scratch, number: u32, op: Op, is_found: bool, entry: Entry, verdict: u8) -> bool {
    // SAFETY: by this function's contract.
    unsafe {
        let nr = kernel::number(op);
        let call = kernel::call(nr);
        let removes_dir = op as u8 == Op::Unlinkat as u8 && argument(s, 2) & u64::from(effect::REMOVES_DIR) != 0;
        let effect = if removes_dir { effect::RMDIR } else { call.effect };
        let wanted = wanted::effect(effect);
        if wanted == Wanted::No {
            return false;
        }
        let (head, body) = blank(s, op, verdict);
        if is_found {
            let Place { mnt, dentry } = place(s);
            knark_real(number, mnt, dentry, 0);
            (*body).args[0] = 0;
        } else {
            let copied = if config!(copied_names) >> (op as u32) & 1 != 0 { given::COPIED } else { 0 };
            part(s, number, call, false, copied);
            part(s, number, call, true, copied);
        }
        let path_decides = wanted == Wanted::ByPath && call.second_dir == Call::NO;
        let is_wanted = !path_decides || probes::by_path(number, body, effect);
        (*body).note = if is_wanted { effect | note::WANTED } else { effect };
        match entry {
            Entry::Call(own) => {
                // The call that the process made says more than the function that serves several calls.
                let own_call = kernel::call(own);
                let same = own_call.op != 0 && (own_call.effect == effect || own_call.op == op as u8);
                if same && kernel::arguments(&mut (*s).args, own) {
                    (*head).op = own_call.op;
                    (*body).args = (*s).args;
                }
            }
            Entry::Compat(_) => (*head).marks |= mark::COMPAT,
            _ => (*head).marks |= mark::IO_URING,
        }
        (*head).len = Out::len(&raw const (*s).out) as u32;
        begun::keep(&raw mut (*s).out);
    }
    true
}

/// A record with nothing but who does it, what it is, and the arguments.
///
/// # Safety
/// `s` must be valid.
#[inline(always)]
pub unsafe fn blank(s: *mut Scratch, op: Op, verdict: u8) -> (*mut Header, *mut PathBody) {
    // SAFETY: by this function's contract.
    unsafe {
        let out = &raw mut (*s).out;
        let head = Out::head(out);
        head::fill(head, kind::PATH, op as u8, verdict);
        let body = Out::body::<PathBody>(out);
        (*body).result = 0;
        (*body).nr = kernel::number(op) | PRECISE;
        (*body).enter_ns = (*head).boot_ns;
        (*body).inode = Inode { ino: 0, size: 0, dev: 0, mode: 0, uid: 0, gid: 0 };
        (*body).xattr_len = 0;
        (*body).xattr_flags = 0;
        (*body).same = [0; 2];
        (*body).first = NO_PART;
        (*body).second = NO_PART;
        (*body).args = (*s).args;
        (head, body)
    }
}

/// Says anew whether a call with one path is wanted, now that it is known what it leads to.
///
/// # Safety
/// `s` must be the scratch memory of that number.
#[inline(always)]
unsafe fn settle(s: *mut Scratch, number: u32) {
    // SAFETY: by this function's contract.
    unsafe {
        let body = Out::at::<PathBody>(&raw mut (*s).out);
        let call = kernel::call((*body).nr);
        if call.second_dir != Call::NO || (*body).first.real_len == 0 {
            return;
        }
        let effect = (*body).note & !note::WANTED;
        if wanted::effect(effect) == Wanted::ByPath {
            let is_wanted = same::is_wanted((*body).same[0], effect) || knark_wanted_walked(number, u32::from(effect)) != 0;
            (*body).note = if is_wanted { effect | note::WANTED } else { effect };
        }
    }
}

/// Appends the path of what was found, for the first or second path that was asked for.
///
/// Global, so that the verifier looks at it once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn knark_real(number: u32, mnt: u64, dentry: u64, second: u32) -> u32 {
    let Some(s) = scratch::of(number) else { return 1 };
    // SAFETY: `s` is the caller's own scratch memory.
    unsafe {
        let out = &raw mut (*s).out;
        let body = Out::at::<PathBody>(out);
        let part = if second == 0 { &raw mut (*body).first } else { &raw mut (*body).second };
        if mnt == 0 || (*part).real_len != 0 {
            return 0;
        }
        // That it is a watched file is known even where there is no room for its path.
        (*body).same[(second & 1) as usize] = same::of(dentry);
        if !Out::has_room(out) {
            return 0;
        }
        knark_walk(number, kernel::current(), mnt, dentry);
        let w = &raw mut (*s).walk;
        (*part).real_len = Out::walked(out, w);
        (*part).walked_flags = (*w).flags;
        if (*part).name_flags != 0 {
            (*part).name_flags |= text::BESIDE;
        }
        if second == 0 {
            file::inode(Out::head(out), &raw mut (*body).inode, dentry);
        }
    }
    0
}

const _: () = assert!(size_of::<Header>() + size_of::<PathBody>() < 0x100, "where strings begin, for `by_path`");
