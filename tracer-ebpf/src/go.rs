//! Registers, texts and maps of Go programs. All of it is the memory of a process, which may hold anything.

use aya_ebpf::programs::ProbeContext;
use knark_abi::{API_GROUPS, API_GROUPS_MAX, API_STRUCTURE_BYTES, API_TEXT_BYTES, API_TEXTS, ApiBody, api_text};

use crate::{
    kernel::{self, read_user},
    record::Out,
    scratch::{self, Scratch},
};

/// An integer argument of the function that has just begun, or an integer result of the one that has just returned: Go's own
/// convention (abi-internal) numbers both alike.
#[cfg(bpf_target_arch = "x86_64")]
#[inline(always)]
pub fn argument(ctx: &ProbeContext, n: usize) -> u64 {
    // SAFETY: the context of a uprobe is the registers.
    unsafe {
        match n {
            0 => (*ctx.regs).rax,
            1 => (*ctx.regs).rbx,
            2 => (*ctx.regs).rcx,
            _ => (*ctx.regs).rdi,
        }
    }
}

/// The running goroutine, a `runtime.g`.
#[cfg(bpf_target_arch = "x86_64")]
#[inline(always)]
pub fn g(ctx: &ProbeContext) -> u64 {
    // SAFETY: as above.
    unsafe { (*ctx.regs).r14 }
}

/// See the other one.
#[cfg(bpf_target_arch = "aarch64")]
#[inline(always)]
pub fn argument(ctx: &ProbeContext, n: usize) -> u64 {
    // SAFETY: as above.
    unsafe {
        match n {
            0 => (*ctx.regs).regs[0],
            1 => (*ctx.regs).regs[1],
            2 => (*ctx.regs).regs[2],
            _ => (*ctx.regs).regs[3],
        }
    }
}

/// See the other one.
#[cfg(bpf_target_arch = "aarch64")]
#[inline(always)]
pub fn g(ctx: &ProbeContext) -> u64 {
    // SAFETY: as above.
    unsafe { (*ctx.regs).regs[28] }
}

/// A number in memory; 0 if it can't be read.
#[inline(always)]
pub fn word(address: u64) -> u64 {
    read_user(address).unwrap_or(0)
}

/// Structures that were copied in one go: one read costs as much as another, however long.
#[repr(C)]
pub struct Copies {
    /// How many bytes of each could be read.
    len: [u64; 2],
    words: [[u64; WORDS]; 2],
}

const WORDS: usize = API_STRUCTURE_BYTES / 8;

/// The first place for a copy.
pub const FIRST: u32 = 0;
/// The second one.
pub const SECOND: u32 = 1;

/// Copies `len` bytes to a place for copies, at most [`API_STRUCTURE_BYTES`]; 0 where they can't be read. Where only the next page
/// can't, as when nothing has been written to it yet, those before it are copied.
///
/// Global, so that the verifier looks at it once; this goes for all such functions here.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn knark_api_copy(number: u32, place: u32, from: u64, len: u64) -> u32 {
    let Some(s) = scratch::of(number) else { return 0 };
    let place = (place & 1) as usize;
    let len = if len > API_STRUCTURE_BYTES as u64 { API_STRUCTURE_BYTES as u64 } else { len };
    // SAFETY: `s` is the caller's own scratch memory; there are two places, of that many bytes each.
    unsafe {
        let copies = &raw mut (*s).copies;
        let to = (&raw mut (*copies).words).cast::<[u64; WORDS]>().add(place);
        let mut read = if kernel::copy_user(to.cast(), len as u32, from) { len } else { 0 };
        let before = PAGE - (from & (PAGE - 1));
        if read == 0 && before < len && kernel::copy_user(to.cast(), before as u32, from) {
            read = before;
        }
        *(&raw mut (*copies).len).cast::<u64>().add(place) = read;
        u32::from(read != 0)
    }
}

/// The smallest page that there is.
const PAGE: u64 = 4096;

/// A number out of a copy, by its offset there; 0 where there is none.
#[inline(always)]
pub fn copied(s: *mut Scratch, place: u32, offset: u32) -> u64 {
    let place = (place & 1) as usize;
    // SAFETY: as above; offsets are masked.
    unsafe {
        let copies = &raw mut (*s).copies;
        let len = *(&raw const (*copies).len).cast::<u64>().add(place);
        if u64::from(offset) + 8 > len {
            return 0;
        }
        let words = (&raw const (*copies).words).cast::<[u64; WORDS]>().add(place).cast::<u64>();
        core::ptr::read_volatile(words.add(offset as usize / 8 & (WORDS - 1)))
    }
}

/// Appends the text whose address and length lie in a copy, at most `room` bytes of it, and notes its length among the body's texts.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn knark_api_text(number: u32, offset: u64, text: u32, room: u32) -> u32 {
    let Some(s) = scratch::of(number) else { return 0 };
    let (place, offset) = ((offset >> 32) as u32, offset as u32);
    let text = text as usize;
    if text >= API_TEXTS {
        return 0;
    }
    // SAFETY: `s` is the caller's own scratch memory, and the place was checked.
    unsafe {
        let len = *(&raw const (*s).copies.len).cast::<u64>().add((place & 1) as usize);
        let noted = if u64::from(offset) + 16 > len {
            api_text::FAULT
        } else {
            copy(s, copied(s, place, offset), copied(s, place, offset + 8), room)
        };
        note(s, text, noted);
    }
    0
}

/// Appends the text whose address and length lie at `address`, likewise.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn knark_api_text_at(number: u32, address: u64, text: u32, room: u32) -> u32 {
    let Some(s) = scratch::of(number) else { return 0 };
    let text = text as usize;
    if text >= API_TEXTS {
        return 0;
    }
    let [from, len] = read_user::<[u64; 2]>(address).unwrap_or([0, u64::MAX]);
    // SAFETY: `s` is the caller's own scratch memory, and the place was checked.
    unsafe { note(s, text, copy(s, from, len, room)) };
    0
}

/// Appends a user's groups, a slice of texts.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn knark_api_groups(number: u32, groups: u64, len: u64) -> u32 {
    let Some(s) = scratch::of(number) else { return 0 };
    // SAFETY: `s` is the caller's own scratch memory.
    unsafe { (*Out::at::<ApiBody>(&raw mut (*s).out)).groups = if len > 0xffff { 0xffff } else { len as u32 } };
    if len == 0 {
        return 0;
    }
    let len = if len > API_GROUPS_MAX as u64 { API_GROUPS_MAX as u64 } else { len };
    knark_api_copy(number, SECOND, groups, len * 16);
    for i in 0..API_GROUPS_MAX as u64 {
        if i >= len {
            break;
        }
        knark_api_text(number, u64::from(SECOND) << 32 | i * 16, API_GROUPS as u32 + i as u32, GROUP_BYTES);
    }
    0
}

const GROUP_BYTES: u32 = 256;

/// Appends the first value of the header `User-Agent`, which `http.Header` is a map of by name.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn knark_api_agent(number: u32, map: u64, bucket_maps: u32, text: u32) -> u32 {
    // internal/runtime/maps.Map: used, seed, dirPtr, dirLen; with up to 8 entries dirPtr is the only group, else an array of
    // tables, of which so small a map has one: used, capacity, growthLeft, localDepth, index, then the groups.
    // runtime.hmap: count, flags and B, hash0, buckets.
    let (value, value_size, size) = if bucket_maps != 0 { (136, 24, 336) } else { (24, 40, 328) };
    let [first, tables] = read_user::<[u64; 2]>(map + 16).unwrap_or([0, 0]);
    let (mut group, mut groups) = (first, 1_u64);
    if bucket_maps != 0 {
        groups = 1 << (word(map + 8) >> 8 & 3);
    } else if tables != 0 {
        let [from, mask] = read_user::<[u64; 2]>(word(first) + 16).unwrap_or([0, 0]);
        (group, groups) = (from, mask + 1);
    }
    for i in 0..GROUPS {
        if i >= groups || group == 0 || knark_api_copy(number, SECOND, group, size) == 0 {
            break;
        }
        let slot = knark_api_slot(number, bucket_maps);
        let Some(s) = scratch::of(number) else { return 0 };
        if slot < 8 {
            return knark_api_text_at(number, copied(s, SECOND, value + value_size * slot), text, AGENT_BYTES);
        }
        group += size;
    }
    0
}

const AGENT_BYTES: u32 = 256;
/// Groups or buckets that are looked through, of 8 entries each.
const GROUPS: u64 = 8;
const USER_AGENT: [u8; 10] = *b"User-Agent";

/// Which of the eight keys in the group or bucket that was copied last is `User-Agent`; 8 if none is.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn knark_api_slot(number: u32, bucket_maps: u32) -> u32 {
    let Some(s) = scratch::of(number) else { return 8 };
    let size = if bucket_maps != 0 { 16 } else { 40 };
    for i in 0..8_u32 {
        let key = 8 + i * size;
        if copied(s, SECOND, key + 8) == USER_AGENT.len() as u64
            && read_user::<[u8; 10]>(copied(s, SECOND, key)) == Some(USER_AGENT)
        {
            return i;
        }
    }
    8
}

/// Appends bytes; gives what the body says of them.
///
/// # Safety
/// `s` must be valid.
#[inline(always)]
unsafe fn copy(s: *mut Scratch, from: u64, len: u64, room: u32) -> u16 {
    if len == u64::MAX {
        return api_text::FAULT;
    }
    let room = u64::from(room);
    let cut = len > room;
    let len = if cut { room } else { len };
    // The verifier doesn't know the room.
    let len = if len > API_TEXT_BYTES as u64 { API_TEXT_BYTES as u64 } else { len };
    if len == 0 {
        return 0;
    }
    // SAFETY: by this function's contract.
    if !unsafe { Out::user_bytes(&raw mut (*s).out, from, len as u32) } {
        return api_text::FAULT;
    }
    len as u16 | if cut { api_text::CUT } else { 0 }
}

/// # Safety
/// `s` must be valid, and the place be one of the body's.
#[inline(always)]
unsafe fn note(s: *mut Scratch, place: usize, text: u16) {
    // SAFETY: by this function's contract.
    unsafe {
        let texts = &raw mut (*Out::at::<ApiBody>(&raw mut (*s).out)).texts;
        *texts.cast::<u16>().add(place) = text;
    }
}
