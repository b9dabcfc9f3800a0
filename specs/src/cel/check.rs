//! The check that the interpreter's crate lacks: names, fields, types, functions and bounds; and with what it learns, the
//! expression made ready to be evaluated.

mod calls;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Range,
};

use cel::{
    IdedExpr,
    common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, LiteralValue, SelectExpr, operators},
};

use super::{
    Checked, Source,
    functions::{self, Pattern},
    schema::{self, Object, Text, Type, nearest},
    tokens::MAX_NESTING,
    value::SharedList,
};
use crate::problem::Problem;

/// What the names of an evaluation begin with that aren't an event's fields. No identifier can begin so.
pub(super) const HAS: &str = "@has:";
pub(super) const LIST: &str = "@list:";
pub(super) const PATTERN: &str = "@pattern:";
pub(super) const BUDGET: &str = "@budget";

/// How many comprehensions may be inside of each other.
const MAX_COMPREHENSIONS: usize = 2;
/// More problems than these help nobody.
const MAX_PROBLEMS: usize = 20;

/// Checks an expression.
pub(super) fn check(
    mut expression: IdedExpr,
    source: &Source<'_>,
    lists: &BTreeMap<String, Vec<String>>,
) -> (Checked, Vec<Problem>) {
    let mut check = Check {
        source,
        lists,
        spans: HashMap::new(),
        scopes: Vec::new(),
        comprehensions: 0,
        problems: Vec::new(),
        patterns: Vec::new(),
        used_lists: BTreeMap::new(),
        references: BTreeSet::new(),
    };
    check.locate(&expression);
    let whole = 0..source.text.len();
    let kind = check.visit(&mut expression);
    if !matches!(kind, Type::Bool | Type::Unknown) {
        let problem =
            Problem::error(whole.clone(), "", format!("the condition must be true or false, and is {}", article(&kind)));
        check.problems.push(match kind {
            Type::Text(_) | Type::Int => problem.help("compare it with something: `... == ...`"),
            Type::Object(_) => problem.help("compare a field of it, or ask for one: `has(kubernetes.pod)`"),
            _ => problem,
        });
    }
    if check.problems.is_empty() && check.references.is_empty() {
        check.problems.push(
            Problem::warning(whole, "", "the condition reads nothing of the event")
                .label("the same for all events")
                .help("read a field, such as `process.exe`"),
        );
    }
    let Check { mut problems, patterns, used_lists, references, .. } = check;
    problems.truncate(MAX_PROBLEMS);
    (Checked { expression, patterns, lists: used_lists, references }, problems)
}

/// Whether an expression is nested no deeper than is allowed.
pub(super) fn is_shallow(expression: &IdedExpr) -> bool {
    let mut left = vec![(expression, 0)];
    while let Some((expression, depth)) = left.pop() {
        // A comprehension is several levels, and what is said of brackets shouldn't fail here first.
        if depth > 2 * MAX_NESTING {
            return false;
        }
        left.extend(children(expression).into_iter().map(|child| (child, depth + 1)));
    }
    true
}

fn children(expression: &IdedExpr) -> Vec<&IdedExpr> {
    match &expression.expr {
        Expr::Call(call) => call.target.as_deref().into_iter().chain(&call.args).collect(),
        Expr::Comprehension(all) => {
            vec![&all.iter_range, &all.accu_init, &all.loop_cond, &all.loop_step, &all.result]
        }
        Expr::List(list) => list.elements.iter().collect(),
        Expr::Map(map) => map.entries.iter().flat_map(|entry| entry_children(&entry.expr)).collect(),
        Expr::Struct(all) => all.entries.iter().flat_map(|entry| entry_children(&entry.expr)).collect(),
        Expr::Select(select) => vec![&select.operand],
        Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => Vec::new(),
    }
}

fn entry_children(entry: &EntryExpr) -> Vec<&IdedExpr> {
    match entry {
        EntryExpr::StructField(field) => vec![&field.value],
        EntryExpr::MapEntry(entry) => vec![&entry.key, &entry.value],
    }
}

struct Check<'s> {
    source: &'s Source<'s>,
    lists: &'s BTreeMap<String, Vec<String>>,
    spans: HashMap<u64, Range<usize>>,
    /// Names of the comprehensions around, innermost last.
    scopes: Vec<(String, Type)>,
    comprehensions: usize,
    problems: Vec<Problem>,
    patterns: Vec<Pattern>,
    used_lists: BTreeMap<String, SharedList>,
    references: BTreeSet<String>,
}

impl Check<'_> {
    /// Finds the places of an expression and all below, before anything is rewritten.
    fn locate(&mut self, expression: &IdedExpr) -> Range<usize> {
        let token = self.source.token(expression.id);
        let own = token.map_or(0..self.source.text.len(), |token| self.source.span_of(token));
        let spans: Vec<_> = children(expression).into_iter().map(|child| self.locate(child)).collect();
        let first = spans.first().map_or(own.start, |span| span.start);
        let last = spans.last().map_or(own.end, |span| span.end);
        let closing = token.map_or(own.clone(), |token| self.source.span_of(self.partner(token)));
        let before = token.and_then(|token| token.checked_sub(1)).map_or(own.clone(), |token| self.source.span_of(token));
        let after = token.map_or(own.clone(), |token| self.source.span_of(token + 1));
        let span = match &expression.expr {
            Expr::Select(SelectExpr { test: true, .. }) => before.start..closing.end,
            Expr::Select(_) => first..after.end,
            Expr::Comprehension(_) => first..closing.end,
            Expr::Call(call) if call.func_name == operators::INDEX => first..closing.end,
            Expr::Call(call) if matches!(call.func_name.as_str(), operators::LOGICAL_NOT | operators::NEGATE) => own.start..last,
            Expr::Call(call) if !is_operator(&call.func_name) => {
                (if call.target.is_some() { first } else { before.start })..closing.end
            }
            Expr::Call(_) => first..last,
            Expr::Literal(_) if self.source.text.get(own.clone()) == Some("-") => own.start..after.end,
            Expr::List(_) | Expr::Map(_) => own.start..closing.end,
            _ => own,
        };
        let span = if span.start <= span.end { span } else { 0..self.source.text.len() };
        self.spans.insert(expression.id, span.clone());
        span
    }

    fn partner(&self, token: usize) -> usize {
        self.source.tokens.get(token).map_or(token, |token| token.partner)
    }

    fn span(&self, expression: &IdedExpr) -> Range<usize> {
        self.spans.get(&expression.id).cloned().unwrap_or(0..self.source.text.len())
    }

    /// The expression as the user wrote it, for messages.
    fn written(&self, expression: &IdedExpr) -> String {
        let text = self.source.text.get(self.span(expression)).unwrap_or_default();
        let short: String = text.chars().take(60).collect();
        if short.len() < text.len() { format!("{short}...") } else { short }
    }

    /// The name in a selection or call: the word at the sign that the parser points at.
    fn name_span(&self, expression: &IdedExpr, name: &str) -> Range<usize> {
        let whole = self.span(expression);
        let Some(token) = self.source.token(expression.id) else { return whole };
        let candidates = [token.checked_add(1), token.checked_sub(1), Some(token)];
        let spans = candidates.into_iter().flatten().map(|token| self.source.span_of(token));
        spans.into_iter().find(|span| self.source.text.get(span.clone()) == Some(name)).unwrap_or(whole)
    }

    fn report(&mut self, problem: Problem) -> Type {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(problem);
        }
        Type::Unknown
    }

    fn visit(&mut self, expression: &mut IdedExpr) -> Type {
        if let Some(path) = self.event_path(expression) {
            return self.visit_path(expression, &path, false);
        }
        let span = self.span(expression);
        let id = expression.id;
        match &mut expression.expr {
            Expr::Literal(literal) => match literal {
                LiteralValue::Boolean(_) => Type::Bool,
                LiteralValue::Bytes(_) => Type::Bytes,
                LiteralValue::Double(_) => Type::Double,
                LiteralValue::Int(_) => Type::Int,
                LiteralValue::UInt(_) => Type::UInt,
                LiteralValue::Null => Type::Null,
                LiteralValue::String(_) => Type::Text(Text::Any),
            },
            Expr::Ident(name) => {
                let name = name.clone();
                match self.scopes.iter().rev().find(|(scoped, _)| *scoped == name) {
                    Some((_, kind)) => kind.clone(),
                    None => self.unknown_name(&name, span),
                }
            }
            Expr::Select(SelectExpr { test: true, operand, field }) => {
                if let Some(mut path) = self.event_path(operand) {
                    path.push(field.clone());
                    let kind = self.visit_path(expression, &path, true);
                    return if kind == Type::Unknown { kind } else { Type::Bool };
                }
                let (kind, field) = (self.visit(operand), field.clone());
                match self.select(expression, &kind, &field) {
                    Type::Unknown => Type::Unknown,
                    _ => Type::Bool,
                }
            }
            Expr::Select(SelectExpr { operand, field, .. }) => {
                let (kind, field) = (self.visit(operand), field.clone());
                self.select(expression, &kind, &field)
            }
            Expr::Call(call) => {
                let mut call = std::mem::take(call);
                let (kind, rewritten) = self.call(id, &mut call, &span);
                expression.expr = rewritten.unwrap_or(Expr::Call(call));
                kind
            }
            Expr::Comprehension(all) => {
                let mut all = std::mem::take(all);
                let kind = self.comprehension(id, &mut all, span);
                expression.expr = Expr::Comprehension(all);
                kind
            }
            Expr::List(list) => {
                let mut item = Type::Unknown;
                for element in &mut list.elements {
                    let kind = self.visit(element);
                    if !comparable(&item, &kind) {
                        let problem = Problem::error(
                            self.span(element),
                            "",
                            format!(
                                "the items of a list must be alike: this is {}, and the first is {}",
                                article(&kind),
                                article(&item)
                            ),
                        );
                        return self.report(problem);
                    }
                    item = joined(item, widened(kind));
                }
                Type::List(Box::new(item))
            }
            Expr::Map(map) => {
                let mut value = Type::Unknown;
                for entry in &mut map.entries {
                    let EntryExpr::MapEntry(entry) = &mut entry.expr else { continue };
                    let key = self.visit(&mut entry.key);
                    if !matches!(key, Type::Text(_) | Type::Unknown) {
                        let problem = Problem::error(self.span(&entry.key), "", "the keys of a map must be texts");
                        return self.report(problem);
                    }
                    let kind = self.visit(&mut entry.value);
                    if !comparable(&value, &kind) {
                        let text = format!(
                            "the values of a map must be alike: this is {}, and the first is {}",
                            article(&kind),
                            article(&value)
                        );
                        return self.report(Problem::error(self.span(&entry.value), "", text));
                    }
                    value = joined(value, widened(kind));
                }
                Type::Map(Box::new(value))
            }
            Expr::Struct(_) => self.report(Problem::error(span, "", "there are no messages to make here")),
            Expr::Unspecified => self.report(Problem::error(span, "", "the condition isn't complete")),
        }
    }

    /// The names of a selection that begins at the event, such as `process`, `exe`.
    fn event_path(&self, expression: &IdedExpr) -> Option<Vec<String>> {
        let mut names = Vec::new();
        let mut at = expression;
        loop {
            match &at.expr {
                Expr::Select(SelectExpr { operand, field, test: false }) => {
                    names.push(field.clone());
                    at = operand;
                }
                Expr::Ident(name) => {
                    let scoped = self.scopes.iter().any(|(scoped, _)| scoped == name);
                    let known = name == "lists" || schema::event().fields.contains_key(name);
                    names.push(name.clone());
                    names.reverse();
                    return (known && !scoped).then_some(names);
                }
                _ => return None,
            }
        }
    }

    /// Checks a path from the event and makes one name of it. For `has(...)` absent parents are no error but its answer.
    fn visit_path(&mut self, expression: &mut IdedExpr, path: &[String], test: bool) -> Type {
        if path.first().is_some_and(|name| name == "lists") {
            return self.shared_list(expression, path);
        }
        let mut kind = Type::Object(schema::event());
        let mut shown = String::new();
        for (depth, name) in path.iter().enumerate() {
            let next = match &kind {
                Type::Object(object) => {
                    let Some(member) = object.fields.get(name) else {
                        let place = self.path_span(expression, path.len() - 1 - depth);
                        return self.unknown_field(object, &shown, name, place);
                    };
                    member.kind.clone()
                }
                Type::Map(value) => (**value).clone(),
                // What is below has no schema; the path goes on as it is written.
                Type::Unknown => {
                    self.references.insert(shown);
                    expression.expr = Expr::Ident(format!("{}{}", if test { HAS } else { "" }, path.join(".")));
                    return if test { Type::Bool } else { Type::Unknown };
                }
                kind => {
                    let place = self.path_span(expression, path.len() - 1 - depth);
                    let problem = Problem::error(place, "", format!("`{shown}` is {}: it has no fields", article(kind)));
                    return self.report(if *kind == Type::Text(Text::Any) && is_function(name) {
                        problem.help(format!("`{name}` is a function: write `{name}(...)`"))
                    } else {
                        problem
                    });
                }
            };
            if depth > 0 {
                shown.push('.');
            }
            shown.push_str(name);
            kind = next;
        }
        let prefix = if test { HAS } else { "" };
        expression.expr = Expr::Ident(format!("{prefix}{shown}"));
        self.references.insert(shown);
        kind
    }

    /// The place of a path's name, counted from its end.
    fn path_span(&self, expression: &IdedExpr, from_end: usize) -> Range<usize> {
        let mut at = expression;
        for _ in 0..from_end {
            let Expr::Select(SelectExpr { operand, .. }) = &at.expr else { break };
            at = operand;
        }
        match &at.expr {
            // In `has(a.b)` the place is that of the bracket; the field is the last word before the closing one.
            Expr::Select(SelectExpr { test: true, .. }) => {
                let token = self.source.token(at.id).map(|token| self.partner(token)).and_then(|token| token.checked_sub(1));
                token.map_or_else(|| self.span(at), |token| self.source.span_of(token))
            }
            Expr::Select(SelectExpr { field, .. }) => self.name_span(at, field),
            _ => self.span(at),
        }
    }

    fn shared_list(&mut self, expression: &mut IdedExpr, path: &[String]) -> Type {
        let span = self.span(expression);
        let [_, name] = path else {
            return match path {
                [_] => Type::Lists,
                [_, name, ..] => {
                    self.report(Problem::error(span, "", format!("`lists.{name}` is a list of texts: it has no fields")))
                }
                [] => Type::Unknown,
            };
        };
        let Some(items) = self.lists.get(name) else {
            let problem = Problem::error(self.path_span(expression, 0), "", format!("there is no list `{name}`"));
            let near = nearest(name, self.lists.keys().map(String::as_str));
            return self.report(match near {
                Some(near) => problem.label(format!("did you mean `{near}`?")).help(format!("write `lists.{near}`")),
                None => problem.help("define it under `spec.lists`, or load the TraceList with that name"),
            });
        };
        if !self.used_lists.contains_key(name) {
            self.used_lists.insert(name.clone(), SharedList::new(items));
        }
        expression.expr = Expr::Ident(format!("{LIST}{name}"));
        Type::List(Box::new(Type::Text(Text::Any)))
    }

    fn select(&mut self, expression: &IdedExpr, kind: &Type, field: &str) -> Type {
        match kind {
            Type::Unknown => Type::Unknown,
            Type::Map(value) => (**value).clone(),
            Type::Object(object) => {
                let Some(member) = object.fields.get(field) else {
                    let place = self.path_span(expression, 0);
                    return self.unknown_field(object, "", field, place);
                };
                member.kind.clone()
            }
            other => {
                let problem = Problem::error(self.path_span(expression, 0), "", format!("{} has no fields", article(other)));
                self.report(problem)
            }
        }
    }

    fn unknown_name(&mut self, name: &str, span: Range<usize>) -> Type {
        let names = schema::event().fields.keys().map(String::as_str).chain(["lists"]);
        let scoped: Vec<String> =
            self.scopes.iter().map(|(name, _)| name.clone()).filter(|name| !name.starts_with('@')).collect();
        let near = nearest(name, names.chain(scoped.iter().map(String::as_str))).map(str::to_owned);
        let problem = Problem::error(span, "", format!("the event has no `{name}`"));
        self.report(match (near, inside(name)) {
            (Some(near), _) => problem.label(format!("did you mean `{near}`?")),
            (None, Some(inside)) => problem.label(format!("did you mean `{inside}`?")),
            (None, None) => {
                let all: Vec<_> = schema::event().fields.keys().map(String::as_str).collect();
                problem.help(format!("it has {}; a text wants quotes: \"{name}\"", all.join(", ")))
            }
        })
    }

    fn unknown_field(&mut self, object: &Object, parent: &str, name: &str, span: Range<usize>) -> Type {
        let of = if parent.is_empty() { "this".to_owned() } else { format!("`{parent}`") };
        let problem = Problem::error(span, "", format!("{of} has no field `{name}`"));
        let names = || object.fields.keys().map(String::as_str);
        self.report(match nearest(name, names()) {
            Some(near) => problem.label(format!("did you mean `{near}`?")),
            None => problem.help(format!("it has {}", names().collect::<Vec<_>>().join(", "))),
        })
    }

    fn comprehension(&mut self, id: u64, all: &mut ComprehensionExpr, span: Range<usize>) -> Type {
        if self.comprehensions == MAX_COMPREHENSIONS {
            let message = format!("more than {MAX_COMPREHENSIONS} loops (`exists`, `all`, `map`, ...) inside of each other");
            return self.report(Problem::error(span, "", message).help("a shared list and `in` need no loop"));
        }
        let range = self.visit(&mut all.iter_range);
        let item = match range {
            Type::List(item) => *item,
            Type::Map(_) => Type::Text(Text::Any),
            Type::Unknown => Type::Unknown,
            other => {
                let written = self.written(&all.iter_range);
                let problem = Problem::error(
                    self.span(&all.iter_range),
                    "",
                    format!("`{written}` is {}: there is nothing to go through", article(&other)),
                );
                self.report(
                    problem.help("loops go through lists, such as `process.args` and `process.ancestors`, and the keys of maps"),
                )
            }
        };
        if all.iter_var2.is_some() {
            return self.report(Problem::error(span, "", "loops with two names aren't part of this language"));
        }
        let name = all.iter_var.clone();
        if name == "lists" || schema::event().fields.contains_key(&name) || self.scopes.iter().any(|(scoped, _)| *scoped == name)
        {
            let problem = Problem::error(span, "", format!("the name `{name}` is taken"));
            return self.report(problem.help("choose another name for the loop's items, such as `x`"));
        }
        paid(&mut all.iter_range, id);
        let start = self.visit(&mut all.accu_init);
        self.comprehensions += 1;
        self.scopes.push((all.accu_var.clone(), start));
        self.visit(&mut all.loop_cond);
        self.scopes.push((name, item));
        let step = self.visit(&mut all.loop_step);
        self.scopes.pop();
        if let Some((_, accumulator)) = self.scopes.last_mut() {
            *accumulator = step;
        }
        let result = self.visit(&mut all.result);
        self.scopes.pop();
        self.comprehensions -= 1;
        result
    }
}

/// Lets an evaluation pay for going through a list.
fn paid(list: &mut IdedExpr, id: u64) {
    let budget = IdedExpr { id, expr: Expr::Ident(BUDGET.to_owned()) };
    let args = vec![std::mem::take(list), budget];
    *list = IdedExpr { id, expr: Expr::Call(CallExpr { func_name: functions::RANGE.to_owned(), target: None, args }) };
}

/// Where the event has a field that was asked for without its parent.
pub(super) fn inside(name: &str) -> Option<String> {
    schema::event().fields.iter().find_map(|(parent, member)| match &member.kind {
        Type::Object(object) if object.fields.contains_key(name) => Some(format!("{parent}.{name}")),
        _ => None,
    })
}

fn is_operator(name: &str) -> bool {
    name.starts_with(['_', '@', '!', '-'])
        && !name.starts_with("__")
        && name.len() > 1
        && !name.chars().all(|c| c.is_alphanumeric() || c == '_')
}

fn is_function(name: &str) -> bool {
    calls::FUNCTIONS.iter().any(|function| function.name == name)
}

/// Whether two values can be compared for equality, or be items of one list.
fn comparable(left: &Type, right: &Type) -> bool {
    match (left, right) {
        (Type::Unknown, _) | (_, Type::Unknown) => true,
        (Type::Text(_), Type::Text(_)) => true,
        (Type::Int | Type::UInt | Type::Double, Type::Int | Type::UInt | Type::Double) => true,
        (Type::List(left), Type::List(right)) => comparable(left, right),
        (Type::Map(_) | Type::Object(_) | Type::Lists, _) | (_, Type::Map(_) | Type::Object(_) | Type::Lists) => false,
        (left, right) => left == right,
    }
}

/// What is known of all items of a list, where this is one of them.
fn joined(one: Type, other: Type) -> Type {
    match (one, other) {
        (Type::Unknown, other) => other,
        (Type::List(one), Type::List(other)) => Type::List(Box::new(joined(*one, *other))),
        (Type::Map(one), Type::Map(other)) => Type::Map(Box::new(joined(*one, *other))),
        (one, _) => one,
    }
}

/// A text of any kind, where it is one.
fn widened(kind: Type) -> Type {
    if matches!(kind, Type::Text(_)) { Type::Text(Text::Any) } else { kind }
}

/// A type in a sentence.
fn article(kind: &Type) -> String {
    match kind {
        Type::Bool | Type::Bytes | Type::Null | Type::Unknown => kind.to_string(),
        Type::Text(Text::OneOf(_)) => "a text".to_owned(),
        Type::Text(Text::Mode) => "a text such as \"0644\"".to_owned(),
        Type::Object(_) | Type::UInt => format!("an {kind}"),
        _ => format!("a {kind}"),
    }
}
