//! A request is given up, as after a timeout: its handler never returns, and its stream is reset.

use aya_ebpf::{macros::uprobe, programs::ProbeContext};
use knark_abi::site;

use crate::api::{layout, step};

/// match-proto: k8s.io/apiserver/pkg/endpoints/metrics.RecordRequestAbort(req *http.Request, requestInfo *request.RequestInfo)
#[uprobe]
pub fn api_aborted(ctx: ProbeContext) -> u32 {
    let Some(layout) = layout() else { return 0 };
    step(&ctx, site::ABORTED, layout, |_, _| {});
    0
}
