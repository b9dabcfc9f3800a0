//! The functions that conditions can call besides CEL's own, and patterns that were compiled when the condition was read.

use std::sync::{Arc, LazyLock};

use cel::{
    Env, ExecutionError,
    common::{
        types::{CelBool, CelString, DYN_TYPE, STRING_TYPE, Type},
        value::{CowVal, StaticVal, Val},
    },
};
use regex::{Regex, RegexBuilder};

use super::value::Budget;
use crate::policy::pattern::{PathPattern, Paths, PatternError};

/// Whether a text matches a [`Pattern`].
pub(super) const MATCHES: &str = "@matches";
/// A list as it is, if a [`Budget`] can pay for going through it.
pub(super) const RANGE: &str = "@range";

/// Whether lists have equal items, whoever made them.
pub(super) const SAME: &str = "@same";
/// Whether they haven't.
pub(super) const DIFFERENT: &str = "@different";

/// How much memory a compiled pattern may take, in bytes.
const PATTERN_BYTES: usize = 1 << 20;

static PATTERN: Type = Type::new_struct_type("pattern");

/// What a text has to look like.
#[derive(Debug, Clone)]
pub(super) enum Pattern {
    /// As RE2 has them, anywhere in the text.
    Regex(Regex),
    /// As `paths` in a rule has them.
    Glob(Arc<Paths>),
}

impl Pattern {
    /// An expression as RE2 has them, anywhere in the text; what is wrong with it otherwise.
    pub(super) fn regex(pattern: &str) -> Result<Self, String> {
        RegexBuilder::new(pattern).size_limit(PATTERN_BYTES).dfa_size_limit(PATTERN_BYTES).build().map(Self::Regex).map_err(
            |error| {
                match error {
                    regex::Error::CompiledTooBig(_) => "it is too large".to_owned(),
                    // The last line says what; the others draw the place.
                    error => {
                        let text = error.to_string();
                        text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
                    }
                }
            },
        )
    }

    /// A pattern of paths as rules have them, see [`PathPattern::parse`].
    pub(super) fn glob(glob: &str) -> Result<Self, String> {
        let mut paths = Paths::default();
        let pattern = PathPattern::parse(glob).map_err(|error| match error {
            PatternError::Glob(why) => why,
            error => error.to_string(),
        });
        paths.add(&pattern?);
        paths.finish().map_err(|error| error.to_string())?;
        Ok(Self::Glob(Arc::new(paths)))
    }

    fn is_match(&self, text: &str) -> bool {
        match self {
            Self::Regex(regex) => regex.is_match(text),
            Self::Glob(paths) => !paths.find(text.as_bytes()).is_empty(),
        }
    }
}

/// CEL's standard library and the functions of this crate.
pub(super) fn environment() -> Arc<Env> {
    static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| {
        let mut env = Env::default().with_optional_support(false).with_stdlib();
        let pattern = || Type::new_struct_type("pattern");
        let declared = [
            env.add_overload("hasBits", "has_bits", vec![STRING_TYPE, STRING_TYPE], has_bits),
            env.add_overload("looserThan", "looser_than", vec![STRING_TYPE, STRING_TYPE], looser_than),
            env.add_overload(MATCHES, "matches_pattern", vec![STRING_TYPE, pattern()], matches),
            env.add_overload(SAME, "same", vec![DYN_TYPE, DYN_TYPE], same),
            env.add_overload(DIFFERENT, "different", vec![DYN_TYPE, DYN_TYPE], different),
            env.add_overload(RANGE, "range", vec![DYN_TYPE, DYN_TYPE], range),
        ];
        debug_assert!(declared.iter().all(Result::is_ok), "{declared:?}");
        Arc::new(env)
    });
    Arc::clone(&ENVIRONMENT)
}

/// A mode's bits, from an octal text.
pub(super) fn mode_bits(text: &str) -> Option<u32> {
    let octal = !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit());
    u32::from_str_radix(text, 8).ok().filter(|bits| octal && *bits <= 0o7777)
}

impl Val for Pattern {
    fn get_type(&self) -> &Type {
        &PATTERN
    }

    fn cel_type() -> &'static Type {
        &PATTERN
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
        Box::new(self.clone())
    }

    fn as_any(&self) -> Option<&dyn std::any::Any> {
        Some(self)
    }
}

impl StaticVal for Pattern {}

#[expect(clippy::needless_pass_by_value, reason = "the signature is the crate's")]
fn has_bits<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    modes(&arguments, |mode, bits| mode & bits != 0)
}

#[expect(clippy::needless_pass_by_value, reason = "the signature is the crate's")]
fn looser_than<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    modes(&arguments, |mode, limit| mode & !limit != 0)
}

fn modes<'b, 'v>(arguments: &[CowVal<'b, 'v>], test: fn(u32, u32) -> bool) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let mode = |at: usize| {
        let text = arguments.get(at).and_then(|value| value.downcast_ref::<CelString>()).map_or("", |text| text.inner());
        mode_bits(text).ok_or_else(|| ExecutionError::function_error("mode", "not a mode: an octal text such as \"0644\""))
    };
    Ok(CowVal::owned(CelBool::from(test(mode(0)?, mode(1)?))))
}

#[expect(clippy::needless_pass_by_value, reason = "the signature is the crate's")]
fn matches<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let [text, pattern] = arguments.as_slice() else { return Err(ExecutionError::invalid_argument_count(2, arguments.len())) };
    match (text.downcast_ref::<CelString>(), pattern.downcast_ref::<Pattern>()) {
        (Some(text), Some(pattern)) => Ok(CowVal::owned(CelBool::from(pattern.is_match(text.inner())))),
        _ => Err(ExecutionError::missing_argument_or_target()),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the signature is the crate's")]
fn same<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    lists(&arguments).map(|same| CowVal::owned(CelBool::from(same)))
}

#[expect(clippy::needless_pass_by_value, reason = "the signature is the crate's")]
fn different<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    lists(&arguments).map(|same| CowVal::owned(CelBool::from(!same)))
}

fn lists(arguments: &[CowVal<'_, '_>]) -> Result<bool, ExecutionError> {
    match arguments {
        [one, other] => Ok(is_same(&**one, &**other)),
        _ => Err(ExecutionError::invalid_argument_count(2, arguments.len())),
    }
}

fn is_same(one: &dyn Val, other: &dyn Val) -> bool {
    let (Some(items), Some(others)) = (one.as_iterable(), other.as_iterable()) else { return one.equals(other) };
    let (mut items, mut others) = (items.iter(), others.iter());
    loop {
        match (items.next(), others.next()) {
            (None, None) => return true,
            (Some(item), Some(other)) if is_same(item, other) => {}
            _ => return false,
        }
    }
}

fn range<'b, 'v>(mut arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let (Some(budget), Some(list)) = (arguments.pop(), arguments.pop()) else {
        return Err(ExecutionError::missing_argument_or_target());
    };
    if let Some(budget) = budget.downcast_ref::<Budget>() {
        budget.spend(&*list)?;
    }
    Ok(list)
}
