//! Attaching programs: one to many tracepoints, and one to a function of the kernel.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
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
const _: () = assert!(size_of::<Attributes>() == SIZE as usize);

const SIZE: u32 = 64;
const PERF_TYPE_TRACEPOINT: u32 = 2;
const PERF_FLAG_FD_CLOEXEC: libc::c_ulong = 1 << 3;
const PERF_EVENT_IOC_SET_BPF: libc::c_ulong = 0x4004_2408;

/// Runs the program at each hit of the tracepoint on any CPU, until the descriptor is closed.
#[expect(unsafe_code, reason = "neither libc nor aya has these calls without tracefs being mounted at its usual place")]
pub(super) fn tracepoint(id: u64, program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let attributes = Attributes { kind: PERF_TYPE_TRACEPOINT, size: SIZE, config: id, ..Attributes::default() };
    // One CPU has to be named, but programs hang on the tracepoint itself and see every CPU.
    let (any_process, cpu, no_group) = (-1, 0, -1);
    // SAFETY: the attributes are valid for the length that they give, and outlive the call.
    let event = unsafe {
        libc::syscall(libc::SYS_perf_event_open, &raw const attributes, any_process, cpu, no_group, PERF_FLAG_FD_CLOEXEC)
    };
    let event = i32::try_from(event).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the kernel just gave this descriptor, and nobody else has it.
    let event = unsafe { OwnedFd::from_raw_fd(event) };
    // SAFETY: both descriptors are open.
    let set = unsafe { libc::ioctl(event.as_raw_fd(), PERF_EVENT_IOC_SET_BPF as _, program.as_raw_fd()) };
    if set == 0 { Ok(event) } else { Err(io::Error::last_os_error()) }
}

/// Runs a program on the function of the kernel that it was loaded for, until the descriptor is closed.
#[expect(unsafe_code, reason = "the loader keeps the descriptor to itself")]
pub(super) fn function(program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    const BPF_RAW_TRACEPOINT_OPEN: libc::c_int = 17;
    #[repr(C)]
    struct Attributes {
        name: u64,
        program: u32,
        pad: u32,
    }
    let program = u32::try_from(program.as_raw_fd()).map_err(io::Error::other)?;
    let attributes = Attributes { name: 0, program, pad: 0 };
    // SAFETY: the attributes are valid for the length that is given, and outlive the call.
    let link = unsafe { libc::syscall(libc::SYS_bpf, BPF_RAW_TRACEPOINT_OPEN, &raw const attributes, size_of::<Attributes>()) };
    let link = i32::try_from(link).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the kernel just gave this descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(link) })
}

/// Runs a program of a raw tracepoint once, in the calling thread, with this argument; gives what it returned.
#[expect(unsafe_code, reason = "the loader can do this only while it has the program to itself")]
pub(super) fn run_once(program: BorrowedFd<'_>, argument: u64) -> io::Result<u32> {
    const BPF_PROG_TEST_RUN: libc::c_int = 10;
    /// `union bpf_attr`, its part for this command.
    #[repr(C)]
    #[derive(Default)]
    struct Attributes {
        program: u32,
        returned: u32,
        data_size_in: u32,
        data_size_out: u32,
        data_in: u64,
        data_out: u64,
        repeat: u32,
        duration: u32,
        context_size_in: u32,
        context_size_out: u32,
        context_in: u64,
        context_out: u64,
        flags: u32,
        cpu: u32,
    }
    let arguments = [argument];
    let mut attributes = Attributes {
        program: u32::try_from(program.as_raw_fd()).map_err(io::Error::other)?,
        context_size_in: u32::try_from(size_of_val(&arguments)).map_err(io::Error::other)?,
        context_in: arguments.as_ptr() as u64,
        ..Attributes::default()
    };
    // SAFETY: the attributes are valid for the length that is given, as are the arguments, and both outlive the call.
    let done = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_TEST_RUN, &raw mut attributes, size_of::<Attributes>()) };
    if done == 0 { Ok(attributes.returned) } else { Err(io::Error::last_os_error()) }
}

/// Closes tracepoints without waiting. The kernel waits for all CPUs at each of them, one after the other, so that it takes
/// some seconds for all, and a process that ends takes that long as well. A process of its own is left to it, which has
/// nothing open but them and ends with the last.
pub(super) fn close_behind(links: Vec<OwnedFd>) {
    // who closes a descriptor last is who waits: the child begins when this process, too, has closed them
    let Ok((begin, hold)) = io::pipe() else { return };
    let fds = |of: &[RawFd]| -> Vec<u32> { of.iter().filter_map(|fd| (*fd).try_into().ok()).collect() };
    let mut closing = fds(&links.iter().map(AsRawFd::as_raw_fd).collect::<Vec<_>>());
    closing.sort_unstable();
    let mut keep = [closing.clone(), fds(&[begin.as_raw_fd()])].concat();
    keep.sort_unstable();
    if closing.is_empty() {
        return;
    }
    #[expect(unsafe_code, reason = "a process of its own can't be had otherwise")]
    // SAFETY: other threads may hold any lock at the time of the fork, so the children do nothing but system calls, and
    // leave by `_exit`. The lists were made before.
    unsafe {
        match libc::fork() {
            0 => {
                // not a child of the caller, who would have to wait for it
                if libc::fork() == 0 {
                    close_all_but(&keep);
                    let mut nothing = 0_u8;
                    libc::read(begin.as_raw_fd(), (&raw mut nothing).cast(), 1);
                    close_slowly(&closing);
                }
                libc::_exit(0);
            }
            -1 => {}
            child => {
                let mut status = 0;
                while libc::waitpid(child, &raw mut status, 0) == -1
                    && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
                {}
            }
        }
    }
    // the last to hold them is this process if there is no child
    drop(links);
    drop(hold);
}

/// Closes what a process inherited, so that nobody waits for the end of a pipe that it still holds.
#[expect(unsafe_code, reason = "libc has it, but nothing safe does")]
fn close_all_but(keep: &[u32]) {
    let mut next = 0;
    for fd in keep.iter().copied().chain([u32::MAX]) {
        if fd > next {
            // SAFETY: nothing in this process uses these descriptors any more.
            unsafe { libc::syscall(libc::SYS_close_range, next, fd - 1, 0) };
        }
        next = fd.saturating_add(1);
    }
}

/// Closes one after the other. A close holds the lock that another session needs for attaching, and the pauses let that in.
#[expect(unsafe_code, reason = "no allocation and no lock of the library may be touched after a fork")]
fn close_slowly(links: &[u32]) {
    let pause = libc::timespec { tv_sec: 0, tv_nsec: 10_000_000 };
    for fd in links {
        // SAFETY: system calls, on a descriptor that nothing else in this process uses and a time that outlives the call.
        unsafe {
            libc::syscall(libc::SYS_close, *fd);
            libc::nanosleep(&raw const pause, std::ptr::null_mut());
        }
    }
}

/// Waits until every program that was running on some CPU has ended. The kernel does when a map within a map is replaced, and on every
/// machine: membarrier is not to be had where CPUs run without a timer (`nohz_full`).
pub(super) fn settle() -> io::Result<()> {
    const BPF_MAP_TYPE_ARRAY: u32 = 2;
    const BPF_MAP_TYPE_ARRAY_OF_MAPS: u32 = 12;
    let inner = map(BPF_MAP_TYPE_ARRAY, 0)?;
    let inner = u32::try_from(inner.as_raw_fd()).map_err(io::Error::other)?;
    let outer = map(BPF_MAP_TYPE_ARRAY_OF_MAPS, inner)?;
    replace(&outer, inner)
}

/// A map with room for one number, or, of maps, for one that is like `inner`.
#[expect(unsafe_code, reason = "the loader makes no maps of maps but those of its object file")]
fn map(kind: u32, inner: u32) -> io::Result<OwnedFd> {
    const BPF_MAP_CREATE: libc::c_int = 0;
    #[repr(C)]
    struct Attributes {
        kind: u32,
        key_size: u32,
        value_size: u32,
        max_entries: u32,
        flags: u32,
        inner: u32,
    }
    let attributes = Attributes { kind, key_size: 4, value_size: 4, max_entries: 1, flags: 0, inner };
    // SAFETY: the attributes are valid for the length that is given, and outlive the call.
    let map = unsafe { libc::syscall(libc::SYS_bpf, BPF_MAP_CREATE, &raw const attributes, size_of::<Attributes>()) };
    let map = i32::try_from(map).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the kernel just gave this descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(map) })
}

/// Puts a map into a map of maps.
#[expect(unsafe_code, reason = "as above")]
fn replace(outer: &OwnedFd, inner: u32) -> io::Result<()> {
    const BPF_MAP_UPDATE_ELEM: libc::c_int = 2;
    #[repr(C)]
    struct Attributes {
        map: u32,
        pad: u32,
        key: u64,
        value: u64,
        flags: u64,
    }
    let key = 0_u32;
    let map = u32::try_from(outer.as_raw_fd()).map_err(io::Error::other)?;
    let (key_at, value_at) = ((&raw const key).expose_provenance() as u64, (&raw const inner).expose_provenance() as u64);
    let attributes = Attributes { map, pad: 0, key: key_at, value: value_at, flags: 0 };
    // SAFETY: the attributes, the key and the value are valid for the lengths that the map has, and outlive the call.
    let done = unsafe { libc::syscall(libc::SYS_bpf, BPF_MAP_UPDATE_ELEM, &raw const attributes, size_of::<Attributes>()) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    /// As root, which the rest of the kernel's tests need too.
    #[test]
    fn programs_can_be_waited_for() {
        if rustix::process::geteuid().is_root() {
            super::settle().unwrap();
        }
    }
}
