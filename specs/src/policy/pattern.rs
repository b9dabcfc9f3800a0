//! Patterns of paths and texts. All of a policy set's are looked up together: what matches costs little more with a thousand
//! of them than with one.

use std::{borrow::Cow, collections::HashMap};

use globset::GlobBuilder;
use regex::bytes::{RegexBuilder, RegexSet, RegexSetBuilder};

/// Memory that one pattern may compile to, and all of them together, in bytes.
const SIZE_OF_ONE: usize = 1 << 20;
const SIZE_OF_ALL: usize = 256 << 20;
/// Memory that the search in all of them may take for its cache, in bytes.
const CACHE: usize = 16 << 20;

/// A pattern can't be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Nothing matches an empty path.
    #[error("an empty path matches nothing")]
    Empty,
    /// A glob.
    #[error("not a glob: {0}")]
    Glob(String),
    /// A regular expression.
    #[error("not a regular expression: {0}")]
    Regex(String),
    /// A path that no event can have.
    #[error("no event has such a path: the kernel shows paths without `.`, `..` and empty components")]
    NotCanonical,
    /// Too many, or too large.
    #[error("the patterns are too large together: {0}")]
    TooLarge(String),
}

/// A pattern of whole paths.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PathPattern {
    /// This very path.
    Exact(String),
    /// All below this folder, whose path ends in `/`.
    Folder(String),
    /// What this regular expression finds: a glob's, or one that was written as such.
    Regex {
        /// The expression.
        regex: String,
        /// What all paths that it matches begin with, as far as that is plain.
        begin: String,
    },
}

impl PathPattern {
    /// `*` and `?` stop at `/`, `**` doesn't; `[...]` and `{a,b}` are sets; `\` takes the next character as it is; a path that
    /// ends in `/` stands for all below that folder; `regex:` begins a regular expression.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        if let Some(regex) = text.strip_prefix("regex:") {
            return Ok(Self::Regex { regex: whole(regex)?, begin: beginning(regex).to_owned() });
        }
        if text.is_empty() {
            return Err(PatternError::Empty);
        }
        let begin = plain(text, "*?[]{}\\");
        if text.split('/').skip(usize::from(text.starts_with('/'))).any(|part| matches!(part, "." | "..")) || text.contains("//")
        {
            return Err(PatternError::NotCanonical);
        }
        if begin.len() == text.len() {
            return Ok(if text.ends_with('/') { Self::Folder(text.to_owned()) } else { Self::Exact(text.to_owned()) });
        }
        let whole = if text.ends_with('/') { format!("{text}**") } else { text.to_owned() };
        let glob = GlobBuilder::new(&whole).literal_separator(true).backslash_escape(true).empty_alternates(true).build();
        let glob = glob.map_err(|error| PatternError::Glob(error.kind().to_string()))?;
        Ok(Self::Regex { regex: checked(&any_byte(&glob))?, begin: begin.to_owned() })
    }

    /// The folder that all paths which it matches are below, ending in `/`; empty where that isn't plain. Of an exact path, that path.
    pub fn folder(&self) -> &str {
        match self {
            Self::Exact(path) | Self::Folder(path) => path,
            Self::Regex { begin, .. } => begin.rfind('/').map_or("", |at| &begin[..=at]),
        }
    }

    /// What all paths that it matches begin with, as far as that is plain; empty where nothing is.
    pub fn begin(&self) -> &str {
        match self {
            Self::Exact(path) | Self::Folder(path) => path,
            Self::Regex { begin, .. } => begin,
        }
    }
}

/// A glob as a regular expression in which a line break is a byte as any other.
fn any_byte(glob: &globset::Glob) -> String {
    format!("(?s){}", glob.regex())
}

/// The folder that all matches of a regular expression plainly begin with; what follows may make the last character optional.
fn beginning(regex: &str) -> &str {
    let rest = regex.strip_prefix('^').unwrap_or(regex);
    if rest.contains('|') {
        return "";
    }
    let begin = plain(rest, "\\.+*?()[]{}^$");
    let last = begin.char_indices().next_back().map_or(0, |(at, _)| at);
    let sure = if begin.len() < rest.len() { &begin[..last] } else { begin };
    sure.rfind('/').map_or("", |at| &sure[..=at])
}

/// The part before the first special character.
fn plain<'t>(text: &'t str, special: &str) -> &'t str {
    text.find(|c| special.contains(c)).map_or(text, |at| &text[..at])
}

/// A regular expression that the whole text must match, as all other patterns.
fn whole(regex: &str) -> Result<String, PatternError> {
    checked(regex)?;
    checked(&format!("(?s:^(?:{regex})$)"))
}

fn checked(regex: &str) -> Result<String, PatternError> {
    let built = RegexBuilder::new(regex).unicode(true).size_limit(SIZE_OF_ONE).build();
    built.map_err(|error| {
        let text = error.to_string();
        // The crate draws a picture of several lines; its last says what is wrong.
        PatternError::Regex(text.lines().last().unwrap_or_default().trim().trim_start_matches("error: ").to_owned())
    })?;
    Ok(regex.to_owned())
}

/// A pattern of a text: exact, `glob:` or `regex:`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TextPattern {
    /// This very text.
    Exact(String),
    /// What this regular expression finds.
    Regex(String),
}

impl TextPattern {
    /// A glob's `*` and `?` stop at nothing here.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        if let Some(regex) = text.strip_prefix("regex:") {
            return Ok(Self::Regex(whole(regex)?));
        }
        let Some(glob) = text.strip_prefix("glob:") else { return Ok(Self::Exact(text.to_owned())) };
        let glob = GlobBuilder::new(glob).literal_separator(false).backslash_escape(true).empty_alternates(true).build();
        Ok(Self::Regex(checked(&any_byte(&glob.map_err(|error| PatternError::Glob(error.kind().to_string()))?))?))
    }
}

/// A pattern's number in its [`Paths`] or [`Texts`].
pub type PatternId = u32;

/// Path patterns, each once, found together.
#[derive(Debug, Clone, Default)]
pub struct Paths {
    numbers: HashMap<PathPattern, PatternId>,
    patterns: Vec<PathPattern>,
    exact: HashMap<Vec<u8>, PatternId>,
    folders: HashMap<Vec<u8>, PatternId>,
    regexes: Regexes,
}

/// Text patterns, each once, found together.
#[derive(Debug, Clone, Default)]
pub struct Texts {
    numbers: HashMap<TextPattern, PatternId>,
    exact: HashMap<Vec<u8>, PatternId>,
    regexes: Regexes,
}

#[derive(Debug, Clone, Default)]
struct Regexes {
    texts: Vec<String>,
    numbers: Vec<PatternId>,
    set: Option<RegexSet>,
}

impl Paths {
    /// Adds a pattern, unless it is there; [`Self::finish`] makes it findable.
    pub fn add(&mut self, pattern: &PathPattern) -> PatternId {
        if let Some(number) = self.numbers.get(pattern) {
            return *number;
        }
        let number = PatternId::try_from(self.patterns.len()).unwrap_or(PatternId::MAX);
        self.numbers.insert(pattern.clone(), number);
        self.patterns.push(pattern.clone());
        match pattern {
            PathPattern::Exact(path) => drop(self.exact.insert(path.clone().into_bytes(), number)),
            PathPattern::Folder(path) => drop(self.folders.insert(path.clone().into_bytes(), number)),
            PathPattern::Regex { regex, .. } => self.regexes.add(regex, number),
        }
        number
    }

    /// A pattern by its number.
    pub fn pattern(&self, number: PatternId) -> Option<&PathPattern> {
        self.patterns.get(number as usize)
    }

    /// Compiles what was added.
    pub fn finish(&mut self) -> Result<(), PatternError> {
        self.regexes.finish()
    }

    /// The numbers of the patterns that match a path, in ascending order.
    pub fn find(&self, path: &[u8]) -> Vec<PatternId> {
        let mut found: Vec<_> = self.exact.get(path).copied().into_iter().collect();
        if !self.folders.is_empty() {
            let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at + 1);
            // The folder itself isn't below it.
            let folders = ends.filter(|end| *end < path.len()).filter_map(|end| self.folders.get(&path[..end]));
            found.extend(folders);
        }
        self.regexes.find(path, &mut found);
        found.sort_unstable();
        found.dedup();
        found
    }
}

impl Texts {
    /// Adds a pattern, unless it is there; [`Self::finish`] makes it findable.
    pub fn add(&mut self, pattern: &TextPattern) -> PatternId {
        if let Some(number) = self.numbers.get(pattern) {
            return *number;
        }
        let number = PatternId::try_from(self.numbers.len()).unwrap_or(PatternId::MAX);
        self.numbers.insert(pattern.clone(), number);
        match pattern {
            TextPattern::Exact(text) => drop(self.exact.insert(text.clone().into_bytes(), number)),
            TextPattern::Regex(regex) => self.regexes.add(regex, number),
        }
        number
    }

    /// Compiles what was added.
    pub fn finish(&mut self) -> Result<(), PatternError> {
        self.regexes.finish()
    }

    /// The numbers of the patterns that match a text, in no order.
    pub fn find_into(&self, text: &[u8], found: &mut Vec<PatternId>) {
        found.extend(self.exact.get(text));
        self.regexes.find(text, found);
    }
}

impl Regexes {
    fn add(&mut self, regex: &str, number: PatternId) {
        self.texts.push(regex.to_owned());
        self.numbers.push(number);
        self.set = None;
    }

    fn finish(&mut self) -> Result<(), PatternError> {
        if !self.texts.is_empty() && self.set.is_none() {
            let set = RegexSetBuilder::new(&self.texts).size_limit(SIZE_OF_ALL).dfa_size_limit(CACHE).build();
            self.set = Some(set.map_err(|error| PatternError::TooLarge(error.to_string()))?);
        }
        Ok(())
    }

    fn find(&self, text: &[u8], found: &mut Vec<PatternId>) {
        let Some(set) = &self.set else { return };
        found.extend(set.matches(text).iter().filter_map(|at| self.numbers.get(at)));
        // To a regular expression that is written as one, `.` is a character, which a byte that is none would escape.
        if let Cow::Owned(lossy) = String::from_utf8_lossy(text) {
            found.extend(set.matches(lossy.as_bytes()).iter().filter_map(|at| self.numbers.get(at)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, path: &str) -> bool {
        let mut paths = Paths::default();
        let number = paths.add(&PathPattern::parse(pattern).unwrap());
        paths.finish().unwrap();
        paths.find(path.as_bytes()) == [number]
    }

    #[test]
    fn paths_have_boundaries() {
        for (pattern, path, want) in [
            ("/etc/passwd", "/etc/passwd", true),
            ("/etc/passwd", "/etc/passwd2", false),
            ("/etc/", "/etc/a/b", true),
            ("/etc/", "/etc/", false),
            ("/etc/", "/etc", false),
            ("/etc/", "/etc2/a", false),
            ("/run/", "/runner/a", false),
            ("/etc/*.yaml", "/etc/a.yaml", true),
            ("/etc/*.yaml", "/etc/a/b.yaml", false),
            ("/etc/**/*.yaml", "/etc/a/b/c.yaml", true),
            ("/etc/**/*.yaml", "/etc/c.yaml", true),
            ("**/cni/*", "/opt/cni/bin", true),
            ("**/cni/*", "/opt/cni/bin/x", false),
            ("/home/*/.ssh/", "/home/a/.ssh/id", true),
            ("/home/*/.ssh/", "/home/a/.ssh", false),
            ("/home/*/.ssh/", "/home/a/b/.ssh/id", false),
            ("/bin/{sh,bash}", "/bin/bash", true),
            ("/bin/[a-c]?", "/bin/cp", true),
            ("/a\\*b", "/a*b", true),
            ("/a\\*b", "/axb", false),
            ("regex:/tmp/.+\\.so", "/tmp/x/y.so", true),
            ("regex:/tmp/.+", "/var/tmp/x", false),
            ("regex:a|b", "ab", false),
            ("/home/*/.ssh/", "/home/u/.ssh/a\nb", true),
            ("/usr/lib/**/*.so*", "/usr/lib/x\ny/l.so", true),
            ("memfd:*", "memfd:x", true),
        ] {
            assert_eq!(matches(pattern, path), want, "{pattern} {path}");
        }
    }

    #[test]
    fn globs_match_bytes_that_are_no_text() {
        let mut paths = Paths::default();
        let number = paths.add(&PathPattern::parse("/tmp/*").unwrap());
        paths.finish().unwrap();
        let other = paths.add(&PathPattern::parse("regex:/tmp/.+").unwrap());
        paths.finish().unwrap();
        assert_eq!(paths.find(b"/tmp/\xff"), [number, other]);
    }

    #[test]
    fn what_they_begin_with_is_plain() {
        for (pattern, begin) in [
            ("/etc/passwd", "/etc/passwd"),
            ("/etc/", "/etc/"),
            ("/etc/k*/x", "/etc/k"),
            ("**/x", ""),
            ("regex:^/tmp/a+", "/tmp/"),
            ("regex:^/?tmp", ""),
            ("regex:^/tmp/|^/etc/", ""),
            ("regex:^/tmp/(a|b)", ""),
            ("regex:/tmp/", "/tmp/"),
        ] {
            assert_eq!(PathPattern::parse(pattern).unwrap().begin(), begin, "{pattern}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for pattern in ["", "/a/../b", "/a//b", "/a/[b", "/{a", "regex:(", "regex:a{1000}{1000}"] {
            assert!(PathPattern::parse(pattern).is_err(), "{pattern}");
        }
        assert!(TextPattern::parse("glob:[").is_err());
        assert_eq!(TextPattern::parse("*"), Ok(TextPattern::Exact("*".into())));
    }

    #[test]
    fn texts_are_exact_unless_they_say_otherwise() {
        let mut texts = Texts::default();
        let numbers: Vec<_> = ["web", "glob:we*", "regex:w.b", "*", "regex:w"]
            .iter()
            .map(|text| texts.add(&TextPattern::parse(text).unwrap()))
            .collect();
        assert_eq!(texts.add(&TextPattern::parse("web").unwrap()), numbers[0]);
        texts.finish().unwrap();
        let mut found = Vec::new();
        texts.find_into(b"web", &mut found);
        assert_eq!(found, numbers[..3]);
    }
}
