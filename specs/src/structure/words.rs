//! How the messages name things.

use crate::yaml::{Node, Value};

/// How much of a user's text a message repeats, in characters.
const QUOTE_LIMIT: usize = 60;
/// The longest text for which a similar one is looked for.
const SUGGEST_LIMIT: usize = 64;

/// Other people's words for what has another name here.
const SYNONYMS: [(&str, &str); 16] = [
    ("warning", "medium"),
    ("warn", "medium"),
    ("error", "high"),
    ("fatal", "critical"),
    ("notice", "low"),
    ("suid", "setuid"),
    ("sgid", "setgid"),
    ("mmap", "map-exec"),
    ("read", "open"),
    ("delete", "unlink"),
    ("remove", "unlink"),
    ("move", "rename"),
    ("users", "uids"),
    ("files", "paths"),
    ("binaries", "exes"),
    ("condition", "where"),
];

/// What was probably meant: the name that differs in few letters, or only in how its words are joined.
pub fn suggest<'n>(text: &str, names: &[&'n str]) -> Option<&'n str> {
    if text.len() > SUGGEST_LIMIT {
        return None;
    }
    let plain = |text: &str| text.to_lowercase().replace(['_', '-', ' '], "");
    let text = plain(text);
    if let Some((_, meant)) = SYNONYMS.iter().find(|(other, meant)| *other == text && names.contains(meant)) {
        return names.iter().find(|name| *name == meant).copied();
    }
    let distances = names.iter().map(|name| (strsim::damerau_levenshtein(&text, &plain(name)), *name));
    let allowed = (text.chars().count() / 3).clamp(1, 3);
    distances
        .filter(|(distance, name)| *distance <= allowed && *distance < name.len())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// A user's text, short enough for a message.
pub(super) fn quote(text: &str) -> String {
    match text.char_indices().nth(QUOTE_LIMIT) {
        Some((end, _)) => format!("`{}…`", &text[..end]),
        None => format!("`{text}`"),
    }
}

/// The last step of a field.
pub(super) fn noun(field: &str) -> String {
    let last = field.rsplit_once('.').map_or(field, |(_, last)| last);
    match last.split_once('[') {
        None if last.is_empty() => "the document".to_owned(),
        None => quote(last),
        Some((list, _)) => format!("an item of {}", quote(list)),
    }
}

/// What stands there.
pub(super) fn found(node: &Node) -> String {
    match &node.value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(is) => format!("`{is}`"),
        Value::Number(text) => format!("the number {}", quote(text)),
        Value::Text(text) => format!("the text {}", quote(text)),
        Value::List(_) => "a list".to_owned(),
        Value::Map(_) => "a mapping".to_owned(),
    }
}

/// What should stand there, by JSON Schema's names of types.
pub(super) fn wanted(types: &[&str]) -> String {
    let words: Vec<&str> = types
        .iter()
        .map(|name| match *name {
            "object" => "a mapping",
            "array" => "a list",
            "string" => "a text",
            "integer" => "a whole number",
            "number" => "a number",
            "boolean" => "true or false",
            _ => "nothing",
        })
        .collect();
    words.join(" or ")
}

/// Names, one after the other.
pub(super) fn list<'n>(names: impl IntoIterator<Item = &'n str>) -> String {
    names.into_iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
