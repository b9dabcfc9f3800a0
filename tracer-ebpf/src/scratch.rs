//! Memory to build records in: the stack has 512 bytes.
//!
//! Up to 6.18 the kernel doesn't preempt programs of tracepoints, and what belongs to a CPU belongs to the program that
//! runs on it. On 7.2 it does: two threads are in the same program on the same CPU, in turns. So each CPU has some of these,
//! and a program takes one that is free.

use core::ptr;

use knark_abi::{ExeKey, RepeatKey, Repeated, WantedKey};

use crate::{call::Given, go::Copies, kernel, maps::SCRATCH, once::Deed, record::Out, walk::Walk};

/// How many programs can be under way on one CPU.
pub const SLOTS: u32 = 4;

/// A value of a per-CPU map has at most 32 KiB.
#[repr(C)]
pub struct Scratch {
    /// How many programs want it: the one that finds itself alone has it.
    users: u64,
    /// Its own number.
    number: u64,
    /// Structures of a Go program: near the front of the record, so that steps of requests touch few pages.
    pub copies: Copies,
    /// The record.
    pub out: Out,
    /// The path being walked.
    pub walk: Walk,
    /// The call's arguments.
    pub args: [u64; 6],
    /// The path to append.
    pub given: Given,
    /// What is told once.
    pub deed: Deed,
    /// The exe to look up: half the stack, were it there.
    pub key: ExeKey,
    /// The path to look up.
    pub wanted: WantedKey,
    /// While that is looked through, the four bytes before this one.
    pub before: u32,
    /// What repeats of the record have in common.
    pub repeat: RepeatKey,
    /// What is kept for them.
    pub repeated: Repeated,
}

/// Does something with scratch memory that is nobody else's meanwhile. It gets its number, too, for [`of`]. None if all of
/// it is taken.
#[inline(always)]
pub fn with<R>(work: impl FnOnce(*mut Scratch, u32) -> R) -> Option<R> {
    let s = take()?;
    // SAFETY: `s` is this program's own by now. The number is read back, so that the verifier takes it for any number, and
    // doesn't look at the work once for each.
    let done = work(s, unsafe { ptr::read_volatile(&raw const (*s).number) } as u32);
    // SAFETY: as above.
    unsafe { kernel::add(&raw mut (*s).users, u64::MAX) };
    Some(done)
}

/// The scratch memory of that number on this CPU, for functions that are called by whoever has it.
#[inline(always)]
pub fn of(number: u32) -> Option<*mut Scratch> {
    SCRATCH.get_ptr_mut(number)
}

#[inline(always)]
fn take() -> Option<*mut Scratch> {
    for number in 0..SLOTS {
        let s = of(number)?;
        // SAFETY: a map's value. Adding is atomic without a result everywhere, unlike an exchange (5.12): whoever finds
        // no one but itself is the only one, and all others step back.
        unsafe {
            kernel::add(&raw mut (*s).users, 1);
            if ptr::read_volatile(&raw const (*s).users) == 1 {
                ptr::write_volatile(&raw mut (*s).number, u64::from(number));
                return Some(s);
            }
            kernel::add(&raw mut (*s).users, u64::MAX);
        }
    }
    None
}
