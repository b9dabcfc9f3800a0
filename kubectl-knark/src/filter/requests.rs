//! Which requests to the Kubernetes API are shown.

use knark_specs::{event::Api, link::Cause, policy::IdRange, resource};

use super::any;

/// Verbs that change something.
const CHANGES: [&str; 7] = ["create", "update", "patch", "delete", "deletecollection", "post", "put"];
/// Subresources by which something is done in a pod or on a node, whatever the verb.
const SESSIONS: [&str; 4] = ["exec", "attach", "portforward", "proxy"];
/// API groups whose objects are questions: creating one changes nothing.
const QUESTIONS: [&str; 2] = ["authentication.k8s.io", "authorization.k8s.io"];
/// How the names of the cluster's own components begin.
const COMPONENTS: [&str; 4] = ["system:kube-", "system:node:", "system:apiserver", "system:serviceaccount:kube-system:"];

/// Conditions on requests, joined by and; the values of one are joined by or. Events of other kinds meet them all, but for who
/// caused them.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Requests to the Kubernetes API (with --on api; each repeatable or separated by commas)")]
pub struct RequestFilter {
    /// Verbs, such as create or get
    #[arg(long = "verb", value_name = "VERB", value_delimiter = ',')]
    verbs: Vec<String>,
    /// Resources: secrets, deployments.apps, pods/exec, or */scale
    #[arg(long = "resource", value_name = "RESOURCE", value_delimiter = ',', value_parser = Resource::parse)]
    resources: Vec<Resource>,
    /// Namespaces of what they are about
    #[arg(long = "api-namespace", value_name = "NAME", value_delimiter = ',')]
    api_namespaces: Vec<String>,
    /// Names of what they are about
    #[arg(long = "api-name", value_name = "NAME", value_delimiter = ',')]
    api_names: Vec<String>,
    /// Users, acting or impersonating; one that ends in * is the beginning of names. Of what kubectl exec, attach and debug started, only theirs
    #[arg(long = "by", value_name = "USER", value_delimiter = ',')]
    users: Vec<String>,
    /// Groups of the user
    #[arg(long = "by-group", value_name = "GROUP", value_delimiter = ',')]
    user_groups: Vec<String>,
    /// HTTP status codes, such as 403 or 500-599
    #[arg(long = "code", value_name = "CODE", value_delimiter = ',', value_parser = codes)]
    codes: Vec<IdRange>,
    /// Only what changes something, or opens a session in a pod
    #[arg(long)]
    mutations: bool,
    /// Leave out what the cluster's own components do
    #[arg(long)]
    no_system: bool,
}

/// A resource as kubectl writes it; an absent part doesn't matter.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Resource {
    name: Option<String>,
    group: Option<String>,
    subresource: Option<String>,
}

impl RequestFilter {
    /// Whether the request meets all conditions.
    pub fn wants(&self, api: &Api) -> bool {
        let users = || [&api.user, &api.impersonator].into_iter().flatten();
        any(&self.verbs, |verb| api.verb.eq_ignore_ascii_case(verb))
            && any(&self.resources, |resource| resource.is(api))
            && any(&self.api_namespaces, |name| api.namespace == *name)
            && any(&self.api_names, |name| api.name == *name)
            && any(&self.users, |wanted| users().any(|user| name_is(wanted, &user.name)))
            && any(&self.user_groups, |group| users().any(|user| user.groups.iter().any(|name| name == group)))
            && any(&self.codes, |range| api.code.is_some_and(|code| range.contains(code.into())))
            && (!self.mutations || changes(api))
            && (!self.no_system || !is_by_component(api))
    }

    /// Whether what a request has led to is wanted, by who made the request. What a pod does by itself is wanted, whoever created
    /// it.
    pub fn wants_user(&self, cause: &Cause) -> bool {
        let users = || std::iter::once(&cause.user).chain(&cause.impersonator);
        let is_creation = cause.subresource.is_empty();
        is_creation || any(&self.users, |wanted| users().any(|name| name_is(wanted, name)))
    }

    /// The same, and only what is in this namespace, where none was chosen.
    pub fn within(mut self, namespace: Option<&str>) -> Self {
        if self.api_namespaces.is_empty() {
            self.api_namespaces.extend(namespace.map(str::to_owned));
        }
        self
    }

    /// Whether it asks for anything.
    pub fn is_given(&self) -> bool {
        let Self { verbs, resources, api_namespaces, api_names, users, user_groups, codes, mutations, no_system } = self;
        let texts = [verbs, api_namespaces, api_names, users, user_groups];
        *mutations || *no_system || !resources.is_empty() || !codes.is_empty() || texts.iter().any(|texts| !texts.is_empty())
    }
}

impl Resource {
    fn parse(text: &str) -> Result<Self, String> {
        let (resource, subresource) = match text.split_once('/') {
            Some((resource, subresource)) => (resource, Some(subresource)),
            None => (text, None),
        };
        let (resource, group) = match resource.split_once('.') {
            Some((resource, group)) => (resource, Some(group)),
            None => (resource, None),
        };
        let parts = [Some(resource), group, subresource];
        if parts.iter().flatten().any(|part| part.is_empty() || part.contains('/')) {
            return Err("write RESOURCE, RESOURCE.GROUP or RESOURCE/SUBRESOURCE, such as pods/exec".to_owned());
        }
        let part = |text: &str| (text != "*").then(|| text.to_lowercase());
        // A resource alone is all of it, its subresources included.
        Ok(Self {
            name: part(resource).map(resource::full_name),
            group: group.and_then(part),
            subresource: subresource.and_then(part),
        })
    }

    fn is(&self, api: &Api) -> bool {
        let is = |wanted: &Option<String>, text: &str| wanted.as_ref().is_none_or(|wanted| wanted == text);
        is(&self.name, &api.resource) && is(&self.group, &api.group) && is(&self.subresource, &api.subresource)
    }
}

fn name_is(wanted: &str, name: &str) -> bool {
    match wanted.strip_suffix('*') {
        Some(begin) => name.starts_with(begin),
        None => wanted == name,
    }
}

fn codes(text: &str) -> Result<IdRange, String> {
    let range = text.parse::<IdRange>().ok().filter(|range| range.first <= range.last && (100..600).contains(&range.last));
    range.ok_or_else(|| "write an HTTP status or a range of them, such as 403 or 500-599".to_owned())
}

fn changes(api: &Api) -> bool {
    SESSIONS.contains(&api.subresource.as_str())
        || CHANGES.contains(&api.verb.as_str()) && !QUESTIONS.contains(&api.group.as_str())
}

fn is_by_component(api: &Api) -> bool {
    // Who acts as a component isn't one.
    let user = api.impersonator.as_ref().or(api.user.as_ref());
    user.is_some_and(|user| COMPONENTS.iter().any(|begin| user.name.starts_with(begin)))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use knark_specs::{cases, event::What};
    use serde_json::{Value, json};

    use super::*;

    #[derive(clap::Parser)]
    struct Flags {
        #[command(flatten)]
        filter: RequestFilter,
    }

    fn wants(flags: &[&str], api: &Value) -> bool {
        let filter = Flags::try_parse_from(["x"].iter().chain(flags)).unwrap_or_else(|error| panic!("{error}")).filter;
        assert_eq!(filter.is_given(), !flags.is_empty());
        let event = cases::event(json!({ "api": api }).as_object().unwrap()).unwrap();
        let What::Api { api } = event.what else { panic!("{event:?}") };
        filter.wants(&api)
    }

    #[test]
    fn what_others_did_in_containers_is_left_out_and_what_pods_do_is_not() {
        let filter = |user: &str| Flags::try_parse_from(["x", "--by", user]).unwrap_or_else(|error| panic!("{error}")).filter;
        for (subresource, want) in [("exec", false), ("attach", false), ("ephemeralcontainers", false), ("", true)] {
            let cause = json!({ "request_id": "1", "user": "alice", "subresource": subresource, "certainty": "certain" });
            let cause: Cause = serde_json::from_value(cause).unwrap();
            assert_eq!((filter("bob").wants_user(&cause), filter("alice").wants_user(&cause)), (want, true), "{subresource}");
        }
    }

    #[test]
    fn requests_are_told_apart() {
        let exec = json!({ "verb": "get", "resource": "pods", "subresource": "exec", "namespace": "prod", "name": "web",
            "user": { "name": "alice@example.com", "groups": ["ops", "system:authenticated"] }, "code": 101 });
        let scale = json!({ "verb": "update", "group": "apps", "resource": "deployments", "subresource": "scale", "code": 403,
            "user": { "name": "system:kube-controller-manager" } });
        let review = json!({ "verb": "create", "group": "authorization.k8s.io", "resource": "subjectaccessreviews" });
        let acting = json!({ "verb": "delete", "resource": "nodes", "user": { "name": "system:node:a" }, "impersonator": { "name": "bob" } });
        for (flags, api, want) in [
            (&[][..], &exec, true),
            (&["--verb", "create,GET"], &exec, true),
            (&["--verb", "list"], &exec, false),
            (&["--resource", "pods"], &exec, true),
            (&["--resource", "po"], &exec, true),
            (&["--resource", "Pod"], &exec, true),
            (&["--resource", "deploy/scale"], &scale, true),
            (&["--resource", "deployment.apps"], &scale, true),
            (&["--resource", "pods/exec"], &exec, true),
            (&["--resource", "pods/log,secrets"], &exec, false),
            (&["--resource", "*/scale"], &scale, true),
            (&["--resource", "deployments.apps"], &scale, true),
            (&["--resource", "deployments.extensions"], &scale, false),
            (&["--api-namespace", "prod", "--api-name", "web"], &exec, true),
            (&["--api-namespace", "dev"], &exec, false),
            (&["--by", "alice*"], &exec, true),
            (&["--by", "alice"], &exec, false),
            (&["--by-group", "ops"], &exec, true),
            (&["--code", "400-499"], &scale, true),
            (&["--code", "404,500-599"], &scale, false),
            (&["--mutations"], &exec, true),
            (&["--mutations"], &scale, true),
            (&["--mutations"], &review, false),
            (&["--no-system"], &scale, false),
            (&["--no-system"], &exec, true),
            (&["--no-system"], &acting, true),
            (&["--by", "bob"], &acting, true),
        ] {
            assert_eq!(wants(flags, api), want, "{flags:?} {api}");
        }
    }

    #[test]
    fn a_resource_is_written_as_kubectl_writes_it() {
        for (text, want) in
            [("netpol", "networkpolicies"), ("networkpolicy", "networkpolicies"), ("ingress", "ingresses"), ("secret", "secrets")]
        {
            assert_eq!(Resource::parse(text).unwrap().name.as_deref(), Some(want));
        }
        for text in ["4xx", "200-100", "7000", ""] {
            assert!(codes(text).is_err(), "{text:?}");
        }
        for text in ["", "/exec", "pods/", "pods.", "a/b/c", ".apps"] {
            assert!(Resource::parse(text).is_err(), "{text:?}");
        }
    }
}
