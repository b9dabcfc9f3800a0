//! What a request is about, and who makes it, as it is about to be authorised.

use aya_ebpf::{macros::uprobe, programs::ProbeContext};
use knark_abi::site;

use crate::{
    api::{TEXT_BYTES, layout, step, texts, user},
    body,
    go::{FIRST, argument, copied, knark_api_copy, knark_api_groups},
    scratch,
};

/// Right after the call, in k8s.io/apiserver/pkg/endpoints/filters.withAuthorization.func1
///
/// match-proto: GetAuthorizerAttributes(ctx context.Context) (authorizer.Attributes, error)
#[uprobe]
pub fn api_attributes(ctx: ProbeContext) -> u32 {
    let (attributes, error) = (argument(&ctx, 1), argument(&ctx, 2));
    if error != 0 {
        return 0;
    }
    let Some(layout) = layout() else { return 0 };
    body::forget(&ctx, layout);
    step(&ctx, site::ATTRIBUTES, layout, |number, _| {
        knark_api_copy(number, FIRST, attributes, u64::from(layout.attributes_bytes));
        let Some(s) = scratch::of(number) else { return };
        let holder = |at: u32| copied(s, FIRST, layout.attributes_user + at);
        let (groups, len) = user(number, layout, holder(0), holder(8));
        texts!(number, 2, [
            layout.attributes_verb => TEXT_BYTES,
            layout.attributes_namespace => TEXT_BYTES,
            layout.attributes_group => TEXT_BYTES,
            layout.attributes_version => TEXT_BYTES,
            layout.attributes_resource => TEXT_BYTES,
            layout.attributes_subresource => TEXT_BYTES,
            layout.attributes_name => TEXT_BYTES,
        ]);
        knark_api_groups(number, groups, len);
    });
    0
}
