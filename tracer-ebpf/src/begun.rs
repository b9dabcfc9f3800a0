//! Path calls that have begun: each is kept, as the record that it will be, by its thread, until it ends.

use aya_ebpf::{helpers::generated, maps::HashMap};
use knark_abi::{Header, INFLIGHT_SMALL, PRECISE, PathBody, RECORD_BYTES, feature, kind, mark, note, text};

use crate::{
    call::late,
    head,
    kernel::{self, has},
    maps::{INFLIGHT, INFLIGHT_LONG},
    record::{self, Out, hand_over},
    scratch::{self, Scratch},
    storm,
};

/// `BPF_NOEXIST`
const NEW: u64 = 1;
const EEXIST: i64 = -17;

/// Where the strings of a path call were that could not be read when it began; 0: no such string.
#[derive(Clone, Copy)]
pub struct Addresses {
    /// Of the first path's name.
    pub first: u64,
    /// Of the second's.
    pub second: u64,
    /// Of the extended attribute's name.
    pub xattr: u64,
}

/// Sees to it that the end of a call that isn't wanted is not taken for that of an earlier one of this thread, whose own end was
/// not seen. That one is lost.
#[inline(always)]
pub fn forget() {
    let key = kernel::pid_tgid();
    give_up(&INFLIGHT, key);
    give_up(&INFLIGHT_LONG, key);
}

/// Keeps the record until the call ends.
///
/// # Safety
/// `out` must be valid, as a map's value is.
#[inline(always)]
pub unsafe fn keep(out: *mut Out) {
    let key = kernel::pid_tgid();
    // SAFETY: by this function's contract.
    unsafe {
        // What is there already belongs to a call whose end was not seen. It is lost, but not forgotten.
        let mut failed = if Out::len(out) <= INFLIGHT_SMALL as u64 {
            insert(&INFLIGHT, key, out, NEW)
        } else {
            give_up(&INFLIGHT, key);
            insert(&INFLIGHT_LONG, key, out, NEW)
        };
        if failed == EEXIST {
            failed = if Out::len(out) <= INFLIGHT_SMALL as u64 {
                give_up(&INFLIGHT, key);
                insert(&INFLIGHT, key, out, 0)
            } else {
                give_up(&INFLIGHT_LONG, key);
                insert(&INFLIGHT_LONG, key, out, 0)
            };
        }
        if failed != 0 {
            lose(Out::at::<PathBody>(out));
        }
    }
}

/// Takes the record of the kernel's function that this thread is in, if it has this effect, into the scratch memory, to add to
/// it. Gives false if there is none.
///
/// # Safety
/// `s` must be valid, as a map's value is.
#[inline(always)]
pub unsafe fn take_up(s: *mut Scratch, effect: u8) -> bool {
    // SAFETY: by this function's contract; the sizes are those of the maps' values.
    unsafe { copy(s, &INFLIGHT, INFLIGHT_SMALL as u64, effect) || copy(s, &INFLIGHT_LONG, RECORD_BYTES as u64, effect) }
}

/// Puts back what [`take_up`] took, which may have grown. If there is no room, it is lost: without what was found, nothing tells
/// whether it is wanted.
///
/// # Safety
/// See [`keep`].
#[inline(always)]
pub unsafe fn put_back(out: *mut Out) {
    let key = kernel::pid_tgid();
    // SAFETY: by this function's contract.
    unsafe {
        (*Out::head(out)).len = Out::len(out) as u32;
        if Out::len(out) <= INFLIGHT_SMALL as u64 {
            insert(&INFLIGHT, key, out, 0);
        } else {
            if insert(&INFLIGHT_LONG, key, out, 0) != 0 {
                lose(Out::at::<PathBody>(out));
                remove(&INFLIGHT_LONG, key);
            }
            remove(&INFLIGHT, key);
        }
    }
}

/// What the kernel has found for this thread's call of this effect can't be looked at: there is no memory for it. Where nothing else
/// tells whether the call is wanted, it is lost. Gives false if this thread is in no such call.
#[inline(always)]
pub fn miss(effect: u8) -> bool {
    missed(&INFLIGHT, effect) || missed(&INFLIGHT_LONG, effect)
}

/// What ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// A system call, and all that is within it.
    Call,
    /// A function of the kernel, maybe within another one that does the same.
    Function,
}

/// Ends the call that this thread has begun, and hands over its record.
///
/// # Safety
/// None but that of maps: it is a function of programs.
#[inline(always)]
pub unsafe fn end(what: Ending, nr: u32, result: i64, addresses: impl Fn(*const PathBody) -> Addresses) {
    // SAFETY: the sizes are those of the maps' values.
    unsafe {
        if !finish(&INFLIGHT, INFLIGHT_SMALL as u64, what, nr, result, &addresses) {
            finish(&INFLIGHT_LONG, RECORD_BYTES as u64, what, nr, result, &addresses);
        }
    }
}

/// Reports the call that this thread never came back from.
#[inline(always)]
pub fn abandon() {
    // SAFETY: the sizes are those of the maps' values.
    unsafe {
        if !unfinished(&INFLIGHT, INFLIGHT_SMALL as u64) {
            unfinished(&INFLIGHT_LONG, RECORD_BYTES as u64);
        }
    }
}

#[inline(always)]
fn raw<const N: usize>(map: &HashMap<u64, [u8; N]>) -> *mut core::ffi::c_void {
    core::ptr::from_ref(map).cast_mut().cast()
}

/// # Safety
/// `out` must be valid; the map's values are no larger than its buffer.
#[inline(always)]
unsafe fn insert<const N: usize>(map: &HashMap<u64, [u8; N]>, key: u64, out: *mut Out, how: u64) -> i64 {
    // SAFETY: by this function's contract.
    unsafe { generated::bpf_map_update_elem(raw(map), (&raw const key).cast(), Out::bytes(out).cast(), how) as i32 as i64 }
}

#[inline(always)]
fn remove<const N: usize>(map: &HashMap<u64, [u8; N]>, key: u64) -> bool {
    // SAFETY: a map and a key of its type.
    unsafe { generated::bpf_map_delete_elem(raw(map), (&raw const key).cast()) == 0 }
}

/// Removes what another call of this thread has left, which is lost.
#[inline(always)]
fn give_up<const N: usize>(map: &HashMap<u64, [u8; N]>, key: u64) {
    let Some(record) = map.get_ptr_mut(key) else { return };
    // SAFETY: a record begins with header and body.
    unsafe { lose(body(record)) };
    remove(map, key);
}

#[inline(always)]
fn missed<const N: usize>(map: &HashMap<u64, [u8; N]>, effect: u8) -> bool {
    let key = kernel::pid_tgid();
    let Some(record) = map.get_ptr_mut(key) else { return false };
    // SAFETY: a record begins with header and body, and no other thread uses this key.
    unsafe {
        let body = body(record);
        if (*body).nr & PRECISE == 0 || (*body).note & !note::WANTED != effect {
            return false;
        }
        if (*body).note & note::WANTED == 0 && (*body).first.real_len == 0 {
            lose(body);
            remove(map, key);
        }
    }
    true
}

/// # Safety
/// The pointer must be to a record of a path call, which begins with header and body.
#[inline(always)]
unsafe fn body<const N: usize>(record: *mut [u8; N]) -> *mut PathBody {
    // SAFETY: by this function's contract.
    unsafe { record.cast::<u8>().add(size_of::<Header>()).cast() }
}

/// Counts a call whose record goes no further.
///
/// # Safety
/// `body` must be valid.
#[inline(always)]
unsafe fn lose(body: *const PathBody) {
    // SAFETY: by this function's contract.
    unsafe { count_late(body) };
    record::no_room(kind::PATH);
}

/// Counts a call as seen, if that was left to its end.
///
/// # Safety
/// `body` must be valid.
#[inline(always)]
unsafe fn count_late(body: *const PathBody) {
    // SAFETY: by this function's contract.
    if unsafe { (*body).nr } & PRECISE != 0 {
        record::seen(kind::PATH);
    }
}

/// # Safety
/// `s` must be valid, and `room` the size of the map's values.
#[inline(always)]
unsafe fn copy<const N: usize>(s: *mut Scratch, map: &HashMap<u64, [u8; N]>, room: u64, effect: u8) -> bool {
    let Some(record) = map.get_ptr_mut(kernel::pid_tgid()) else { return false };
    // SAFETY: by this function's contract; no other thread uses this key.
    unsafe {
        let body = body(record);
        if (*body).nr & PRECISE == 0 || (*body).note & !note::WANTED != effect {
            return false;
        }
        let len = u64::from((*record.cast::<Header>()).len);
        let len = if len > room { room } else { len };
        let out = &raw mut (*s).out;
        kernel::copy(Out::bytes(out), len as u32, record as u64);
        Out::set_len(out, len);
    }
    true
}

/// Ends the call that this thread has begun, if it is in this map.
///
/// # Safety
/// `room` must be the size of the map's values.
#[inline(always)]
unsafe fn finish<const N: usize>(
    map: &HashMap<u64, [u8; N]>,
    room: u64,
    what: Ending,
    nr: u32,
    result: i64,
    addresses: &impl Fn(*const PathBody) -> Addresses,
) -> bool {
    let key = kernel::pid_tgid();
    let Some(record) = map.get_ptr_mut(key) else { return false };
    // SAFETY: a record begins with header and body, and no other thread uses this key.
    unsafe {
        let head = record.cast::<Header>();
        let body = body(record);
        if (*body).nr != nr {
            if nr & PRECISE != 0 {
                // One function of the kernel within another one, whose end is still to come.
                return true;
            }
            // another call of this thread, whose end was not seen
            lose(body);
        } else if what == Ending::Function && (*body).result > 0 {
            (*body).result -= 1;
            return true;
        } else if nr & PRECISE == 0 || (*body).note & note::WANTED != 0 {
            (*body).result = result;
            (*head).boot_ns = head::now();
            count_late(body);
            let len = u64::from((*head).len);
            let len = if len > room { room } else { len };
            let missing = (*body).first.name_flags | (*body).second.name_flags | (*body).xattr_flags;
            let is_complete = missing & text::FAULT == 0 && !has(feature::AGGREGATE);
            let complete = |s, number| complete(s, number, record.cast(), len as u32, addresses(body));
            if (is_complete || scratch::with(complete).is_none()) && !storm::is_too_much(head, kind::PATH) {
                hand_over(record.cast(), len, kind::PATH, record::QUIET);
            }
        }
    }
    remove(map, key);
    true
}

/// Copies the strings that weren't in memory when the call began; the kernel has read them since. Hands the record over, if it is to be.
///
/// # Safety
/// `record` must be valid for `len` bytes, and `s` be this program's own scratch memory, of that number.
#[inline(always)]
unsafe fn complete(s: *mut Scratch, number: u32, record: *const u8, len: u32, addresses: Addresses) {
    // SAFETY: by this function's contract.
    unsafe {
        let out = &raw mut (*s).out;
        let body = Out::body::<PathBody>(out);
        kernel::copy(Out::bytes(out), len, record as u64);
        Out::set_len(out, u64::from(len));
        if (*body).first.name_flags & text::FAULT != 0 && addresses.first != 0 && Out::has_room(out) {
            let beside = (*body).first.name_flags & text::BESIDE;
            let (len, flags) = late(out, addresses.first);
            (*body).first.name_len = len;
            (*body).first.name_flags = flags | beside;
        }
        if (*body).second.name_flags & text::FAULT != 0 && addresses.second != 0 && Out::has_room(out) {
            let beside = (*body).second.name_flags & text::BESIDE;
            let (len, flags) = late(out, addresses.second);
            (*body).second.name_len = len;
            (*body).second.name_flags = flags | beside;
        }
        if (*body).xattr_flags & text::FAULT != 0 && addresses.xattr != 0 && Out::has_room(out) {
            let (len, flags) = late(out, addresses.xattr);
            (*body).xattr_len = len;
            (*body).xattr_flags = flags;
        }
        if !storm::holds_back(s, number, kind::PATH) {
            Out::emit(out, kind::PATH, record::QUIET);
        }
    }
}

/// # Safety
/// `room` must be the size of the map's values.
#[inline(always)]
unsafe fn unfinished<const N: usize>(map: &HashMap<u64, [u8; N]>, room: u64) -> bool {
    let key = kernel::pid_tgid();
    let Some(record) = map.get_ptr_mut(key) else { return false };
    // SAFETY: a record begins with header and body.
    unsafe {
        let head = record.cast::<Header>();
        let body = body(record);
        (*head).marks |= mark::UNFINISHED;
        (*head).boot_ns = head::now();
        (*body).result = 0;
        count_late(body);
        let len = u64::from((*head).len);
        hand_over(record.cast(), if len > room { room } else { len }, kind::PATH, record::QUIET);
    }
    remove(map, key);
    true
}
