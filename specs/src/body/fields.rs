//! Which messages Kubernetes' API has, and which fields they have: `fields.txt`, which `tests/api-fields.sh` writes.

use std::{
    collections::{BTreeMap, HashMap},
    sync::LazyLock,
};

static TABLE: LazyLock<Table> = LazyLock::new(|| Table::parse(include_str!("fields.txt")).unwrap_or_default());

/// A message's fields, in the order of the Go type.
#[derive(Debug, Clone, Copy)]
pub struct Message(usize);

/// A field, by the Go type that the API server has for it.
#[derive(Debug)]
pub struct Field {
    /// Its number in protobuf.
    pub number: u32,
    /// Its name in JSON; `None`: its fields stand beside the others.
    pub name: Option<&'static str>,
    /// Left out where it is zero or empty, but for messages, which are never empty.
    pub omit_empty: bool,
    /// Left out where it is zero, messages as well.
    pub omit_zero: bool,
    /// Whether there are several.
    pub many: Many,
    /// Whether it is there or not, apart from being zero.
    pub pointer: bool,
    /// What it is, or each of it.
    pub of: Type,
}

/// How many values a field has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Many {
    /// One.
    One,
    /// A list.
    List,
    /// One for each key, which is a text.
    Map,
}

/// What a value is.
#[derive(Debug, Clone, Copy)]
pub enum Type {
    /// A text.
    Text,
    /// Base64 in JSON.
    Bytes,
    /// A varint.
    Bool,
    /// A varint, signed, not zigzag.
    Int,
    /// 64 bits.
    Float,
    /// A message with a list of texts, which is that list in JSON.
    Texts,
    /// metav1.Time.
    Time,
    /// metav1.MicroTime.
    MicroTime,
    /// metav1.Duration.
    Duration,
    /// resource.Quantity.
    Quantity,
    /// intstr.IntOrString.
    IntOrString,
    /// A message with JSON in its bytes, or with an object in an envelope of its own.
    Raw,
    /// One of apiextensions' unions, of what is a message otherwise.
    SchemaOr(Union, Message),
    /// A message.
    Message(Message),
}

/// What may stand in place of a schema.
#[derive(Debug, Clone, Copy)]
pub enum Union {
    /// Whether anything is allowed.
    Bool,
    /// Several schemas.
    List,
    /// Names of properties.
    Texts,
}

impl Message {
    /// The message of a kind.
    pub fn of_kind(version: &str, kind: &str) -> Option<Self> {
        let kinds = [version, "*"].map(|version| TABLE.kinds.get(version)?.get(kind).copied());
        kinds.into_iter().flatten().next()
    }

    /// Its fields.
    pub fn fields(self) -> &'static [Field] {
        TABLE.messages.get(self.0).map_or(&[], Vec::as_slice)
    }
}

/// Whether this is a group whose kinds are known here.
pub fn knows_group(group: &str) -> bool {
    TABLE.kinds.keys().any(|version| version.split_once('/').map_or("", |(group, _)| group) == group)
}

#[derive(Debug, Default)]
struct Table {
    kinds: BTreeMap<&'static str, HashMap<&'static str, Message>>,
    messages: Vec<Vec<Field>>,
}

impl Table {
    /// Reads the table. What it holds and how it is written, its head says.
    fn parse(text: &'static str) -> Result<Self, &'static str> {
        let mut numbers = HashMap::new();
        for name in text.lines().filter_map(|line| line.strip_prefix(": ")) {
            numbers.insert(name, Message(numbers.len()));
        }
        let find = |package: &str, name: &'static str| {
            if name.contains('.') {
                numbers.get(name).copied()
            } else {
                numbers.get(format!("{package}.{name}").as_str()).copied()
            }
        };
        let mut table = Self::default();
        let (mut version, mut package) = ("", "");
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if let Some(head) = line.strip_prefix("= ") {
                (version, package) = head.split_once(' ').ok_or(line)?;
            } else if let Some(name) = line.strip_prefix(": ") {
                package = name.rsplit_once('.').ok_or(line)?.0;
                table.messages.push(Vec::new());
            } else if let Some(fields) = table.messages.last_mut() {
                fields.push(Field::parse(line, |name| find(package, name)).ok_or(line)?);
            } else {
                let (kind, message) = line.split_once('=').unwrap_or((line, line));
                let message = find(package, message).ok_or(line)?;
                table.kinds.entry(version).or_default().insert(kind, message);
            }
        }
        Ok(table)
    }
}

impl Field {
    fn parse(line: &'static str, find: impl Fn(&'static str) -> Option<Message>) -> Option<Self> {
        let mut parts = line.splitn(3, ' ');
        let number = parts.next()?.parse().ok()?;
        let (name, of) = (parts.next()?, parts.next()?);
        let (name, omit_zero) = name.strip_suffix('!').map_or((name, false), |name| (name, true));
        let (name, omit_empty) = name.strip_suffix('?').map_or((name, false), |name| (name, true));
        let (many, of) = match of.split_at_checked(2) {
            Some(("[]", of)) => (Many::List, of),
            Some(("{}", of)) => (Many::Map, of),
            _ => (Many::One, of),
        };
        let (of, pointer) = of.strip_prefix('*').map_or((of, false), |of| (of, true));
        let of = match of.split_once(':').unwrap_or((of, "")) {
            ("string", "") => Type::Text,
            ("bytes", "") => Type::Bytes,
            ("bool", "") => Type::Bool,
            ("int", "") => Type::Int,
            ("float", "") => Type::Float,
            ("strings", "") => Type::Texts,
            ("time", "") => Type::Time,
            ("microtime", "") => Type::MicroTime,
            ("duration", "") => Type::Duration,
            ("quantity", "") => Type::Quantity,
            ("int-or-string", "") => Type::IntOrString,
            ("raw", "") => Type::Raw,
            ("schema-or-bool", schema) => Type::SchemaOr(Union::Bool, find(schema)?),
            ("schema-or-list", schema) => Type::SchemaOr(Union::List, find(schema)?),
            ("schema-or-strings", schema) => Type::SchemaOr(Union::Texts, find(schema)?),
            (message, _) => Type::Message(find(message)?),
        };
        Some(Self { number, name: (name != ".").then_some(name), omit_empty, omit_zero, many, pointer, of })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_read_whole() {
        let text = include_str!("fields.txt");
        let table = Table::parse(text).unwrap();
        let fields: usize = table.messages.iter().map(Vec::len).sum();
        let kinds: usize = table.kinds.values().map(HashMap::len).sum();
        let other = text.lines().filter(|line| line.is_empty() || line.starts_with(['#', ':', '='])).count();
        assert_eq!(fields + kinds, text.lines().count() - other);
        assert!(fields > 2000 && kinds > 300, "{fields} {kinds}");
        assert!(Table::parse(": a/v1.B\n1 c Missing").is_err());
        assert!(knows_group("") && knows_group("apps") && !knows_group("example.com") && !knows_group("*"));
    }
}
