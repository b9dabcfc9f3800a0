//! Steps of requests to the Kubernetes API. A request's steps are joined in user space, by goroutine.

use aya_ebpf::programs::ProbeContext;
use knark_abi::{API_TEXTS, ApiBody, ApiLayout, kind, verdict};

use crate::{
    go::{self, word},
    head, kernel,
    maps::API_SERVERS,
    record::{self, Out},
    scratch,
};

/// Longest URI or path that is copied, in bytes.
pub const URI_BYTES: u32 = 2048;
/// The same for other texts.
pub const TEXT_BYTES: u32 = 256;

/// The layout of the current process, if that is an API server.
#[inline(always)]
pub fn layout() -> Option<&'static ApiLayout> {
    if kernel::stopped() {
        return None;
    }
    let (tgid, _) = kernel::ids();
    // SAFETY: user space writes a value before the process is looked up, and never changes it.
    unsafe { API_SERVERS.get(tgid) }
}

/// Makes a record of a step; `fill` adds the texts, by scratch memory's number, and fills in the body.
#[inline(always)]
pub fn step(ctx: &ProbeContext, site: u8, layout: &ApiLayout, fill: impl FnOnce(u32, *mut ApiBody)) {
    record::seen(kind::API);
    let g = go::g(ctx);
    let made = scratch::with(|s, number| {
        // SAFETY: `s` is this program's own scratch memory.
        unsafe {
            let out = &raw mut (*s).out;
            head::fill(Out::head(out), kind::API, site, verdict::TRACE);
            let body = Out::body::<ApiBody>(out);
            (*body).goroutine = word(g + u64::from(layout.g_goid));
            (*body).parent = word(g + u64::from(layout.g_parent_goid));
            (*body).status = 0;
            (*body).bytes = 0;
            (*body).texts = [0; API_TEXTS];
            (*body).groups = 0;
            (*body).pad = 0;
            fill(number, body);
            Out::emit(out, kind::API, record::QUIET);
        }
    });
    if made.is_none() {
        record::no_room(kind::API);
    }
}

/// Appends the texts at these offsets from `base` on, into places that follow one another from `place` on.
macro_rules! texts {
    ($number:expr, $base:expr, $place:expr, [$($offset:expr => $room:expr),+ $(,)?]) => {{
        let mut place: u32 = $place;
        $(
            $crate::go::knark_api_text($number, $base + u64::from($offset), place, $room);
            place += 1;
        )+
        let _ = place;
    }};
}
pub(crate) use texts;

/// Appends name and UID of the user that the interface value at `address` holds, and gives where its groups are; 0 where it is
/// no `user.DefaultInfo`.
#[inline(always)]
pub fn user(number: u32, layout: &ApiLayout, address: u64) -> u64 {
    // The interface's table of methods, whose first is at 24, and the value.
    let (table, value) = (word(address), word(address + 8));
    if table == 0 || word(table + 24) != layout.default_info {
        // Nothing can be read there, which is how the record says so.
        go::knark_api_text(number, 0, 0, 0);
        return 0;
    }
    texts!(number, value, 0, [layout.user_name => TEXT_BYTES, layout.user_uid => TEXT_BYTES]);
    value + u64::from(layout.user_groups)
}
