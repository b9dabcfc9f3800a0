//! A request is refused, as not permitted to its user.

use aya_ebpf::{macros::uprobe, programs::ProbeContext};
use knark_abi::site;

use crate::api::{layout, step};

/// match-proto: k8s.io/apiserver/pkg/endpoints/handlers/responsewriters.Forbidden(...); its arguments differ among versions
#[uprobe]
pub fn api_denied(ctx: ProbeContext) -> u32 {
    let Some(layout) = layout() else { return 0 };
    step(&ctx, site::DENIED, layout, |_, _| {});
    0
}
