//! A request comes in: the outermost filter of an API server.

use aya_ebpf::{macros::uprobe, programs::ProbeContext};
use knark_abi::site;

use crate::{
    api::{TEXT_BYTES, URI_BYTES, layout, step, texts},
    go::{argument, knark_api_agent, word},
};

/// match-proto: k8s.io/apiserver/pkg/endpoints/filters.withAuditInit.func1(w http.ResponseWriter, r *http.Request)
#[uprobe]
pub fn api_begin(ctx: ProbeContext) -> u32 {
    let Some(layout) = layout() else { return 0 };
    let request = argument(&ctx, 2);
    step(&ctx, site::BEGIN, layout, |number, _| {
        texts!(number, request, 0, [
            layout.request_method => TEXT_BYTES,
            layout.request_uri => URI_BYTES,
            layout.request_remote_addr => TEXT_BYTES,
        ]);
        knark_api_agent(number, word(request + u64::from(layout.request_header)), layout.bucket_maps, 3);
    });
    0
}
