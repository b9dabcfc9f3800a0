//! Building a record and handing it over. Each event that is in scope is counted once when it is seen and once by what
//! became of it.

use aya_ebpf::{helpers::generated, maps::RingBuf};
use knark_abi::{Count, Header, PATH_BYTES, RECORD_BYTES, text};

use crate::{
    kernel,
    maps::{COUNTS, RING},
    walk::Walk,
};

/// A record in the making: header and body lie at its front, strings are put behind them.
#[repr(C)]
pub struct Out {
    /// Where the next string goes.
    pos: u64,
    buf: [u8; RECORD_BYTES + PATH_BYTES + 1],
}

const MASK: u64 = RECORD_BYTES as u64 - 1;

/// Don't wake the reader: a wake-up costs more than everything else together.
pub const QUIET: u64 = 1;
/// Wake the reader.
pub const WAKE: u64 = 2;

impl Out {
    /// The header.
    ///
    /// # Safety
    /// `out` must be valid, as a map's value is; this goes for all functions here.
    #[inline(always)]
    pub unsafe fn head(out: *mut Out) -> *mut Header {
        // SAFETY: by this function's contract; `buf` is aligned to 8.
        unsafe { (&raw mut (*out).buf).cast() }
    }

    /// The body, which strings follow.
    ///
    /// # Safety
    /// See [`Out::head`].
    #[inline(always)]
    pub unsafe fn body<T>(out: *mut Out) -> *mut T {
        // SAFETY: as above; a body is far smaller than the buffer.
        unsafe {
            (*out).pos = (size_of::<Header>() + size_of::<T>()) as u64;
            (&raw mut (*out).buf).cast::<u8>().add(size_of::<Header>()).cast()
        }
    }

    /// The body, with strings behind it already.
    ///
    /// # Safety
    /// See [`Out::head`].
    #[inline(always)]
    pub unsafe fn at<T>(out: *mut Out) -> *mut T {
        // SAFETY: as above.
        unsafe { (&raw mut (*out).buf).cast::<u8>().add(size_of::<Header>()).cast() }
    }

    /// Room for one more of these, which must be aligned to 8 and come before any string.
    ///
    /// # Safety
    /// See [`Out::head`].
    #[inline(always)]
    pub unsafe fn next<T>(out: *mut Out) -> *mut T {
        // SAFETY: the position is masked, and a T smaller than the room behind it.
        unsafe {
            let at = Out::end(out);
            (*out).pos += size_of::<T>() as u64;
            at.cast()
        }
    }

    /// Appends bytes of the current process, at most [`PATH_BYTES`].
    ///
    /// # Safety
    /// See [`Out::head`].
    #[inline(always)]
    pub unsafe fn user_bytes(out: *mut Out, from: u64, len: u32) -> bool {
        // SAFETY: `end` leaves that much room.
        unsafe {
            if !kernel::copy_user(Out::end(out), len, from) {
                return false;
            }
            (*out).pos += u64::from(len);
        }
        true
    }

    /// The buffer from its front.
    ///
    /// # Safety
    /// See [`Out::head`].
    #[inline(always)]
    pub unsafe fn bytes(out: *mut Out) -> *mut u8 {
        // SAFETY: by this function's contract.
        unsafe { (&raw mut (*out).buf).cast() }
    }

    /// How long the record is now.
    ///
    /// # Safety
    /// See [`Out::head`].
    #[inline(always)]
    pub unsafe fn len(out: *const Out) -> u64 {
        // SAFETY: by this function's contract.
        unsafe { (*out).pos }
    }

    /// Whether one more string fits, of any length. A record whose call has one or two paths has room for each of them as it was
    /// asked for; what comes on top asks first.
    ///
    /// # Safety
    /// See [`Out::head`].
    #[inline(always)]
    pub unsafe fn has_room(out: *const Out) -> bool {
        // SAFETY: by this function's contract. The read is volatile so that the compiler doesn't drop the mask of `end` for it:
        // the verifier wants to see that.
        unsafe { core::ptr::read_volatile(&raw const (*out).pos) <= (RECORD_BYTES - PATH_BYTES) as u64 }
    }

    /// Makes the record as long as that.
    ///
    /// # Safety
    /// See [`Out::head`].
    #[inline(always)]
    pub unsafe fn set_len(out: *mut Out, len: u64) {
        // SAFETY: by this function's contract.
        unsafe { (*out).pos = len }
    }

    /// Where the next string goes, with room for [`PATH_BYTES`] and a terminator.
    #[inline(always)]
    unsafe fn end(out: *mut Out) -> *mut u8 {
        // SAFETY: the position is masked.
        unsafe { (&raw mut (*out).buf).cast::<u8>().add(((*out).pos & MASK) as usize) }
    }

    /// Appends a walked path; gives its length.
    ///
    /// # Safety
    /// See [`Out::head`]; `walk` likewise.
    #[inline(always)]
    pub unsafe fn walked(out: *mut Out, walk: *const Walk) -> u16 {
        // SAFETY: `len` is at most the room that `end` leaves.
        unsafe {
            let (from, len) = Walk::path(walk);
            let len = if len > PATH_BYTES as u64 { PATH_BYTES as u64 } else { len };
            kernel::copy(Out::end(out), len as u32, from);
            (*out).pos += len;
            len as u16
        }
    }

    /// Appends a string of the current process; gives its length and [`text`] flags.
    ///
    /// # Safety
    /// See [`Out::head`].
    #[inline(always)]
    pub unsafe fn user_string(out: *mut Out, from: u64) -> (u16, u8) {
        if from == 0 {
            return (0, text::PRESENT | text::NULL);
        }
        const ROOM: i64 = PATH_BYTES as i64 + 1;
        // SAFETY: `end` leaves that much room.
        let n = unsafe { generated::bpf_probe_read_user_str(Out::end(out).cast(), ROOM as u32, from as *const _) };
        if n < 1 || n > ROOM {
            return (0, text::PRESENT | text::FAULT);
        }
        // SAFETY: as above.
        unsafe { (*out).pos += n as u64 - 1 };
        ((n - 1) as u16, if n == ROOM { text::PRESENT | text::CUT } else { text::PRESENT })
    }

    /// Appends a string that the kernel has copied from the process; gives its length and [`text`] flags.
    ///
    /// # Safety
    /// See [`Out::head`].
    #[inline(always)]
    pub unsafe fn copied_string(out: *mut Out, from: u64) -> (u16, u8) {
        // SAFETY: by this function's contract.
        let len = unsafe { Out::kernel_string(out, from) };
        (len, if u32::from(len) == PATH_BYTES as u32 { text::PRESENT | text::CUT } else { text::PRESENT })
    }

    /// Appends a string of the kernel; gives its length.
    ///
    /// # Safety
    /// See [`Out::head`].
    #[inline(always)]
    pub unsafe fn kernel_string(out: *mut Out, from: u64) -> u16 {
        const ROOM: i64 = PATH_BYTES as i64 + 1;
        // SAFETY: `end` leaves that much room.
        let n = unsafe { generated::bpf_probe_read_kernel_str(Out::end(out).cast(), ROOM as u32, from as *const _) };
        if n < 1 || n > ROOM {
            return 0;
        }
        // SAFETY: as above.
        unsafe { (*out).pos += n as u64 - 1 };
        (n - 1) as u16
    }

    /// Hands the record over; counts it as emitted or lost.
    ///
    /// # Safety
    /// See [`Out::head`].
    #[inline(always)]
    pub unsafe fn emit(out: *mut Out, kind: u8, wake: u64) -> bool {
        // SAFETY: by this function's contract; the length is at most the buffer's.
        unsafe {
            let len = (*out).pos;
            let len = if len > RECORD_BYTES as u64 { RECORD_BYTES as u64 } else { len };
            (*Out::head(out)).len = len as u32;
            hand_over(Out::bytes(out), len, kind, wake)
        }
    }
}

/// Hands a record over; counts it as emitted or lost.
///
/// # Safety
/// `record` must be valid for `len` bytes; the verifier must be able to see that.
#[inline(always)]
pub unsafe fn hand_over(record: *mut u8, len: u64, kind: u8, wake: u64) -> bool {
    let ring = (&raw const RING).cast_mut().cast::<core::ffi::c_void>();
    const { assert!(size_of::<RingBuf>() > 0) };
    // SAFETY: by this function's contract.
    let done = unsafe { generated::bpf_ringbuf_output(ring, record.cast(), len, wake) } == 0;
    count(kind, |c| if done { &raw mut c.emitted } else { &raw mut c.lost_ring }, 1);
    done
}

/// Whether more than half of the ring is taken.
#[inline(always)]
pub fn is_crowded() -> bool {
    const TAKEN: u64 = 0;
    const SIZE: u64 = 1;
    let ring = (&raw const RING).cast_mut().cast::<core::ffi::c_void>();
    // SAFETY: a map, and what the kernel tells of it.
    unsafe { generated::bpf_ringbuf_query(ring, TAKEN) > generated::bpf_ringbuf_query(ring, SIZE) / 2 }
}

/// Counts a record that is lost since the ring has no room for it.
#[inline(always)]
pub fn no_room_in_ring(kind: u8) {
    count(kind, |c| &raw mut c.lost_ring, 1);
}

/// Counts. Atomic, since another program may take over the CPU in between.
#[inline(always)]
pub fn count(kind: u8, which: impl FnOnce(&mut Count) -> *mut u64, n: u64) {
    if let Some(c) = COUNTS.get_ptr_mut(u32::from(kind)) {
        // SAFETY: a map's value, made of integers that are aligned.
        unsafe { kernel::add(which(&mut *c), n) };
    }
}

/// Counts an event that is in scope.
#[inline(always)]
pub fn seen(kind: u8) {
    count(kind, |c| &raw mut c.seen, 1);
}

/// Counts an event that is lost since there was no room to keep or build its record.
#[inline(always)]
pub fn no_room(kind: u8) {
    count(kind, |c| &raw mut c.lost_inflight, 1);
}
