//! Steps of requests to the Kubernetes API. A request's steps are joined in user space, by goroutine.

use aya_ebpf::programs::ProbeContext;
use knark_abi::{API_TEXTS, ApiBody, ApiLayout, kind, site, verdict};

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
            if site == site::BEGIN {
                head::fill(Out::head(out), kind::API, site, verdict::TRACE);
            } else {
                head::brief(Out::head(out), kind::API, site, verdict::TRACE);
            }
            let inner = matches!(site, site::USER | site::ATTRIBUTES | site::DENIED);
            let body = Out::body::<ApiBody>(out);
            (*body).goroutine = word(g + u64::from(layout.g_goid));
            (*body).parent = if inner { word(g + u64::from(layout.g_parent_goid)) } else { 0 };
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

/// Appends the texts at these offsets of the first copy, into places that follow one another from `place` on.
macro_rules! texts {
    ($number:expr, $place:expr, [$($offset:expr => $room:expr),+ $(,)?]) => {{
        let mut place: u32 = $place;
        $(
            $crate::go::knark_api_text($number, u64::from($offset), place, $room);
            place += 1;
        )+
        let _ = place;
    }};
}
pub(crate) use texts;

/// Appends name and UID of a user, an interface value: its table of methods and its value. Gives where its groups are and how many.
/// It can't be read where it is no `user.DefaultInfo`, and the record says so.
#[inline(always)]
pub fn user(number: u32, layout: &ApiLayout, table: u64, value: u64) -> (u64, u64) {
    // The first method is at 24.
    let known = table != 0 && word(table + 24) == layout.default_info;
    let size = if known { u64::from(layout.user_bytes) } else { 0 };
    go::knark_api_copy(number, go::SECOND, value, size);
    for (text, offset) in [layout.user_name, layout.user_uid].into_iter().enumerate() {
        go::knark_api_text(number, u64::from(go::SECOND) << 32 | u64::from(offset), text as u32, TEXT_BYTES);
    }
    let Some(s) = scratch::of(number) else { return (0, 0) };
    let groups = |at: u32| go::copied(s, go::SECOND, layout.user_groups + at);
    (groups(0), groups(8))
}
