//! Conditions on a request to the Kubernetes API.

use super::{AnyOf, Miss, hit};
use crate::{
    event::Api,
    policy::{
        IdRange,
        facts::{ApiField, Facts},
    },
};

/// A request to the Kubernetes API.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// What the texts of the request's fields may be.
    pub texts: Vec<(ApiField, AnyOf)>,
    /// HTTP statuses; empty: any.
    pub codes: Vec<IdRange>,
}

impl Request {
    /// The resources that it names; empty: any.
    pub fn resources(&self) -> &[super::PatternId] {
        self.texts.iter().find(|(field, _)| *field == ApiField::Resource).map_or(&[], |(_, any)| any)
    }

    /// Whether the event's request satisfies it. A request that hasn't ended has no status yet.
    pub(super) fn check(&self, facts: &Facts<'_>, api: &Api) -> Result<(), Miss> {
        if let Some((field, _)) = self.texts.iter().find(|(field, any)| !hit(any, facts.api(*field))) {
            return Err(field.miss());
        }
        let has = |code: u16| self.codes.iter().any(|range| range.contains(code.into()));
        if self.codes.is_empty() || api.code.is_some_and(has) { Ok(()) } else { Err("api.codes") }
    }
}

/// In words, what of the request did not satisfy a field of a rule.
pub(super) fn describe(miss: Miss, api: &Api) -> String {
    let user = api.user.as_ref();
    match miss {
        "api.codes" => api.code.map_or_else(|| "the status isn't known yet".to_owned(), |code| format!("the status is {code}")),
        "api.users" => user.map_or_else(|| "nobody was authenticated".to_owned(), |user| format!("the user is {:?}", user.name)),
        "api.userGroups" => {
            let groups: Vec<_> = user.into_iter().flat_map(|user| user.groups.iter()).collect();
            format!("the user's groups are {groups:?}")
        }
        _ => ApiField::ALL
            .iter()
            .find(|field| field.miss() == miss)
            .and_then(|field| Some(format!("the {} is {:?}", field.noun(), field.text(api)?)))
            .unwrap_or_default(),
    }
}
