//! Bodies of requests to the Kubernetes API and of their responses, in pieces that user space joins.

use aya_ebpf::programs::ProbeContext;
use knark_abi::{API_BODY_BYTES, API_CHUNK, ApiChunk, ApiLayout, Header, kind, verdict};

use crate::{
    go::{self, word},
    head, kernel,
    kernel::config,
    maps::API_RESPONSES,
    record::{self, Out},
    scratch,
};

const CHUNKS: u64 = (API_BODY_BYTES / API_CHUNK) as u64;

/// The key that a goroutine's response goes by.
#[inline(always)]
pub fn key(ctx: &ProbeContext, layout: &ApiLayout) -> [u64; 2] {
    let (tgid, _) = kernel::ids();
    [u64::from(tgid), word(go::g(ctx) + u64::from(layout.g_goid))]
}

/// What this goroutine writes belongs to another request from now on.
#[inline(always)]
pub fn forget(ctx: &ProbeContext, layout: &ApiLayout) {
    if config!(body_bytes) != 0 {
        let _ = API_RESPONSES.remove(key(ctx, layout));
    }
}

/// Hands over `len` bytes that lie at `from`, as that part of a body which begins at `at`.
#[inline(always)]
pub fn copy(ctx: &ProbeContext, layout: &ApiLayout, whose: u8, from: u64, len: u64, at: u64) {
    let g = go::g(ctx);
    let made = scratch::with(|s, number| {
        // SAFETY: `s` is this program's own scratch memory.
        unsafe {
            let out = &raw mut (*s).out;
            head::brief(Out::head(out), kind::API_BODY, whose, verdict::TRACE);
            let chunk = Out::body::<ApiChunk>(out);
            (*chunk).goroutine = word(g + u64::from(layout.g_goid));
            (*chunk).parent = word(g + u64::from(layout.g_parent_goid));
            (*chunk).total = at + len;
            (*chunk).pad = 0;
        }
        let limit = u64::from(config!(body_bytes));
        let room = if at < limit { limit - at } else { 0 };
        let wanted = if len < room { len } else { room };
        for i in 0..CHUNKS {
            let done = i * API_CHUNK as u64;
            // Of a body without any bytes that are wanted it is told as well.
            if i > 0 && done >= wanted || knark_api_chunk(number, from + done, at + done, wanted - done) == 0 {
                break;
            }
        }
    });
    if made.is_none() {
        record::seen(kind::API_BODY);
        record::no_room(kind::API_BODY);
    }
}

/// Hands over the next piece of a body, whose record is ready but for that; 0 if there's no point in going on.
///
/// Global, so that the verifier looks at it once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn knark_api_chunk(number: u32, from: u64, offset: u64, len: u64) -> u32 {
    let Some(s) = scratch::of(number) else { return 0 };
    let len = if len > API_CHUNK as u64 { API_CHUNK as u64 } else { len };
    // SAFETY: `s` is the caller's own scratch memory; the buffer holds header, body and a chunk.
    unsafe {
        let out = &raw mut (*s).out;
        let chunk = Out::body::<ApiChunk>(out);
        let to = Out::bytes(out).add(size_of::<Header>() + size_of::<ApiChunk>());
        let mut read = len > 0;
        if read && record::is_crowded() {
            // The steps of requests come first: then it is told how long the body is, and no more.
            record::seen(kind::API_BODY);
            record::no_room_in_ring(kind::API_BODY);
            read = false;
        }
        record::seen(kind::API_BODY);
        if read && !kernel::copy_user(to, len as u32, from) {
            record::seen(kind::API_BODY);
            record::no_room(kind::API_BODY);
            read = false;
        }
        (*chunk).offset = offset;
        (*chunk).len = if read { len as u32 } else { 0 };
        if read {
            Out::set_len(out, Out::len(out) + len);
        }
        // What comes after a hole is of no use.
        u32::from(Out::emit(out, kind::API_BODY, record::QUIET) && read)
    }
}
