//! What an event may hold, as its JSON Schema says: the names and types that conditions and messages are checked against.

use std::{collections::BTreeMap, sync::LazyLock};

use serde_json::Value;

/// One field of the event, for documentation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Where it is, such as `process.exe`; `[]` stands for the items of a list.
    pub path: String,
    /// Its type in CEL, such as `text`, `list of text` or `one of "exec", "file", "exit"`.
    pub kind: String,
    /// Not every event has it: `has(...)` tells, and a condition that reads it where it is absent doesn't match.
    pub optional: bool,
    /// What it says.
    pub description: String,
}

/// The type of an expression.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Type {
    /// What a problem was already reported for, or what nobody knows before it comes, such as a body's JSON: anything goes.
    Unknown,
    Bool,
    Int,
    UInt,
    Double,
    Bytes,
    Null,
    Text(Text),
    List(Box<Type>),
    /// From texts.
    Map(Box<Type>),
    Object(&'static Object),
    /// The name `lists`.
    Lists,
}

/// What texts a field can hold.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Text {
    Any,
    Mode,
    OneOf(Vec<String>),
}

/// Something with fields.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Object {
    pub(crate) fields: BTreeMap<String, Member>,
}

/// A field of an [`Object`].
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Member {
    pub(crate) kind: Type,
    pub(crate) optional: bool,
    pub(crate) description: String,
}

/// The event itself.
pub(crate) fn event() -> &'static Object {
    static EVENT: LazyLock<&'static Object> = LazyLock::new(|| {
        let schema = crate::event::schema();
        let definitions = schema.as_value().get("$defs").unwrap_or(&Value::Null);
        object(definitions.get("Event").unwrap_or(&Value::Null), definitions)
    });
    &EVENT
}

/// All fields of the event, in order of their names.
pub fn fields() -> Vec<Field> {
    fn below(object: &Object, prefix: &str, all: &mut Vec<Field>) {
        for (name, Member { kind, optional, description }) in &object.fields {
            let path = format!("{prefix}{name}");
            let said =
                Field { path: path.clone(), kind: kind.to_string(), optional: *optional, description: description.clone() };
            all.push(said);
            match kind {
                Type::Object(object) => below(object, &format!("{path}."), all),
                Type::List(item) => {
                    if let Type::Object(object) = &**item {
                        below(object, &format!("{path}[]."), all);
                    }
                }
                _ => {}
            }
        }
    }
    let mut all = Vec::new();
    below(event(), "", &mut all);
    all
}

/// The name that was probably meant.
pub(crate) fn nearest<'n>(word: &str, names: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let lower = word.to_lowercase();
    names
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&lower, &name.to_lowercase()), name))
        .filter(|(distance, name)| *distance <= 1.max(name.len().min(word.len()) / 3))
        .min()
        .map(|(_, name)| name)
}

impl std::fmt::Display for Type {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unknown => f.write_str("anything"),
            Self::Bool => f.write_str("true or false"),
            Self::Int => f.write_str("number"),
            Self::UInt => f.write_str("unsigned number"),
            Self::Double => f.write_str("fraction"),
            Self::Bytes => f.write_str("bytes"),
            Self::Null => f.write_str("null"),
            Self::Text(Text::Any) => f.write_str("text"),
            Self::Text(Text::Mode) => f.write_str("mode: a text such as \"0644\""),
            Self::Text(Text::OneOf(all)) => {
                f.write_str("one of ")?;
                all.iter().enumerate().try_for_each(|(at, one)| write!(f, "{}{one:?}", if at == 0 { "" } else { ", " }))
            }
            Self::List(item) => match &**item {
                Self::Unknown => f.write_str("list"),
                item => write!(f, "list of {item}"),
            },
            Self::Map(value) => write!(f, "map from text to {value}"),
            Self::Object(_) => f.write_str("object"),
            Self::Lists => f.write_str("set of shared lists"),
        }
    }
}

/// The schemas live as long as the program: they are made once, from its own types.
fn object(schema: &Value, definitions: &Value) -> &'static Object {
    let mut fields = BTreeMap::new();
    add_members(&mut fields, schema, definitions, false);
    // One of several shapes: of a field that isn't part of all of them it is never certain that an event has it.
    for shape in schema.get("oneOf").and_then(Value::as_array).into_iter().flatten() {
        add_members(&mut fields, shape, definitions, true);
    }
    Box::leak(Box::new(Object { fields }))
}

fn add_members(fields: &mut BTreeMap<String, Member>, schema: &Value, definitions: &Value, variant: bool) {
    for (name, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        let (kind, nullable) = type_of(property, definitions);
        let tag = property.get("const").is_some();
        let description = property.get("description").and_then(Value::as_str).unwrap_or_default().to_owned();
        let new = Member { kind, optional: nullable || (variant && !tag), description };
        match (fields.get_mut(name), new.kind.clone()) {
            (Some(Member { kind: Type::Text(Text::OneOf(all)), .. }), Type::Text(Text::OneOf(more))) => all.extend(more),
            _ => {
                fields.insert(name.clone(), new);
            }
        }
    }
}

/// The type, and whether null takes its place where it is absent.
fn type_of(schema: &Value, definitions: &Value) -> (Type, bool) {
    if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
        let name = reference.rsplit('/').next().unwrap_or_default();
        return type_of(definitions.get(name).unwrap_or(&Value::Null), definitions);
    }
    if let Some(any) = schema.get("anyOf").and_then(Value::as_array) {
        let is_null = |schema: &&Value| schema.get("type").and_then(Value::as_str) == Some("null");
        let kind = any.iter().find(|one| !is_null(one)).map_or(Type::Unknown, |one| type_of(one, definitions).0);
        return (kind, any.iter().any(|one| is_null(&one)));
    }
    let names: Vec<&str> = match schema.get("type") {
        Some(Value::String(name)) => vec![name],
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let values: Vec<String> = [schema]
        .into_iter()
        .chain(schema.get("oneOf").and_then(Value::as_array).into_iter().flatten())
        .flat_map(|one| one.get("const").into_iter().chain(one.get("enum").and_then(Value::as_array).into_iter().flatten()))
        .filter_map(|value| value.as_str().map(str::to_owned))
        .collect();
    let kind = match names.iter().find(|name| **name != "null") {
        _ if !values.is_empty() => Type::Text(Text::OneOf(values)),
        Some(&"string") if schema.get("pattern").is_some() => Type::Text(Text::Mode),
        Some(&"string") => Type::Text(Text::Any),
        Some(&"integer") => Type::Int,
        Some(&"number") => Type::Double,
        Some(&"boolean") => Type::Bool,
        Some(&"array") => Type::List(Box::new(schema.get("items").map_or(Type::Unknown, |items| type_of(items, definitions).0))),
        Some(&"object") => match schema.get("additionalProperties") {
            Some(values) if values.is_object() => Type::Map(Box::new(type_of(values, definitions).0)),
            _ => Type::Object(object(schema, definitions)),
        },
        _ => Type::Unknown,
    };
    (kind, names.contains(&"null"))
}
