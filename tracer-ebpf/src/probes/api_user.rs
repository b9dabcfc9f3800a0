//! An authenticator has looked at a request: who really makes it, before impersonation.

use aya_ebpf::{macros::uprobe, programs::ProbeContext};
use knark_abi::site;

use crate::{
    api::{layout, step, user},
    go::{argument, knark_api_groups},
};

/// Right after the call, in k8s.io/apiserver/pkg/authentication/request/union.(*unionAuthRequestHandler).AuthenticateRequest
///
/// match-proto: AuthenticateRequest(req *http.Request) (*authenticator.Response, bool, error)
#[uprobe]
pub fn api_user(ctx: ProbeContext) -> u32 {
    // Go leaves the upper bits of a bool as they were.
    let known = argument(&ctx, 1) & 1 != 0;
    let response = argument(&ctx, 0);
    if !known || response == 0 {
        return 0;
    }
    let Some(layout) = layout() else { return 0 };
    // Authenticators pass on what those within them have answered, so that this comes by more than once: the last answer holds.
    step(&ctx, site::USER, layout, |number, _| {
        let groups = user(number, layout, response + u64::from(layout.response_user));
        knark_api_groups(number, groups);
    });
    0
}
