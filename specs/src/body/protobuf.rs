//! Kubernetes' protobuf as the JSON that the API server has for the same object.

use std::borrow::Cow;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Map, Value};

use super::{
    fields::{Field, Many, Message, Type, Union},
    memory, scalar,
    wire::{self, Fields, Wire},
};

/// What bytes begin with that hold an object in protobuf. (apimachinery's runtime/serializer/protobuf.)
pub const PREFIX: &[u8] = b"k8s\0";
/// Objects that are deeper in JSON are shown as bytes: whoever reads the JSON has a limit as well, mostly 128.
const DEEPEST: usize = 100;
/// JSON is so many times as long as protobuf at most, and this beside it, in bytes. Real objects stay below a third of it.
const LONGER: usize = 16;
const LONGER_BY: usize = 56 << 10;
/// Where that doesn't do, or their memory, what has been begun is still put in its place: for each level, less than this in bytes.
const BEGUN: usize = 1 << 10;

/// The object in the envelope that follows the prefix, and whether there was more of it. What has no name here is there by its
/// number, as `"#7": [value, ...]`; an object of a kind that isn't known, as bytes in base64.
pub fn decode(envelope: &[u8]) -> (Value, bool) {
    let left = envelope.len().saturating_mul(LONGER).saturating_add(LONGER_BY);
    let mut decoder = Decoder { left, room: memory::AT_MOST - DEEPEST * BEGUN, cut: false };
    let object = decoder.envelope(envelope, 1);
    (object, decoder.cut)
}

struct Decoder {
    /// So much more may be written, in bytes of JSON.
    left: usize,
    /// So much more memory may be taken, in bytes.
    room: usize,
    /// Something was left out.
    cut: bool,
}

impl Decoder {
    /// runtime.Unknown: typeMeta, raw, contentEncoding, contentType.
    fn envelope(&mut self, bytes: &[u8], depth: usize) -> Value {
        let fields = self.parts(bytes, 4);
        let text = |fields: &Fields<'_>, number| {
            let last = fields.numbered(number).filter_map(whole).last();
            String::from_utf8_lossy(last.unwrap_or_default()).into_owned()
        };
        let meta = joined(fields.numbered(1));
        let meta = self.parts(&meta, 2);
        let [version, kind, encoding, format] = [text(&meta, 1), text(&meta, 2), text(&fields, 3), text(&fields, 4)];
        let raw = fields.numbered(2).filter_map(bytes_of).last().unwrap_or_default();
        let is_plain = encoding.is_empty() && matches!(format.as_str(), "" | "application/vnd.kubernetes.protobuf");
        if !is_plain && let Some(json) = self.json(raw, depth).filter(Value::is_object) {
            return json;
        }
        let mut object = Map::new();
        let message = Message::of_kind(&version, &kind).filter(|_| is_plain);
        // Before what may be too much: by its kind it is known what is secret.
        for (name, text) in [("apiVersion", version), ("kind", kind)].into_iter().filter(|(_, text)| !text.is_empty()) {
            self.put(&mut object, name, Value::String(text));
        }
        if let Some(message) = message {
            self.message(message, raw, depth, &mut object);
        } else {
            let shown = [("contentEncoding", encoding), ("contentType", format)];
            for (name, text) in shown.into_iter().filter(|(_, text)| !text.is_empty()) {
                self.put(&mut object, name, Value::String(text));
            }
            if let Some(raw) = self.base64(raw) {
                self.put(&mut object, "protobuf", raw);
            }
        }
        Value::Object(object)
    }

    /// Adds a message's fields; whether all of them are zero.
    fn message(&mut self, message: Message, bytes: &[u8], depth: usize, out: &mut Map<String, Value>) -> bool {
        let wires = self.read(bytes);
        let mut is_zero = true;
        for field in message.fields() {
            let found = wires.numbered(field.number).filter(|wire| field.takes(*wire) && field.can_use(*wire));
            let Some(name) = field.name else {
                if let Type::Message(message) = field.of {
                    is_zero &= self.message(message, &joined(found), depth, out);
                }
                continue;
            };
            if self.left == 0 {
                self.cut = true;
                break;
            }
            let (value, is_empty) = match field.many {
                Many::One => self.one(field, found, depth),
                Many::List => self.list(field, found, depth + 1),
                Many::Map => self.map(field, found, depth + 1),
            };
            is_zero &= is_empty;
            let omit = is_empty && (field.omit_zero || field.omit_empty && field.has_empty());
            if !omit {
                self.put(out, name, value);
            }
        }
        let known = |number: u32, wire| message.fields().iter().any(|field| field.number == number && field.takes(wire));
        for (number, wire) in wires.iter().filter(|(number, wire)| !known(*number, *wire)) {
            is_zero = false;
            let Some(value) = self.unknown(*wire).filter(|_| self.another()) else { break };
            let name = format!("#{number}");
            match out.get_mut(&name) {
                Some(Value::Array(values)) => values.push(value),
                _ => self.put(out, &name, Value::Array(vec![value])),
            }
        }
        is_zero
    }

    /// A field's value, and whether it is zero, in which case a pointer is absent.
    fn one<'a>(&mut self, field: &Field, found: impl Iterator<Item = Wire<'a>> + Clone, depth: usize) -> (Value, bool) {
        let is_there = found.clone().next().is_some();
        if !is_there && (field.pointer || matches!(field.of, Type::Bytes | Type::Texts)) {
            return (Value::Null, true);
        }
        let (value, is_zero) =
            if field.of.is_joined() { self.joined(field.of, &joined(found), depth) } else { self.single(field.of, found.last()) };
        (value, is_zero && !field.pointer)
    }

    fn list<'a>(&mut self, field: &Field, found: impl Iterator<Item = Wire<'a>>, depth: usize) -> (Value, bool) {
        let mut values = Vec::new();
        for wire in found {
            // Numbers, packed.
            if let (false, Some(mut packed)) = (field.of.takes(wire), bytes_of(wire)) {
                while !packed.is_empty() {
                    let wire = match field.of {
                        Type::Float => wire::fixed64(&mut packed).map(Wire::Fixed64),
                        _ => wire::varint(&mut packed).map(Wire::Varint),
                    };
                    if wire.is_none() || !self.another() {
                        self.cut = true;
                        break;
                    }
                    values.push(self.single(field.of, wire).0);
                }
                continue;
            }
            if !self.another() {
                break;
            }
            values.push(self.each(field.of, Some(wire), depth));
        }
        let is_empty = values.is_empty();
        (if is_empty { Value::Null } else { Value::Array(values) }, is_empty)
    }

    fn map<'a>(&mut self, field: &Field, found: impl Iterator<Item = Wire<'a>>, depth: usize) -> (Value, bool) {
        let mut values = Map::new();
        for entry in found.filter_map(bytes_of) {
            let entry = self.parts(entry, 2);
            let key = entry.numbered(1).filter_map(whole).last();
            // A value that lacks its end is none, unless it is of parts.
            let value = entry.numbered(2).last();
            let is_lost = key.is_none() && entry.cut || matches!(value, Some(Wire::Cut(_))) && !field.of.has_parts();
            if is_lost || entry.cut && value.is_none() {
                continue;
            }
            let value = self.each(field.of, value.filter(|wire| field.of.takes(*wire)), depth);
            self.put(&mut values, &String::from_utf8_lossy(key.unwrap_or_default()), value);
        }
        let is_empty = values.is_empty();
        (if is_empty { Value::Null } else { Value::Object(values) }, is_empty)
    }

    /// One of several values.
    fn each(&mut self, of: Type, wire: Option<Wire<'_>>, depth: usize) -> Value {
        match of {
            of if of.is_joined() => self.joined(of, wire.and_then(bytes_of).unwrap_or_default(), depth).0,
            of => self.single(of, wire).0,
        }
    }

    /// A value that is no message, and whether it is zero.
    fn single(&mut self, of: Type, wire: Option<Wire<'_>>) -> (Value, bool) {
        match (of, wire) {
            (Type::Bool, Some(Wire::Varint(number))) => (Value::Bool(number != 0), number == 0),
            (Type::Bool, _) => (Value::Bool(false), true),
            // A number's sign is in its highest bit.
            (Type::Int, Some(Wire::Varint(number))) => (number.cast_signed().into(), number == 0),
            (Type::Int, _) => (0.into(), true),
            (Type::Float, Some(Wire::Fixed64(bits))) => (scalar::float(f64::from_bits(bits)), bits << 1 == 0),
            (Type::Float, _) => (0.into(), true),
            (Type::Bytes, wire) => {
                let bytes = wire.and_then(whole).unwrap_or_default();
                (self.base64(bytes).unwrap_or_default(), bytes.is_empty())
            }
            (_, wire) => {
                let bytes = wire.and_then(whole).unwrap_or_default();
                (self.text(bytes), bytes.is_empty())
            }
        }
    }

    /// A value that is a message, whose parts are joined, and whether it is zero.
    fn joined(&mut self, of: Type, bytes: &[u8], depth: usize) -> (Value, bool) {
        if depth >= DEEPEST && matches!(of, Type::Message(_) | Type::SchemaOr(..)) {
            return (self.base64(bytes).unwrap_or_default(), false);
        }
        match of {
            Type::Message(message) => {
                let mut out = Map::new();
                let is_zero = self.message(message, bytes, depth + 1, &mut out);
                return (Value::Object(out), is_zero);
            }
            Type::SchemaOr(union, schema) => return (self.schema(union, schema, bytes, depth), bytes.is_empty()),
            _ => {}
        }
        let fields = self.parts(
            bytes,
            match of {
                Type::IntOrString => 3,
                Type::Time | Type::MicroTime => 2,
                _ => 1,
            },
        );
        let number = |number| {
            let numbers =
                fields.numbered(number).filter_map(|wire| if let Wire::Varint(number) = wire { Some(number) } else { None });
            numbers.last().unwrap_or_default().cast_signed()
        };
        let content = |number| fields.numbered(number).filter_map(whole).last();
        match of {
            // An empty one is Go's zero time.
            Type::Time | Type::MicroTime if bytes.is_empty() => (Value::Null, true),
            Type::Time => scalar::time(number(1)),
            Type::MicroTime => scalar::micro_time(number(1), number(2)),
            Type::Duration => (scalar::duration(number(1)).into(), number(1) == 0),
            Type::Quantity => match content(1).filter(|text| !text.is_empty()) {
                Some(text) => (self.text(text), text == b"0"),
                None => ("0".into(), true),
            },
            Type::IntOrString if number(1) == 0 => (number(2).into(), bytes.is_empty()),
            Type::IntOrString => (self.text(content(3).unwrap_or_default()), false),
            Type::Texts => {
                let mut texts = Vec::new();
                for text in fields.numbered(1).filter_map(whole) {
                    if !self.another() {
                        break;
                    }
                    texts.push(self.text(text));
                }
                let is_empty = texts.is_empty();
                (Value::Array(texts), is_empty)
            }
            _ => match content(1).filter(|raw| !raw.is_empty()) {
                Some(raw) => (self.raw(raw, depth), false),
                None => (Value::Null, true),
            },
        }
    }

    /// A schema, or what may stand in its place.
    fn schema(&mut self, union: Union, schema: Message, bytes: &[u8], depth: usize) -> Value {
        let fields = self.parts(bytes, 2);
        let schema_number = if matches!(union, Union::Bool) { 2 } else { 1 };
        let mut schemas = fields.numbered(schema_number).filter(|wire| bytes_of(*wire).is_some()).peekable();
        let mut others = Vec::new();
        match union {
            Union::Bool if schemas.peek().is_none() => {
                return Value::Bool(fields.numbered(1).last().is_some_and(|wire| matches!(wire, Wire::Varint(1..))));
            }
            Union::Bool => {}
            Union::List | Union::Texts => {
                for wire in fields.numbered(2).filter_map(bytes_of) {
                    if !self.another() {
                        break;
                    }
                    others.push(match union {
                        Union::Texts => self.text(wire),
                        _ => self.joined(Type::Message(schema), wire, depth + 1).0,
                    });
                }
            }
        }
        match schemas.peek() {
            _ if !others.is_empty() => Value::Array(others),
            Some(_) => self.joined(Type::Message(schema), &joined(schemas), depth).0,
            None => Value::Null,
        }
    }

    /// What is JSON already, or in an envelope of its own.
    fn raw(&mut self, raw: &[u8], depth: usize) -> Value {
        if depth >= DEEPEST {
            return self.base64(raw).unwrap_or_default();
        }
        match raw.strip_prefix(PREFIX) {
            Some(envelope) => self.envelope(envelope, depth + 1),
            None => match self.json(raw, depth) {
                Some(json) => json,
                None => self.base64(raw).unwrap_or_default(),
            },
        }
    }

    fn json(&mut self, text: &[u8], depth: usize) -> Option<Value> {
        let taken = memory::of_json(text);
        if taken > self.room {
            self.take(taken);
            return Some(Value::Null);
        }
        let json: Value = serde_json::from_slice(text).ok()?;
        (depth + scalar::depth(&json) < DEEPEST && self.spend(text.len()) && self.take(taken)).then_some(json)
    }

    fn unknown(&mut self, wire: Wire<'_>) -> Option<Value> {
        match wire {
            Wire::Varint(number) | Wire::Fixed64(number) => self.spend(20).then(|| number.into()),
            Wire::Fixed32(number) => self.spend(10).then(|| number.into()),
            Wire::Bytes(bytes) | Wire::Cut(bytes) => self.base64(bytes),
        }
    }

    fn text(&mut self, bytes: &[u8]) -> Value {
        let text = String::from_utf8_lossy(bytes);
        let escapes: usize =
            text.bytes().map(|byte| if byte < b' ' { 5 } else { usize::from(matches!(byte, b'"' | b'\\')) }).sum();
        if self.spend(text.len() + escapes) { Value::String(text.into_owned()) } else { Value::Null }
    }

    fn base64(&mut self, bytes: &[u8]) -> Option<Value> {
        self.spend(bytes.len() / 3 * 4 + 6).then(|| Value::String(STANDARD.encode(bytes)))
    }

    /// Adds a value whose own length was spent before.
    fn put(&mut self, out: &mut Map<String, Value>, name: &str, value: Value) {
        // Quotes, colon, comma, and what an empty value takes.
        let taken = memory::VALUE + if out.is_empty() { memory::OBJECT } else { 0 };
        // What holds something had its room before there was no more.
        let is_begun = match &value {
            Value::Array(values) => !values.is_empty(),
            Value::Object(fields) => !fields.is_empty(),
            _ => false,
        };
        if self.spend(name.len() + 8) && self.take(taken) || is_begun {
            out.insert(name.to_owned(), value);
        }
    }

    /// One more value in a list, whose own length is spent apart from this.
    fn another(&mut self) -> bool {
        self.spend(1) && self.take(memory::VALUE)
    }

    /// Whether so much memory is left. Where it isn't, nothing more is written.
    fn take(&mut self, bytes: usize) -> bool {
        let room = self.room.checked_sub(bytes);
        self.room = room.unwrap_or_default();
        room.is_some() || self.spend(usize::MAX)
    }

    fn spend(&mut self, bytes: usize) -> bool {
        let left = self.left.checked_sub(bytes);
        self.cut |= left.is_none();
        self.left = left.unwrap_or_default();
        left.is_some()
    }

    /// What is called by other names than its fields', which are these and no more.
    fn parts<'a>(&mut self, bytes: &'a [u8], most: u32) -> Fields<'a> {
        let fields = self.read(bytes);
        self.cut |= fields.iter().any(|(number, _)| *number > most);
        fields
    }

    fn read<'a>(&mut self, bytes: &'a [u8]) -> Fields<'a> {
        let fields = Fields::read(bytes);
        self.cut |= fields.cut;
        fields
    }
}

impl Field {
    fn takes(&self, wire: Wire<'_>) -> bool {
        match self.many {
            Many::One => self.of.takes(wire),
            // Numbers may be packed.
            Many::List => self.of.takes(wire) || bytes_of(wire).is_some(),
            Many::Map => bytes_of(wire).is_some(),
        }
    }

    /// Whether it says something, also without its end.
    fn can_use(&self, wire: Wire<'_>) -> bool {
        let is_packed = self.many == Many::List && !self.of.takes(wire);
        !matches!(wire, Wire::Cut(_)) || self.many == Many::Map || is_packed || self.of.has_parts()
    }

    /// Whether Go's JSON knows an empty value of this type: of structs it doesn't.
    fn has_empty(&self) -> bool {
        self.many != Many::One || self.pointer || matches!(self.of, Type::Texts) || !self.of.is_joined()
    }
}

impl Type {
    /// Whether it says something without its end as well.
    fn has_parts(self) -> bool {
        matches!(self, Self::Message(_) | Self::Texts)
    }

    /// Whether this is a message, whose parts are joined where there are several.
    fn is_joined(self) -> bool {
        !matches!(self, Self::Text | Self::Bytes | Self::Bool | Self::Int | Self::Float)
    }

    fn takes(self, wire: Wire<'_>) -> bool {
        match self {
            Self::Bool | Self::Int => matches!(wire, Wire::Varint(_)),
            Self::Float => matches!(wire, Wire::Fixed64(_)),
            _ => bytes_of(wire).is_some(),
        }
    }
}

fn bytes_of(wire: Wire<'_>) -> Option<&[u8]> {
    match wire {
        Wire::Bytes(bytes) | Wire::Cut(bytes) => Some(bytes),
        _ => None,
    }
}

fn whole(wire: Wire<'_>) -> Option<&[u8]> {
    if let Wire::Bytes(bytes) = wire { Some(bytes) } else { None }
}

/// Parts of a message, one after another, are the message.
fn joined<'a>(mut parts: impl Iterator<Item = Wire<'a>> + Clone) -> Cow<'a, [u8]> {
    let mut bytes = parts.clone().filter_map(bytes_of);
    match (bytes.next(), bytes.next()) {
        (first, None) => Cow::Borrowed(first.unwrap_or_default()),
        _ => parts.by_ref().filter_map(bytes_of).flatten().copied().collect(),
    }
}
