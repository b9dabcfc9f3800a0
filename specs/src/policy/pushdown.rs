//! What of policies can be decided before an event reaches user space: which operations, on which paths.
//!
//! It asks for more than matches, never for less.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    conditions::{AnyOf, Subject},
    matcher::{Policies, Rule},
    pattern::{PathPattern, PatternId},
};
use crate::{
    cel::Condition,
    frame::{FileOp, SameFiles, SamePath, Want, Wanted, WantedFile},
};

/// Folders and files that rules ask for; `None`: any.
type Places = Option<BTreeSet<String>>;

impl Policies {
    /// Whether any rule is about executions, or asks which request an event comes from, which they tell.
    pub fn needs_execs(&self) -> bool {
        self.wants_execs() || self.asks_for_causes()
    }

    /// Whether any rule is about executions.
    pub fn wants_execs(&self) -> bool {
        self.rules.iter().any(|rule| matches!(rule.subject, Subject::Exec(_)))
    }

    /// Whether any rule is about file operations.
    pub fn wants_files(&self) -> bool {
        self.rules.iter().any(|rule| matches!(rule.subject, Subject::File(_)))
    }

    /// Whether any rule is about requests to the Kubernetes API, or asks which of them an event comes from.
    pub fn wants_api(&self) -> bool {
        self.rules.iter().any(|rule| matches!(rule.subject, Subject::Api(_))) || self.asks_for_causes()
    }

    fn asks_for_causes(&self) -> bool {
        self.rules.iter().any(|rule| rule.refers(|name| name == "cause" || name.starts_with("cause.")))
    }

    /// The rules that look into bodies of requests to the Kubernetes API, by their names.
    pub fn on_bodies(&self) -> impl Iterator<Item = &str> {
        let is_of_body = |name: &str| name.starts_with("api.request_body") || name.starts_with("api.response_body");
        self.rules.iter().filter(move |rule| rule.refers(is_of_body)).map(|rule| rule.name.as_str())
    }

    /// What the kernel is asked for.
    pub fn want(&self) -> Want {
        // A process has the cause of the one that began it, whatever that one runs.
        let mut execs: Places = (!self.asks_for_causes()).then(BTreeSet::new);
        let mut files: BTreeMap<FileOp, Places> = BTreeMap::new();
        for rule in &self.rules {
            match &rule.subject {
                Subject::Exec(exec) => add(&mut execs, self.places(&exec.paths)),
                Subject::File(operation) => {
                    let ops = if operation.ops.is_empty() { FileOp::USUAL } else { &operation.ops };
                    for op in ops {
                        add(files.entry(*op).or_insert_with(|| Some(BTreeSet::new())), self.places(&operation.paths));
                    }
                }
                Subject::Api(_) | Subject::Any => {}
            }
        }
        let mut by_places: BTreeMap<Places, Vec<FileOp>> = BTreeMap::new();
        for (op, places) in files {
            by_places.entry(places).or_default().push(op);
        }
        let file = by_places.into_iter().map(|(places, ops)| WantedFile { ops, paths: wanted(places) }).collect();
        Want { exec: wanted(execs), file }
    }

    /// Which files count under whatever name, and what is asked of them; `None`: no rule asks for that.
    pub fn same_files(&self) -> Option<SameFiles> {
        let (mut ops, mut patterns) = (BTreeSet::new(), BTreeSet::<PatternId>::new());
        for rule in &self.rules {
            if let Subject::File(operation) = &rule.subject
                && operation.same_file
            {
                ops.extend(if operation.ops.is_empty() { FileOp::USUAL } else { &operation.ops });
                patterns.extend(&operation.paths);
            }
        }
        let path = |pattern: &PathPattern| match pattern {
            PathPattern::Exact(path) | PathPattern::Folder(path) => SamePath::Plain(path.clone()),
            PathPattern::Regex { regex, .. } => SamePath::Regex { folder: pattern.folder().to_owned(), regex: regex.clone() },
        };
        let paths: Vec<_> = patterns.into_iter().filter_map(|id| self.patterns.paths.pattern(id)).map(path).collect();
        (!paths.is_empty()).then(|| SameFiles { ops: ops.into_iter().copied().collect(), paths })
    }

    fn places(&self, patterns: &AnyOf) -> Places {
        if patterns.is_empty() {
            return None;
        }
        // What has no such place may be anywhere.
        patterns.iter().map(|id| self.patterns.paths.pattern(*id).and_then(place)).collect()
    }
}

/// The file that a pattern is about, or the folder that all its paths are in. A name without a place, such as that of a memfd,
/// has none.
fn place(pattern: &PathPattern) -> Option<String> {
    let place = pattern.folder();
    (place.starts_with('/') && place.len() > 1).then(|| place.to_owned())
}

fn add(all: &mut Places, more: Places) {
    *all = all.take().zip(more).map(|(mut all, more)| {
        all.extend(more);
        all
    });
}

fn wanted(places: Places) -> Wanted {
    match places {
        None => Wanted::All,
        Some(places) => Wanted::Paths(places.into_iter().map(|path| path.into_bytes().into()).collect()),
    }
}

impl Rule {
    /// Whether an expression of the rule, or of its exceptions, refers to such a field.
    fn refers(&self, is_such: impl Fn(&str) -> bool) -> bool {
        let conditions = std::iter::once(&self.condition).chain(self.except.iter().map(|except| &except.condition));
        conditions.flatten().flat_map(Condition::references).any(|name| is_such(&name))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::policy::pattern::Paths;

    fn text(parts: &'static [&'static str], most: usize) -> impl Strategy<Value = String> {
        prop::collection::vec(prop::sample::select(parts), 1..most).prop_map(|parts| parts.concat())
    }

    fn patterns() -> impl Strategy<Value = String> {
        const GLOB: &[&str] =
            &["/", "/", "a", "b", "ab", "*", "**", "/**/", "?", "[ab]", "{a,b}", "{/a,/b/}", "{,a}", "\\*", "\\a"];
        const REGEX: &[&str] =
            &["/", "/", "a", "b", ".*", ".", "?", "+", "*", "(", ")", "|", "^", "$", "[ab]", "{0,1}", "(?i)", "\\/", "\\."];
        prop_oneof![text(GLOB, 8), text(REGEX, 8).prop_map(|text| format!("regex:{text}"))]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 20_000, max_global_rejects: 200_000, ..ProptestConfig::default() })]

        /// What a rule matches is asked for.
        #[test]
        fn no_match_is_left_out(pattern in patterns(), path in text(&["/", "/", "/", "a", "b", "ab", "A", "*", "."], 8)) {
            let Ok(parsed) = PathPattern::parse(&pattern) else { return Ok(()) };
            // As events have them: no empty parts, and no slash at the end.
            let path = String::from_utf8(crate::path::join(b"", path.as_bytes())).unwrap();
            let mut paths = Paths::default();
            paths.add(&parsed);
            prop_assume!(paths.finish().is_ok());
            if paths.find(path.as_bytes()).is_empty() {
                return Ok(());
            }
            let asked = match place(&parsed) {
                None => true,
                Some(folder) if folder.ends_with('/') => path.starts_with(&folder) && path.len() > folder.len(),
                Some(exact) => path == exact,
            };
            prop_assert!(asked, "{pattern} matches {path}, but {:?} is asked for", place(&parsed));
        }
    }
}
