//! YAML with positions: what validation works on, and the way in for everything that a user writes.

mod decode;
mod read;
mod scalar;

use std::ops::Range;

pub use decode::decode;
pub use read::{DEPTH_LIMIT, EXPANDED_LIMIT, NODE_LIMIT, Read, SIZE_LIMIT, read};

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Bytes of the text; what an alias brought in has the alias's own place.
    pub span: Range<usize>,
    /// What stands there.
    pub value: Value,
}

/// A YAML value of the core schema.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Nothing.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number, as it was written: `0644` and `420` mean different things to different readers.
    Number(String),
    /// A text.
    Text(String),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping, in its order, merge keys resolved.
    Map(Vec<Entry>),
}

/// A key of a mapping, and its value.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where it stands.
    pub key_span: Range<usize>,
    /// What it names.
    pub value: Node,
}

impl Node {
    /// A mapping's value by its key.
    pub fn get(&self, key: &str) -> Option<&Self> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// A mapping's entry by its key.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|entry| entry.key == key),
            _ => None,
        }
    }

    /// A sequence's items; none of anything else.
    pub fn items(&self) -> &[Self] {
        match &self.value {
            Value::List(items) => items,
            _ => &[],
        }
    }

    /// A text.
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Makes a mapping's entry this text, with the place that it has already.
    pub fn set_text(&mut self, key: &str, text: &str) {
        let span = self.span.start..self.span.start;
        let Value::Map(entries) = &mut self.value else { return };
        let value = Value::Text(text.to_owned());
        match entries.iter_mut().find(|entry| entry.key == key) {
            Some(entry) => entry.value.value = value,
            None => entries.push(Entry { key: key.to_owned(), key_span: span.clone(), value: Node { span, value } }),
        }
    }

    /// Where in the source this text begins, if it stands there as it is: plain, or in quotes without escapes.
    pub fn text_offset(&self, text: &str) -> Option<usize> {
        let quotes = (self.text()? == text).then(|| self.span.len().checked_sub(text.len()))??;
        matches!(quotes, 0 | 2).then_some(self.span.start + quotes / 2)
    }

    /// What stands at a field such as `spec.rules[0].file.ops[1]`, or the nearest thing around it.
    pub fn find(&self, field: &str) -> &Self {
        let (mut node, mut rest) = (self, field);
        while !rest.is_empty() {
            let Some((next, after)) = node.step(rest) else { break };
            (node, rest) = (next, after);
        }
        node
    }

    /// The value at the first step of a field, and the rest of the field. Keys may hold dots themselves, as labels do.
    fn step<'f>(&self, field: &'f str) -> Option<(&Self, &'f str)> {
        match &self.value {
            Value::List(items) => {
                let (at, rest) = field.strip_prefix('[')?.split_once(']')?;
                Some((items.get(at.parse::<usize>().ok()?)?, rest))
            }
            Value::Map(entries) => {
                let field = field.strip_prefix('.').unwrap_or(field);
                let rest = |entry: &Entry| {
                    field.strip_prefix(entry.key.as_str()).filter(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
                };
                let fitting = entries.iter().filter_map(|entry| Some((entry, rest(entry)?)));
                fitting.max_by_key(|(entry, _)| entry.key.len()).map(|(entry, rest)| (&entry.value, rest))
            }
            _ => None,
        }
    }

    /// Without what has no value in mappings: the API server drops it, and it means as much as if it were not there.
    #[must_use]
    pub fn without_nulls(&self) -> Self {
        let value = match &self.value {
            Value::List(items) => Value::List(items.iter().map(Self::without_nulls).collect()),
            Value::Map(entries) => {
                let given = entries.iter().filter(|entry| entry.value.value != Value::Null);
                let given = given.map(|Entry { key, key_span, value }| Entry {
                    key: key.clone(),
                    key_span: key_span.clone(),
                    value: value.without_nulls(),
                });
                Value::Map(given.collect())
            }
            other => other.clone(),
        };
        Self { span: self.span.clone(), value }
    }

    /// As JSON. Numbers are read as YAML's core schema has them, and what JSON has no number for (`.inf`) is null.
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::Value as Json;
        // As deep as `DEPTH_LIMIT` at most.
        match &self.value {
            Value::Null => Json::Null,
            Value::Bool(is) => Json::Bool(*is),
            Value::Number(text) => scalar::number(text).map_or(Json::Null, Json::Number),
            Value::Text(text) => Json::String(text.clone()),
            Value::List(items) => items.iter().map(Self::to_json).collect(),
            Value::Map(entries) => entries.iter().map(|entry| (entry.key.clone(), entry.value.to_json())).collect(),
        }
    }

    /// A whole number; `None` of anything else, of what has a fraction, and of what is out of range.
    pub fn integer(&self) -> Option<i64> {
        match &self.value {
            Value::Number(text) => scalar::number(text)?.as_i64(),
            _ => None,
        }
    }
}
