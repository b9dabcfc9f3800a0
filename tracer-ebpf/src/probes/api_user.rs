//! A request's user has been authenticated: who really makes it, before impersonation.

use aya_ebpf::{macros::uprobe, programs::ProbeContext};
use knark_abi::site;

use crate::{
    api::{layout, step, user},
    go::{argument, knark_api_groups},
    kernel::read_user,
};

/// After the call, in k8s.io/apiserver/pkg/endpoints/filters.withAuthentication.func1; or, where no place is found there, in
/// k8s.io/apiserver/pkg/authentication/request/union.(*unionAuthRequestHandler).AuthenticateRequest
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
    // The union's authenticators pass on what those within them have answered, so that this comes by more than once: the last answer
    // holds.
    step(&ctx, site::USER, layout, |number, _| {
        let [table, value] = read_user::<[u64; 2]>(response + u64::from(layout.response_user)).unwrap_or([0, 0]);
        let (groups, len) = user(number, layout, table, value);
        knark_api_groups(number, groups, len);
    });
    0
}
