//! Conditions in CEL over an event: read, checked against the event's schema, and evaluated without copying the event.
//!
//! An expression sees the fields that `-o json` shows, by the same names and with the same values, and `lists.NAME` for
//! shared lists. What JSON shows as null is absent here; a flag or list that JSON leaves out is false or empty.

mod check;
pub(crate) mod field;
mod functions;
pub(crate) mod schema;
#[cfg(test)]
pub(crate) mod tests;
mod tokens;
mod value;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::Arc,
};

use cel::{
    Context, ExecutionError, IdedExpr, Value,
    common::{ast::SourceInfo, types::CelBool, value::CowVal},
    context::VariableResolver,
    parser::Parser,
};
pub use schema::{Field, fields};

use crate::{
    event::Event,
    problem::{Level, Problem},
};

/// How long a condition's text may be, in bytes.
pub const MAX_TEXT: usize = 4096;
/// How many items of lists and maps one evaluation may go through.
pub const MAX_ITEMS: usize = 10_000;

/// The parser's own needs, in bytes: without optimization it takes 200 KiB for each level of nesting.
const PARSER_STACK: usize = 64 << 20;

/// An expression that is true of some events. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Condition {
    checked: Arc<Checked>,
}

/// Why a condition has no result for an event. Its text is short and doesn't depend on the event's values, so that equal
/// ones can be counted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvalError {
    /// The event hasn't got a field that was asked for.
    #[error("the event has no {0}")]
    Absent(String),
    /// A map hasn't got a key that was asked for in brackets.
    #[error("a map has no such key")]
    NoSuchKey,
    /// A list is shorter than an index.
    #[error("a list has no item at an index")]
    OutOfBounds,
    /// A number beyond 64 bits.
    #[error("a number overflows")]
    Overflow,
    /// A division by zero.
    #[error("a division by zero")]
    DivisionByZero,
    /// Too many items of lists and maps to go through.
    #[error("more than {MAX_ITEMS} items to go through")]
    TooManyItems,
    /// A function can't do with what it was given, such as `int("x")`.
    #[error("{0} can't take what it was given")]
    Function(String),
    /// Anything else.
    #[error("the condition has no result")]
    NoResult,
}

/// What the check leaves: an expression whose names are ready to be resolved.
#[derive(Debug)]
struct Checked {
    expression: IdedExpr,
    patterns: Vec<functions::Pattern>,
    lists: BTreeMap<String, value::SharedList>,
    references: BTreeSet<String>,
}

impl Condition {
    /// Reads a condition and checks it. There is one unless a problem is an error; spans are in bytes of the text.
    pub fn parse(text: &str, lists: &BTreeMap<String, Vec<String>>) -> (Option<Self>, Vec<Problem>) {
        let (expression, source) = match read(text) {
            Ok(read) => read,
            Err(problem) => return (None, vec![problem]),
        };
        let (checked, problems) = check::check(expression, &source, lists);
        let usable = problems.iter().all(|problem| problem.level < Level::Error);
        (usable.then(|| Self { checked: Arc::new(checked) }), problems)
    }

    /// Whether it is true of an event.
    ///
    /// # Errors
    /// Where it has no result: it reads a field that the event hasn't got, a number overflows, or it would take too long.
    pub fn eval(&self, event: &Event) -> Result<bool, EvalError> {
        let scope =
            Scope { event: field::Object::Event(event), checked: &self.checked, budget: value::Budget::new(MAX_ITEMS + 1) };
        let mut context = Context::with_env(functions::environment());
        context.set_variable_resolver(&scope);
        let result = Value::resolve_val(&self.checked.expression, &context);
        if scope.budget.is_exceeded() {
            return Err(EvalError::TooManyItems);
        }
        match result {
            Ok(value) => value.downcast_ref::<CelBool>().map(|value| *value.inner()).ok_or(EvalError::NoResult),
            Err(error) => Err(EvalError::from(error)),
        }
    }

    /// The fields that it reads, as dotted paths: `process.exe`.
    pub fn references(&self) -> BTreeSet<String> {
        self.checked.references.clone()
    }
}

impl From<ExecutionError> for EvalError {
    fn from(error: ExecutionError) -> Self {
        match error {
            ExecutionError::UndeclaredReference(name) => Self::Absent(name.to_string()),
            ExecutionError::NoSuchKey(_) => Self::NoSuchKey,
            ExecutionError::IndexOutOfBounds(_) => Self::OutOfBounds,
            ExecutionError::Overflow(..) => Self::Overflow,
            ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => Self::DivisionByZero,
            ExecutionError::FunctionError { function, .. } => Self::Function(function),
            _ => Self::NoResult,
        }
    }
}

/// What the interpreter's names stand for in one evaluation.
struct Scope<'e> {
    event: field::Object<'e>,
    checked: &'e Checked,
    budget: value::Budget,
}

impl VariableResolver for Scope<'_> {
    fn resolve<'b>(&'b self, name: &str) -> Option<CowVal<'b, 'b>> {
        if let Some(path) = name.strip_prefix(check::HAS) {
            return Some(CowVal::Borrowed(if self.event.find(path).is_some() { &CelBool::TRUE } else { &CelBool::FALSE }));
        }
        if let Some(list) = name.strip_prefix(check::LIST) {
            return self.checked.lists.get(list).map(|list| CowVal::Borrowed(list as _));
        }
        if let Some(at) = name.strip_prefix(check::PATTERN) {
            let pattern = self.checked.patterns.get(at.parse::<usize>().ok()?)?;
            return Some(CowVal::Borrowed(pattern));
        }
        if name == check::BUDGET {
            return Some(CowVal::Borrowed(&self.budget));
        }
        self.event.find(name).map(value::of_field)
    }
}

/// A text, its tokens, and where the parser says that its expressions are.
#[derive(Debug)]
struct Source<'t> {
    text: &'t str,
    tokens: Vec<tokens::Token>,
    info: SourceInfo,
}

impl Source<'_> {
    /// The token that an expression's id points at, as an index.
    fn token(&self, id: u64) -> Option<usize> {
        let (character, _) = self.info.offset_for(id)?;
        let at = self.text.char_indices().nth(character as usize).map_or(self.text.len(), |(at, _)| at);
        self.tokens.iter().position(|token| token.span.contains(&at))
    }

    fn span_of(&self, token: usize) -> Range<usize> {
        self.tokens.get(token).map_or(self.text.len()..self.text.len(), |token| token.span.clone())
    }
}

/// Parses within bounds.
fn read(text: &str) -> Result<(IdedExpr, Source<'_>), Problem> {
    if text.len() > MAX_TEXT {
        return Err(Problem::error(0..text.len(), "", format!("the condition is longer than {MAX_TEXT} bytes"))
            .help("put long lists of texts into a shared list, and write `x in lists.NAME`"));
    }
    let tokens = tokens::tokens(text)?;
    if tokens.is_empty() {
        return Err(
            Problem::error(0..text.len(), "", "the condition is empty").help("leave `where` out if nothing is to be asked")
        );
    }
    // What has become too deep must not be dropped on a small stack either.
    let parse = || {
        let parsed = Parser::new().max_recursion_depth(96).parse_with_source_info(text);
        parsed
            .map(|(expression, info)| (check::is_shallow(&expression).then_some(expression), info))
            .map_err(|errors| errors.errors.into_iter().map(|error| (error.pos, error.msg)).next().unwrap_or_default())
    };
    let parsed = std::thread::scope(|scope| {
        let parser = std::thread::Builder::new().name("cel".to_owned()).stack_size(PARSER_STACK);
        parser.spawn_scoped(scope, parse).ok().and_then(|thread| thread.join().ok())
    });
    match parsed {
        None => Err(Problem::error(0..text.len(), "", "reading the condition failed: no memory or no thread for it")
            .help("try again; a condition for which it keeps failing is worth a report")),
        Some(Err((place, message))) => Err(syntax_problem(text, &tokens, place, &message)),
        Some(Ok((None, _))) => Err(tokens::too_deep(0..text.len())),
        Some(Ok((Some(expression), info))) => Ok((expression, Source { text, tokens, info })),
    }
}

/// The parser's message in our words, at the place that it means.
fn syntax_problem(text: &str, tokens: &[tokens::Token], (line, column): (isize, isize), message: &str) -> Problem {
    let message = message.trim_start_matches("Syntax error: ");
    let word = |token: &tokens::Token| text.get(token.span.clone()).unwrap_or_default().to_owned();
    let spoken = tokens.iter().find_map(|token| {
        let sign = match (token.kind, word(token).to_ascii_lowercase().as_str()) {
            (tokens::Kind::Word, "and") => "&&",
            (tokens::Kind::Word, "or") => "||",
            (tokens::Kind::Word, "not") => "!",
            _ => return None,
        };
        Some(
            Problem::error(token.span.clone(), "", format!("`{}` isn't an operator", word(token)))
                .help(format!("write `{sign}`")),
        )
    });
    if let Some(problem) = spoken {
        return problem;
    }
    let start: usize = text.split_inclusive('\n').take(usize::try_from(line - 1).unwrap_or(0)).map(str::len).sum();
    let place = text.get(start..).unwrap_or_default().char_indices().nth(usize::try_from(column - 1).unwrap_or(0));
    let at = place.map_or(text.len(), |(at, _)| start + at);
    let from_parser =
        ["mismatched", "extraneous", "no viable", "missing", "Incomplete", "OtherError", "token recognition", "UNKNOWN"];
    if message.starts_with("Incomplete") {
        return Problem::error(0..text.len(), "", "the condition isn't complete");
    }
    match tokens.iter().find(|token| token.span.end > at) {
        Some(token) if message.starts_with("reserved identifier") => {
            let problem =
                Problem::error(token.span.clone(), "", format!("`{}` is a word that CEL keeps for itself", word(token)));
            match check::inside(&word(token)) {
                Some(inside) => problem.label(format!("did you mean `{inside}`?")),
                None => problem,
            }
        }
        Some(token) if message.contains("has() macro") => {
            Problem::error(token.span.clone(), "", "`has(...)` wants a field with a dot")
                .help("such as `has(file.old_mode)`; `has(kubernetes.pod)` asks for the pod and `type == \"file\"` for the file")
        }
        Some(token) if from_parser.iter().any(|begin| message.starts_with(begin)) => {
            let word = word(token);
            let problem = Problem::error(token.span.clone(), "", format!("`{word}` doesn't belong here"));
            if word.starts_with(['"', '\'']) { problem.help("texts are compared with `==` and joined with `+`") } else { problem }
        }
        Some(token) => Problem::error(token.span.clone(), "", message.to_owned()),
        None => Problem::error(text.len()..text.len(), "", "the condition ends too early").label("something is missing here"),
    }
}

// Conditions go to the threads that match.
const _: fn() = || {
    fn shared<T: Send + Sync>() {}
    shared::<Condition>();
};
