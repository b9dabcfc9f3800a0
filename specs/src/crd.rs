//! The kinds as CustomResourceDefinitions, so that policies can be objects of a cluster.
//!
//! Both kinds are cluster-scoped: a policy selects nodes and namespaces, so it belongs to who answers for all of them.
//! A structural schema can't refuse unknown fields. kubectl does, before it sends an object (`--validate=strict`, its default).

use serde_json::{Map, Value as Json, json};

use crate::{
    policy::schema::{of_trace_list, of_trace_policy},
    structure::Schema,
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

/// The definitions of TracePolicy and TraceList (apiextensions.k8s.io/v1).
pub fn crds() -> [Json; 2] {
    [crd("TracePolicy", "tracepolicies", "tp", of_trace_policy()), crd("TraceList", "tracelists", "tl", of_trace_list())]
}

fn crd(kind: &str, plural: &str, short: &str, schema: &Schema) -> Json {
    let root = schema.as_json();
    let mut spec = structural(root, &root["properties"]["spec"], 0);
    if let Some(rules) = spec.pointer_mut("/properties/rules").and_then(Json::as_object_mut) {
        // Names are unique, and `kubectl apply` merges rules by them.
        rules.insert("x-kubernetes-list-type".to_owned(), json!("map"));
        rules.insert("x-kubernetes-list-map-keys".to_owned(), json!(["name"]));
    }
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": { "name": format!("{plural}.knark.dev") },
        "spec": {
            "group": "knark.dev",
            "names": {
                "kind": kind,
                "listKind": format!("{kind}List"),
                "plural": plural,
                "singular": kind.to_lowercase(),
                "shortNames": [short],
                "categories": ["knark"],
            },
            "scope": "Cluster",
            "versions": [{
                "name": "v1alpha1",
                "served": true,
                "storage": true,
                "additionalPrinterColumns": [
                    { "name": "Description", "type": "string", "jsonPath": ".spec.description" },
                    { "name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp" },
                ],
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "description": root["description"],
                        "required": ["spec"],
                        "properties": {
                            "apiVersion": { "type": "string", "description": "`knark.dev/v1alpha1`." },
                            "kind": { "type": "string", "description": format!("`{kind}`.") },
                            "metadata": { "type": "object" },
                            "spec": spec,
                        },
                    },
                },
            }],
        },
    })
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
    if let Some(values) = keywords.get("oneOf").and_then(Json::as_array) {
        choose(&mut out, values);
    }
    if keywords.get("x-kubernetes-int-or-string").is_some() {
        let parts = keywords.get("anyOf").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_object);
        for part in parts {
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
