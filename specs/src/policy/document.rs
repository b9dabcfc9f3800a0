//! From a text to policies, lists, and what else stands in it.

use serde::de::DeserializeOwned;

use super::{API_VERSION, TraceList, TracePolicy, invariant, schema};
use crate::{
    foreign,
    problem::{Level, Problem},
    structure::{Schema, suggest},
    yaml::{self, Entry, Node, Value},
};

/// The API group of the project's own kinds.
const GROUP: &str = "knark.dev/";
const KINDS: [&str; 2] = ["TracePolicy", "TraceList"];

/// What a text holds.
#[derive(Debug, Default)]
pub struct Parsed {
    /// Policies without a structural mistake.
    pub policies: Vec<Located<TracePolicy>>,
    /// Lists without a structural mistake.
    pub lists: Vec<Located<TraceList>>,
    /// Objects of other kinds.
    pub other: Vec<Located<Node>>,
    /// Policies with a structural mistake, for the sake of what else is wrong with them.
    pub broken: Vec<Node>,
    /// What is wrong, in the order of the text.
    pub problems: Vec<Problem>,
}

/// A value, and what it was read from.
#[derive(Debug, Clone)]
pub struct Located<T> {
    /// The value.
    pub value: T,
    /// What it was read from: its fields have places, see [`Node::find`].
    pub node: Node,
}

impl Parsed {
    /// Whether something can't be used.
    pub fn has_errors(&self) -> bool {
        self.problems.iter().any(|problem| problem.level == Level::Error)
    }
}

/// Reads the documents of a text. `List` objects, as `kubectl get -o yaml` prints them, are taken apart.
pub fn parse(text: &str) -> Parsed {
    let yaml::Read { documents, problems } = yaml::read(text);
    let mut parsed = Parsed { problems, ..Parsed::default() };
    for document in documents {
        parsed.take(document);
    }
    parsed.problems.sort_by_key(|problem| problem.span.start);
    parsed
}

impl Parsed {
    fn take(&mut self, mut object: Node) {
        let Value::Map(_) = &object.value else {
            let problem = Problem::error(object.span.clone(), "", "the document is no object");
            self.problems
                .push(problem.help(format!("an object begins with `apiVersion: {API_VERSION}` and `kind: TracePolicy`")));
            return;
        };
        if foreign::detect(&object).is_some() {
            self.other.push(Located { value: object.clone(), node: object });
            return;
        }
        let Value::Map(entries) = &mut object.value else { return };
        match header(entries) {
            Ok((version, kind)) => self.take_object(object, &version, &kind),
            Err(wrong) => {
                let Headless { problem, meant } = *wrong;
                self.problems.push(problem);
                self.take_for(object, meant);
            }
        }
    }

    fn take_object(&mut self, mut object: Node, version: &str, kind: &str) {
        let Value::Map(entries) = &mut object.value else { return };
        match (version, kind) {
            ("v1", "List") | (API_VERSION, "TracePolicyList" | "TraceListList") => {
                let items = entries
                    .iter_mut()
                    .find(|entry| entry.key == "items")
                    .map(|entry| std::mem::replace(&mut entry.value.value, Value::Null));
                if let Some(Value::List(items)) = items {
                    for item in items {
                        self.take(item);
                    }
                } else {
                    let span = object.get("kind").map(|kind| kind.span.clone()).unwrap_or_default();
                    let problem = Problem::error(span, "items", "the list has no `items`, or they are no sequence");
                    self.problems.push(problem.help("write `items:` and the objects below it, each after a hyphen"));
                }
            }
            (API_VERSION, "TracePolicy") => match self.check(&mut object, schema::of_trace_policy(), invariant::check) {
                Some(value) => self.policies.push(Located { value, node: object }),
                None => self.broken.push(object),
            },
            (API_VERSION, "TraceList") => {
                let value = self.check(&mut object, schema::of_trace_list(), |_| Vec::new());
                self.lists.extend(value.map(|value| Located { value, node: object }));
            }
            (version, kind) if version.starts_with(GROUP) || KINDS.contains(&kind) => {
                let (problem, meant) = unknown_kind(&object, version, kind);
                self.problems.push(problem);
                self.take_for(object, meant);
            }
            _ => self.other.push(Located { value: object.clone(), node: object }),
        }
    }

    /// An object whose kind or version is wrong: what else is wrong with it is told at once.
    fn take_for(&mut self, mut object: Node, kind: Option<&'static str>) {
        let Some(kind) = kind else { return };
        for (name, value) in [("apiVersion", API_VERSION), ("kind", kind)] {
            object.set_text(name, value);
        }
        let sound = (self.policies.len(), self.lists.len());
        self.take_object(object, API_VERSION, kind);
        self.broken.extend(self.policies.drain(sound.0..).map(|policy| policy.node));
        self.lists.truncate(sound.1);
    }

    fn check<T: DeserializeOwned>(&mut self, object: &mut Node, schema: &Schema, more: fn(&Node) -> Vec<Problem>) -> Option<T> {
        if let Value::Map(entries) = &mut object.value {
            // A controller's, in an object that comes from a cluster.
            entries.retain(|entry| entry.key != "status");
        }
        let mut problems = schema.check(object);
        *object = object.without_nulls();
        problems.extend(more(object));
        let is_sound = problems.iter().all(|problem| problem.level != Level::Error);
        self.problems.append(&mut problems);
        if !is_sound {
            return None;
        }
        match serde_json::from_value(object.to_json()) {
            Ok(value) => Some(value),
            Err(error) => {
                let span = object.get("kind").map(|kind| kind.span.clone()).unwrap_or_default();
                let problem = Problem::error(span, "", format!("the object can't be read: {error}"));
                self.problems.push(problem.help("its schema should have said so; please report this"));
                None
            }
        }
    }
}

/// What is wrong with an object's `apiVersion` or `kind`, and the kind that was probably meant.
struct Headless {
    problem: Problem,
    meant: Option<&'static str>,
}

/// `apiVersion` and `kind`.
fn header(entries: &[Entry]) -> Result<(String, String), Box<Headless>> {
    let first = entries.first().map(|entry| entry.key_span.clone()).unwrap_or_default();
    let text = |name: &str, example: &str| {
        let Some(entry) = entries.iter().find(|entry| entry.key == name) else {
            let problem =
                Problem::error(first.clone(), name, format!("the object has no `{name}`")).label(format!("`{name}` is missing"));
            return Err(problem.help(format!("write `{name}: {example}`")));
        };
        entry.value.text().map(str::to_owned).ok_or_else(|| {
            let span = if entry.value.span.is_empty() { &entry.key_span } else { &entry.value.span };
            Problem::error(span.clone(), name, format!("`{name}` must be a text")).help(format!("write `{name}: {example}`"))
        })
    };
    let kind = text("kind", KINDS[0]).map_err(|problem| {
        let spec = entries.iter().find(|entry| entry.key == "spec").map(|entry| &entry.value);
        let meant = [("rules", KINDS[0]), ("items", KINDS[1])]
            .into_iter()
            .find(|(name, _)| spec.is_some_and(|spec| spec.get(name).is_some()));
        Box::new(Headless { problem, meant: meant.map(|(_, kind)| kind) })
    })?;
    let meant = KINDS.into_iter().find(|known| *known == kind);
    Ok((text("apiVersion", API_VERSION).map_err(|problem| Box::new(Headless { problem, meant }))?, kind))
}

fn unknown_kind(object: &Node, version: &str, kind: &str) -> (Problem, Option<&'static str>) {
    let (name, wrong, right) =
        if version == API_VERSION { ("kind", kind, suggest(kind, &KINDS)) } else { ("apiVersion", version, Some(API_VERSION)) };
    let span = object.get(name).map(|node| node.span.clone()).unwrap_or_default();
    let shown: String = wrong.chars().take(60).collect();
    let problem = Problem::error(span, name, format!("unknown {name} `{shown}`"));
    let problem = match right {
        Some(right) => problem.label(format!("did you mean `{right}`?")),
        None => problem.help("the kinds of knark.dev are `TracePolicy` and `TraceList`"),
    };
    (problem, suggest(kind, &KINDS))
}

#[cfg(test)]
mod agreement;
#[cfg(test)]
mod generated;
#[cfg(test)]
mod tests;
