//! Attaching one program to many tracepoints.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

/// `struct perf_event_attr`, first version: what a tracepoint takes.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    bp_type: u32,
    bp_addr: u64,
}
const _: () = assert!(size_of::<Attributes>() == 64);

const PERF_TYPE_TRACEPOINT: u32 = 2;
const PERF_FLAG_FD_CLOEXEC: libc::c_ulong = 1 << 3;
const PERF_EVENT_IOC_SET_BPF: libc::c_ulong = 0x4004_2408;

/// Runs the program at each hit of the tracepoint on any CPU, until the descriptor is closed.
#[expect(unsafe_code, reason = "neither libc nor aya has these calls without tracefs being mounted at its usual place")]
pub(super) fn tracepoint(id: u64, program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let attributes = Attributes {
        kind: PERF_TYPE_TRACEPOINT,
        size: size_of::<Attributes>() as u32,
        config: id,
        ..Attributes::default()
    };
    // One CPU has to be named, but programs hang on the tracepoint itself and see every CPU.
    let (any_process, cpu, no_group) = (-1, 0, -1);
    // SAFETY: the attributes are valid for the length that they give, and outlive the call.
    let event = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            &raw const attributes,
            any_process,
            cpu,
            no_group,
            PERF_FLAG_FD_CLOEXEC,
        )
    };
    let event = i32::try_from(event).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the kernel just gave this descriptor, and nobody else has it.
    let event = unsafe { OwnedFd::from_raw_fd(event) };
    // SAFETY: both descriptors are open.
    let set = unsafe { libc::ioctl(event.as_raw_fd(), PERF_EVENT_IOC_SET_BPF as _, program.as_raw_fd()) };
    if set == 0 { Ok(event) } else { Err(io::Error::last_os_error()) }
}
