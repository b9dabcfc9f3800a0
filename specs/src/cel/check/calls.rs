//! Operators and functions: what they take and give.

use std::ops::Range;

use cel::{
    IdedExpr,
    common::{
        ast::{CallExpr, Expr, LiteralValue, operators},
        types::CelBool,
    },
};

use super::{Check, LIST, PATTERN, article, comparable, is_operator, paid, widened};
use crate::{
    cel::{
        functions::{self, Pattern, mode_bits},
        schema::{Text, Type, nearest},
    },
    problem::Problem,
};

/// A function and what it takes.
pub(super) struct Function {
    pub(super) name: &'static str,
    takes: &'static [Takes],
    /// How it is called: `f(x)`, `x.f()`.
    global: bool,
    member: bool,
    usage: &'static str,
}

#[derive(Clone, Copy, PartialEq)]
enum Takes {
    Text,
    Mode,
    /// An octal text, as bits.
    Bits,
    Regex,
    Glob,
    Sized,
    Scalar,
}

pub(super) const FUNCTIONS: [Function; 11] = [
    function("startsWith", &[Takes::Text, Takes::Text], false, true, "text.startsWith(\"/etc/\")"),
    function("endsWith", &[Takes::Text, Takes::Text], false, true, "text.endsWith(\".conf\")"),
    function("contains", &[Takes::Text, Takes::Text], false, true, "text.contains(\"tmp\")"),
    function("matches", &[Takes::Text, Takes::Regex], true, true, "text.matches(\"^/home/[a-z]+/\")"),
    function("glob", &[Takes::Text, Takes::Glob], true, false, "glob(file.path, \"/etc/**\")"),
    function("hasBits", &[Takes::Mode, Takes::Bits], true, false, "hasBits(file.mode, \"0022\")"),
    function("looserThan", &[Takes::Mode, Takes::Bits], true, false, "looserThan(file.mode, \"0600\")"),
    function("size", &[Takes::Sized], true, true, "size(process.args)"),
    function("int", &[Takes::Scalar], true, false, "int(exit.duration_ns)"),
    function("double", &[Takes::Scalar], true, false, "double(exit.duration_ns)"),
    function("string", &[Takes::Scalar], true, false, "string(process.uid)"),
];

/// What the parser makes loops of, if they are written as they must be.
const LOOPS: [(&str, &str); 6] = [
    ("exists", "list.exists(x, x == \"a\")"),
    ("all", "list.all(x, x != \"a\")"),
    ("exists_one", "list.exists_one(x, x == \"a\")"),
    ("filter", "list.filter(x, x != \"a\")"),
    ("map", "list.map(x, x + \"a\")"),
    ("has", "has(file.mode)"),
];

const fn function(name: &'static str, takes: &'static [Takes], global: bool, member: bool, usage: &'static str) -> Function {
    Function { name, takes, global, member, usage }
}

impl Check<'_> {
    /// The type of a call, and what takes its place.
    pub(super) fn call(&mut self, id: u64, call: &mut CallExpr, span: &Range<usize>) -> (Type, Option<Expr>) {
        if call.target.is_none() && is_operator(&call.func_name) {
            let kinds: Vec<Type> = call.args.iter_mut().map(|argument| self.visit(argument)).collect();
            return match kinds.as_slice() {
                [one] => self.unary(call, one, span),
                [left, right] => (self.binary(id, call, left, right, span), None),
                [condition, yes, no] => (self.conditional(call, condition, yes, no, span), None),
                _ => (self.report(Problem::error(span.clone(), "", "the condition isn't complete")), None),
            };
        }
        (self.function(id, call, span), None)
    }

    fn unary(&mut self, call: &mut CallExpr, kind: &Type, span: &Range<usize>) -> (Type, Option<Expr>) {
        match (call.func_name.as_str(), kind) {
            (_, Type::Unknown) => (Type::Unknown, None),
            (operators::NOT_STRICTLY_FALSE, _) => (Type::Bool, None),
            (operators::LOGICAL_NOT, Type::Bool) => {
                // The same, and the interpreter doesn't prepare an error message each time.
                let operand = call.args.pop().unwrap_or_default();
                let no = IdedExpr { id: operand.id, expr: Expr::Literal(LiteralValue::Boolean(CelBool::FALSE)) };
                let args = vec![operand, no];
                (Type::Bool, Some(Expr::Call(CallExpr { func_name: operators::EQUALS.to_owned(), target: None, args })))
            }
            (operators::NEGATE, Type::Int | Type::Double) => (kind.clone(), None),
            (name, _) => {
                let (sign, wanted) = if name == operators::NEGATE { ("-", "a number") } else { ("!", "true or false") };
                let message = format!("`{sign}` wants {wanted}, and this is {}", article(kind));
                (self.report(Problem::error(span.clone(), "", message)), None)
            }
        }
    }

    fn conditional(&mut self, call: &CallExpr, condition: &Type, yes: &Type, no: &Type, span: &Range<usize>) -> Type {
        if !matches!(condition, Type::Bool | Type::Unknown) {
            let place = call.args.first().map_or(span.clone(), |condition| self.span(condition));
            let message = format!("before `?` stands what is true or false, and this is {}", article(condition));
            return self.report(Problem::error(place, "", message));
        }
        match (yes, no) {
            (Type::Unknown, other) | (other, Type::Unknown) => other.clone(),
            // A loop that collects keeps what it has, or adds to it.
            (Type::List(one), Type::List(other)) if comparable(one, other) => {
                Type::List(if **one == Type::Unknown { other.clone() } else { one.clone() })
            }
            (Type::Object(one), Type::Object(other)) if one == other => yes.clone(),
            _ if comparable(yes, no) => widened(yes.clone()),
            _ => {
                let message = format!("both results of `? :` must be alike: {} and {}", article(yes), article(no));
                self.report(Problem::error(span.clone(), "", message))
            }
        }
    }

    fn binary(&mut self, id: u64, call: &mut CallExpr, left: &Type, right: &Type, span: &Range<usize>) -> Type {
        match call.func_name.as_str() {
            operators::LOGICAL_AND | operators::LOGICAL_OR => self.logic(call, [left, right]),
            operators::EQUALS | operators::NOT_EQUALS => self.equality(id, call, left, right, span),
            operators::IN => self.membership(id, call, left, right, span),
            operators::LESS | operators::LESS_EQUALS | operators::GREATER | operators::GREATER_EQUALS => {
                self.order(call, left, right, span)
            }
            operators::INDEX => self.index(left, right, span),
            _ => self.arithmetic(call, left, right, span),
        }
    }

    fn logic(&mut self, call: &CallExpr, kinds: [&Type; 2]) -> Type {
        let sign = if call.func_name == operators::LOGICAL_AND { "&&" } else { "||" };
        for (operand, kind) in call.args.iter().zip(kinds) {
            if matches!(kind, Type::Bool | Type::Unknown) {
                continue;
            }
            let message = format!("`{sign}` wants true or false, and `{}` is {}", self.written(operand), article(kind));
            let problem = Problem::error(self.span(operand), "", message);
            self.report(match kind {
                Type::Text(_) => problem.help("to compare with several texts write `x in [\"a\", \"b\"]`"),
                _ => problem,
            });
        }
        Type::Bool
    }

    fn equality(&mut self, id: u64, call: &mut CallExpr, left: &Type, right: &Type, span: &Range<usize>) -> Type {
        let [one, other] = call.args.as_mut_slice() else { return Type::Unknown };
        let (one_shown, other_shown) = (self.written(one), self.written(other));
        if !comparable(left, right) {
            self.not_comparable((&one_shown, left), (&other_shown, right), span);
        } else if let Some(problem) = never((&one_shown, left), other, self.span(other)) {
            self.report(problem);
        } else if let Some(problem) = never((&other_shown, right), one, self.span(one)) {
            self.report(problem);
        }
        if matches!((left, right), (Type::List(_), Type::List(_))) {
            if self.comprehensions > 0 {
                paid(one, id);
                paid(other, id);
            }
            // The interpreter's lists equal none but their own kind.
            let name = if call.func_name == operators::EQUALS { functions::SAME } else { functions::DIFFERENT };
            name.clone_into(&mut call.func_name);
        }
        Type::Bool
    }

    fn membership(&mut self, id: u64, call: &mut CallExpr, left: &Type, right: &Type, span: &Range<usize>) -> Type {
        let [one, list] = call.args.as_mut_slice() else { return Type::Unknown };
        let item = match right {
            Type::List(item) => (**item).clone(),
            Type::Map(_) => Type::Text(Text::Any),
            Type::Unknown => return Type::Bool,
            other => {
                let shown = self.written(list);
                let message = format!("`in` wants a list or a map after it, and `{shown}` is {}", article(other));
                let problem = Problem::error(self.span(list), "", message);
                return self.report(match other {
                    Type::Text(_) => problem.help("to find a text in a text write `text.contains(...)`"),
                    Type::Lists => problem.help("name one of the lists: `lists.NAME`"),
                    _ => problem,
                });
            }
        };
        let shown = self.written(one);
        if matches!(left, Type::List(_) | Type::Map(_)) {
            let problem =
                Problem::error(span.clone(), "", format!("`in` wants one item before it, and `{shown}` is {}", article(left)));
            return self.report(problem.help(format!("write `{shown}.exists(x, x in ...)` or `{shown}.all(x, x in ...)`")));
        }
        if !comparable(left, &item) {
            let message = format!("`{shown}` is {}, and the list's items are {item}: it is never in it", article(left));
            return self.report(Problem::error(span.clone(), "", message));
        }
        if let Expr::List(list) = &list.expr {
            let problems: Vec<_> = list.elements.iter().filter_map(|item| never((&shown, left), item, self.span(item))).collect();
            for problem in problems {
                self.report(problem);
            }
        }
        // Shared lists find an item without going through all.
        let shared = matches!(&list.expr, Expr::Ident(name) if name.starts_with(LIST));
        if self.comprehensions > 0 && matches!(right, Type::List(_)) && !shared {
            paid(list, id);
        }
        Type::Bool
    }

    fn order(&mut self, call: &CallExpr, left: &Type, right: &Type, span: &Range<usize>) -> Type {
        let [one, other] = call.args.as_slice() else { return Type::Unknown };
        let (one_shown, other_shown) = (self.written(one), self.written(other));
        let unordered = |kind: &Type| matches!(kind, Type::Null | Type::List(_) | Type::Map(_) | Type::Object(_) | Type::Lists);
        let mode = Type::Text(Text::Mode);
        if !comparable(left, right) {
            self.not_comparable((&one_shown, left), (&other_shown, right), span);
        } else if unordered(left) || unordered(right) {
            self.report(Problem::error(span.clone(), "", format!("{} has no order", article(left))));
        } else if *left == mode || *right == mode {
            let shown = if *left == mode { one_shown } else { other_shown };
            let message = format!("`{shown}` is a text such as \"0644\": its order says nothing");
            let help = format!("use looserThan({shown}, \"0644\") or hasBits({shown}, \"0002\")");
            self.report(Problem::error(span.clone(), "", message).help(help));
        }
        Type::Bool
    }

    fn index(&mut self, left: &Type, right: &Type, span: &Range<usize>) -> Type {
        let problem = match (left, right) {
            (Type::Unknown, _) | (_, Type::Unknown) => return Type::Unknown,
            (Type::List(item), Type::Int) => return (**item).clone(),
            (Type::Map(value), Type::Text(_)) => return (**value).clone(),
            (Type::List(_), other) => format!("a list's index is a number, and this is {}", article(other)),
            (Type::Map(_), other) => format!("a map's key is a text, and this is {}", article(other)),
            (other, _) => format!("{} can't be indexed", article(other)),
        };
        let problem = Problem::error(span.clone(), "", problem);
        self.report(match left {
            Type::Object(_) | Type::Lists => problem.help("write the field's name after a dot"),
            _ => problem,
        })
    }

    fn arithmetic(&mut self, call: &CallExpr, left: &Type, right: &Type, span: &Range<usize>) -> Type {
        // What a loop collects in; a user can't write such a name.
        let collects = matches!(call.args.first().map(|first| &first.expr), Some(Expr::Ident(name)) if name.starts_with('@'));
        match (call.func_name.as_str(), left, right) {
            (_, Type::Unknown, other) | (_, other, Type::Unknown) => other.clone(),
            (operators::ADD, Type::Text(_), Type::Text(_)) => Type::Text(Text::Any),
            (operators::ADD, Type::Bytes, Type::Bytes) => Type::Bytes,
            (operators::ADD, Type::List(one), Type::List(other)) if collects => {
                Type::List(if **one == Type::Unknown { other.clone() } else { one.clone() })
            }
            (_, Type::Int, Type::Int) | (_, Type::UInt, Type::UInt) => left.clone(),
            (name, Type::Double, Type::Double) if name != operators::MODULO => Type::Double,
            (name, ..) => {
                let sign = name.trim_matches('_');
                let message = format!("`{sign}` can't take {} and {}", article(left), article(right));
                let problem = Problem::error(span.clone(), "", message);
                self.report(match (left, right) {
                    (Type::Text(_), Type::Int | Type::Double) | (Type::Int | Type::Double, Type::Text(_)) => {
                        problem.help("`int(...)` makes a number of a text, `string(...)` a text of a number")
                    }
                    (Type::List(_), Type::List(_)) => problem.help("ask one after the other: `x in a || x in b`"),
                    _ => problem,
                })
            }
        }
    }

    fn not_comparable(&mut self, left: (&str, &Type), right: (&str, &Type), span: &Range<usize>) {
        let ((shown, kind), (other_shown, other)) = if matches!(left.1, Type::Null) || (matches!(right.1, Type::Text(Text::Mode)))
        {
            (right, left)
        } else {
            (left, right)
        };
        let message =
            format!("`{shown}` is {}, and `{other_shown}` is {}: they can't be compared", article(kind), article(other));
        let numeric = |kind: &Type| matches!(kind, Type::Int | Type::UInt | Type::Double);
        let help = match (kind, other) {
            (_, Type::Null) if !shown.contains('.') => "ask for a field of it, such as `has(kubernetes.pod)`".to_owned(),
            (_, Type::Null) => format!("write `has({shown})` to ask whether the event has it"),
            (Type::Text(Text::Mode), _) => {
                format!("compare it with a quoted octal text, or use hasBits({shown}, \"0002\") or looserThan({shown}, \"0600\")")
            }
            (Type::Text(_), number) if numeric(number) => {
                format!("compare it with a text, \"{other_shown}\", or write int({shown}) for its number")
            }
            (number, Type::Text(_)) if numeric(number) => "write the number without quotes".to_owned(),
            (Type::List(_), _) => format!("write `{other_shown} in {shown}`, or `{shown}.exists(x, ...)`"),
            (_, Type::List(_)) => format!("write `{shown} in {other_shown}`"),
            (Type::Object(_), _) | (_, Type::Object(_)) => "compare a field of it".to_owned(),
            (Type::Bool, Type::Text(_)) => "write true or false without quotes".to_owned(),
            _ => String::new(),
        };
        let problem = Problem::error(span.clone(), "", message);
        self.report(if help.is_empty() { problem } else { problem.help(help) });
    }

    fn function(&mut self, id: u64, call: &mut CallExpr, span: &Range<usize>) -> Type {
        let name = call.func_name.clone();
        let whole = IdedExpr { id, expr: Expr::Unspecified };
        let place = self.name_span(&whole, &name);
        let Some(function) = FUNCTIONS.iter().find(|function| function.name == name) else {
            return self.unknown_function(call, &name, place);
        };
        let Function { takes, usage, .. } = function;
        let given = call.args.len() + usize::from(call.target.is_some());
        let style = if call.target.is_some() { function.member } else { function.global };
        if given != takes.len() || !style {
            let message = if given == takes.len() {
                format!("`{name}` is written the other way round")
            } else {
                let wanted = takes.len() - usize::from(call.target.is_some() && function.member);
                let given = call.args.len();
                let things = if wanted == 1 { "argument" } else { "arguments" };
                format!("`{name}` takes {wanted} {things}, not {given}")
            };
            return self.report(Problem::error(span.clone(), "", message).help(format!("such as `{usage}`")));
        }
        let mut kind = match takes {
            [Takes::Sized] => Type::Int,
            [Takes::Scalar] => match name.as_str() {
                "int" => Type::Int,
                "double" => Type::Double,
                _ => Type::Text(Text::Any),
            },
            _ => Type::Bool,
        };
        let arguments = call.target.as_deref_mut().into_iter().chain(&mut call.args);
        for (argument, takes) in arguments.zip(*takes) {
            let given = self.visit(argument);
            if let Some(problem) = self.argument(&name, argument, *takes, &given) {
                kind = self.report(problem.help(format!("such as `{usage}`")));
            } else if matches!(takes, Takes::Regex | Takes::Glob) {
                kind = self.pattern(argument, *takes, kind);
            }
        }
        if matches!(takes, [_, Takes::Regex | Takes::Glob]) {
            functions::MATCHES.clone_into(&mut call.func_name);
            call.args.splice(0..0, call.target.take().map(|target| *target));
        }
        kind
    }

    fn argument(&self, name: &str, argument: &IdedExpr, takes: Takes, given: &Type) -> Option<Problem> {
        let literal = literal(argument);
        let fits = match takes {
            _ if *given == Type::Unknown => true,
            Takes::Text | Takes::Regex | Takes::Glob => matches!(given, Type::Text(_)),
            Takes::Mode => match literal {
                Some(text) => mode_bits(text).is_some(),
                // Other texts are no modes; those of a loop's items and calls are anybody's.
                None => matches!(given, Type::Text(Text::Mode | Text::Any)),
            },
            Takes::Bits => matches!(given, Type::Text(_)) && literal.is_none_or(|text| mode_bits(text).is_some()),
            Takes::Sized => matches!(given, Type::Text(_) | Type::List(_) | Type::Map(_) | Type::Bytes),
            Takes::Scalar => {
                matches!(given, Type::Text(_) | Type::Int | Type::UInt | Type::Double)
                    || (name == "string" && *given == Type::Bool)
            }
        };
        let wanted = match takes {
            Takes::Text | Takes::Regex | Takes::Glob => "a text",
            Takes::Mode | Takes::Bits => "an octal text such as \"0644\"",
            Takes::Sized => "a text, list or map",
            Takes::Scalar => "a text or number",
        };
        let written = self.written(argument);
        (!fits).then(|| {
            let is = if matches!(takes, Takes::Mode | Takes::Bits) && literal.is_some() {
                "not one".to_owned()
            } else {
                article(given)
            };
            Problem::error(self.span(argument), "", format!("`{name}` wants {wanted}, and `{written}` is {is}"))
        })
    }

    /// Compiles a pattern and lets a name stand for it.
    fn pattern(&mut self, argument: &mut IdedExpr, takes: Takes, kind: Type) -> Type {
        let span = self.span(argument);
        let Some(text) = literal(argument) else {
            let problem = Problem::error(span, "", "a pattern must be written out as a text, so that it is compiled but once");
            return self.report(problem.help("for patterns in a list, use the matchers `paths` and `exes` with `$NAME`"));
        };
        let (compiled, what) =
            if takes == Takes::Regex { (Pattern::regex(text), "regular expression") } else { (Pattern::glob(text), "glob") };
        match compiled {
            Ok(pattern) => {
                argument.expr = Expr::Ident(format!("{PATTERN}{}", self.patterns.len()));
                self.patterns.push(pattern);
                kind
            }
            Err(why) => self.report(Problem::error(span, "", format!("this {what} is wrong: {why}"))),
        }
    }

    fn unknown_function(&mut self, call: &mut CallExpr, name: &str, place: Range<usize>) -> Type {
        if let Some((_, usage)) = LOOPS.iter().find(|(known, _)| *known == name) {
            let problem = Problem::error(place, "", format!("`{name}` isn't written like this"));
            return self.report(problem.help(format!("such as `{usage}`")));
        }
        if let Some(target) = &mut call.target {
            self.visit(target);
        }
        let names = || FUNCTIONS.iter().map(|function| function.name).chain(LOOPS.iter().map(|(name, _)| *name));
        let problem = Problem::error(place, "", format!("there is no function `{name}`"));
        self.report(match nearest(name, names()) {
            Some(near) => problem.label(format!("did you mean `{near}`?")),
            None => problem.help(format!("there are {}", names().collect::<Vec<_>>().join(", "))),
        })
    }
}

fn literal(expression: &IdedExpr) -> Option<&str> {
    match &expression.expr {
        Expr::Literal(LiteralValue::String(text)) => Some(text.inner()),
        _ => None,
    }
}

/// Why a value can never equal a text, though both are texts.
fn never((shown, kind): (&str, &Type), other: &IdedExpr, span: Range<usize>) -> Option<Problem> {
    let text = literal(other)?;
    match kind {
        Type::Text(Text::OneOf(all)) if !all.iter().any(|one| one == text) => {
            let problem = Problem::error(span, "", format!("`{shown}` is never \"{}\"", text.escape_debug()));
            Some(match nearest(text, all.iter().map(String::as_str)) {
                Some(near) => problem.label(format!("did you mean \"{near}\"?")),
                None => problem.help(format!("it is {kind}")),
            })
        }
        Type::Text(Text::Mode) => {
            let bits = mode_bits(text);
            let right = bits.map(|bits| format!("{bits:04o}"));
            (right.as_deref() != Some(text)).then(|| {
                let problem = Problem::error(
                    span,
                    "",
                    format!("`{shown}` is never \"{}\": a mode has four octal digits", text.escape_debug()),
                );
                match right {
                    Some(right) => problem.label(format!("did you mean \"{right}\"?")),
                    None => problem.help("such as \"0644\", or \"4755\" with the set-user-id bit"),
                }
            })
        }
        _ => None,
    }
}
