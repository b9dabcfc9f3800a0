//! Label selectors as kubectl writes them: `app=web,tier!=db,env in (a,b),!legacy`.

use std::collections::BTreeSet;

use kube::core::{Expression, Selector};

/// Parses a selector; an empty text selects everything.
pub fn parse(text: &str) -> Result<Selector, SelectorError> {
    let error = |why: &str| SelectorError { selector: text.to_owned(), why: why.to_owned() };
    let mut selector = Selector::default();
    for term in split(text).ok_or_else(|| error("a parenthesis is not closed"))? {
        selector.extend(expression(term.trim()).map_err(|why| error(&why))?);
    }
    Ok(selector)
}

/// A selector that can't be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the selector {selector:?} can't be read: {why}: write it as kubectl does, such as 'app=web,tier!=db,env in (a,b),!legacy'"
)]
pub struct SelectorError {
    selector: String,
    why: String,
}

/// The terms between commas that stand outside of parentheses; `None` when a parenthesis isn't closed.
fn split(text: &str) -> Option<Vec<&str>> {
    if text.trim().is_empty() {
        return Some(Vec::new());
    }
    let (mut terms, mut start, mut depth) = (Vec::new(), 0, 0u32);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'(' => depth += 1,
            b')' => depth = depth.checked_sub(1)?,
            b',' if depth == 0 => {
                terms.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[start..]);
    (depth == 0).then_some(terms)
}

fn expression(term: &str) -> Result<Expression, String> {
    if let Some(key) = term.strip_prefix('!') {
        return Ok(Expression::DoesNotExist(name(key)?));
    }
    if let Some((head, values)) = term.split_once('(') {
        let values = values.strip_suffix(')').ok_or_else(|| format!("something follows the parenthesis in {term:?}"))?;
        let values = values.split(',').map(value).collect::<Result<BTreeSet<_>, _>>()?;
        let mut words = head.split_whitespace();
        return match (words.next(), words.next(), words.next()) {
            (Some(key), Some("in"), None) => Ok(Expression::In(name(key)?, values)),
            (Some(key), Some("notin"), None) => Ok(Expression::NotIn(name(key)?, values)),
            _ => Err(format!("{:?} is neither `KEY in` nor `KEY notin`", head.trim())),
        };
    }
    // The longer operators first, as `=` is part of them.
    for (operator, make) in
        [("!=", Expression::NotEqual as fn(String, String) -> Expression), ("==", Expression::Equal), ("=", Expression::Equal)]
    {
        if let Some((key, rest)) = term.split_once(operator) {
            return Ok(make(name(key)?, value(rest)?));
        }
    }
    Ok(Expression::Exists(name(term)?))
}

fn name(text: &str) -> Result<String, String> {
    let text = text.trim();
    let name = text.rsplit_once('/').map_or(text, |(_, name)| name);
    let prefix_ok = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
    let prefix = text.rsplit_once('/').map(|(prefix, _)| prefix);
    if name.is_empty() || !is_word(name) || prefix.is_some_and(|p| p.is_empty() || !p.chars().all(prefix_ok)) {
        return Err(format!("{text:?} is no label key"));
    }
    Ok(text.to_owned())
}

fn value(text: &str) -> Result<String, String> {
    let text = text.trim();
    if is_word(text) { Ok(text.to_owned()) } else { Err(format!("{text:?} is no label value")) }
}

/// What Kubernetes allows in a label's value, and in its key's last part.
pub fn is_word(text: &str) -> bool {
    let edge = |c: Option<char>| c.is_none_or(|c| c.is_ascii_alphanumeric());
    text.len() <= 63
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        && edge(text.chars().next())
        && edge(text.chars().last())
}

#[cfg(test)]
mod tests {
    use kube::core::SelectorExt;

    use super::*;

    fn matches(selector: &str, labels: &[(&str, &str)]) -> bool {
        let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        parse(selector).unwrap().matches(&labels)
    }

    #[test]
    fn all_forms_are_read() {
        let web = [("app", "web"), ("tier", "front"), ("example.com/x", "1")];
        for (selector, want) in [
            ("", true),
            ("app=web", true),
            ("app == web", true),
            ("app=db", false),
            ("app!=db", true),
            ("app in (web, db)", true),
            ("app notin (web,db)", false),
            ("tier", true),
            ("!tier", false),
            ("!legacy", true),
            ("example.com/x=1,app=web,tier in (front,back),!y", true),
            ("example.com/x=1,app=db", false),
            ("empty=", false),
        ] {
            assert_eq!(matches(selector, &web), want, "{selector}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (selector, mark) in [
            ("app=we b", "we b"),
            ("app in (a", "not closed"),
            ("app within (a)", "app within"),
            ("=web", "no label key"),
            ("app=web,", "no label key"),
            ("app in (a) b", "follows"),
            ("a/b/c=d", "no label key"),
            ("-app=x", "no label key"),
        ] {
            let error = parse(selector).unwrap_err().to_string();
            assert!(error.contains(mark), "{selector}: {error}");
        }
    }
}
