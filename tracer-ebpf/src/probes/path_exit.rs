//! The ends of path calls: the result, and the record goes.

use aya_ebpf::{macros::tracepoint, programs::TracePointContext};
use knark_abi::{Call, PRECISE, PathBody};

use crate::{
    begun::{self, Addresses, Ending},
    kernel,
};

/// match-proto: syscalls:sys_exit_chmod(int __syscall_nr, long ret), and others
#[tracepoint]
pub fn path_exit(ctx: TracePointContext) -> u32 {
    let (nr, result) = (super::number(&ctx), super::result(&ctx));
    let call = kernel::call(nr);
    let nr = if kernel::joined(call.op) { nr | PRECISE } else { nr };
    // SAFETY: the record that is ended is this thread's own.
    unsafe { begun::end(Ending::Call, nr, result, |body| addresses(body, call)) };
    0
}

/// Where the names are, by the arguments of the call.
#[inline(always)]
pub fn addresses(body: *const PathBody, call: Call) -> Addresses {
    // SAFETY: `end` gives the body of a record in a map. The mask is for the verifier, so 6 and 7 need an answer too.
    let argument = |index: u8| match (index, index & 7) {
        (Call::NO, _) | (_, 6..) => 0,
        (_, i) => unsafe { core::ptr::read_volatile((&raw const (*body).args).cast::<u64>().add(i as usize)) },
    };
    Addresses { first: argument(call.first_name), second: argument(call.second_name), xattr: argument(call.xattr) }
}
