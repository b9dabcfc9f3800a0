//! A connection of HTTP/1 has ended. A request that took it over, such as exec's, ends with it.

use aya_ebpf::{macros::uprobe, programs::ProbeContext};
use knark_abi::site;

use crate::api::{layout, step};

/// match-proto: net/http.(*conn).serve.func1(), deferred
#[uprobe]
pub fn api_closed(ctx: ProbeContext) -> u32 {
    let Some(layout) = layout() else { return 0 };
    step(&ctx, site::CLOSED, layout, |_, _| {});
    0
}
