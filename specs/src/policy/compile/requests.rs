//! What a rule asks of requests and no request can have: mistakes that would pass in silence, since nothing ever matches them.

use crate::{policy::IdRange, policy::facts::ApiField, resource, structure::suggest};

/// Verbs of requests about resources.
const VERBS: [&str; 8] = ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"];
/// Verbs of requests about anything else: HTTP's methods.
const METHODS: [&str; 7] = ["get", "head", "post", "put", "patch", "delete", "options"];
/// Verbs of RBAC's that are rights alone: what needs them is done by another verb.
const RIGHTS: [&str; 7] = ["approve", "attest", "bind", "escalate", "impersonate", "sign", "use"];
/// What kubectl or RBAC's users call a verb and is a subresource.
const SUBRESOURCES: [(&str, &str); 12] = [
    ("approval", "approval"),
    ("attach", "attach"),
    ("binding", "binding"),
    ("ephemeralcontainers", "ephemeralcontainers"),
    ("evict", "eviction"),
    ("eviction", "eviction"),
    ("exec", "exec"),
    ("log", "log"),
    ("logs", "log"),
    ("port-forward", "portforward"),
    ("portforward", "portforward"),
    ("proxy", "proxy"),
];
/// The HTTP statuses there are.
const CODES: IdRange = IdRange { first: 100, last: 599 };

/// What is wrong with a value, and what to write instead.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mistake {
    pub what: String,
    pub help: String,
}

/// What is wrong with a text, if no request can have it. Patterns are taken to be meant.
pub(super) fn of_text(field: ApiField, text: &str) -> Option<Mistake> {
    if text.starts_with("glob:") || text.starts_with("regex:") || text.contains('*') {
        return None;
    }
    match field {
        ApiField::Verb => of_verb(text),
        ApiField::Resource => of_resource(text),
        ApiField::Subresource => text
            .split_once('/')
            .map(|(resource, subresource)| mistake(text, "a subresource has no `/` in it", parts(resource, subresource))),
        ApiField::Group => of_group(text),
        ApiField::Namespace => {
            let is_label = text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
            let what = "a namespace's name has lower-case letters, digits and hyphens alone";
            (!is_label).then(|| mistake(text, what, "write the name as `kubectl get namespaces` shows it"))
        }
        ApiField::Name => text.split_once('/').map(|(first, name)| {
            mistake(text, "a name has no `/` in it", format!("write `names: [{name}]`, and what {first:?} is by itself"))
        }),
        ApiField::User => {
            let account = text.strip_prefix("system:serviceaccount:")?;
            let is_whole = account.split(':').count() == 2 && !account.starts_with(':') && !account.ends_with(':');
            let help = "write `system:serviceaccount:NAMESPACE:NAME`, or `glob:system:serviceaccount:NAMESPACE:*` for all of a namespace";
            (!is_whole).then(|| mistake(text, "a service account's user has its namespace and its name", help))
        }
        ApiField::UserGroup => None,
    }
}

/// What is wrong with a range of HTTP statuses, if no response has any of them. One that ends before it begins is told of elsewhere.
pub(super) fn of_codes(range: IdRange) -> Option<Mistake> {
    if range.first > range.last || range.first <= CODES.last && range.last >= CODES.first {
        return None;
    }
    let text = if range.first == range.last { range.first.to_string() } else { format!("{}-{}", range.first, range.last) };
    Some(mistake(&text, "HTTP statuses are 100 to 599", "write a status or a range of them, such as 403 or 500-599"))
}

/// What is wrong with verbs beside resources: what is done to those has other names than HTTP's.
pub(super) fn of_method(verb: &str, resources: &[String]) -> Option<Mistake> {
    // A list or a pattern may hold what is no resource.
    let about_resources =
        !resources.is_empty() && resources.iter().all(|name| !name.is_empty() && !name.contains(['$', ':', '*']));
    let instead = match verb {
        "post" => "create",
        "put" => "update",
        "head" | "options" => "get",
        _ => return None,
    };
    let help = format!("write `{instead}`, or leave `resources` out");
    about_resources.then(|| mistake(verb, "no request about a resource has this verb", help))
}

fn of_verb(text: &str) -> Option<Mistake> {
    if let Some((_, subresource)) = SUBRESOURCES.iter().find(|(name, _)| *name == text) {
        let help = format!("write `subresources: [{subresource}]`, and leave the verb out");
        return Some(mistake(text, "it is a subresource, whose requests have a verb such as get or create", help));
    }
    if text == "impersonate" {
        return Some(mistake(text, "it is a right, and no request's verb", "write `where: has(api.impersonator)`"));
    }
    if RIGHTS.contains(&text) {
        let help = "write the verb of the request that needs it, such as create or update";
        return Some(mistake(text, "it is a right, and no request's verb", help));
    }
    let known: Vec<_> = VERBS.iter().chain(&METHODS).copied().collect();
    // A custom verb may be anything, so this is but a guess.
    let meant = suggest(text, &known).filter(|meant| *meant != text && !known.contains(&text) && !text.contains(':'))?;
    Some(Mistake { what: format!("{text:?} is none of the usual verbs"), help: format!("did you mean `{meant}`?") })
}

fn of_resource(text: &str) -> Option<Mistake> {
    if let Some((resource, subresource)) = text.split_once('/') {
        return Some(mistake(text, "a resource has no `/` in it", parts(resource, subresource)));
    }
    if let Some((resource, group)) = text.split_once('.') {
        let help = format!("write `resources: [{}]` and `groups: [{group}]`", resource::full_name(resource.to_lowercase()));
        return Some(mistake(text, "a resource has no group in it", help));
    }
    let lower = text.to_lowercase();
    let full = resource::full_name(lower.clone());
    let meant = if resource::is_built_in(&lower) { lower } else { full };
    if meant == text || !resource::is_built_in(&meant) && !text.contains(char::is_uppercase) {
        return None;
    }
    Some(mistake(text, "resources are called by their plural, in lower case", format!("write `{meant}`")))
}

fn of_group(text: &str) -> Option<Mistake> {
    match text.split_once('/') {
        Some((group, version)) => {
            let help = format!("write `groups: [{group}]`, and `where: api.version == {version:?}` if the version matters");
            Some(mistake(text, "a group has no version in it", help))
        }
        None if text == "core" || text == "v1" => {
            Some(mistake(text, "no group is called so", "write `\"\"`: the core group has no name"))
        }
        None => None,
    }
}

fn parts(resource: &str, subresource: &str) -> String {
    format!("write `resources: [{resource}]` and `subresources: [{subresource}]`")
}

fn mistake(text: &str, why: &str, help: impl Into<String>) -> Mistake {
    Mistake { what: format!("{text:?} can never match: {why}"), help: help.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_request_can_have_is_told_with_what_to_write_instead() {
        use ApiField::{Group, Name, Namespace, Resource, Subresource, User, Verb};
        for (field, text, help) in [
            (Resource, "deployments.apps", "`resources: [deployments]` and `groups: [apps]`"),
            (Resource, "deploy.apps", "`resources: [deployments]` and `groups: [apps]`"),
            (Resource, "pods/exec", "`resources: [pods]` and `subresources: [exec]`"),
            (Resource, "Pod", "write `pods`"),
            (Resource, "Secrets", "write `secrets`"),
            (Resource, "po", "write `pods`"),
            (Resource, "Widget", "write `widgets`"),
            (Verb, "exec", "subresources: [exec]"),
            (Verb, "logs", "subresources: [log]"),
            (Verb, "impersonate", "has(api.impersonator)"),
            (Verb, "bind", "the verb of the request"),
            (Verb, "GET", "did you mean `get`?"),
            (Verb, "delte", "did you mean `delete`?"),
            (Group, "apps/v1", "groups: [apps]"),
            (Group, "core", "the core group has no name"),
            (Subresource, "pods/exec", "subresources: [exec]"),
            (Namespace, "Prod", "kubectl get namespaces"),
            (Namespace, "prod/web", "kubectl get namespaces"),
            (Name, "prod/web", "names: [web]"),
            (User, "system:serviceaccount:prod", "NAMESPACE:NAME"),
        ] {
            let mistake = of_text(field, text).unwrap_or_else(|| panic!("{text}"));
            assert!(mistake.help.contains(help), "{text}: {mistake:?}");
        }
        for (field, text) in [
            (Resource, "pods"),
            (Resource, ""),
            (Resource, "widget"),
            (Resource, "endpoints"),
            (Resource, "glob:*.apps"),
            (Verb, "deletecollection"),
            (Verb, "head"),
            (Verb, "example.com:custom"),
            (Group, ""),
            (Group, "rbac.authorization.k8s.io"),
            (Subresource, ""),
            (Namespace, ""),
            (Namespace, "kube-system"),
            (Name, "system:node"),
            (User, "system:serviceaccount:kube-system:default"),
            (User, "glob:system:serviceaccount:kube-system:*"),
        ] {
            assert_eq!(of_text(field, text), None, "{text}");
        }
    }

    #[test]
    fn statuses_are_those_that_there_are() {
        for (first, last, is_one) in [(404, 404, true), (90, 100, true), (599, 700, true), (99, 99, false), (600, 999, false)] {
            assert_eq!(of_codes(IdRange { first, last }).is_none(), is_one, "{first}-{last}");
        }
        // Told of as any range that holds nothing.
        assert_eq!(of_codes(IdRange { first: 700, last: 600 }), None);
    }

    #[test]
    fn what_is_done_to_resources_is_not_called_as_http_does() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert!(of_method("post", &names(&["pods"])).unwrap().help.contains("`create`"));
        for (verb, resources) in [("post", &[][..]), ("post", &[""]), ("put", &["$mine"]), ("get", &["pods"])] {
            assert_eq!(of_method(verb, &names(resources)), None, "{verb} {resources:?}");
        }
    }
}
