//! A request's handler has returned, in whichever of Go's servers.

use aya_ebpf::{macros::uprobe, programs::ProbeContext};
use knark_abi::{ApiLayout, server, site};

use crate::{
    api::{layout, step},
    go::{argument, word},
};

/// match-proto: net/http.(*response).finishRequest()
#[uprobe]
pub fn api_end_http1(ctx: ProbeContext) -> u32 {
    let response = argument(&ctx, 0);
    end(&ctx, response, |at| (at.status[server::HTTP1], at.written[server::HTTP1]))
}

/// match-proto: golang.org/x/net/http2.(*responseWriter).handlerDone()
#[uprobe]
pub fn api_end_http2(ctx: ProbeContext) -> u32 {
    let state = word(argument(&ctx, 0));
    end(&ctx, state, |at| (at.status[server::HTTP2], at.written[server::HTTP2]))
}

/// match-proto: net/http.(*http2responseWriter).handlerDone()
#[uprobe]
pub fn api_end_bundled(ctx: ProbeContext) -> u32 {
    let state = word(argument(&ctx, 0));
    end(&ctx, state, |at| (at.status[server::BUNDLED], at.written[server::BUNDLED]))
}

#[inline(always)]
fn end(ctx: &ProbeContext, response: u64, offsets: impl Fn(&ApiLayout) -> (u32, u32)) -> u32 {
    let Some(layout) = layout() else { return 0 };
    let (status, written) = offsets(layout);
    step(ctx, site::END, layout, |_, body| {
        // SAFETY: the body is in this program's own scratch memory.
        unsafe {
            (*body).status = word(response + u64::from(status)) as i64;
            (*body).bytes = word(response + u64::from(written)) as i64;
        }
    });
    0
}
