//! The kinds as CustomResourceDefinitions, so that policies can be objects of a cluster.
//!
//! Policies and lists are cluster-scoped: a policy selects nodes and namespaces, so it belongs to who answers for all of them.
//! The kinds of other systems are where those systems have them.
//! A structural schema can't refuse unknown fields. kubectl does, before it sends an object (`--validate=strict`, its default).

use serde_json::{Map, Value as Json, json};

use crate::{
    foreign::Kind,
    policy::schema::{of_trace_list, of_trace_policy},
};

/// How deep a schema may be; it can't be circular.
const DEPTH_LIMIT: usize = 32;

/// What no schema says, as CEL: the type, the rule, and what is told when it doesn't hold.
const VALIDATIONS: [(&str, &str, &str); 2] = [
    (
        "#/$defs/Rule",
        "[has(self.exec), has(self.file), has(self.api)].exists_one(given, given)",
        "a rule looks at exactly one of exec, file and api",
    ),
    (
        "#/$defs/Requirement",
        "(self.operator in ['In', 'NotIn']) == (has(self.values) && size(self.values) > 0)",
        "In and NotIn need values, Exists and DoesNotExist take none",
    ),
];

/// Keywords that mean the same in a CRD.
const KEPT: [&str; 11] = [
    "type",
    "required",
    "default",
    "pattern",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "minProperties",
];

/// What a definition says beside the schema.
struct Names {
    group: &'static str,
    kind: &'static str,
    plural: &'static str,
    short: Option<&'static str>,
    namespaced: bool,
    /// The last is the one that is kept.
    versions: &'static [&'static str],
    /// A column of `kubectl get`: its name, and where its value stands.
    column: (&'static str, &'static str),
}

const OWN: Names = Names {
    group: "knark.dev",
    kind: "TracePolicy",
    plural: "tracepolicies",
    short: Some("tp"),
    namespaced: false,
    versions: &["v1alpha1"],
    column: ("Description", ".spec.description"),
};

/// The definitions of TracePolicy and TraceList (apiextensions.k8s.io/v1).
pub fn crds() -> [Json; 2] {
    let list = Names { kind: "TraceList", plural: "tracelists", short: Some("tl"), ..OWN };
    [crd(&OWN, of_trace_policy().as_json()), crd(&list, of_trace_list().as_json())]
}

/// The definition of another system's kind, for a cluster that lacks that system; `None` for what is no object.
pub fn foreign_crd(kind: Kind) -> Option<Json> {
    let names = match kind {
        Kind::KubeKnarkApi | Kind::KubeKnarkFilesystem => return None,
        Kind::KivePolicy => Names {
            group: "kivebpf.san7o.github.io",
            plural: "kivepolicies",
            versions: &["v1", "v2alpha1"],
            column: ("Traps", ".spec.traps[*].path"),
            ..FOREIGN
        },
        Kind::RuntimeRuleAlertBinding => Names {
            plural: "runtimerulealertbindings",
            short: Some("rab"),
            namespaced: false,
            column: ("Rules", ".spec.rules[*].ruleName"),
            ..FOREIGN
        },
        Kind::ApplicationProfile => {
            Names { plural: "applicationprofiles", column: ("Containers", ".spec.containers[*].name"), ..FOREIGN }
        }
        Kind::PodCheckpoint => Names {
            group: "forensics.orkaproj.io",
            plural: "podcheckpoints",
            versions: &["v1alpha1"],
            column: ("Pod", ".spec.pod"),
            ..FOREIGN
        },
    };
    Some(crd(&Names { kind: kind.name(), ..names }, kind.schema().as_value()))
}

/// What the kinds of other systems have in common.
const FOREIGN: Names =
    Names { group: "kubescape.io", kind: "", plural: "", short: None, namespaced: true, versions: &["v1"], column: ("", "") };

fn crd(names: &Names, root: &Json) -> Json {
    let Names { group, kind, plural, short, namespaced, versions, column } = names;
    let mut spec = structural(root, &root["properties"]["spec"], 0);
    if *group == OWN.group
        && let Some(rules) = spec.pointer_mut("/properties/rules").and_then(Json::as_object_mut)
    {
        // Names are unique, and `kubectl apply` merges rules by them.
        rules.insert("x-kubernetes-list-type".to_owned(), json!("map"));
        rules.insert("x-kubernetes-list-map-keys".to_owned(), json!(["name"]));
    }
    if *group != OWN.group {
        drop_defaults(&mut spec);
    }
    let names_of_versions: Vec<String> = versions.iter().map(|version| format!("`{group}/{version}`")).collect();
    let mut properties = json!({
        "apiVersion": { "type": "string", "description": format!("{}.", names_of_versions.join(" or ")) },
        "kind": { "type": "string", "description": format!("`{kind}`.") },
        "metadata": { "type": "object" },
        "spec": spec,
    });
    let mut subresources = json!({});
    if let Some(status) = root.pointer("/properties/status") {
        properties["status"] = structural(root, status, 0);
        subresources["status"] = json!({});
    }
    let versions = versions.iter().enumerate().map(|(at, version)| {
        json!({
            "name": version,
            "served": true,
            "storage": at + 1 == versions.len(),
            "additionalPrinterColumns": [
                { "name": column.0, "type": "string", "jsonPath": column.1 },
                { "name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp" },
            ],
            "subresources": subresources,
            "schema": {
                "openAPIV3Schema": {
                    "type": "object",
                    "description": root["description"],
                    "required": ["spec"],
                    "properties": properties,
                },
            },
        })
    });
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": { "name": format!("{plural}.{group}") },
        "spec": {
            "group": group,
            "names": {
                "kind": kind,
                "listKind": format!("{kind}List"),
                "plural": plural,
                "singular": kind.to_lowercase(),
                "shortNames": short.as_slice(),
                "categories": ["knark"],
            },
            "scope": if *namespaced { "Namespaced" } else { "Cluster" },
            "versions": versions.collect::<Vec<_>>(),
        },
    })
}

/// Defaults are written into objects, and those of other systems are theirs.
fn drop_defaults(schema: &mut Json) {
    let Some(keywords) = schema.as_object_mut() else { return };
    keywords.remove("default");
    let properties = keywords.get_mut("properties").and_then(Json::as_object_mut);
    properties.into_iter().flat_map(Map::values_mut).for_each(drop_defaults);
    for name in ["items", "additionalProperties"] {
        keywords.get_mut(name).into_iter().for_each(drop_defaults);
    }
}

/// A schema as a structural one: references replaced by what they stand for, a type everywhere, and no alternatives.
fn structural(root: &Json, schema: &Json, depth: usize) -> Json {
    let mut out = Map::new();
    let Some(keywords) = schema.as_object().filter(|_| depth < DEPTH_LIMIT) else {
        return json!({ "x-kubernetes-preserve-unknown-fields": true });
    };
    if let Some(reference) = keywords.get("$ref").and_then(Json::as_str) {
        let target = root.pointer(reference.trim_start_matches('#')).unwrap_or(&Json::Null);
        if let Json::Object(target) = structural(root, target, depth + 1) {
            out = target;
        }
        let validations = VALIDATIONS.iter().filter(|(name, ..)| *name == reference);
        let validations: Vec<Json> = validations.map(|(_, rule, message)| json!({ "rule": rule, "message": message })).collect();
        if !validations.is_empty() {
            out.insert("x-kubernetes-validations".to_owned(), Json::Array(validations));
        }
    }
    out.extend(KEPT.iter().filter_map(|name| Some(((*name).to_owned(), keywords.get(*name)?.clone()))));
    out.retain(|name, value| name != "default" || !value.is_null());
    if let Some(Json::Array(types)) = keywords.get("type") {
        out.insert("type".to_owned(), types.iter().find(|name| *name != "null").cloned().unwrap_or_default());
        out.insert("nullable".to_owned(), json!(true));
    }
    let alternatives = keywords.get("anyOf").and_then(Json::as_array).map_or(&[][..], Vec::as_slice);
    if let [only, null] = alternatives
        && null["type"] == "null"
        && let Json::Object(only) = structural(root, only, depth + 1)
    {
        out.extend(only);
        out.insert("nullable".to_owned(), json!(true));
    } else if !alternatives.is_empty() && keywords.get("x-kubernetes-int-or-string").is_none() {
        // One type or another can't be said.
        out.insert("x-kubernetes-preserve-unknown-fields".to_owned(), json!(true));
    }
    if keywords.get("additionalProperties") == Some(&json!(true)) {
        out.insert("x-kubernetes-preserve-unknown-fields".to_owned(), json!(true));
    }
    if let Some(values) = keywords.get("oneOf").and_then(Json::as_array) {
        choose(&mut out, values);
    }
    if keywords.get("x-kubernetes-int-or-string").is_some() {
        for part in alternatives.iter().filter_map(Json::as_object) {
            out.extend(KEPT.iter().filter_map(|name| Some(((*name).to_owned(), part.get(*name)?.clone()))));
        }
        out.remove("type");
        out.insert("anyOf".to_owned(), json!([{ "type": "integer" }, { "type": "string" }]));
        out.insert("x-kubernetes-int-or-string".to_owned(), json!(true));
    }
    if let Some(properties) = keywords.get("properties").and_then(Json::as_object) {
        let properties = properties.iter().map(|(name, schema)| (name.clone(), structural(root, schema, depth + 1)));
        out.insert("properties".to_owned(), properties.collect());
    } else if let Some(schema @ Json::Object(_)) = keywords.get("additionalProperties") {
        out.insert("additionalProperties".to_owned(), structural(root, schema, depth + 1));
        out.extend(keywords.get("maxProperties").map(|most| ("maxProperties".to_owned(), most.clone())));
    }
    if let Some(items) = keywords.get("items") {
        out.insert("items".to_owned(), structural(root, items, depth + 1));
    }
    if let Some(text) = keywords.get("description").and_then(Json::as_str) {
        describe(&mut out, text);
    }
    Json::Object(out)
}

/// Alternatives that are one text each become a choice of texts, and what is said of each is said of the whole.
fn choose(out: &mut Map<String, Json>, values: &[Json]) {
    let text = |value: &Json, name: &str| value.get(name).and_then(Json::as_str).map(str::to_owned);
    let names: Vec<String> = values.iter().filter_map(|value| text(value, "const")).collect();
    let lines: Vec<String> = values
        .iter()
        .filter_map(|value| Some(format!("- `{}`: {}", text(value, "const")?, text(value, "description")?)))
        .collect();
    out.insert("type".to_owned(), json!("string"));
    out.insert("enum".to_owned(), json!(names));
    out.insert("description".to_owned(), json!(lines.join("\n")));
}

/// A field's own words come first, and those of its type after them.
fn describe(out: &mut Map<String, Json>, text: &str) {
    let description = match out.get("description").and_then(Json::as_str) {
        Some(more) => format!("{text}\n\n{more}"),
        None => text.to_owned(),
    };
    out.insert("description".to_owned(), json!(description));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every schema in one.
    fn walk(schema: &Json, visit: &mut impl FnMut(&Map<String, Json>)) {
        let keywords = schema.as_object().unwrap();
        visit(keywords);
        let properties = keywords.get("properties").and_then(Json::as_object);
        properties.into_iter().flat_map(Map::values).for_each(|schema| walk(schema, visit));
        for name in ["items", "additionalProperties"] {
            keywords.get(name).into_iter().for_each(|schema| walk(schema, visit));
        }
    }

    #[test]
    fn schemas_are_structural_and_bounded() {
        for crd in crds() {
            let root = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
            walk(&root["properties"]["spec"], &mut |schema| {
                let is_either = schema.contains_key("x-kubernetes-int-or-string");
                assert!(is_either || schema.contains_key("type"), "{schema:?}");
                assert!(!schema.contains_key("properties") || !schema.contains_key("additionalProperties"), "{schema:?}");
                for keyword in ["$ref", "oneOf", "allOf", "format", "const"] {
                    assert!(!schema.contains_key(keyword), "{schema:?}");
                }
                let bound = match schema.get("type").and_then(Json::as_str) {
                    Some("string") if !schema.contains_key("enum") => "maxLength",
                    Some("array") => "maxItems",
                    _ => return,
                };
                assert!(schema.contains_key(bound), "{schema:?}");
            });
        }
    }

    #[test]
    fn every_field_is_documented() {
        for crd in crds() {
            walk(&crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"], &mut |schema| {
                for (name, field) in schema.get("properties").and_then(Json::as_object).into_iter().flatten() {
                    assert!(field["description"].as_str().is_some_and(|text| text.len() > 5), "{name}");
                }
            });
        }
    }
}
