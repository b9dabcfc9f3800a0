//! Whether a value has the structure that a JSON Schema asks for: every mistake, each at its place.
//!
//! A derive stops at its first error and knows no places, so validation walks the schema that the derive's types generate.
//! Of JSON Schema, what schemars makes of Rust types is known; other keywords are passed over.

mod words;

use std::{collections::HashMap, ops::Range};

use regex::Regex;
use serde_json::Value as Json;

use crate::{
    problem::Problem,
    yaml::{Entry, Node, Value},
};
use words::{found, list, noun, quote, wanted};

pub use words::suggest;

/// After so many problems, the rest isn't told.
const PROBLEM_LIMIT: usize = 1_000;
/// How many references may follow each other; more is a circle.
const REFERENCE_LIMIT: usize = 16;

/// A JSON Schema with its patterns compiled.
#[derive(Debug)]
pub struct Schema {
    root: Json,
    patterns: HashMap<String, Regex>,
}

/// As [`Schema::check`], for a schema that is used once.
pub fn check(node: &Node, schema: &Json) -> Vec<Problem> {
    Schema::new(schema.clone()).check(node)
}

impl Schema {
    /// Makes it ready. A pattern that isn't a regular expression is passed over.
    pub fn new(root: Json) -> Self {
        let mut patterns = HashMap::new();
        let mut rest = vec![&root];
        while let Some(schema) = rest.pop() {
            match schema {
                Json::Object(keywords) => {
                    let pattern = keywords.get("pattern").and_then(Json::as_str);
                    if let Some((pattern, regex)) = pattern.and_then(|pattern| Some((pattern, Regex::new(pattern).ok()?))) {
                        patterns.insert(pattern.to_owned(), regex);
                    }
                    rest.extend(keywords.values());
                }
                Json::Array(schemas) => rest.extend(schemas),
                _ => {}
            }
        }
        Self { root, patterns }
    }

    /// The schema itself.
    pub fn as_json(&self) -> &Json {
        &self.root
    }

    /// Every mistake of a value, in the order of the text.
    pub fn check(&self, node: &Node) -> Vec<Problem> {
        let mut problems = Vec::new();
        self.walk(&Place { node, field: String::new(), key: None }, &self.root, &mut problems);
        problems.sort_by_key(|problem| problem.span.start);
        problems
    }

    fn walk(&self, place: &Place<'_>, schema: &Json, problems: &mut Vec<Problem>) {
        if problems.len() >= PROBLEM_LIMIT {
            return;
        }
        if schema == &Json::Bool(false) {
            problems.push(place.error(format!("{} can't be given", place.noun())));
            return;
        }
        let schema = self.resolve(schema);
        if let Some(values) = self.values(schema) {
            check_values(place, &values, problems);
            return;
        }
        let types = self.types(schema);
        if !types.is_empty() && !types.iter().any(|name| is_a(place.node, name)) {
            problems.push(wrong_type(place, &types));
            return;
        }
        for part in branches(schema, "allOf") {
            self.walk(place, part, problems);
        }
        for keyword in ["anyOf", "oneOf"] {
            self.check_any(place, branches(schema, keyword), problems);
        }
        match &place.node.value {
            Value::Map(entries) => self.check_map(place, entries, schema, problems),
            Value::List(items) => self.check_list(place, items, schema, problems),
            Value::Text(text) => self.check_text(place, text, schema, problems),
            Value::Number(_) => check_number(place, schema, problems),
            Value::Null | Value::Bool(_) => {}
        }
    }

    fn check_map(&self, place: &Place<'_>, entries: &[Entry], schema: &Json, problems: &mut Vec<Problem>) {
        let properties = schema.get("properties").and_then(Json::as_object);
        let additional = schema.get("additionalProperties");
        let required = || schema.get("required").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str);
        for entry in entries {
            let known = properties.and_then(|properties| properties.get(&entry.key));
            let wanted = known.or_else(|| additional.filter(|additional| additional.is_object()));
            if let Some(wanted) = wanted
                && self.is_left_out(entry, wanted)
                && !required().any(|name| name == entry.key)
            {
                problems.push(left_out(&place.at(entry), &self.types(self.resolve(wanted))));
                continue;
            }
            match (known, additional) {
                (Some(schema), _) => self.walk(&place.at(entry), schema, problems),
                (None, Some(Json::Bool(false))) if problems.len() < PROBLEM_LIMIT => {
                    let known = properties.into_iter().flat_map(|properties| properties.keys()).map(String::as_str);
                    problems.push(unknown_field(place, entry, &known.collect::<Vec<_>>()));
                }
                (None, Some(schema @ Json::Object(_))) => self.walk(&place.at(entry), schema, problems),
                (None, _) => {}
            }
        }
        for name in required().filter(|name| place.node.get(name).is_none()) {
            let field = place.field_of(name);
            let message = if place.field.is_empty() {
                format!("field `{name}` is missing")
            } else {
                format!("{} has no `{name}`", place.noun())
            };
            let problem = Problem::error(place.key_span(), field, message).label(format!("`{name}` is missing"));
            let description = properties.and_then(|properties| properties.get(name)).and_then(|schema| describe(schema));
            problems.push(match description {
                Some(text) => problem.help(format!("`{name}`: {text}")),
                None => problem,
            });
        }
        let least = limit(schema, "minProperties").unwrap_or_default();
        if entries.iter().filter(|entry| entry.value.value != Value::Null).count() < least {
            let known = properties.into_iter().flat_map(|properties| properties.keys()).map(String::as_str);
            let problem = place.error(format!("{} is empty, and would say nothing", place.noun()));
            problems.push(problem.help(format!("leave it out, or give it at least one of {}", list(known))));
        }
        if let Some(most) = limit(schema, "maxProperties").filter(|most| entries.len() > *most) {
            problems.push(place.error(format!("{} has {} fields, more than {most}", place.noun(), entries.len())));
        }
    }

    fn check_list(&self, place: &Place<'_>, items: &[Node], schema: &Json, problems: &mut Vec<Problem>) {
        if let Some(least) = limit(schema, "minItems").filter(|least| items.len() < *least) {
            problems.push(match items.len() {
                0 => place.error(format!("{} is empty", place.noun())).help("give it at least one item"),
                some => place.error(format!("{} has {some} items, fewer than {least}", place.noun())),
            });
        }
        if let Some(most) = limit(schema, "maxItems").filter(|most| items.len() > *most) {
            let problem = place.error(format!("{} has {} items, more than {most}", place.noun(), items.len()));
            problems.push(problem.help("divide it"));
        }
        if let Some(schema) = schema.get("items") {
            for (at, node) in items.iter().enumerate() {
                let item = Place { node, field: format!("{}[{at}]", place.field), key: None };
                self.walk(&item, schema, problems);
            }
        }
    }

    fn check_text(&self, place: &Place<'_>, text: &str, schema: &Json, problems: &mut Vec<Problem>) {
        let length = text.chars().count();
        if let Some(least) = limit(schema, "minLength").filter(|least| length < *least) {
            problems.push(match length {
                0 => place.error(format!("{} is an empty text", place.noun())).help("give it a value, or leave it out"),
                some => place.error(format!("{} has {some} characters, fewer than {least}", place.noun())),
            });
            return;
        }
        if let Some(most) = limit(schema, "maxLength").filter(|most| length > *most) {
            problems.push(place.error(format!("{} has {length} characters, more than {most}", place.noun())));
            return;
        }
        let Some(pattern) = schema.get("pattern").and_then(Json::as_str) else { return };
        if self.patterns.get(pattern).is_some_and(|regex| !regex.is_match(text)) {
            let problem = place.error(format!("{} isn't a valid value of {}", quote(text), place.noun()));
            problems.push(match schema.get("patternErrorMessage").and_then(Json::as_str) {
                Some(words) => problem.help(words),
                None => problem.help(format!("it must match `{pattern}`")),
            });
        }
    }

    /// One of several schemas must hold: if none does, the one of the right type tells why.
    fn check_any(&self, place: &Place<'_>, schemas: &[Json], problems: &mut Vec<Problem>) {
        let mut told: Option<Vec<Problem>> = None;
        for schema in schemas {
            let mut own = Vec::new();
            self.walk(place, schema, &mut own);
            if own.is_empty() {
                return;
            }
            let types = self.types(self.resolve(schema));
            if told.is_none() && types.iter().any(|name| is_a(place.node, name)) {
                told = Some(own);
            }
        }
        match told {
            Some(own) => problems.extend(own),
            None if schemas.is_empty() => {}
            None => {
                let types: Vec<&str> = schemas.iter().flat_map(|schema| self.types(self.resolve(schema))).collect();
                problems.push(wrong_type(place, &types));
            }
        }
    }

    /// Follows references.
    fn resolve<'s>(&'s self, mut schema: &'s Json) -> &'s Json {
        for _ in 0..REFERENCE_LIMIT {
            let target = schema.get("$ref").and_then(Json::as_str).and_then(|reference| reference.strip_prefix('#'));
            match target.and_then(|pointer| self.root.pointer(pointer)) {
                Some(target) => schema = target,
                None => break,
            }
        }
        schema
    }

    /// The API server drops a null from an object where nothing may be null.
    fn is_left_out(&self, entry: &Entry, schema: &Json) -> bool {
        let types = self.types(self.resolve(schema));
        entry.value.value == Value::Null && !types.is_empty() && !types.contains(&"null")
    }

    /// The only values that a schema lets through, if it names them.
    fn values<'s>(&'s self, schema: &'s Json) -> Option<Vec<&'s Json>> {
        if let Some(only) = schema.get("const") {
            return Some(vec![only]);
        }
        if let Some(values) = schema.get("enum").and_then(Json::as_array) {
            return Some(values.iter().collect());
        }
        let alternatives = branches(schema, "oneOf");
        if alternatives.is_empty() {
            return None;
        }
        let each: Option<Vec<_>> = alternatives.iter().map(|schema| self.values(self.resolve(schema))).collect();
        Some(each?.into_iter().flatten().collect())
    }

    /// The types that a schema lets through; empty: any.
    fn types<'s>(&'s self, schema: &'s Json) -> Vec<&'s str> {
        match schema.get("type") {
            Some(Json::String(name)) => vec![name],
            Some(Json::Array(names)) => names.iter().filter_map(Json::as_str).collect(),
            _ => {
                let each = ["anyOf", "oneOf"].iter().flat_map(|keyword| branches(schema, keyword));
                let mut names = Vec::new();
                for types in each.map(|schema| self.types(self.resolve(schema))) {
                    if types.is_empty() {
                        return types;
                    }
                    names.extend(types);
                }
                names
            }
        }
    }
}

/// Where the walk is.
struct Place<'n> {
    node: &'n Node,
    field: String,
    key: Option<&'n Range<usize>>,
}

impl<'n> Place<'n> {
    fn at(&self, entry: &'n Entry) -> Self {
        Self { node: &entry.value, field: self.field_of(&entry.key), key: Some(&entry.key_span) }
    }

    fn field_of(&self, name: &str) -> String {
        if self.field.is_empty() { name.to_owned() } else { format!("{}.{name}", self.field) }
    }

    /// The key, or of what has none the first thing in it.
    fn key_span(&self) -> Range<usize> {
        match (self.key, &self.node.value) {
            (Some(span), _) => span.clone(),
            (None, Value::Map(entries)) => entries.first().map_or_else(|| self.node.span.clone(), |entry| entry.key_span.clone()),
            (None, _) => self.node.span.clone(),
        }
    }

    /// The value; where that is nothing, or many lines, its key.
    fn span(&self) -> Range<usize> {
        match &self.node.value {
            Value::Map(_) | Value::List(_) => self.key_span(),
            _ if self.node.span.is_empty() => self.key_span(),
            _ => self.node.span.clone(),
        }
    }

    fn noun(&self) -> String {
        noun(&self.field)
    }

    fn error(&self, message: impl Into<String>) -> Problem {
        Problem::error(self.span(), self.field.clone(), message)
    }
}

fn check_values(place: &Place<'_>, values: &[&Json], problems: &mut Vec<Problem>) {
    let is_one = match &place.node.value {
        Value::Text(text) => values.iter().any(|value| value.as_str() == Some(text)),
        _ => values.contains(&&place.node.to_json()),
    };
    if is_one {
        return;
    }
    let names: Vec<&str> = values.iter().filter_map(|value| value.as_str()).collect();
    let Some(text) = place.node.text().filter(|_| !names.is_empty()) else {
        problems.push(wrong_type(place, if names.is_empty() { &["number"] } else { &["string"] }));
        return;
    };
    let problem = place.error(match names.as_slice() {
        [only] => format!("{} must be `{only}`, not {}", place.noun(), quote(text)),
        _ => format!("{} can't be {}", place.noun(), quote(text)),
    });
    problems.push(match suggest(text, &names) {
        Some(name) => problem.label(format!("did you mean `{name}`?")).help(format!("one of {}", list(names.iter().copied()))),
        None => problem.label("unknown value").help(format!("one of {}", list(names.iter().copied()))),
    });
}

fn branches<'s>(schema: &'s Json, keyword: &str) -> &'s [Json] {
    schema.get(keyword).and_then(Json::as_array).map_or(&[], Vec::as_slice)
}

fn limit(schema: &Json, keyword: &str) -> Option<usize> {
    schema.get(keyword).and_then(Json::as_u64).and_then(|limit| limit.try_into().ok())
}

/// The first sentence of what a schema says of itself.
fn describe(schema: &Json) -> Option<&str> {
    let text = schema.get("description").and_then(Json::as_str)?;
    let end = text.find(". ").or_else(|| text.find('\n')).unwrap_or(text.len());
    Some(text[..end].trim_end_matches('.'))
}

fn is_a(node: &Node, name: &str) -> bool {
    match &node.value {
        Value::Null => name == "null",
        Value::Bool(_) => name == "boolean",
        Value::Number(_) => name == "number" || name == "integer" && matches!(node.to_json(), Json::Number(n) if !n.is_f64()),
        Value::Text(_) => name == "string",
        Value::List(_) => name == "array",
        Value::Map(_) => name == "object",
    }
}

fn check_number(place: &Place<'_>, schema: &Json, problems: &mut Vec<Problem>) {
    let Value::Number(text) = &place.node.value else { return };
    let digits = text.trim_start_matches(['-', '+']);
    if digits.len() > 1 && digits.starts_with('0') && digits.bytes().all(|digit| digit.is_ascii_digit()) {
        let octal = u64::from_str_radix(digits, 8).map_or_else(|_| "no number".to_owned(), |value| value.to_string());
        let decimal = digits.trim_start_matches('0');
        let message = format!(
            "`{text}` is {octal} to some readers of YAML, and {} to others",
            if decimal.is_empty() { "0" } else { decimal }
        );
        problems.push(place.error(message).help("leave out the zeros in front; an octal number is `0o…`"));
        return;
    }
    let Some(value) = place.node.to_json().as_f64() else { return };
    let bound = |keyword| schema.get(keyword).and_then(|bound| Some((bound, bound.as_f64()?)));
    if let Some((least, _)) = bound("minimum").filter(|(_, least)| value < *least) {
        problems.push(place.error(format!("{} is {text}, less than {least}", place.noun())));
    }
    if let Some((most, _)) = bound("maximum").filter(|(_, most)| value > *most) {
        problems.push(place.error(format!("{} is {text}, more than {most}", place.noun())));
    }
}

fn wrong_type(place: &Place<'_>, types: &[&str]) -> Problem {
    let node = place.node;
    let message = format!("{} must be {}, and this is {}", place.noun(), wanted(types), found(node));
    let problem = place.error(message).label(format!("{} is wanted", wanted(types)));
    match &node.value {
        Value::Null => problem.help(give_or_leave_out(types)),
        Value::Number(text) if types == ["string"] => problem.help(format!("quote it: \"{text}\"")),
        Value::Bool(is) if types == ["string"] => problem.help(format!("quote it: \"{is}\"")),
        Value::Text(text) if types == ["array"] => problem.help(format!("make it a list: [{}]", quote(text).replace('`', "\""))),
        _ => problem,
    }
}

fn left_out(place: &Place<'_>, types: &[&str]) -> Problem {
    let message = format!("{} has no value, and is taken for left out", place.noun());
    Problem::warning(place.span(), place.field.clone(), message).help(give_or_leave_out(types))
}

fn give_or_leave_out(types: &[&str]) -> &'static str {
    match types {
        ["object"] => "give it a value, `{}` for one without conditions, or leave it out",
        _ => "give it a value, or leave it out",
    }
}

fn unknown_field(place: &Place<'_>, entry: &Entry, known: &[&str]) -> Problem {
    let key = quote(&entry.key);
    let message = match place.field.as_str() {
        "" => format!("unknown field {key}"),
        _ => format!("{} has no field {key}", place.noun()),
    };
    let problem = Problem::error(entry.key_span.clone(), place.field_of(&entry.key), message);
    match suggest(&entry.key, known) {
        Some(name) => {
            problem.label(format!("did you mean `{name}`?")).help(format!("its fields are {}", list(known.iter().copied())))
        }
        None => problem.label("unknown field").help(format!("its fields are {}", list(known.iter().copied()))),
    }
}

#[cfg(test)]
mod tests;
