//! From text to nodes.

use std::{
    collections::{HashMap, hash_map},
    ops::Range,
};

use granit_parser::{ErrorKind, Event, Parser, ScalarStyle, ScanError, Span, StrInput, StructureStyle, Tag};

use super::{Entry, Node, Value, decode::too_large, scalar};
use crate::problem::Problem;

/// The longest text that is read, in bytes.
pub const SIZE_LIMIT: usize = 16 << 20;
/// How deep lists and mappings may lie in each other, aliases included.
pub const DEPTH_LIMIT: usize = 64;
/// How many values a text may hold; an alias counts as all that it stands for, and so does an anchor.
pub const NODE_LIMIT: usize = 1_000_000;
/// How many bytes of text aliases may add.
pub const EXPANDED_LIMIT: usize = 64 << 20;
/// After so many problems, reading ends: the text is something else altogether.
const PROBLEM_LIMIT: usize = 1_000;

/// What was read.
#[derive(Debug, Default)]
pub struct Read {
    /// The documents without a syntax error; empty ones are left out.
    pub documents: Vec<Node>,
    /// What is wrong, in the order of the text.
    pub problems: Vec<Problem>,
}

/// Reads YAML, and JSON, which is YAML.
///
/// Time and memory are bounded: see the limits. A document with a syntax error is left out, and reading goes on with the next
/// one; what else is wrong (a key that stands twice, an unknown tag) leaves the rest of the document as it is.
pub fn read(text: &str) -> Read {
    if text.len() > SIZE_LIMIT {
        return Read { documents: Vec::new(), problems: vec![too_large(text.len())] };
    }
    let mut options = granit_parser::options! {
        flow_nesting_limit: DEPTH_LIMIT + 1,
        block_nesting_limit: DEPTH_LIMIT + 1,
    };
    options.set_emit_comments(false);
    let mut reader = Reader { text, read: Read::default(), open: Vec::new(), anchors: HashMap::new(), nodes: 0, expanded: 0 };
    let mut parser = Parser::new_from_str_with_options(text, options);
    while reader.read.problems.len() < PROBLEM_LIMIT && reader.document(&mut parser) {}
    reader.read
}

struct Reader<'t> {
    text: &'t str,
    read: Read,
    /// The lists and mappings around the current place, the outermost first.
    open: Vec<Open>,
    anchors: HashMap<usize, Anchored>,
    nodes: usize,
    expanded: usize,
}

/// A list or mapping whose end hasn't come yet.
struct Open {
    span: Range<usize>,
    is_flow: bool,
    anchor: usize,
    /// Nodes in front of it.
    nodes_before: usize,
    /// How deep its content is.
    height: usize,
    content: Content,
}

enum Content {
    List(Vec<Node>),
    Map { entries: Vec<Entry>, lines: Vec<usize>, key: Option<Key>, merged: Vec<Node> },
}

/// A key that waits for its value.
enum Key {
    Text(String, Range<usize>, usize),
    /// `<<`
    Merge,
    /// What can't be one.
    Bad,
}

/// What an anchor stands for.
struct Anchored {
    node: Node,
    nodes: usize,
    height: usize,
}

/// Ends a document.
struct Stop;

impl<'t> Reader<'t> {
    /// Reads one document; whether there may be another.
    fn document(&mut self, parser: &mut Parser<'t, StrInput<'t>>) -> bool {
        self.open.clear();
        self.anchors.clear();
        loop {
            let event = match parser.next_event() {
                None => return false,
                Some(Ok(event)) => event,
                Some(Err(error)) => {
                    self.syntax(&error);
                    return self.proceed(parser);
                }
            };
            match event.0 {
                Event::StreamEnd => return false,
                Event::DocumentEnd => return true,
                event_kind => {
                    if self.event(event_kind, event.1).is_err() {
                        return self.proceed(parser);
                    }
                }
            }
        }
    }

    /// Goes to the next document, if that makes sense.
    fn proceed(&mut self, parser: &mut Parser<'t, StrInput<'t>>) -> bool {
        let has_room = self.nodes <= NODE_LIMIT && self.expanded <= EXPANDED_LIMIT;
        has_room && parser.proceed_next_document().unwrap_or(false)
    }

    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), Stop> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let range = self.range(span);
                let value = match tag.as_deref() {
                    None if style == ScalarStyle::Plain => scalar::resolve(&text),
                    None => Value::Text(text.clone().into_owned()),
                    Some(tag) => self.tagged(tag, &text, span),
                };
                let is_merge = style == ScalarStyle::Plain && tag.is_none() && text == "<<";
                // A key is its text as it was written, even where it looks like a number.
                if let Some(Content::Map { key: key @ None, .. }) = self.open.last_mut().map(|open| &mut open.content) {
                    let written = if range.is_empty() { String::new() } else { text.into_owned() };
                    *key = Some(if is_merge { Key::Merge } else { Key::Text(written, range.clone(), span.start.line()) });
                    if anchor > 0 {
                        self.keep(anchor, &Node { span: range, value }, 1, 0, span)?;
                    }
                    return Ok(());
                }
                self.count(1, span)?;
                let node = Node { span: range, value };
                if anchor > 0 {
                    self.keep(anchor, &node, 1, 0, span)?;
                }
                self.place(node, 0);
            }
            Event::SequenceStart(style, anchor, tag) => {
                self.expect_tag(tag.as_deref(), "seq", span);
                self.begin(style, anchor, span, Content::List(Vec::new()))?;
            }
            Event::MappingStart(style, anchor, tag) => {
                self.expect_tag(tag.as_deref(), "map", span);
                let content = Content::Map { entries: Vec::new(), lines: Vec::new(), key: None, merged: Vec::new() };
                self.begin(style, anchor, span, content)?;
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(span)?,
            Event::Alias(anchor) => self.alias(anchor, span)?,
            _ => {}
        }
        Ok(())
    }

    fn begin(&mut self, style: StructureStyle, anchor: usize, span: Span, content: Content) -> Result<(), Stop> {
        self.count(1, span)?;
        if self.open.len() >= DEPTH_LIMIT {
            return Err(self.too_deep(span));
        }
        let span = self.range(span);
        let is_flow = style == StructureStyle::Flow;
        self.open.push(Open { span, is_flow, anchor, nodes_before: self.nodes - 1, height: 0, content });
        Ok(())
    }

    fn end(&mut self, span: Span) -> Result<(), Stop> {
        let Some(mut open) = self.open.pop() else { return Ok(()) };
        if open.is_flow {
            open.span.end = self.range(span).end;
        }
        let (value, last) = match open.content {
            Content::List(items) => {
                let last = items.last().map(|item| item.span.end);
                (Value::List(items), last)
            }
            Content::Map { entries, lines, merged, .. } => {
                let last = entries.last().map(|entry| entry.value.span.end.max(entry.key_span.end));
                (Value::Map(self.mapping(entries, &lines, merged)), last)
            }
        };
        // A block ends with what it holds: the parser sees its end only where something else begins.
        open.span.end = open.span.end.max(last.unwrap_or_default());
        let node = Node { span: open.span, value };
        let height = open.height + 1;
        if open.anchor > 0 {
            self.keep(open.anchor, &node, self.nodes - open.nodes_before, height, span)?;
        }
        self.place(node, height);
        Ok(())
    }

    /// Puts a value where the current list or mapping has its next one.
    fn place(&mut self, node: Node, height: usize) {
        let Some(open) = self.open.last_mut() else {
            if node.value != Value::Null {
                self.read.documents.push(node);
            }
            return;
        };
        open.height = open.height.max(height);
        match &mut open.content {
            Content::List(items) => items.push(node),
            Content::Map { entries, lines, key, merged } => match key.take() {
                Some(Key::Text(key, key_span, line)) => {
                    lines.push(line);
                    entries.push(Entry { key, key_span, value: node });
                }
                Some(Key::Merge) => merged.push(node),
                Some(Key::Bad) => {}
                None => {
                    let what = if matches!(node.value, Value::List(_)) { "a list" } else { "a mapping" };
                    *key = Some(Key::Bad);
                    let problem = Problem::error(node.span, "", format!("a key must be a text, and this is {what}"));
                    self.tell(problem.help("a value that begins with `{` or `[` must be quoted to be a text"));
                }
            },
        }
    }

    /// The entries of a mapping: those of its own, each key once, and those merged in that it hasn't itself.
    fn mapping(&mut self, entries: Vec<Entry>, lines: &[usize], merged: Vec<Node>) -> Vec<Entry> {
        let mut first_lines: HashMap<String, usize> = HashMap::with_capacity(entries.len());
        let mut kept = Vec::with_capacity(entries.len());
        for (entry, line) in entries.into_iter().zip(lines) {
            match first_lines.entry(entry.key.clone()) {
                hash_map::Entry::Vacant(place) => {
                    place.insert(*line);
                    kept.push(entry);
                }
                hash_map::Entry::Occupied(first) => {
                    let (key, first) = (&entry.key, first.get());
                    let problem =
                        Problem::error(entry.key_span, "", format!("key `{key}` stands here twice, first on line {first}"));
                    self.tell(problem.label("again").help("remove one of the two, or merge them"));
                }
            }
        }
        let sources = merged.into_iter().flat_map(|node| match node.value {
            Value::List(items) => items,
            _ => vec![node],
        });
        for source in sources {
            match source.value {
                Value::Map(entries) => {
                    for entry in entries {
                        if let hash_map::Entry::Vacant(place) = first_lines.entry(entry.key.clone()) {
                            place.insert(0);
                            kept.push(entry);
                        }
                    }
                }
                _ => self.tell(
                    Problem::error(source.span, "", "only a mapping can be merged with `<<`")
                        .help("give an alias of a mapping, such as `<<: *defaults`, or a list of such"),
                ),
            }
        }
        kept
    }

    fn alias(&mut self, anchor: usize, span: Span) -> Result<(), Stop> {
        let range = self.range(span);
        let Some(anchored) = self.anchors.get(&anchor) else {
            let problem = Problem::error(range, "", "the alias stands inside of what it stands for");
            self.tell(problem.help("write the value out"));
            return Err(Stop);
        };
        let (nodes, height) = (anchored.nodes, anchored.height);
        if self.open.len() + height > DEPTH_LIMIT {
            return Err(self.too_deep(span));
        }
        if let Some(Open { content: Content::Map { key: key @ None, .. }, .. }) = self.open.last_mut() {
            let text = match &anchored.node.value {
                Value::Text(text) | Value::Number(text) => Some(text.clone()),
                Value::Bool(is) => Some(is.to_string()),
                _ => None,
            };
            if let Some(text) = text {
                self.expanded += text.len();
                *key = Some(Key::Text(text, range, span.start.line()));
                return self.count(0, span);
            }
        }
        self.count(nodes, span)?;
        let Some(anchored) = self.anchors.get(&anchor) else { return Ok(()) };
        let room = EXPANDED_LIMIT.saturating_sub(self.expanded);
        let mut added = 0;
        let node = copy(&anchored.node, Some(&range), room, &mut added);
        self.expanded += added;
        self.count(0, span)?;
        self.place(node, height);
        Ok(())
    }

    /// Keeps what an anchor stands for.
    fn keep(&mut self, anchor: usize, node: &Node, nodes: usize, height: usize, span: Span) -> Result<(), Stop> {
        self.count(nodes, span)?;
        let room = EXPANDED_LIMIT.saturating_sub(self.expanded);
        let mut added = 0;
        let node = copy(node, None, room, &mut added);
        self.expanded += added;
        self.count(0, span)?;
        self.anchors.insert(anchor, Anchored { node, nodes, height });
        Ok(())
    }

    fn count(&mut self, nodes: usize, span: Span) -> Result<(), Stop> {
        self.nodes += nodes;
        let message = if self.nodes > NODE_LIMIT {
            format!("there are more than {NODE_LIMIT} values up to here")
        } else if self.expanded > EXPANDED_LIMIT {
            format!("the aliases up to here stand for more than {} MiB of text", EXPANDED_LIMIT >> 20)
        } else {
            return Ok(());
        };
        let help = "split the text; an alias counts as all that it stands for";
        self.tell(Problem::error(self.range(span), "", message).help(help));
        Err(Stop)
    }

    fn too_deep(&mut self, span: Span) -> Stop {
        let message = format!("lists and mappings lie more than {DEPTH_LIMIT} deep in each other here");
        self.tell(Problem::error(self.range(span), "", message).help("nothing that is read here needs that depth"));
        Stop
    }

    /// What a scalar with a tag is.
    fn tagged(&mut self, tag: &Tag, text: &str, span: Span) -> Value {
        let value = match tag.core_suffix() {
            Some("str") => Some(Value::Text(text.to_owned())),
            Some("null") => Some(scalar::resolve(text)).filter(|value| *value == Value::Null),
            Some("bool") => Some(scalar::resolve(text)).filter(|value| matches!(value, Value::Bool(_))),
            Some("int") if scalar::is_integer(text) => Some(Value::Number(text.to_owned())),
            Some("float") if scalar::is_number(text) => Some(Value::Number(text.to_owned())),
            Some(_) => None,
            None => {
                if !is_unspecific(tag) {
                    self.unknown_tag(tag, span);
                }
                return Value::Text(text.to_owned());
            }
        };
        value.unwrap_or_else(|| {
            let message = format!("`{}` doesn't fit what follows it", tag.original());
            self.tell(Problem::error(self.tag_range(span), "", message).help("leave the tag out"));
            Value::Text(text.to_owned())
        })
    }

    fn expect_tag(&mut self, tag: Option<&Tag>, wanted: &str, span: Span) {
        match tag {
            Some(tag) if !is_unspecific(tag) && tag.core_suffix() != Some(wanted) => self.unknown_tag(tag, span),
            _ => {}
        }
    }

    fn unknown_tag(&mut self, tag: &Tag, span: Span) {
        let message = format!("tag `{}` means nothing here", tag.original());
        self.tell(Problem::error(self.tag_range(span), "", message).help("leave it out"));
    }

    fn tell(&mut self, problem: Problem) {
        if self.read.problems.len() < PROBLEM_LIMIT {
            self.read.problems.push(problem);
        }
    }

    fn syntax(&mut self, error: &ScanError) {
        let at = error.marker().byte_offset().unwrap_or_default();
        let at = self.floor(at);
        let end = at + self.text[at..].chars().next().map_or(0, |c| if c == '\n' || c == '\r' { 0 } else { c.len_utf8() });
        let is_deep = *error.kind() == ErrorKind::RecursionLimitExceeded;
        let message = match error.kind() {
            _ if is_deep => format!("lists and mappings lie more than {DEPTH_LIMIT} deep in each other here"),
            ErrorKind::UnknownAnchor => "the alias stands for an anchor that isn't there".to_owned(),
            kind => kind.to_string(),
        };
        let problem = Problem::error(at..end, "", message);
        self.tell(match error.kind() {
            ErrorKind::TabNotAllowed
            | ErrorKind::TabInBlockIndentation
            | ErrorKind::TabInIndentation
            | ErrorKind::TabAtBlockScalarStart => problem.help("YAML is indented with spaces, never with tabs"),
            ErrorKind::MappingValueNotAllowed => problem.help("check the indentation, and quote a text that holds `: `"),
            ErrorKind::UnknownAnchor => problem.help("define it before with `&NAME`, or quote a text that begins with `*`"),
            ErrorKind::UnexpectedCharacter { .. } => problem.help("quote a text that begins with this character"),
            _ => problem,
        });
    }

    /// A span's bytes, without the white space and line breaks that end a block scalar.
    fn range(&self, span: Span) -> Range<usize> {
        let start = self.floor(span.start.byte_offset().unwrap_or_default());
        let end = self.floor(span.end.byte_offset().unwrap_or_default()).max(start);
        start..start + self.text[start..end].trim_end().len()
    }

    fn tag_range(&self, span: Span) -> Range<usize> {
        self.range(span.tag_span().unwrap_or(span))
    }

    fn floor(&self, at: usize) -> usize {
        self.text.floor_char_boundary(at)
    }
}

/// `!`: what follows is what it looks like.
fn is_unspecific(tag: &Tag) -> bool {
    tag.parts() == ("", "!") || tag.parts() == ("!", "")
}

/// A copy, all of it at one place if that is told; cut short where its texts are larger than the room.
fn copy(node: &Node, place: Option<&Range<usize>>, room: usize, added: &mut usize) -> Node {
    let value = match &node.value {
        _ if *added > room => Value::Null,
        Value::Null => Value::Null,
        Value::Bool(is) => Value::Bool(*is),
        Value::Number(text) | Value::Text(text) => {
            *added += text.len();
            let text = if *added > room { String::new() } else { text.clone() };
            if matches!(node.value, Value::Number(_)) { Value::Number(text) } else { Value::Text(text) }
        }
        Value::List(items) => Value::List(items.iter().map(|item| copy(item, place, room, added)).collect()),
        Value::Map(entries) => {
            let entry = |entry: &Entry| {
                *added += entry.key.len();
                let key = if *added > room { String::new() } else { entry.key.clone() };
                let key_span = place.unwrap_or(&entry.key_span).clone();
                Entry { key, key_span, value: copy(&entry.value, place, room, added) }
            };
            Value::Map(entries.iter().map(entry).collect())
        }
    };
    Node { span: place.unwrap_or(&node.span).clone(), value }
}

#[cfg(test)]
mod tests;
