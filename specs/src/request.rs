//! What a request to the Kubernetes API is about, by its method and URI alone: as the API server itself finds out, before it knows
//! who asks. (k8s.io/apiserver/pkg/endpoints/request, `RequestInfoFactory.NewRequestInfo`.)

use std::borrow::Cow;

/// What it is about; what doesn't apply is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// `get`, `list`, `create`, ...; of what is no resource, the method in lower case.
    pub verb: String,
    /// API group.
    pub group: String,
    /// The group's version.
    pub version: String,
    /// Resource.
    pub resource: String,
    /// Subresource.
    pub subresource: String,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl Request {
    /// Of a request with this method, and this path and query as they were asked for.
    pub fn of(method: &str, uri: &str) -> Self {
        let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
        let path = decoded(path);
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        Self::of_resource(method, &parts, query).unwrap_or_else(|| Self { verb: method.to_ascii_lowercase(), ..Self::default() })
    }

    fn of_resource(method: &str, parts: &[&str], query: &str) -> Option<Self> {
        let (group, version, rest) = match parts {
            ["api", version, rest @ ..] if !rest.is_empty() => ("", version, rest),
            ["apis", group, version, rest @ ..] if !rest.is_empty() => (*group, version, rest),
            _ => return None,
        };
        let (verb, rest) = match rest {
            [special @ ("proxy" | "watch"), rest @ ..] if !rest.is_empty() => (*special, rest),
            ["proxy" | "watch"] => return None,
            rest => (verb(method), rest),
        };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() && !matches!(rest[0], "status" | "finalize") => {
                (*namespace, rest)
            }
            // The namespace itself is what it is about.
            ["namespaces", namespace, ..] => (*namespace, rest),
            rest => ("", rest),
        };
        let part = |at: usize| rest.get(at).copied().unwrap_or_default();
        let mut request = Self {
            verb: verb.to_owned(),
            group: group.to_owned(),
            version: (*version).to_owned(),
            resource: part(0).to_owned(),
            subresource: if verb == "proxy" { String::new() } else { part(2).to_owned() },
            namespace: namespace.to_owned(),
            name: part(1).to_owned(),
        };
        if request.name.is_empty() {
            request.of_many(query);
        }
        Some(request)
    }

    /// Without a name it is about many, or about one that is selected by its name.
    fn of_many(&mut self, query: &str) {
        let parameter = |name: &str| {
            query
                .split('&')
                .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
                .find(|(key, _)| *key == name)
                .map(|(_, value)| value)
        };
        match self.verb.as_str() {
            // A parameter without a value means yes, and so does anything but 0 and false.
            "get" if parameter("watch").is_some_and(|value| !matches!(value, "0" | "false")) => {
                "watch".clone_into(&mut self.verb);
            }
            "get" => "list".clone_into(&mut self.verb),
            "delete" => "deletecollection".clone_into(&mut self.verb),
            _ => {}
        }
        if matches!(self.verb.as_str(), "list" | "watch" | "deletecollection") {
            let selector = parameter("fieldSelector").map(decoded).unwrap_or_default();
            let name = selector.split(',').find_map(|term| term.strip_prefix("metadata.name="));
            if let Some(name) = name.filter(|name| !name.contains(['/', '%'])) {
                name.trim_start_matches('=').clone_into(&mut self.name);
            }
        }
    }
}

fn verb(method: &str) -> &'static str {
    match method {
        "POST" => "create",
        "GET" | "HEAD" => "get",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" => "delete",
        _ => "",
    }
}

/// Without percent signs; what isn't UTF-8 then is replaced.
fn decoded(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let [first, after @ ..] = rest {
        match (first, after) {
            (b'%', [high, low, after @ ..]) if digit(*high).is_some() && digit(*low).is_some() => {
                bytes.push(digit(*high).unwrap_or(0) << 4 | digit(*low).unwrap_or(0));
                rest = after;
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    Cow::Owned(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Verb, group/version, resource/subresource, namespace/name.
    fn check(method: &str, uri: &str, want: [&str; 4]) {
        let Request { verb, group, version, resource, subresource, namespace, name } = Request::of(method, uri);
        let found = [verb, format!("{group}/{version}"), format!("{resource}/{subresource}"), format!("{namespace}/{name}")];
        assert_eq!(found, want, "{method} {uri}");
    }

    #[test]
    fn a_request_is_known_by_its_path() {
        check("GET", "/api/v1/namespaces/prod/pods/web/log?follow=true", ["get", "/v1", "pods/log", "prod/web"]);
        check("GET", "/api/v1/namespaces/prod/pods?limit=500", ["list", "/v1", "pods/", "prod/"]);
        check("GET", "/api/v1/pods?watch", ["watch", "/v1", "pods/", "/"]);
        check("GET", "/api/v1/pods?watch=false", ["list", "/v1", "pods/", "/"]);
        check("GET", "/api/v1/watch/namespaces/prod/pods", ["watch", "/v1", "pods/", "prod/"]);
        check("GET", "/apis/apps/v1/namespaces/prod/deployments/d", ["get", "apps/v1", "deployments/", "prod/d"]);
        check("PUT", "/api/v1/namespaces/prod/finalize", ["update", "/v1", "namespaces/finalize", "prod/prod"]);
        check("DELETE", "/api/v1/namespaces/prod", ["delete", "/v1", "namespaces/", "prod/prod"]);
        check("DELETE", "/api/v1/namespaces/prod/secrets", ["deletecollection", "/v1", "secrets/", "prod/"]);
        check("GET", "/api/v1/nodes?fieldSelector=metadata.name%3Dn1", ["list", "/v1", "nodes/", "/n1"]);
        check("POST", "/api/v1/namespaces", ["create", "/v1", "namespaces/", "/"]);
        check("GET", "/api/v1/proxy/nodes/n1/metrics", ["proxy", "/v1", "nodes/", "/n1"]);
    }

    #[test]
    fn what_is_no_resource_has_the_method_for_a_verb() {
        for uri in ["/", "", "/healthz", "/api", "/api/v1", "/apis/apps/v1", "/apis/apps", "/metrics?x", "/api/v1/watch"] {
            check("GET", uri, ["get", "/", "/", "/"]);
        }
        check("OPTIONS", "/version", ["options", "/", "/", "/"]);
    }

    #[test]
    fn hostile_paths_are_read_as_they_are() {
        check("GET", "/api/v1/namespaces/%zz%4/pods/%ff%41", ["get", "/v1", "pods/", "%zz%4/\u{fffd}A"]);
        check("PATCH", "/api/v1/namespaces//pods", ["patch", "/v1", "pods/", "/"]);
    }
}
