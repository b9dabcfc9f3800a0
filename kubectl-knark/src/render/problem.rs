//! What is wrong with a text that the user wrote, as a compiler would show it, or as JSON for editors and CI.

use std::{borrow::Cow, ops::Range};

use annotate_snippets::{AnnotationKind, Level as Title, Renderer, Snippet};
use knark_specs::problem::{Level, Problem};
use serde::Serialize;

use super::escape::cell;

/// How much of a line is shown in front of a place and behind it, in bytes.
const AROUND: usize = 100;
/// How much of a place itself is shown, in bytes.
const PLACE: usize = 200;
/// How wide a tab is.
const TAB: &str = "    ";

/// A text that the user wrote, with its lines.
#[derive(Debug)]
pub struct Source<'t> {
    name: &'t str,
    text: &'t str,
    /// Where lines begin.
    lines: Vec<usize>,
}

/// A problem as JSON. Lines and columns count from 1, columns in characters; the end is behind the last character.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// The source's name.
    pub file: String,
    /// The line where it begins.
    pub line: usize,
    /// The column where it begins.
    pub column: usize,
    /// The line where it ends.
    pub end_line: usize,
    /// The column behind its end.
    pub end_column: usize,
    /// `error` or `warning`.
    pub severity: &'static str,
    /// The field; empty for what isn't one.
    pub field: String,
    /// What is wrong.
    pub message: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

impl<'t> Source<'t> {
    /// A text, by the name that the user knows it by.
    pub fn new(name: &'t str, text: &'t str) -> Self {
        let breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        Self { name, text, lines: std::iter::once(0).chain(breaks).collect() }
    }

    /// A problem with the line that it is in, as rustc shows it, ending in a line break.
    pub fn show(&self, problem: &Problem, colour: bool) -> String {
        let Problem { level, span, message, label, help, .. } = problem;
        let (line, column) = self.position(span.start);
        let (before, place, after) = self.excerpt(line, span);
        let mark = before.len()..before.len() + place.len();
        let title = match level {
            Level::Error => Title::ERROR,
            Level::Warning => Title::WARNING,
        };
        let label = Some(cell(label)).filter(|label| !label.is_empty());
        let name = cell(self.name);
        let shown_at = format!("{name}:{line}:{}", before.chars().count() + 1);
        let snippet = Snippet::source([before, place, after].concat()).path(name.clone()).line_start(line);
        let report =
            title.primary_title(cell(message)).element(snippet.annotation(AnnotationKind::Primary.span(mark).label(label)));
        let report = match help {
            Some(help) => report.element(Title::HELP.message(cell(help))),
            None => report,
        };
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        // The renderer counts columns in what is shown of the line.
        renderer.render(&[report]).replacen(&shown_at, &format!("{name}:{line}:{column}"), 1) + "\n"
    }

    /// A problem as JSON.
    pub fn finding(&self, problem: &Problem) -> Finding {
        let (line, column) = self.position(problem.span.start);
        let (end_line, end_column) = self.position(problem.span.end.max(problem.span.start));
        Finding {
            file: self.name.to_owned(),
            line,
            column,
            end_line,
            end_column,
            severity: match problem.level {
                Level::Error => "error",
                Level::Warning => "warning",
            },
            field: problem.field.clone(),
            message: [&problem.message, &problem.label]
                .map(String::as_str)
                .into_iter()
                .filter(|part| !part.is_empty())
                .collect::<Vec<_>>()
                .join(": "),
            help: problem.help.clone(),
        }
    }

    /// Line and column of a byte.
    fn position(&self, at: usize) -> (usize, usize) {
        let at = self.text.floor_char_boundary(at);
        let line = self.lines.partition_point(|start| *start <= at);
        let start = self.lines.get(line - 1).copied().unwrap_or_default();
        (line, self.text[start..at].chars().count() + 1)
    }

    /// What is in front of a place in its line, the place as far as it is in that line, and what is behind it; all of it
    /// harmless and short.
    fn excerpt(&self, line: usize, span: &Range<usize>) -> (String, String, String) {
        let start = self.lines.get(line - 1).copied().unwrap_or_default();
        let end = self.lines.get(line).copied().unwrap_or(self.text.len());
        let end = start + self.text[start..end].trim_end_matches(['\r', '\n']).len();
        let from = self.text.floor_char_boundary(span.start).clamp(start, end);
        let to = self.text.floor_char_boundary(span.end.min(from + PLACE)).clamp(from, end);
        let first = self.text.floor_char_boundary(from.saturating_sub(AROUND)).max(start);
        let last = self.text.floor_char_boundary(to + AROUND).min(end);
        let cut = |is_cut: bool| if is_cut { "…" } else { "" };
        (
            format!("{}{}", cut(first > start), show(&self.text[first..from])),
            show(&self.text[from..to]).into_owned(),
            format!("{}{}", show(&self.text[to..last]), cut(last < end)),
        )
    }
}

fn show(text: &str) -> Cow<'_, str> {
    if text.contains('\t') { Cow::Owned(cell(&text.replace('\t', TAB)).into_owned()) } else { cell(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "rules:\n-\tops: [ü, chmood]\n";

    fn problem() -> Problem {
        let at = TEXT.find("chmood").unwrap_or_default();
        Problem::error(at..at + 6, "rules[0].ops[1]", "`ops` can't be `chmood`")
            .label("did you mean `chmod`?")
            .help("one of `chmod`")
    }

    #[test]
    fn problems_look_as_a_compiler_shows_them() {
        let want = "\
error: `ops` can't be `chmood`
 --> policy.yaml:2:12
  |
2 | -    ops: [ü, chmood]
  |               ^^^^^^ did you mean `chmod`?
  |
  = help: one of `chmod`
";
        assert_eq!(Source::new("policy.yaml", TEXT).show(&problem(), false), want);
        assert!(Source::new("policy.yaml", TEXT).show(&problem(), true).contains("\u{1b}["));
    }

    #[test]
    fn editors_get_places_in_characters() {
        let finding = serde_json::to_value(Source::new("p", TEXT).finding(&problem())).unwrap();
        let want = serde_json::json!({
            "file": "p", "line": 2, "column": 12, "endLine": 2, "endColumn": 18, "severity": "error",
            "field": "rules[0].ops[1]", "message": "`ops` can't be `chmood`: did you mean `chmod`?", "help": "one of `chmod`",
        });
        assert_eq!(finding, want);
    }

    #[test]
    fn hostile_texts_stay_harmless_and_short() {
        let text = format!("a: \u{1b}[2J\u{9b}\u{202e}{}\r\n", "x".repeat(1 << 20));
        for span in [0..1, 3..10, 3..text.len(), 500_000..500_001, text.len()..text.len() + 9, usize::MAX - 1..usize::MAX, 5..5] {
            let problem = Problem::warning(span, "", "bad \u{1b}[31m").help("\u{9b}");
            let shown = Source::new("na\u{1b}me", &text).show(&problem, false);
            assert!(!shown.contains(|c: char| c.is_control() && c != '\n' || c == '\u{202e}'), "{shown:?}");
            assert!(shown.len() < 4_000, "{}", shown.len());
        }
        assert!(Source::new("empty", "").show(&Problem::error(0..0, "", "x"), false).contains("empty:1:1"));
    }
}
