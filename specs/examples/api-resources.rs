//! Which rule of the pack `sensitive-api` each request to a Kubernetes API falls under, for all that an API server's OpenAPI
//! document (version 2, on standard input) names. `tests/api-resources.sh` writes `specs/packs/api-resources.txt` by this; the
//! test here proves that the pack does what that table says.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
};

use anyhow::{Context as _, bail, ensure};
use knark_specs::{
    alert::Match,
    cases, packs,
    policy::{
        compile::{Lists, compile},
        document,
        matcher::{Policies, Unknown},
    },
};
use serde_json::{Value, json};

const HEAD: &str = "\
# Each request about a resource, and the rule of the pack `sensitive-api` that it falls under if a user makes it.
# Written by tests/api-resources.sh from the OpenAPI document of an API server with all versions and features on.
# group/version scope resource[/subresource] verbs severity rule";

fn main() -> anyhow::Result<()> {
    let version = std::env::args().nth(1).context("say the Kubernetes version that the document is of")?;
    let document: Value = serde_json::from_reader(io::stdin().lock()).context("standard input is no JSON document")?;
    let resources = resources(&document)?;
    ensure!(!resources.is_empty(), "the document names no resource: give the answer to GET /openapi/v2");
    let pack = pack()?;
    println!("{HEAD}\n# Kubernetes {version}");
    for (resource, verbs) in resources {
        // Verbs of one rule stand together, in the order of the first.
        let mut by_rule: Vec<(Match, Vec<&str>)> = Vec::new();
        for verb in verbs {
            let found = resource.only_match(&pack, verb)?;
            match by_rule.iter_mut().find(|(other, _)| other.rule == found.rule) {
                Some((_, verbs)) => verbs.push(verb),
                None => by_rule.push((found, vec![verb])),
            }
        }
        for (Match { rule, severity, .. }, verbs) in by_rule {
            println!("{resource} {} {} {rule}", verbs.join(","), severity.name());
        }
    }
    Ok(())
}

/// A resource or subresource of one version of its group.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Resource {
    group: String,
    version: String,
    name: String,
    subresource: String,
    namespaced: bool,
}

impl Resource {
    /// What a path such as `/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale` is about.
    fn of_path(path: &str) -> Option<Self> {
        let parts: Vec<_> = path.split('/').filter(|part| !part.is_empty() && *part != "watch").collect();
        let (group, version, rest) = match parts.as_slice() {
            ["api", version, rest @ ..] => ("", version, rest),
            ["apis", group, version, rest @ ..] => (*group, version, rest),
            _ => return None,
        };
        let (namespaced, rest) = match rest {
            ["namespaces", "{namespace}", rest @ ..] => (true, rest),
            rest => (false, rest),
        };
        let (name, rest) = rest.split_first()?;
        let subresource = rest.get(1).copied().unwrap_or_default();
        let [group, version, name, subresource] = [group, version, name, subresource].map(str::to_owned);
        Some(Self { group, version, name, subresource, namespaced })
    }

    /// The only rule that a user's request falls under when it begins; when it ends, unless that is another.
    fn only_match(&self, pack: &Policies, verb: &str) -> anyhow::Result<Match> {
        let is_session = self.group.is_empty() && ["exec", "attach", "portforward"].contains(&self.subresource.as_str());
        if !is_session && verb != "watch" {
            return self.only(pack, verb, json!({ "stage": "complete", "code": 200, "latency_ns": 2_000_000_000 }));
        }
        let begun = self.only(pack, verb, json!({ "stage": "started" }))?;
        let refused = self.only(pack, verb, json!({ "code": 403, "latency_ns": 2_000_000_000 }))?;
        ensure!(
            refused.rule == begun.rule,
            "{verb} {self}: {} at its beginning, and {} when it is refused",
            begun.rule,
            refused.rule
        );
        let ended = self.only(pack, verb, json!({ "code": 101, "latency_ns": 2_000_000_000 }))?;
        ensure!(ended.rule.ends_with("-ended"), "{verb} {self}: {} at its end", ended.rule);
        Ok(begun)
    }

    fn only(&self, pack: &Policies, verb: &str, more: Value) -> anyhow::Result<Match> {
        let mut found = self.matches(pack, verb, more)?;
        match (found.pop(), found.as_slice()) {
            (Some(only), []) => Ok(only),
            (None, _) => bail!("{verb} {self}: no rule"),
            (Some(last), [first, ..]) => bail!("{verb} {self}: both {} and {}", first.rule, last.rule),
        }
    }

    fn matches(&self, pack: &Policies, verb: &str, more: Value) -> anyhow::Result<Vec<Match>> {
        let mut api = json!({
            "verb": verb, "group": self.group, "version": self.version, "resource": self.name, "subresource": self.subresource,
            "namespace": if self.namespaced { "shop" } else { "" }, "name": "one", "user": { "name": "alice", "groups": ["system:authenticated"] },
        });
        if let (Value::Object(api), Value::Object(more)) = (&mut api, more) {
            api.extend(more);
        }
        let event = cases::event(&serde_json::Map::from_iter([("api".to_owned(), api)]))?;
        let mut failures = Vec::new();
        let found = pack.matches(&event, &Unknown, |failure| failures.push(failure.rule.name.clone()));
        ensure!(failures.is_empty(), "{verb} {self}: conditions of {failures:?} can't be evaluated");
        Ok(found)
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { group, version, name, subresource, namespaced } = self;
        let [in_group, below] = [(group, "/"), (subresource, "/")].map(|(text, slash)| if text.is_empty() { "" } else { slash });
        let scope = if *namespaced { "namespaced" } else { "cluster" };
        write!(f, "{group}{in_group}{version} {scope} {name}{below}{subresource}")
    }
}

/// All resources of a document, with their verbs as the API server understands methods and paths.
fn resources(document: &Value) -> anyhow::Result<BTreeMap<Resource, BTreeSet<&'static str>>> {
    let paths = document.get("paths").and_then(Value::as_object).context("the document has no paths")?;
    let mut found: BTreeMap<Resource, BTreeSet<&str>> = BTreeMap::new();
    for (path, operations) in paths {
        let Some(resource) = Resource::of_path(path) else { continue };
        for (method, operation) in operations.as_object().into_iter().flatten() {
            let Some(action) = operation.get("x-kubernetes-action").and_then(Value::as_str) else { continue };
            let verb = match (action, method.as_str()) {
                ("get", _) | ("connect", "get" | "head") => "get",
                ("list", _) => "list",
                ("watch" | "watchlist", _) => "watch",
                ("post", _) | ("connect", "post") => "create",
                ("put", _) | ("connect", "put") => "update",
                ("patch", _) | ("connect", "patch") => "patch",
                ("delete", _) | ("connect", "delete") => "delete",
                ("deletecollection", _) => "deletecollection",
                // It has no verb.
                ("connect", "options") => continue,
                _ => bail!("{method} {path}: the action {action:?} is not known here"),
            };
            found.entry(resource.clone()).or_default().insert(verb);
        }
    }
    // The list over all namespaces is no resource of its own.
    let namespaced: BTreeSet<_> = found.keys().filter(|resource| resource.namespaced).cloned().collect();
    found.retain(|resource, _| resource.namespaced || !namespaced.contains(&Resource { namespaced: true, ..resource.clone() }));
    Ok(found)
}

fn pack() -> anyhow::Result<Policies> {
    let pack = packs::get("sensitive-api").context("there is no such pack")?;
    let parsed = document::parse(pack.text);
    ensure!(parsed.problems.is_empty(), "the pack can't be read: {:?}", parsed.problems);
    let policies: Vec<_> = parsed.policies.iter().map(|policy| (&policy.value, &policy.node)).collect();
    let (policies, problems) = compile(&policies, &Lists::new());
    ensure!(problems.iter().all(Vec::is_empty), "the pack has mistakes: {problems:?}");
    Ok(policies)
}

#[cfg(test)]
mod tests {
    use knark_specs::{event::Api, policy::Severity};

    use super::*;

    const TABLE: &str = include_str!("../packs/api-resources.txt");

    #[test]
    fn every_request_falls_under_the_rule_that_the_table_says() {
        let pack = pack().unwrap();
        let mut requests = 0;
        for (resource, verb, severity, rule) in table() {
            let found = resource.only_match(&pack, verb).unwrap();
            assert_eq!((found.rule.as_str(), found.severity.name()), (rule, severity), "{verb} {resource}");
            requests += 1;
        }
        assert!(requests > 500, "{requests}");
    }

    /// Resource, verb, severity and rule of each request of the table.
    fn table() -> impl Iterator<Item = (Resource, &'static str, &'static str, &'static str)> {
        TABLE.lines().filter(|line| !line.starts_with('#')).flat_map(|line| {
            let [version, scope, name, verbs, severity, rule] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
            let (group, version) = version.split_once('/').unwrap_or(("", version));
            let (name, subresource) = name.split_once('/').unwrap_or((name, ""));
            let [group, version, name, subresource] = [group, version, name, subresource].map(str::to_owned);
            let resource = Resource { group, version, name, subresource, namespaced: scope == "namespaced" };
            verbs.split(',').map(move |verb| (resource.clone(), verb, severity, rule))
        })
    }

    #[test]
    fn a_dry_run_is_no_change() {
        let pack = pack().unwrap();
        let mut dry = 0;
        for (resource, verb, _, rule) in table() {
            let body = if verb.starts_with("delete") { json!({ "json": { "dryRun": ["All"] } }) } else { Value::Null };
            let asked = json!({ "verb": verb, "subresource": resource.subresource, "query": "dryRun=All", "request_body": body });
            let is_dry = serde_json::from_value::<Api>(with_texts(asked)).unwrap().asks_for_dry_run();
            if !is_dry {
                continue;
            }
            let want = match rule {
                "token-review" | "permission-probe" => rule,
                "secret-change" => "secret-dry-run",
                _ => "dry-run",
            };
            let more = json!({ "code": 200, "query": "dryRun=All", "request_body": body, "dry_run": true });
            assert_eq!(resource.only(&pack, verb, more).unwrap().rule, want, "{verb} {resource}");
            dry += 1;
        }
        assert!(dry > 200, "{dry}");
    }

    /// An `Api` with what must be there.
    fn with_texts(mut api: Value) -> Value {
        for name in ["stage", "request_id", "group", "version", "resource", "namespace", "name", "path"] {
            api[name] = json!(if name == "stage" { "complete" } else { "" });
        }
        api
    }

    #[test]
    fn what_no_table_knows_has_a_severity_too() {
        let pack = pack().unwrap();
        for (verb, namespaced, severity) in [
            ("get", true, Severity::Info),
            ("watch", false, Severity::Info),
            ("create", true, Severity::Low),
            ("patch", false, Severity::Low),
            ("delete", true, Severity::Low),
            ("delete", false, Severity::Medium),
            ("deletecollection", true, Severity::Medium),
            ("deletecollection", false, Severity::High),
        ] {
            // Called like what is sensitive, in a group of somebody's own.
            let [group, version, name] = ["example.com", "v1", "secrets"].map(str::to_owned);
            let resource = Resource { group, version, name, subresource: String::new(), namespaced };
            assert_eq!(resource.only_match(&pack, verb).unwrap().severity, severity, "{verb}");
        }
    }

    #[test]
    fn a_document_names_resources_by_paths_and_actions() {
        let operation = |action: &str| json!({ "x-kubernetes-action": action });
        let document = json!({ "paths": {
            "/api/": { "get": {} },
            "/api/v1/pods": { "get": operation("list"), "parameters": [] },
            "/api/v1/watch/namespaces/{namespace}/pods/{name}": { "get": operation("watch") },
            "/api/v1/namespaces/{namespace}/pods": { "delete": operation("deletecollection"), "post": operation("post") },
            "/api/v1/namespaces/{namespace}/pods/{name}/proxy/{path}": { "head": operation("connect"), "options": operation("connect") },
            "/api/v1/namespaces/{name}/finalize": { "put": operation("put") },
            "/apis/a.b/v2/things/{name}": { "patch": operation("patch") },
        } });
        let found = resources(&document).unwrap();
        let lines: Vec<_> = found.iter().map(|(resource, verbs)| format!("{resource} {verbs:?}")).collect();
        assert_eq!(
            lines,
            [
                r#"v1 cluster namespaces/finalize {"update"}"#,
                r#"v1 namespaced pods {"create", "deletecollection", "watch"}"#,
                r#"v1 namespaced pods/proxy {"get"}"#,
                r#"a.b/v2 cluster things {"patch"}"#,
            ]
        );
        assert!(resources(&json!({})).is_err());
    }
}
