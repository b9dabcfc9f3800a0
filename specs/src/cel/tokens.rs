//! A condition's words and signs with their places: what the parser can't bear is refused here, and what it says is put
//! where it belongs.

use std::ops::Range;

use crate::problem::Problem;

/// How deep brackets, and expressions in general, may be nested.
pub(super) const MAX_NESTING: usize = 32;
/// The parser takes time by the square of these.
const MAX_TOKENS: usize = 1_000;
/// The parser recurses at each `?` and each sign before an operand.
const MAX_CONDITIONALS: usize = 32;

/// A word or sign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) span: Range<usize>,
    /// Of a bracket: the one that closes or opens it, as an index.
    pub(super) partner: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Word,
    Number,
    Text,
    Sign,
}

/// The tokens of a text, brackets in pairs; the first thing that is wrong otherwise.
pub(super) fn tokens(text: &str) -> Result<Vec<Token>, Problem> {
    let mut tokens: Vec<Token> = Vec::new();
    let mut open: Vec<usize> = Vec::new();
    let (mut at, mut conditionals, mut signs) = (0, 0, 0);
    while let Some(first) = text.get(at..).and_then(|rest| rest.chars().next()) {
        let rest = text.get(at..).unwrap_or_default();
        if first.is_ascii_whitespace() {
            at += 1;
            continue;
        }
        if rest.starts_with("//") {
            at += rest.find('\n').unwrap_or(rest.len());
            continue;
        }
        let (kind, length) = token(rest).map_err(|(length, message, help)| {
            let problem = Problem::error(at..at + length, "", message);
            if help.is_empty() { problem } else { problem.help(help) }
        })?;
        let (span, index) = (at..at + length, tokens.len());
        let mut partner = index;
        match text.get(span.clone()).unwrap_or_default() {
            "(" | "[" | "{" => open.push(index),
            close @ (")" | "]" | "}") => {
                let opening =
                    open.pop().ok_or_else(|| Problem::error(span.clone(), "", format!("this `{close}` closes nothing")))?;
                let opened = tokens.get_mut(opening).map(|token| {
                    token.partner = index;
                    token.span.clone()
                });
                let opened = opened.unwrap_or_default();
                let pair = (text.get(opened.clone()).unwrap_or_default(), close);
                if !matches!(pair, ("(", ")") | ("[", "]") | ("{", "}")) {
                    return Err(
                        Problem::error(span, "", format!("`{close}` can't close `{}`", pair.0)).label("another bracket is open")
                    );
                }
                partner = opening;
            }
            "?" => conditionals += 1,
            _ => {}
        }
        signs = if matches!(first, '!' | '-') && kind == Kind::Sign { signs + 1 } else { 0 };
        if open.len() > MAX_NESTING || conditionals > MAX_CONDITIONALS || signs > MAX_NESTING {
            return Err(too_deep(span));
        }
        if index >= MAX_TOKENS {
            return Err(Problem::error(span, "", format!("the condition has more than {MAX_TOKENS} words and signs"))
                .help("put long lists of texts into a shared list, and write `x in lists.NAME`"));
        }
        at = span.end;
        tokens.push(Token { kind, span, partner });
    }
    match open.last().and_then(|index| tokens.get(*index)) {
        Some(Token { span, .. }) => {
            let bracket = text.get(span.clone()).unwrap_or_default();
            Err(Problem::error(span.clone(), "", format!("this `{bracket}` is never closed")))
        }
        None => Ok(tokens),
    }
}

/// What is said of an expression that is nested too deeply.
pub(super) fn too_deep(span: Range<usize>) -> Problem {
    Problem::error(span, "", format!("the condition is nested more than {MAX_NESTING} deep"))
        .help("split it: conditions of several rules are simpler than one condition for all")
}

type Wrong = (usize, String, &'static str);

/// Kind and length of the token that a text begins with.
fn token(rest: &str) -> Result<(Kind, usize), Wrong> {
    const SIGNS: [&str; 25] = [
        "==", "!=", "<=", ">=", "&&", "||", "(", ")", "[", "]", "{", "}", ".", ",", "-", "+", "*", "/", "%", "?", ":", "!", "<",
        ">", "",
    ];
    if let Some(length) = literal(rest)? {
        return Ok((Kind::Text, length));
    }
    let first = rest.chars().next().unwrap_or_default();
    let run = |belongs: fn(char) -> bool| rest.find(|next| !belongs(next)).unwrap_or(rest.len());
    if first.is_ascii_alphabetic() || first == '_' {
        return Ok((Kind::Word, run(|next| next.is_ascii_alphanumeric() || next == '_')));
    }
    if first.is_ascii_digit() {
        return Ok((Kind::Number, run(|next| next.is_ascii_alphanumeric() || next == '.')));
    }
    if rest.starts_with("[?") || rest.starts_with(".?") {
        return Err((2, "optional values aren't part of this language".to_owned(), "write `has(...)` to ask for a field"));
    }
    if let Some(sign) = SIGNS.iter().find(|sign| !sign.is_empty() && rest.starts_with(**sign)) {
        return Ok((Kind::Sign, sign.len()));
    }
    let help = match first {
        '=' => "write `==` to compare",
        '&' => "write `&&` for \"and\"",
        '|' => "write `||` for \"or\"",
        '“' | '”' | '‘' | '’' | '„' => "write plain quotes: \"text\"",
        _ => "",
    };
    Err((first.len_utf8(), format!("`{}` doesn't belong here", first.escape_debug()), help))
}

/// The length of a quoted text, if that is what a text begins with.
fn literal(rest: &str) -> Result<Option<usize>, Wrong> {
    let prefix = rest.find(|next| !matches!(next, 'r' | 'R' | 'b' | 'B')).unwrap_or(rest.len());
    let quoted = rest.get(prefix..).unwrap_or_default();
    let quote = match quoted.chars().next() {
        _ if prefix > 2 => return Ok(None),
        Some('"') if quoted.starts_with("\"\"\"") => "\"\"\"",
        Some('\'') if quoted.starts_with("'''") => "'''",
        Some('"') => "\"",
        Some('\'') => "'",
        _ => return Ok(None),
    };
    let raw = rest.get(..prefix).is_some_and(|prefix| prefix.contains(['r', 'R']));
    let mut at = quote.len();
    while let Some(next) = quoted.get(at..).and_then(|rest| rest.chars().next()) {
        if quoted.get(at..).is_some_and(|rest| rest.starts_with(quote)) {
            return Ok(Some(prefix + at + quote.len()));
        }
        if matches!(next, '\n' | '\r') && quote.len() == 1 {
            break;
        }
        at += next.len_utf8();
        if next == '\\' && !raw {
            at += quoted.get(at..).and_then(|rest| rest.chars().next()).map_or(0, char::len_utf8);
        }
    }
    Err((prefix + quote.len(), "this text is never closed".to_owned(), "end it with the quote that it begins with"))
}
