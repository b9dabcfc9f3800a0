//! What rules ask of a request to the Kubernetes API.

use crate::{event::Api, policy::conditions::Miss};

/// A field of a request that rules hold texts against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApiField {
    /// What is done.
    Verb,
    /// The API group.
    Group,
    /// The resource.
    Resource,
    /// The subresource.
    Subresource,
    /// The namespace.
    Namespace,
    /// The object's name.
    Name,
    /// The user's name.
    User,
    /// Any of the user's groups.
    UserGroup,
}

impl ApiField {
    /// All of them, in the order in which rules look at them.
    pub const ALL: [Self; 8] =
        [Self::Verb, Self::Resource, Self::Subresource, Self::Group, Self::Namespace, Self::Name, Self::User, Self::UserGroup];

    /// The field of a rule that isn't satisfied.
    pub fn miss(self) -> Miss {
        match self {
            Self::Verb => "api.verbs",
            Self::Group => "api.groups",
            Self::Resource => "api.resources",
            Self::Subresource => "api.subresources",
            Self::Namespace => "api.namespaces",
            Self::Name => "api.names",
            Self::User => "api.users",
            Self::UserGroup => "api.userGroups",
        }
    }

    /// The name of the condition in a rule.
    pub fn name(self) -> &'static str {
        self.miss().trim_start_matches("api.")
    }

    /// What it is called in a sentence.
    pub fn noun(self) -> &'static str {
        match self {
            Self::Verb => "verb",
            Self::Group => "API group",
            Self::Resource => "resource",
            Self::Subresource => "subresource",
            Self::Namespace => "namespace",
            Self::Name => "name",
            Self::User => "user",
            Self::UserGroup => "user's group",
        }
    }

    /// The request's text, of what has exactly one.
    pub fn text(self, api: &Api) -> Option<&str> {
        Some(match self {
            Self::Verb => &api.verb,
            Self::Group => &api.group,
            Self::Resource => &api.resource,
            Self::Subresource => &api.subresource,
            Self::Namespace => &api.namespace,
            Self::Name => &api.name,
            Self::User => return api.user.as_ref().map(|user| user.name.as_str()),
            Self::UserGroup => return None,
        })
    }

    /// All of the request's texts.
    pub(super) fn texts(self, api: &Api) -> impl Iterator<Item = &str> {
        let groups = api.user.as_ref().filter(|_| self == Self::UserGroup).into_iter().flat_map(|user| user.groups.iter());
        self.text(api).into_iter().chain(groups)
    }
}
