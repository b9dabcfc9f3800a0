//! Events as lines: the table's own columns and words.

use ratatui::{
    style::{Color, Modifier, Style},
    text::{Line, Span},
};

use super::{board::Setting, history::Entry, model::Manner, pane::Kind};
use crate::render::{
    Scene,
    escape::cell,
    style,
    table::{Layout, Pieces, Table},
};

/// A table of one pane.
#[derive(Debug)]
pub struct Rows {
    table: Table,
    header: Line<'static>,
    colour: bool,
}

impl Rows {
    /// Fits the columns to the pane.
    pub fn new(kind: Kind, width: usize, setting: &Setting, manner: &Manner) -> Self {
        let layout =
            Layout { wide: false, width: Some(width), header: false, colour: false, many_namespaces: manner.many_namespaces };
        let mut table = Table::new(layout);
        let pods: Vec<_> = setting.pod.iter().collect();
        let Setting { local, nodes, policies, .. } = *setting;
        let scene = Scene { local, nodes, pods: &pods, policies, requests: kind == Kind::Requests };
        table.lay_out(&scene);
        let mut header = Spans::new(false);
        table.header(&scene, &mut header);
        Self { table, header: Line::from(header.spans).style(Modifier::DIM), colour: manner.colour }
    }

    /// The names of the columns.
    pub fn header(&self) -> &Line<'static> {
        &self.header
    }

    /// An event, with the most severe of the rules that it matches.
    pub fn line(&mut self, entry: &Entry) -> Line<'static> {
        let mut pieces = Spans::new(self.colour);
        self.table.line(&entry.event, entry.matches.first(), &mut pieces);
        Line::from(pieces.spans)
    }
}

/// What the filter looks into.
#[derive(Debug)]
pub struct Words(Table);

impl Default for Words {
    fn default() -> Self {
        let layout = Layout { wide: false, width: None, header: false, colour: false, many_namespaces: true };
        let mut table = Table::new(layout);
        table.lay_out(&Scene { local: false, nodes: 1, pods: &[], policies: false, requests: false });
        Self(table)
    }
}

impl Words {
    /// All that any width of the screen shows of an event in its line.
    pub fn of(&mut self, entry: &Entry) -> String {
        let event = &entry.event;
        let mut text = Text(String::with_capacity(200));
        self.0.line(event, None, &mut text);
        let mut add = |more: &str| text.0.extend([" ", more]);
        add(&cell(&event.node.name));
        if let Some(container) = &event.container {
            add(&cell(&container.name));
        }
        for matched in &entry.matches {
            add(matched.severity.name());
            for part in [&matched.policy, &matched.rule, &matched.message] {
                add(&cell(part));
            }
        }
        text.0
    }
}

/// What an SGR sequence of the table's means.
pub fn style_of(sgr: style::Style) -> Style {
    let codes = sgr.strip_prefix("\x1b[").and_then(|codes| codes.strip_suffix('m')).unwrap_or_default();
    codes.split(';').fold(Style::new(), |style, code| match code {
        "1" => style.add_modifier(Modifier::BOLD),
        "2" => style.add_modifier(Modifier::DIM),
        "31" => style.fg(Color::Red),
        "32" => style.fg(Color::Green),
        "33" => style.fg(Color::Yellow),
        "35" => style.fg(Color::Magenta),
        "36" => style.fg(Color::Cyan),
        _ => style,
    })
}

struct Text(String);

impl Pieces for Text {
    fn put(&mut self, text: &str, _style: style::Style) {
        self.0.push_str(text);
    }
}

struct Spans {
    spans: Vec<Span<'static>>,
    colour: bool,
}

impl Spans {
    fn new(colour: bool) -> Self {
        Self { spans: Vec::new(), colour }
    }
}

impl Pieces for Spans {
    fn put(&mut self, text: &str, style: style::Style) {
        let style = if self.colour { style_of(style) } else { Style::new() };
        self.spans.push(Span::styled(text.to_owned(), style));
    }
}

#[cfg(test)]
mod tests {
    use knark_specs::policy::Severity;
    use serde_json::json;

    use super::*;
    use crate::tui::tests::{entry, matched};

    #[test]
    fn the_tables_colours_are_known() {
        let severities = [Severity::Low, Severity::Medium, Severity::High, Severity::Critical];
        for sgr in severities.map(style::of_severity) {
            assert!(style_of(sgr).fg.is_some(), "{sgr:?}");
        }
        assert_eq!(style_of(style::DIM), Style::new().add_modifier(Modifier::DIM));
        assert_eq!(style_of(style::PLAIN), Style::new());
    }

    #[test]
    fn the_filter_sees_what_any_width_shows() {
        let event = json!({"process": {"comm": "cat", "args": ["cat", "a b"], "exe": "/bin/cat"}, "exec": {},
            "kubernetes": {"namespace": "prod", "pod": "web-1"}, "node": {"name": "knark-1"}});
        let mut entry = entry(0, event);
        entry.matches = vec![matched("odd-shell", Severity::High)];
        let text = Words::default().of(&entry);
        for part in ["prod/web-1", "cat 'a b'", "exec", "knark-1", "high", "odd-shell", "message of odd-shell"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
