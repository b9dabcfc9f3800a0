//! A request comes in, and has been given its audit id.

use aya_ebpf::{macros::uprobe, programs::ProbeContext};
use knark_abi::site;

use crate::{
    api::{TEXT_BYTES, URI_BYTES, layout, step, texts},
    go::{FIRST, argument, copied, knark_api_agent, knark_api_copy, knark_api_text_at},
    kernel::read_user,
    scratch,
};

/// Called by the outermost filter, withAuditInit, whose last word the request's context is.
///
/// match-proto: k8s.io/apiserver/pkg/server/filters.withPanicRecovery.func1(w http.ResponseWriter, req *http.Request)
#[uprobe]
pub fn api_begin(ctx: ProbeContext) -> u32 {
    let Some(layout) = layout() else { return 0 };
    let request = argument(&ctx, 2);
    step(&ctx, site::BEGIN, layout, |number, _| {
        knark_api_copy(number, FIRST, request, u64::from(layout.request_bytes));
        texts!(number, 0, [
            layout.request_method => TEXT_BYTES,
            layout.request_uri => URI_BYTES,
            layout.request_remote_addr => TEXT_BYTES,
        ]);
        let Some(s) = scratch::of(number) else { return };
        let context = copied(s, FIRST, layout.request_context + 8);
        knark_api_agent(number, copied(s, FIRST, layout.request_header), layout.bucket_maps, 3);
        // An interface's type and value. Where it is of another type, there is nothing to be read at 0, which the record then says.
        let [kind, audit] = read_user::<[u64; 2]>(context + u64::from(layout.context_value)).unwrap_or([0, 0]);
        let id = if kind == layout.audit_context { audit + u64::from(layout.audit_context_id) } else { 0 };
        knark_api_text_at(number, id, 4, TEXT_BYTES);
    });
    0
}
