//! All that is known of one event, as lines.

use ratatui::{
    style::{Color, Modifier, Style},
    text::Line,
};

use super::{history::Entry, rows::style_of};
use crate::render::{
    escape::{cell, lines as safe_lines},
    json, shorten,
    style::of_severity,
    words,
};

/// More lines than this nobody reads here; the recording and `w` have them all.
const MOST: usize = 20_000;

/// The rules that it matches, and its JSON, as wide as this.
pub fn lines(entry: &Entry, width: usize, colour: bool) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    let plain = Style::new();
    wrap(&headline(entry), "  ", width, plain.add_modifier(Modifier::BOLD), &mut lines);
    for matched in &entry.matches {
        let style = if colour { style_of(of_severity(matched.severity)) } else { plain };
        let title = format!("{} {}/{}", matched.severity.name(), cell(&matched.policy), cell(&matched.rule));
        wrap(&title, "  ", width, style, &mut lines);
        let mut add = |text: &str| wrap(text, "  ", width, plain, &mut lines);
        safe_lines(&matched.message).lines().filter(|line| !line.is_empty()).for_each(|line| add(&format!("  {line}")));
        if !matched.tags.is_empty() {
            add(&format!("  tags: {}", cell(&matched.tags.join(", "))));
        }
        matched.references.iter().for_each(|reference| add(&format!("  {}", cell(reference))));
    }
    let key = if colour { plain.fg(Color::Cyan) } else { plain };
    match json::pretty(&entry.event) {
        Ok(text) => {
            for line in text.lines() {
                if lines.len() >= MOST {
                    lines.push(Line::from("... and more, which are too many lines for here"));
                    break;
                }
                let from = lines.len();
                let indentation = " ".repeat(line.len() - line.trim_start().len() + 2);
                wrap(&cell(line), &indentation, width, plain, &mut lines);
                // A field's name, where the line begins with one.
                if let Some((name, value)) = lines[from].to_string().split_once("\": ") {
                    let name = ratatui::text::Span::styled(format!("{name}\": "), key);
                    lines[from] = Line::from(vec![name, value.to_owned().into()]);
                }
            }
        }
        Err(error) => lines.push(Line::from(format!("no JSON can be made of it: {error}"))),
    }
    lines
}

/// What happened in a few words, nothing shortened.
fn headline(entry: &Entry) -> String {
    format!("{} {}", words::operation(&entry.event), words::detail(&entry.event, words::Extent::Usual).text())
}

/// Breaks a line where the room ends; what follows is indented by `hang`, as far as that leaves room.
pub fn wrap(text: &str, hang: &str, width: usize, style: Style, lines: &mut Vec<Line<'static>>) {
    let width = width.max(2);
    let hang = if hang.len() * 2 > width { "" } else { hang };
    let mut rest = text;
    let mut indentation = "";
    loop {
        let room = width - indentation.len();
        // At least one character, however wide it is.
        let first = rest.chars().next().map_or(0, char::len_utf8);
        let piece = shorten::first(rest, room);
        let piece = if piece.is_empty() { &rest[..first] } else { piece };
        lines.push(Line::styled(format!("{indentation}{piece}"), style));
        rest = &rest[piece.len()..];
        if rest.is_empty() || lines.len() > MOST {
            return;
        }
        indentation = hang;
    }
}

#[cfg(test)]
mod tests {
    use knark_specs::policy::Severity;
    use serde_json::json;

    use super::*;
    use crate::tui::tests::{entry, matched};

    #[test]
    fn lines_break_where_the_room_ends() {
        let mut lines = Vec::new();
        wrap("  \"path\": \"/日本語/x\"", "    ", 12, Style::new(), &mut lines);
        let texts: Vec<_> = lines.iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["  \"path\": \"/", "    日本語/x", "    \""]);
        assert!(lines.iter().all(|line| line.width() <= 12));
        lines.clear();
        wrap("日", "    ", 1, Style::new(), &mut lines);
        wrap("", "    ", 9, Style::new(), &mut lines);
        assert_eq!(lines.len(), 2);
    }

    #[test]
    fn why_comes_before_what() {
        let mut entry = entry(0, json!({"process": {"args": ["a", "\u{1b}[2J\u{202e}"]}, "exec": {}}));
        entry.matches = vec![matched("odd-shell", Severity::High)];
        let lines: Vec<_> = lines(&entry, 60, true).iter().map(ToString::to_string).collect();
        let headline = r"exec a $'\x1b[2J\u{202e}' [/usr/bin/true]";
        let why = ["high p/odd-shell", "  message of odd-shell", "  tags: t1, t2", "  https://example.org/odd-shell"];
        assert_eq!(lines[0], headline);
        assert_eq!(lines[1..5], why);
        assert!(lines.iter().any(|line| line.contains("\"type\": \"exec\"")), "{lines:#?}");
        assert!(lines.iter().any(|line| line.contains(r"\u001b[2J\u{202e}")), "{lines:#?}");
        assert!(!lines.concat().contains(|c: char| c.is_control() || c == '\u{202e}'));
    }
}
