//! What a method and a path of the Kubernetes API ask for.

use crate::{
    foreign::{Findings, cut, literal, quoted},
    policy::ApiMatch,
};

/// The request that a method and a path stand for, and what else is asked of it.
pub(super) fn request(uri: &str, method: &str, field: &str, findings: &mut Findings<'_>) -> Option<(ApiMatch, Option<String>)> {
    let path = uri.split(['?', '#']).next().unwrap_or_default();
    let path = match path.split_once(' ') {
        Some((first, path)) if first.eq_ignore_ascii_case(method) => {
            findings.warn(&format!("{field}.uri"), "the method stands before the path", "what follows it is taken for the path");
            path.trim()
        }
        _ => path,
    };
    let parts: Vec<_> = path.split('/').filter(|part| !part.is_empty()).collect();
    let (group, rest) = match parts.as_slice() {
        ["api", _version, rest @ ..] => ("", rest),
        ["apis", group, _version, rest @ ..] => (*group, rest),
        _ => ("", [].as_slice()),
    };
    let (watch, rest) = match rest {
        ["watch", rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let (namespace, rest) = match rest {
        ["namespaces", _, "status" | "finalize"] => (None, rest),
        ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (Some(*namespace), rest),
        rest => (None, rest),
    };
    let Some((resource, rest)) = rest.split_first() else { return other(path, method, field, findings) };
    let (name, subresource) = match rest {
        [] => (None, ""),
        [name] => (Some(*name), ""),
        [name, subresource, ..] => (Some(*name), *subresource),
    };
    let verbs: &[&str] = match (method.to_ascii_uppercase().as_str(), name) {
        ("GET" | "HEAD", _) if watch => &["watch"],
        ("GET" | "HEAD", None) => &["list", "watch"],
        // A websocket is opened by GET.
        ("GET" | "HEAD", Some(_)) => &["get"],
        ("POST", _) => &["create"],
        ("PUT", _) => &["update"],
        ("PATCH", _) => &["patch"],
        ("DELETE", None) => &["deletecollection"],
        ("DELETE", Some(_)) => &["delete"],
        _ => return no_method(method, field, findings),
    };
    let fixed = |part: Option<&str>| part.filter(|part| !part.starts_with('{')).map(str::to_owned);
    let list = name.is_none() && verbs.contains(&"watch");
    let namespaces = match (fixed(namespace), namespace) {
        (Some(namespace), _) => vec![namespace],
        // The list of one namespace is another request than that of all.
        (None, Some(_)) if list => vec!["regex:.+".to_owned()],
        (None, None) if list => vec![String::new()],
        _ => Vec::new(),
    };
    // What lasts is told of at its beginning as well: one call, one match.
    let lasts = verbs.contains(&"watch") || ["exec", "attach", "portforward", "proxy", "log"].contains(&subresource);
    let api = ApiMatch {
        verbs: verbs.iter().map(|verb| (*verb).to_owned()).collect(),
        groups: vec![group.to_owned()],
        resources: vec![(*resource).to_owned()],
        subresources: vec![subresource.to_owned()],
        namespaces,
        names: fixed(name).into_iter().collect(),
        ..ApiMatch::default()
    };
    Some((api, lasts.then(|| "api.stage == \"complete\"".to_owned())))
}

/// A request that is about no resource, such as `/healthz`: its verb is the method.
fn other(path: &str, method: &str, field: &str, findings: &mut Findings<'_>) -> Option<(ApiMatch, Option<String>)> {
    if !path.starts_with('/') {
        findings.warn(&format!("{field}.uri"), format!("{} is no path", cut(path)), "left out: a path begins with `/`");
        return None;
    }
    let verb = method.to_ascii_lowercase();
    if !["get", "head", "post", "put", "patch", "delete"].contains(&verb.as_str()) {
        return no_method(method, field, findings);
    }
    let parts: Vec<_> = path.split('/').map(|part| if part.starts_with('{') { "*".to_owned() } else { literal(part) }).collect();
    let condition = format!("glob(api.path, {})", quoted(&parts.join("/")));
    let api = ApiMatch { verbs: vec![verb], resources: vec![String::new()], ..ApiMatch::default() };
    Some((api, Some(condition)))
}

fn no_method<T>(method: &str, field: &str, findings: &mut Findings<'_>) -> Option<T> {
    findings.error(&format!("{field}.method"), format!("{} is no method of the Kubernetes API", cut(method)), "");
    None
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::{
        cases,
        foreign::{Converted, Kind, convert},
        policy::{
            ApiMatch,
            compile::{Lists, compile},
            matcher::Unknown,
        },
        typed::node,
    };

    fn entry(method: &str, uri: &str) -> Converted {
        let call = format!("{{name: a, uri: '{uri}', method: {method}, severity: INFO}}");
        let text = format!("{{spec: mine, categories: [{{name: a, sub_category: {{name: b, api: [{call}]}}}}]}}");
        convert(&node(&text), Kind::KubeKnarkApi)
    }

    #[test]
    fn a_call_is_a_request() {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        for (method, uri, verbs, group, resource, subresource, namespaces) in [
            ("GET", "/api/v1/namespaces/{namespace}/pods/{name}", &["get"][..], "", "pods", "", &[][..]),
            ("GET", "/api/v1/namespaces/{namespace}/pods", &["list", "watch"], "", "pods", "", &["regex:.+"]),
            ("GET", "/api/v1/pods", &["list", "watch"], "", "pods", "", &[""]),
            ("GET", "/api/v1/watch/pods", &["watch"], "", "pods", "", &[""]),
            ("GET", "/api/v1/watch/namespaces/{namespace}/pods", &["watch"], "", "pods", "", &["regex:.+"]),
            ("GET", "/api/v1/watch/namespaces/{namespace}/pods/{name}", &["watch"], "", "pods", "", &[]),
            ("POST", "/api/v1/namespaces/kube-system/pods", &["create"], "", "pods", "", &["kube-system"]),
            ("POST", "/api/v1/namespaces/{n}/pods/{name}/exec", &["create"], "", "pods", "exec", &[]),
            ("PUT", "/apis/apps/v1/namespaces/{n}/deployments/{name}/status", &["update"], "apps", "deployments", "status", &[]),
            ("PATCH", "/api/v1/nodes/{name}", &["patch"], "", "nodes", "", &[]),
            ("DELETE", "/apis/batch/v1/namespaces/{n}/jobs", &["deletecollection"], "batch", "jobs", "", &[]),
            ("delete", "/api/v1/namespaces/{name}", &["delete"], "", "namespaces", "", &[]),
            ("PUT", "/api/v1/namespaces/{name}/finalize", &["update"], "", "namespaces", "finalize", &[]),
        ] {
            let found = entry(method, uri);
            assert_eq!(found.problems, [], "{method} {uri}");
            let want = ApiMatch {
                verbs: owned(verbs),
                groups: owned(&[group]),
                resources: owned(&[resource]),
                subresources: owned(&[subresource]),
                namespaces: owned(namespaces),
                ..ApiMatch::default()
            };
            assert_eq!(found.policies[0].spec.rules[0].api.as_ref(), Some(&want), "{method} {uri}");
        }
    }

    #[test]
    fn what_is_no_call_is_said() {
        for (uri, method) in [("healthz", "GET"), ("", "GET"), ("/healthz", "BREW"), ("/api/v1/pods", "BREW")] {
            let found = entry(method, uri);
            assert!(found.policies.is_empty() && !found.problems.is_empty(), "{uri}");
        }
    }

    #[test]
    fn a_method_before_the_path_is_left_out() {
        let found = entry("GET", "GET /apis/networking.k8s.io/v1/ingressclasses");
        let api = found.policies[0].spec.rules[0].api.as_ref().unwrap();
        assert_eq!((api.resources.as_slice(), found.problems.len()), (["ingressclasses".to_owned()].as_slice(), 1));
    }

    /// Each call matches the first request, and not the second.
    fn check(calls: &[(&str, &str, Value, Value)]) {
        for (method, uri, hit, miss) in calls {
            let found = entry(method, uri);
            let policy = node(&serde_json::to_string(&found.policies[0]).unwrap());
            let (policies, problems) = compile(&[(&found.policies[0], &policy)], &Lists::new());
            assert_eq!(problems.concat(), [], "{method} {uri}");
            let matches = |api: &Value| {
                let event = cases::event(json!({ "api": api }).as_object().unwrap()).unwrap();
                policies.matches(&event, &Unknown, |failure| panic!("{uri}: {:?}", failure.error)).len()
            };
            assert_eq!((matches(hit), matches(miss)), (1, 0), "{method} {uri}");
        }
    }

    #[test]
    fn reading_calls_match_the_requests_that_they_are() {
        check(&[
            (
                "GET",
                "/api/v1/namespaces/{namespace}/pods/{name}",
                json!({ "verb": "get", "resource": "pods", "namespace": "shop", "name": "a" }),
                json!({ "verb": "get", "resource": "pods", "namespace": "shop", "name": "a", "subresource": "status" }),
            ),
            (
                "GET",
                "/api/v1/namespaces/{namespace}/pods",
                json!({ "verb": "list", "resource": "pods", "namespace": "shop" }),
                json!({ "verb": "list", "resource": "pods" }),
            ),
            (
                "GET",
                "/api/v1/pods",
                json!({ "verb": "watch", "resource": "pods" }),
                json!({ "verb": "watch", "resource": "pods", "stage": "started" }),
            ),
            (
                "GET",
                "/api/v1/watch/namespaces/{namespace}/pods",
                json!({ "verb": "watch", "resource": "pods", "namespace": "shop" }),
                json!({ "verb": "watch", "resource": "pods" }),
            ),
            (
                "GET",
                "/api/v1/nodes/{name}",
                json!({ "verb": "get", "resource": "nodes", "name": "a" }),
                json!({ "verb": "list", "resource": "nodes" }),
            ),
            (
                "GET",
                "/api/v1/namespaces/{namespace}/pods/{name}/log",
                json!({ "verb": "get", "resource": "pods", "subresource": "log", "namespace": "shop", "name": "a" }),
                json!({ "verb": "get", "resource": "pods", "subresource": "log", "namespace": "shop", "name": "a", "stage": "started" }),
            ),
        ]);
    }

    #[test]
    fn changing_calls_match_the_requests_that_they_are() {
        check(&[
            (
                "POST",
                "/api/v1/namespaces/{namespace}/pods/{name}/exec",
                json!({ "verb": "create", "resource": "pods", "subresource": "exec", "namespace": "shop", "name": "a", "code": 101 }),
                json!({ "verb": "create", "resource": "pods", "namespace": "shop" }),
            ),
            (
                "POST",
                "/api/v1/namespaces/kube-system/secrets",
                json!({ "verb": "create", "resource": "secrets", "namespace": "kube-system" }),
                json!({ "verb": "create", "resource": "secrets", "namespace": "shop" }),
            ),
            (
                "POST",
                "/api/v1/namespaces",
                json!({ "verb": "create", "resource": "namespaces" }),
                json!({ "verb": "create", "resource": "pods", "namespace": "shop" }),
            ),
            (
                "PUT",
                "/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale",
                json!({ "verb": "update", "group": "apps", "resource": "deployments", "subresource": "scale", "namespace": "shop", "name": "a" }),
                json!({ "verb": "update", "group": "apps", "resource": "deployments", "namespace": "shop", "name": "a" }),
            ),
            (
                // The namespace of a namespace is itself.
                "PUT",
                "/api/v1/namespaces/{name}/finalize",
                json!({ "verb": "update", "resource": "namespaces", "subresource": "finalize", "namespace": "shop", "name": "shop" }),
                json!({ "verb": "update", "resource": "namespaces", "namespace": "shop", "name": "shop" }),
            ),
            (
                "PATCH",
                "/apis/apps/v1beta1/namespaces/{namespace}/deployments/{name}",
                json!({ "verb": "patch", "group": "apps", "version": "v1", "resource": "deployments", "namespace": "shop", "name": "a" }),
                json!({ "verb": "patch", "group": "example.com", "resource": "deployments", "namespace": "shop", "name": "a" }),
            ),
            (
                "PATCH",
                "/api/v1/persistentvolumes/{name}/status",
                json!({ "verb": "patch", "resource": "persistentvolumes", "subresource": "status", "name": "a" }),
                json!({ "verb": "update", "resource": "persistentvolumes", "subresource": "status", "name": "a" }),
            ),
            (
                "DELETE",
                "/api/v1/namespaces/{namespace}/pods",
                json!({ "verb": "deletecollection", "resource": "pods", "namespace": "shop" }),
                json!({ "verb": "delete", "resource": "pods", "namespace": "shop", "name": "a" }),
            ),
            (
                "DELETE",
                "/api/v1/namespaces/{name}",
                json!({ "verb": "delete", "resource": "namespaces", "namespace": "shop", "name": "shop" }),
                json!({ "verb": "delete", "resource": "pods", "namespace": "shop", "name": "a" }),
            ),
        ]);
    }

    #[test]
    fn calls_of_no_resource_match_their_path() {
        check(&[
            (
                "GET",
                "/healthz/{check}",
                json!({ "verb": "get", "path": "/healthz/etcd" }),
                json!({ "verb": "get", "path": "/healthz" }),
            ),
            ("POST", "/logs", json!({ "verb": "post", "path": "/logs" }), json!({ "verb": "get", "path": "/logs" })),
            (
                "GET",
                "/api/v1",
                json!({ "verb": "get", "path": "/api/v1" }),
                json!({ "verb": "get", "path": "/api/v1", "resource": "pods" }),
            ),
        ]);
    }
}
