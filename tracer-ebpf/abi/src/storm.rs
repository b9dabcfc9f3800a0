//! What keeps storms of file events small: counted repeats, and the rate that a container may keep up.

use crate::Header;

/// Repeats are counted in windows of so many ns since boot. The first event in each is reported like any other.
pub const WINDOW_NS: u64 = 1_000_000_000;

/// Body and strings of a record whose repeats are counted have so many bytes at most.
pub const REPEAT_BYTES: usize = 320;

/// What events have in common that are repeats of one another: the key of the map of repeats.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct RepeatKey {
    /// When, in [`WINDOW_NS`].
    pub window: u64,
    /// The control group.
    pub cgroup: u64,
    /// The program, by inode and device, or the process, by its start, its id and how many programs it has executed.
    pub who: [u64; 3],
    /// With a process: the thread's name.
    pub comm: [u8; 16],
    /// See [`Header::marks`].
    pub marks: u32,
    /// See [`Header::uid`].
    pub uid: u32,
    /// See [`Header::gid`].
    pub gid: u32,
    /// See [`Header::ns_uid`].
    pub ns_uid: u32,
    /// See [`Header::ns_gid`].
    pub ns_gid: u32,
    /// See [`crate::kind`].
    pub kind: u8,
    /// See [`Header::op`].
    pub op: u8,
    /// Zero.
    pub pad: [u8; 2],
    /// The record's body and strings, then zeros. What differs between repeats is 0: descriptors that calls returned, sizes, times,
    /// and addresses of names.
    pub said: [u64; REPEAT_BYTES / 8],
}
const _: () = assert!(size_of::<RepeatKey>() == 80 + REPEAT_BYTES);

/// How often, and when.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Repeats {
    /// How many events, not counting the first, which was reported.
    pub count: u64,
    /// When the first of them was, ns since boot.
    pub first_ns: u64,
    /// When the last one was.
    pub last_ns: u64,
}
const _: () = assert!(size_of::<Repeats>() == 24);

/// The value in the map of repeats.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Repeated {
    /// The header of the event that was reported.
    pub head: Header,
    /// Those that came after it.
    pub repeats: Repeats,
}
const _: () = assert!(size_of::<Repeated>() == 128);

/// So long a container can save up what it doesn't use, in ns.
pub const BURST_NS: u64 = 1_000_000_000;

/// The value in the map of rates, by control group: a container's uppermost one, or one outside of containers.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Rate {
    /// When all events so far are made up for, ns since boot.
    pub due_ns: u64,
    /// Events that came too early, and are lost.
    pub lost: u64,
}
const _: () = assert!(size_of::<Rate>() == 16);

/// The key of the rate that those control groups share for which the map has no room: no control group has this id.
pub const OTHERS: u64 = 0;
