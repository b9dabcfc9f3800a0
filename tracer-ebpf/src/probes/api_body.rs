//! What a request carries has been read, and what it is answered is being written. Both happen on the goroutine that handles it, before
//! its response is compressed.

use aya_ebpf::{macros::uprobe, programs::ProbeContext};
use knark_abi::body;

use crate::{
    api::layout,
    body::{copy, key},
    go::argument,
    kernel::config,
    maps::API_RESPONSES,
};

/// Right after the call, in k8s.io/apiserver/pkg/endpoints/handlers.limitedReadBodyWithRecordMetric
///
/// match-proto: limitedReadBody(req *http.Request, limit int64) ([]byte, error)
#[uprobe]
pub fn api_request_body(ctx: ProbeContext) -> u32 {
    let (from, len, error) = (argument(&ctx, 0), argument(&ctx, 1), argument(&ctx, 3));
    if error != 0 {
        return 0;
    }
    let Some(layout) = layout() else { return 0 };
    // The response is worth as much: only requests that change something have a body.
    let _ = API_RESPONSES.insert(key(&ctx, layout), 0, 0);
    copy(&ctx, layout, body::REQUEST, from, len, 0);
    0
}

/// match-proto: k8s.io/apiserver/pkg/endpoints/handlers/responsewriters.(*deferredResponseWriter).Write(p []byte) (n int, err error)
#[uprobe]
pub fn api_response_body(ctx: ProbeContext) -> u32 {
    let (from, len) = (argument(&ctx, 1), argument(&ctx, 2));
    let Some(layout) = layout() else { return 0 };
    let key = key(&ctx, layout);
    // Lists and objects that are only read are not copied.
    // SAFETY: a number; nobody but this goroutine changes it.
    let Some(written) = (unsafe { API_RESPONSES.get(key).copied() }) else { return 0 };
    let _ = API_RESPONSES.insert(key, written + len, 0);
    // That it goes on beyond what is wanted is told once: a list is written in very many pieces.
    if written <= u64::from(config!(body_bytes)) {
        copy(&ctx, layout, body::RESPONSE, from, len, written);
    }
    0
}
