//! A request is given its audit id.

use aya_ebpf::{macros::uprobe, programs::ProbeContext};
use knark_abi::site;

use crate::{
    api::{TEXT_BYTES, layout, step},
    go::{argument, knark_api_bytes},
};

/// match-proto: k8s.io/apiserver/pkg/audit.WithAuditID(ctx context.Context, auditID types.UID)
#[uprobe]
pub fn api_audit_id(ctx: ProbeContext) -> u32 {
    let Some(layout) = layout() else { return 0 };
    let (from, len) = (argument(&ctx, 2), argument(&ctx, 3));
    step(&ctx, site::AUDIT_ID, layout, |number, _| {
        knark_api_bytes(number, from, len, TEXT_BYTES);
    });
    0
}
