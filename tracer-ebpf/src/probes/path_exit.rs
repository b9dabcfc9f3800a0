//! The ends of path calls: the result, and the record goes.

use aya_ebpf::{helpers::generated, macros::tracepoint, maps::HashMap, programs::TracePointContext};
use knark_abi::{Call, Header, INFLIGHT_SMALL, PathBody, RECORD_BYTES, kind, text};

use crate::{
    call::late,
    head, kernel,
    maps::{INFLIGHT, INFLIGHT_LONG},
    record::{self, Out, hand_over},
    scratch::{self, Scratch},
};

/// match-proto: syscalls:sys_exit_chmod(int __syscall_nr, long ret), and others
#[tracepoint]
pub fn path_exit(ctx: TracePointContext) -> u32 {
    let (nr, result) = (super::number(&ctx), super::result(&ctx));
    // SAFETY: the sizes are those of the maps' values.
    unsafe {
        if !finish(&INFLIGHT, INFLIGHT_SMALL as u64, nr, result) {
            finish(&INFLIGHT_LONG, RECORD_BYTES as u64, nr, result);
        }
    }
    0
}

/// Ends the call that this thread has begun, if it is in this map.
///
/// # Safety
/// `room` must be the size of the map's values.
#[inline(always)]
unsafe fn finish<const N: usize>(map: &HashMap<u64, [u8; N]>, room: u64, nr: u32, result: i64) -> bool {
    let key = kernel::pid_tgid();
    let Some(record) = map.get_ptr_mut(key) else { return false };
    // SAFETY: a record begins with header and body, and no other thread uses this key.
    unsafe {
        let head = record.cast::<Header>();
        let body = record.cast::<u8>().add(size_of::<Header>()).cast::<PathBody>();
        if (*body).nr != nr {
            // another call of this thread, whose end was not seen
            record::no_room(kind::PATH);
        } else {
            (*body).result = result;
            (*head).boot_ns = head::now();
            let len = u64::from((*head).len);
            let len = if len > room { room } else { len };
            let missing = (*body).first.name_flags | (*body).second.name_flags | (*body).xattr_flags;
            if missing & text::FAULT == 0 || scratch::with(|s, _| complete(s, record.cast(), len as u32, nr)).is_none() {
                hand_over(record.cast(), len, kind::PATH, record::QUIET);
            }
        }
        let map = core::ptr::from_ref(map).cast_mut().cast();
        generated::bpf_map_delete_elem(map, (&raw const key).cast());
    }
    true
}

/// Copies the arguments that weren't in memory when the call began; the kernel has read them since.
///
/// # Safety
/// `record` must be valid for `len` bytes, and `s` be this program's own scratch memory.
#[inline(always)]
unsafe fn complete(s: *mut Scratch, record: *const u8, len: u32, nr: u32) {
    let call = kernel::call(nr);
    // SAFETY: by this function's contract.
    unsafe {
        let out = &raw mut (*s).out;
        let body = Out::body::<PathBody>(out);
        kernel::copy(Out::bytes(out), len, record as u64);
        Out::set_len(out, u64::from(len));
        (*s).args = (*body).args;
        let address = |index: u8| crate::call::argument(s, index);
        if (*body).first.name_flags & text::FAULT != 0 && call.first_name != Call::NO {
            let (len, flags) = late(out, address(call.first_name));
            (*body).first.name_len = len;
            (*body).first.name_flags = flags;
        }
        if (*body).second.name_flags & text::FAULT != 0 && call.second_name != Call::NO {
            let (len, flags) = late(out, address(call.second_name));
            (*body).second.name_len = len;
            (*body).second.name_flags = flags;
        }
        if (*body).xattr_flags & text::FAULT != 0 && call.xattr != Call::NO {
            let (len, flags) = late(out, address(call.xattr));
            (*body).xattr_len = len;
            (*body).xattr_flags = flags;
        }
        Out::emit(out, kind::PATH, record::QUIET);
    }
}
