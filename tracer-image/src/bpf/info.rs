//! What the kernel says about loaded programs.

use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};

use aya::{Ebpf, programs::Program};

/// How often the kernel skipped the programs since another one was running on that CPU. None before 5.12, which doesn't
/// count this.
pub(super) fn missed(ebpf: &Ebpf) -> Option<u64> {
    let mut sum = None;
    for (_, program) in ebpf.programs() {
        let fd = match program {
            Program::TracePoint(program) => program.fd(),
            Program::RawTracePoint(program) => program.fd(),
            Program::UProbe(program) => program.fd(),
            Program::FEntry(program) => program.fd(),
            Program::FExit(program) => program.fd(),
            _ => continue,
        };
        if let Ok(fd) = fd {
            sum = Some(sum.unwrap_or(0) + recursion_misses(fd.as_fd())?);
        }
    }
    sum
}

const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
/// Where `struct bpf_prog_info` has `recursion_misses`, and where that ends.
const MISSES: usize = 208;
const INFO: usize = MISSES + 8;

#[repr(C)]
struct Attributes {
    fd: u32,
    len: u32,
    info: u64,
}

#[expect(unsafe_code, reason = "the loader keeps this field to itself")]
fn recursion_misses(program: BorrowedFd<'_>) -> Option<u64> {
    let mut info = [0_u64; INFO / 8];
    let mut attributes =
        Attributes { fd: program.as_raw_fd().try_into().ok()?, len: INFO.try_into().ok()?, info: (&raw mut info).addr() as u64 };
    // SAFETY: the kernel writes at most `len` bytes to `info`, and both outlive the call.
    let done = unsafe { libc::syscall(libc::SYS_bpf, BPF_OBJ_GET_INFO_BY_FD, &raw mut attributes, size_of::<Attributes>()) };
    let known = attributes.len as usize >= INFO;
    (done == 0 && known).then(|| info[MISSES / 8])
}
