//! Messages with an event's fields in them: `{{process.exe}} changed {{file.path}}`.

use std::ops::Range;

use crate::{
    cel::{
        field::{Field, Object},
        schema::{self, Type, nearest},
    },
    event::{Api, Event, What},
    problem::{Level, Problem},
};

/// How long a message may become, in bytes; what goes beyond is cut off.
pub const MAX_MESSAGE: usize = 4096;

/// A number of nanoseconds, which nobody can read.
const LATENCY: &str = "api.latency_ns";

/// A message, ready to be filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    pieces: Vec<Piece>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Field(String),
}

impl Template {
    /// Reads a message and checks its fields. There is one unless a problem is an error; spans are in bytes of the text.
    pub fn parse(text: &str) -> (Option<Self>, Vec<Problem>) {
        let (mut pieces, mut problems) = (Vec::new(), Vec::new());
        let mut at = 0;
        while let Some(begin) = text.get(at..).and_then(|rest| rest.find("{{")).map(|found| at + found) {
            let inside = begin + 2;
            let Some(end) = text.get(inside..).and_then(|rest| rest.find("}}")).map(|found| inside + found) else {
                problems.push(Problem::error(begin..inside, "", "this `{{` is never closed").help("write `{{process.exe}}`"));
                break;
            };
            pieces.push(Piece::Text(text.get(at..begin).unwrap_or_default().to_owned()));
            let written = text.get(inside..end).unwrap_or_default();
            let path = written.trim();
            let start = inside + (written.len() - written.trim_start().len());
            problems.extend(problem(path, start..start + path.len()));
            pieces.push(Piece::Field(path.to_owned()));
            at = end + 2;
        }
        pieces.push(Piece::Text(text.get(at..).unwrap_or_default().to_owned()));
        pieces.retain(|piece| !matches!(piece, Piece::Text(text) if text.is_empty()));
        let usable = problems.iter().all(|problem| problem.level < Level::Error);
        (usable.then_some(Self { pieces }), problems)
    }

    /// The message for an event. A field that it hasn't got is `-`; a list's items stand side by side; a latency has its units.
    /// An empty field, such as the namespace of what has none, takes with it what would be left of it: the slash after it where it
    /// begins a word, one of the blanks around it, parentheses around nothing. Control characters stay: whoever shows the message escapes
    /// them.
    pub fn render(&self, event: &Event) -> String {
        let mut message = String::new();
        // Nothing was left of what came last.
        let mut after_empty = false;
        for piece in &self.pieces {
            let before = message.len();
            after_empty = match piece {
                Piece::Text(text) if after_empty => add_after_nothing(&mut message, text),
                Piece::Text(text) => {
                    add(&mut message, text);
                    false
                }
                Piece::Field(path) => {
                    match (path.as_str(), Object::Event(event).find(path)) {
                        (LATENCY, _) => add(&mut message, latency(event).as_deref().unwrap_or("-")),
                        (_, Some(field)) => add_field(&mut message, field),
                        (_, None) => add(&mut message, "-"),
                    }
                    message.len() == before
                }
            };
            if message.len() >= MAX_MESSAGE {
                break;
            }
        }
        if after_empty && message.ends_with(' ') {
            message.pop();
        }
        message
    }
}

fn latency(event: &Event) -> Option<String> {
    let What::Api { api } = &event.what else { return None };
    Api::latency(api)
}

/// Appends as much as there is room for.
fn add(message: &mut String, text: &str) {
    let room = MAX_MESSAGE.saturating_sub(message.len());
    message.push_str(text.get(..text.floor_char_boundary(room)).unwrap_or(text));
}

/// Appends a text that follows an empty field, without what belongs to that; whether nothing of it is left.
fn add_after_nothing(message: &mut String, text: &str) -> bool {
    let begins_word = |message: &str| !message.ends_with(|c: char| !c.is_whitespace());
    let mut text = text;
    if let Some(rest) = text.strip_prefix(')').filter(|_| message.ends_with('(')) {
        message.pop();
        text = rest;
    } else if begins_word(message) {
        text = text.strip_prefix('/').unwrap_or(text);
    }
    if let Some(rest) = text.strip_prefix(' ').filter(|_| begins_word(message)) {
        text = rest;
    } else if message.ends_with(' ') && text.starts_with([':', ',', ';', '.', ')']) {
        message.pop();
    }
    add(message, text);
    text.is_empty()
}

fn add_field(message: &mut String, field: Field<'_>) {
    match field {
        Field::Bool(value) => add(message, if value { "true" } else { "false" }),
        Field::Int(number) => add(message, &number.to_string()),
        Field::Double(number) => add(message, &number.to_string()),
        Field::Text(text) => add(message, text),
        Field::Made(text) => add(message, &text),
        Field::List(list) => {
            for (at, item) in list.iter().enumerate() {
                if message.len() >= MAX_MESSAGE {
                    break;
                }
                add(message, if at == 0 { "" } else { " " });
                add_field(message, item);
            }
        }
        // The check lets none of these through, but for what a body holds.
        Field::Map(_) | Field::Object(_) | Field::Json(_) => add(message, "-"),
    }
}

/// What is wrong with a field's path.
fn problem(path: &str, span: Range<usize>) -> Option<Problem> {
    let (mut object, mut rest, mut parent) = (schema::event(), path, String::new());
    loop {
        let (name, below) = rest.split_once('.').map_or((rest, None), |(name, below)| (name, Some(below)));
        let begin = span.start + (path.len() - rest.len());
        let place = begin..begin + name.len();
        let names = || object.fields.keys().map(String::as_str);
        let Some(member) = object.fields.get(name) else {
            let of = if parent.is_empty() { "the event".to_owned() } else { format!("`{parent}`") };
            let problem = Problem::error(place, "", format!("{of} has no field `{name}`"));
            return Some(match nearest(name, names()) {
                Some(near) => problem.label(format!("did you mean `{near}`?")),
                None => problem.help(format!("it has {}", names().collect::<Vec<_>>().join(", "))),
            });
        };
        path.get(..begin + name.len() - span.start).unwrap_or_default().clone_into(&mut parent);
        match (&member.kind, below) {
            (Type::Object(next), Some(below)) => (object, rest) = (next, below),
            (Type::Object(next), None) => {
                let names: Vec<_> = next.fields.keys().map(String::as_str).collect();
                let problem = Problem::error(place, "", format!("`{parent}` is an object, which no message can show"));
                return Some(problem.help(format!("name one of its fields: {}", names.join(", "))));
            }
            (Type::Map(_) | Type::Unknown, Some(_)) => return None,
            (Type::Map(_), None) => {
                let problem = Problem::error(place, "", format!("`{parent}` is a map, which no message can show"));
                return Some(problem.help(format!("name a key of it: {parent}.app")));
            }
            (Type::List(item), None) if matches!(**item, Type::Object(_)) => {
                return Some(Problem::error(place, "", format!("`{parent}` is a list of objects, which no message can show")));
            }
            (_, None) => return None,
            (kind, Some(_)) => return Some(Problem::error(span, "", format!("`{parent}` is a {kind}: it has no fields"))),
        }
    }
}

#[cfg(test)]
mod tests;
