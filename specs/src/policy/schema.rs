//! The JSON Schema of policies, and what it says beyond the types.

use std::sync::LazyLock;

use schemars::{JsonSchema, generate::SchemaSettings, transform::RecursiveTransform};
use serde_json::{Map, Value as Json, json};

use super::{TraceList, TracePolicy};
use crate::structure::Schema;

/// The longest text where nothing else is said: a path's (PATH_MAX).
const TEXT_LIMIT: u32 = 4096;
/// The most items or entries where nothing else is said.
const ITEM_LIMIT: u32 = 1_000;

/// The JSON Schema (draft 2020-12) of a document of policies: a TracePolicy or a TraceList.
pub fn schema() -> Json {
    let mut root = schema_of::<Document>();
    if let Some(root) = root.as_object_mut() {
        root.insert("title".to_owned(), json!("kubectl-knark's policies"));
    }
    root
}

/// The schema of a [`TracePolicy`].
pub fn of_trace_policy() -> &'static Schema {
    static SCHEMA: LazyLock<Schema> = LazyLock::new(|| Schema::new(schema_of::<TracePolicy>()));
    &SCHEMA
}

/// The schema of a [`TraceList`].
pub fn of_trace_list() -> &'static Schema {
    static SCHEMA: LazyLock<Schema> = LazyLock::new(|| Schema::new(schema_of::<TraceList>()));
    &SCHEMA
}

#[derive(JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, clippy::large_enum_variant, reason = "only its schema is used")]
enum Document {
    Policy(TracePolicy),
    List(TraceList),
}

/// A type's schema as the API server would have it: everything bounded, and nothing null.
pub(crate) fn schema_of<T: JsonSchema>() -> Json {
    let settings = SchemaSettings::draft2020_12().with_transform(RecursiveTransform(|schema: &mut schemars::Schema| {
        if let Some(keywords) = schema.as_object_mut() {
            refuse_null(keywords);
            bound(keywords);
            unwrap_lines(keywords);
        }
    }));
    let mut root = settings.into_generator().into_root_schema_for::<T>().to_value();
    if let Some(metadata) = root.pointer_mut("/$defs/Metadata").and_then(Json::as_object_mut) {
        complete_metadata(metadata);
    }
    if let Some(mode) = root.pointer_mut("/$defs/Mode").and_then(Json::as_object_mut) {
        mode.insert("patternErrorMessage".to_owned(), json!("an octal number in quotes that begins with 0, such as \"0644\""));
    }
    root
}

/// A field that may be left out isn't one that may be null: the API server doesn't take it for one either.
fn refuse_null(keywords: &mut Map<String, Json>) {
    if let Some(Json::Array(types)) = keywords.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            keywords.insert("type".to_owned(), only);
        }
    }
    if let Some(Json::Array(schemas)) = keywords.get_mut("anyOf") {
        schemas.retain(|schema| schema != &json!({ "type": "null" }));
        if let [Json::Object(only)] = schemas.as_slice() {
            let only = only.clone();
            keywords.remove("anyOf");
            keywords.extend(only);
        }
    }
}

/// Everything has a size, which the API server asks for before it lets rules look at it.
fn bound(keywords: &mut Map<String, Json>) {
    if keywords.get("format") == Some(&json!("uint32")) {
        keywords.remove("format");
        keywords.insert("maximum".to_owned(), json!(u32::MAX));
    }
    let (keyword, limit) = match keywords.get("type").and_then(Json::as_str) {
        Some("string") if !keywords.contains_key("const") && !keywords.contains_key("enum") => ("maxLength", TEXT_LIMIT),
        Some("array") => ("maxItems", ITEM_LIMIT),
        Some("object") if keywords.contains_key("additionalProperties") && !keywords.contains_key("properties") => {
            ("maxProperties", ITEM_LIMIT)
        }
        _ => return,
    };
    keywords.entry(keyword).or_insert(json!(limit));
}

/// Lines are broken as the source's width has it, and paragraphs where they end.
fn unwrap_lines(keywords: &mut Map<String, Json>) {
    if let Some(Json::String(text)) = keywords.get_mut("description") {
        let paragraphs: Vec<String> = text.split("\n\n").map(|paragraph| paragraph.replace('\n', " ")).collect();
        *text = paragraphs.join("\n\n");
    }
}

/// What the API server keeps beside a name is known, so that a mistyped field isn't taken for it.
fn complete_metadata(keywords: &mut Map<String, Json>) {
    let Some(properties) = keywords.get_mut("properties").and_then(Json::as_object_mut) else { return };
    for name in ["labels", "annotations"] {
        // Their sizes are the API server's matter.
        properties.insert(name.to_owned(), json!({ "type": "object", "additionalProperties": { "type": "string" } }));
    }
    for name in [
        "namespace",
        "generateName",
        "uid",
        "resourceVersion",
        "generation",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "managedFields",
        "ownerReferences",
        "finalizers",
        "selfLink",
    ] {
        properties.insert(name.to_owned(), json!({ "description": "The API server's." }));
    }
    keywords.insert("additionalProperties".to_owned(), json!(false));
}
