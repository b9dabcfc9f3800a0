//! A request as an item of a batch.

use knark_specs::frame::{Api, ApiDecision, ApiStage, Item};

use super::{Attributes, Open, User};
use crate::{
    api::bodies::{Read, Shown},
    batch,
};

/// What is told of a request besides what is known of it while it is open.
pub struct Told {
    /// Slot of the API server.
    pub process: u32,
    /// How far it has come.
    pub stage: ApiStage,
    /// Since when (`CLOCK_BOOTTIME`, ns).
    pub time_ns: u64,
    /// HTTP status.
    pub code: Option<u16>,
    /// Bytes of the response's body.
    pub bytes: Option<u64>,
    /// What it carried, and what it was answered.
    pub bodies: Read,
}

impl Told {
    /// That it has begun.
    pub fn started(process: u32, open: &Open) -> Self {
        let bodies = Read::default();
        Self { process, stage: ApiStage::Started, time_ns: open.begun_ns, code: None, bytes: None, bodies }
    }
}

/// Tells of a request.
pub fn put(open: &Open, told: &Told, batch: &mut Vec<u8>) {
    let Told { process, stage, time_ns, code, bytes, ref bodies } = *told;
    let known = open.attributes.as_deref();
    let authenticated = open.authenticated.as_ref();
    let user = known.and_then(|known| known.user.as_ref()).or(authenticated);
    let decision = match (stage, code) {
        (ApiStage::Started, _) => None,
        _ if open.denied => Some(ApiDecision::Denied),
        // Before it is authorised itself, only that it acts as somebody else can be refused so.
        (_, Some(403)) if known.is_none() => Some(ApiDecision::Denied),
        _ if known.is_some() => Some(ApiDecision::Allowed),
        (_, Some(401)) => Some(ApiDecision::Unauthenticated),
        _ => None,
    };
    let id = format!("{}-{}-{}", open.head.start_ns, open.begun_ns, open.number);
    let guess = known.is_none().then(|| Attributes::of(&open.method, &open.uri));
    let none = Attributes::default();
    let known = known.or(guess.as_ref()).unwrap_or(&none);
    let Attributes { verb, namespace, group, version, resource, subresource, name, .. } = known;
    let item = Item::Api(Box::new(Api {
        time_ns,
        process,
        stage,
        request_id: &id,
        verb,
        group,
        version,
        resource,
        subresource,
        namespace,
        name,
        uri: &open.uri,
        method: &open.method,
        user: user.map(User::item),
        impersonator: authenticated.filter(|real| user.is_some_and(|user| real.is_other_than(user))).map(User::item),
        decision,
        code,
        received_ns: Some(open.begun_ns),
        response_bytes: bytes,
        source: &open.source,
        user_agent: &open.user_agent,
        audit_id: &open.audit_id,
        request_body: bodies.request.as_ref().map(Shown::item),
        response_body: bodies.response.as_ref().map(Shown::item),
        truncated: open.truncated.clone(),
    }));
    batch::put(&item, batch);
}
