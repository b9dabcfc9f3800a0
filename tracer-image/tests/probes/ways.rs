//! Ways into the kernel past the usual system calls.

use std::{io, ptr};

use crate::harness::{c, ok, result};

/// A 32-bit system call, as any 64-bit program can make it.
#[cfg(target_arch = "x86_64")]
pub fn int80(number: u32, args: [u64; 5]) -> i64 {
    let [first, second, third, fourth, fifth] = args;
    let mut out = u64::from(number);
    unsafe {
        std::arch::asm!(
            // the compiler keeps this register for itself
            "xchg rbx, {first}",
            "int 0x80",
            "xchg rbx, {first}",
            first = inout(reg) first => _,
            inlateout("rax") out,
            in("rcx") second,
            in("rdx") third,
            in("rsi") fourth,
            in("rdi") fifth,
            lateout("r8") _,
            lateout("r9") _,
            lateout("r10") _,
            lateout("r11") _,
        );
    }
    i64::from(out as i32)
}

/// Where a 32-bit call can read a text.
#[cfg(target_arch = "x86_64")]
pub fn low(text: &str) -> u64 {
    let (all, private) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_32BIT);
    let page = unsafe { libc::mmap(ptr::null_mut(), 4096, all, private, -1, 0) };
    assert_ne!(page, libc::MAP_FAILED, "mmap: {}", io::Error::last_os_error());
    let text = c(text);
    let bytes = text.as_bytes_with_nul();
    assert!(bytes.len() <= 4096);
    unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), page.cast(), bytes.len()) };
    page as u64
}

/// Two that are connected.
pub fn sockets() -> [i32; 2] {
    let mut sockets = [-1; 2];
    ok(unsafe { libc::socketpair(libc::AF_UNIX, libc::SOCK_STREAM, 0, sockets.as_mut_ptr()) }, "socketpair");
    sockets
}

/// A message of one byte and a descriptor, and what is done with it.
fn message(of: impl FnOnce(*mut libc::msghdr, *mut libc::cmsghdr) -> isize) {
    let (mut byte, mut room) = ([0_u8; 1], [0_u64; 4]);
    let mut vector = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
    unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut vector;
        message.msg_iovlen = 1;
        message.msg_control = room.as_mut_ptr().cast();
        message.msg_controllen = libc::CMSG_SPACE(4) as _;
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        assert_eq!(of(&raw mut message, header), 1, "{}", io::Error::last_os_error());
    }
}

/// Sends a descriptor over a socket.
pub fn send(socket: i32, fd: i32) {
    message(|message, header| unsafe {
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(4) as _;
        libc::CMSG_DATA(header).cast::<i32>().write_unaligned(fd);
        libc::sendmsg(socket, message, 0)
    });
}

/// Receives one.
pub fn receive(socket: i32) -> i32 {
    let mut fd = -1;
    message(|message, header| unsafe {
        let received = libc::recvmsg(socket, message, 0);
        fd = libc::CMSG_DATA(header).cast::<i32>().read_unaligned();
        received
    });
    fd
}

/// What io_uring can be asked to do: `IORING_OP_*`.
#[derive(Clone, Copy)]
pub enum Ask {
    Openat = 18,
    Write = 23,
    Renameat = 35,
    Unlinkat = 36,
    Mkdirat = 37,
    Symlinkat = 38,
    Linkat = 39,
    Fsetxattr = 41,
    Setxattr = 42,
    Ftruncate = 55,
}

/// An io_uring with room for one request, as the kernel's headers lay it out.
pub struct Ring {
    fd: i32,
    rings: *mut u8,
    entries: *mut Entry,
    at: Offsets,
    /// Whether its own threads belong to the process, as from Linux 5.12 on.
    pub native: bool,
}

#[repr(C)]
#[derive(Default)]
struct Params {
    head: [u32; 10],
    submission: [u32; 10],
    completion: [u32; 10],
}

struct Offsets {
    submission_tail: usize,
    array: usize,
    completion_head: usize,
    completions: usize,
}

/// `struct io_uring_sqe`
#[repr(C)]
#[derive(Default)]
struct Entry {
    opcode: u8,
    flags: u8,
    priority: u16,
    fd: i32,
    second: u64,
    address: u64,
    len: u32,
    op_flags: u32,
    user_data: u64,
    rest: [u64; 3],
}
const _: () = assert!(size_of::<Entry>() == 64 && size_of::<Params>() == 120);

impl Ring {
    /// None if this kernel has no io_uring, or forbids it.
    pub fn new() -> Option<Ring> {
        const SINGLE_MMAP: u32 = 1;
        const NATIVE_WORKERS: u32 = 1 << 9;
        let mut params = Params::default();
        let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, &raw mut params) } as i32;
        if fd < 0 {
            return None;
        }
        assert_ne!(params.head[5] & SINGLE_MMAP, 0, "both rings in one mapping, as from Linux 5.4 on");
        let map = |offset| {
            let (all, shared) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_POPULATE);
            let at = unsafe { libc::mmap(ptr::null_mut(), 4096, all, shared, fd, offset) };
            assert_ne!(at, libc::MAP_FAILED, "mmap: {}", io::Error::last_os_error());
            at
        };
        let at = Offsets {
            submission_tail: params.submission[1] as usize,
            array: params.submission[6] as usize,
            completion_head: params.completion[0] as usize,
            completions: params.completion[5] as usize,
        };
        Some(Ring {
            fd,
            rings: map(0).cast(),
            entries: map(0x1000_0000).cast(),
            at,
            native: params.head[5] & NATIVE_WORKERS != 0,
        })
    }

    /// A number in the rings, which the kernel aligns.
    fn word(&self, at: usize) -> *mut u32 {
        unsafe { self.rings.add(at).cast() }
    }

    /// Asks, and waits for the result. The arguments are those of the call of that name.
    pub fn ask(&mut self, what: Ask, args: [u64; 5]) -> i64 {
        const GETEVENTS: u32 = 1;
        let [first, second, third, fourth, fifth] = args;
        let entry = Entry { opcode: what as u8, fd: first as i32, address: second, ..Entry::default() };
        let entry = match what {
            Ask::Openat => Entry { op_flags: third as u32, len: fourth as u32, ..entry },
            Ask::Mkdirat => Entry { len: third as u32, ..entry },
            Ask::Unlinkat => Entry { op_flags: third as u32, ..entry },
            Ask::Renameat | Ask::Linkat => Entry { len: third as u32, second: fourth, op_flags: fifth as u32, ..entry },
            // (what it says, directory, name)
            Ask::Symlinkat => Entry { fd: second as i32, address: first, second: third, ..entry },
            // (descriptor, bytes, how many, where)
            Ask::Write => Entry { len: third as u32, second: fourth, ..entry },
            Ask::Ftruncate => Entry { address: 0, second, ..entry },
            // (descriptor or path, attribute, value, its length, flags)
            Ask::Fsetxattr => Entry { second: third, len: fourth as u32, op_flags: fifth as u32, ..entry },
            Ask::Setxattr => {
                let path = [0, first, 0];
                Entry { fd: 0, second: third, len: fourth as u32, op_flags: fifth as u32, rest: path, ..entry }
            }
        };
        unsafe {
            self.entries.write_volatile(entry);
            self.word(self.at.array).write_volatile(0);
            let tail = self.word(self.at.submission_tail);
            tail.write_volatile(tail.read_volatile() + 1);
            let none = ptr::null::<u8>();
            let done = result(libc::syscall(libc::SYS_io_uring_enter, self.fd, 1, 1, GETEVENTS, none, 0_usize));
            assert_eq!(done, 1, "io_uring_enter");
            let head = self.word(self.at.completion_head);
            // of the two completions that there is room for
            let slot = (head.read_volatile() & 1) as usize;
            let result = self.word(self.at.completions + 16 * slot + 8).read_volatile() as i32;
            head.write_volatile(head.read_volatile() + 1);
            i64::from(result)
        }
    }
}
