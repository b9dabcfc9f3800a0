//! `-o table` and `-o wide`: a line per event, in columns that are fixed when the first line is written.

use std::{borrow::Cow, io};

use knark_specs::{
    alert::Match,
    event::{Event, What},
    frame::Pod,
};

use super::{
    Scene,
    escape::{cell, cell_of},
    shorten,
    style::{self, DIM, PLAIN, RED, RESET, Style},
    times::LocalTime,
    words,
};

/// Between two columns.
const GAP: usize = 2;
/// Less than this is no use for paths: on a narrower terminal lines wrap.
const LEAST_DETAIL: usize = 16;
/// A terminal that has no room for who did it beside what was done.
const NARROW: usize = 60;

/// What the table must fit.
#[expect(clippy::struct_excessive_bools, reason = "each is a choice of its own")]
#[derive(Debug, Clone)]
pub struct Layout {
    /// All there is, nothing shortened.
    pub wide: bool,
    /// The terminal's width; `None`: nothing is shortened.
    pub width: Option<usize>,
    /// Whether to begin with the names of the columns.
    pub header: bool,
    /// Whether to colour.
    pub colour: bool,
    /// Whether the pod alone doesn't say enough.
    pub many_namespaces: bool,
    /// Whether all events are requests: who served them, and that they are requests, goes without saying.
    pub requests: bool,
}

/// What a line is written to, piece by piece.
pub trait Pieces {
    /// Adds text, harmless already, in this style.
    fn put(&mut self, text: &str, style: Style);
}

/// Text with SGR sequences, where it is to be coloured.
struct Ansi<'o> {
    out: &'o mut Vec<u8>,
    colour: bool,
}

impl Pieces for Ansi<'_> {
    fn put(&mut self, text: &str, style: Style) {
        let style = if self.colour && !text.is_empty() { style } else { PLAIN };
        self.out.extend_from_slice(style.as_bytes());
        self.out.extend_from_slice(text.as_bytes());
        if !style.is_empty() {
            self.out.extend_from_slice(RESET.as_bytes());
        }
    }
}

/// The renderer.
#[derive(Debug)]
pub struct Table {
    layout: Layout,
    columns: Vec<(Column, usize)>,
    /// Columns left for the detail; `None`: any number.
    detail: Option<usize>,
    many_nodes: bool,
    times: LocalTime,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    Time,
    Milliseconds,
    Utc,
    Node,
    Namespace,
    Pod,
    Container,
    Pid,
    Ppid,
    Parent,
    Uid,
    Process,
    ProcessAndPid,
    Operation,
    Result,
    Severity,
    Rule,
}

impl Table {
    /// A table that lays out its columns when it begins.
    pub fn new(layout: Layout) -> Self {
        Self { layout, columns: Vec::new(), detail: None, many_nodes: false, times: LocalTime::default() }
    }

    /// Fits the columns to the scene and the width.
    pub fn lay_out(&mut self, scene: &Scene<'_>) {
        use Column::{
            Container, Milliseconds, Namespace, Node, Operation, Parent, Pid, Ppid, Process, ProcessAndPid, Result, Rule,
            Severity, Time, Uid, Utc,
        };
        // What is no terminal is given what a comfortable terminal gets.
        let room = self.layout.width.unwrap_or(120);
        let with_namespace = self.layout.many_namespaces && !self.layout.wide;
        let pod = |most: usize| {
            let width = |pod: &Pod| pod.name.len() + if with_namespace { pod.namespace.len() + 1 } else { 0 };
            scene.pods.iter().copied().map(width).max().unwrap_or(if with_namespace { 28 } else { 20 }).clamp(8, most)
        };
        let local = scene.local;
        let mut columns = Vec::new();
        let mut add = |column: Column, width: usize, wanted: bool| {
            if wanted {
                columns.push((column, width));
            }
        };
        if self.layout.wide {
            add(Utc, 24, true);
            add(Node, 12, !local);
            add(Namespace, 12, !local);
            add(Column::Pod, pod(40), !local);
            add(Container, 12, true);
            add(Pid, 7, true);
            add(Ppid, 7, true);
            add(Parent, 15, true);
            add(Uid, 5, true);
            add(Process, 15, true);
            add(Operation, 10, true);
            add(Result, 6, true);
            add(Severity, 8, scene.policies);
            add(Rule, 30, scene.policies);
        } else if self.layout.requests || room < NARROW {
            add(Time, 8, room < 100);
            add(Milliseconds, 12, room >= 100);
            add(Operation, 10, !scene.policies && !self.layout.requests);
            add(Severity, 8, scene.policies);
            add(Rule, 24, scene.policies && room >= 100);
        } else {
            add(Time, 8, room < 100);
            add(Milliseconds, 12, room >= 100);
            add(Node, 12, room >= 130 && !local && scene.nodes > 1);
            add(Column::Pod, pod(if room < 100 { 16 } else { 28 }), !local);
            add(Container, 12, room >= 140);
            add(Pid, 7, room >= if local { 100 } else { 110 });
            add(Uid, 5, room >= if local { 120 } else { 160 });
            add(ProcessAndPid, 18, room < 100 && local);
            add(Process, if room < 100 { 10 } else { 15 }, room >= 100 || !local && !scene.policies);
            add(Operation, 10, !scene.policies || room >= 130);
            add(Severity, 8, scene.policies);
            add(Rule, if room < 100 { 16 } else { 24 }, scene.policies);
        }
        let taken: usize = columns.iter().map(|(_, width)| width + GAP).sum();
        self.detail = self.layout.width.map(|width| width.saturating_sub(taken).max(LEAST_DETAIL));
        self.columns = columns;
        self.many_nodes = scene.nodes > 1;
    }

    fn text<'e>(&mut self, column: Column, event: &'e Event, matched: Option<&'e Match>) -> Cow<'e, str> {
        let process = &event.process;
        match column {
            Column::Time => Cow::Owned(self.times.of(&event.time, false)),
            Column::Milliseconds => Cow::Owned(self.times.of(&event.time, true)),
            // An audit log tells nothing of the process.
            Column::Pid | Column::Ppid | Column::Uid if process.pid == 0 => NONE,
            // RFC 3339 with nanoseconds, of which three digits are kept.
            Column::Utc => Cow::Owned(format!("{}Z", event.time.get(..23).unwrap_or(&event.time))),
            Column::Node => cell(&event.node.name),
            Column::Namespace => event.kubernetes.as_ref().map_or(NONE, |k| cell(&k.namespace)),
            Column::Pod => self.pod(event),
            Column::Container => event.container.as_ref().map_or(NONE, |c| match c.name.as_str() {
                "" => cell(c.id.get(..12).unwrap_or(&c.id)),
                name => cell(name),
            }),
            Column::Pid => Cow::Owned(process.pid.to_string()),
            Column::Ppid => Cow::Owned(process.ppid.to_string()),
            Column::Parent => process.ancestors.first().map_or(NONE, |parent| cell(&parent.comm)),
            Column::Uid => Cow::Owned(process.uid.to_string()),
            Column::Process => cell_of(&process.comm, process.comm_b64.as_deref()),
            Column::ProcessAndPid if process.pid == 0 => cell(&process.comm),
            Column::ProcessAndPid => {
                Cow::Owned(format!("{}@{}", cell_of(&process.comm, process.comm_b64.as_deref()), process.pid))
            }
            Column::Operation => Cow::Borrowed(words::operation(event)),
            Column::Result => match &event.what {
                What::File { file } => file.error.as_deref().map_or_else(|| Cow::Owned(file.result.to_string()), Cow::Borrowed),
                What::Api { api } => api.code.map_or(NONE, |code| Cow::Owned(code.to_string())),
                _ => NONE,
            },
            Column::Severity => matched.map_or(NONE, |matched| Cow::Borrowed(matched.severity.name())),
            Column::Rule => match matched {
                Some(Match { policy, rule, .. }) if self.layout.wide => Cow::Owned(format!("{}/{}", cell(policy), cell(rule))),
                Some(Match { rule, .. }) => cell(rule),
                None => NONE,
            },
        }
    }

    fn pod<'e>(&self, event: &'e Event) -> Cow<'e, str> {
        match &event.kubernetes {
            Some(pod) if self.layout.many_namespaces && !self.layout.wide => {
                Cow::Owned(format!("{}/{}", cell(&pod.namespace), cell(&pod.pod)))
            }
            Some(pod) => cell(&pod.pod),
            None if self.many_nodes && !self.layout.wide => Cow::Owned(format!("node/{}", cell(&event.node.name))),
            None => NONE,
        }
    }

    fn put_detail(&self, event: &Event, out: &mut impl Pieces) {
        let detail = words::detail(event, self.detail.is_none_or(|room| room >= 60));
        let mut marks = if detail.marks.is_empty() { String::new() } else { format!(" ({})", detail.marks.join(", ")) };
        // A wide table has a column for it.
        let error = detail.error.filter(|_| !self.layout.wide).map(|error| format!(" {error}")).unwrap_or_default();
        let subjects = match self.detail {
            Some(room) => {
                let room = room.saturating_sub(shorten::width(&detail.tail) + shorten::width(&error)).max(LEAST_DETAIL / 2);
                // What was done says more than what is remarked on it.
                let subjects: usize = detail.subjects.iter().map(|subject| shorten::width(subject)).sum();
                let left = room.saturating_sub(subjects.min(LEAST_DETAIL));
                if shorten::width(&marks) > left {
                    marks = shorten::end(&marks, left).into_owned();
                }
                fit(&detail, room.saturating_sub(shorten::width(&marks)))
            }
            None => detail.subjects.join(" → "),
        };
        out.put(&subjects, PLAIN);
        out.put(&detail.tail, PLAIN);
        out.put(&error, RED);
        out.put(&marks, DIM);
    }
}

impl super::Render for Table {
    fn begin(&mut self, scene: &Scene<'_>, out: &mut Vec<u8>) {
        self.lay_out(scene);
        if self.layout.header {
            self.header(scene, &mut Ansi { out, colour: false });
            out.push(b'\n');
        }
    }

    fn event(&mut self, event: &Event, matches: &[Match], out: &mut Vec<u8>) -> io::Result<()> {
        if matches.is_empty() {
            self.row(event, None, out);
        }
        for matched in matches {
            self.row(event, Some(matched), out);
        }
        Ok(())
    }
}

impl Table {
    /// The names of the columns.
    pub fn header(&self, scene: &Scene<'_>, out: &mut impl Pieces) {
        for (column, width) in &self.columns {
            put_padded(column.name(), *width, PLAIN, out);
        }
        out.put(if scene.policies { "MESSAGE" } else { "DETAIL" }, PLAIN);
    }

    fn row(&mut self, event: &Event, matched: Option<&Match>, out: &mut Vec<u8>) {
        let colour = self.layout.colour;
        self.line(event, matched, &mut Ansi { out, colour });
        out.push(b'\n');
    }

    /// An event, and why it is worth showing.
    pub fn line(&mut self, event: &Event, matched: Option<&Match>, out: &mut impl Pieces) {
        for at in 0..self.columns.len() {
            let (column, width) = self.columns[at];
            let text = self.text(column, event, matched);
            let text = match (self.layout.width, column) {
                (None, _) => text,
                (Some(_), Column::Pod | Column::Node | Column::ProcessAndPid) => {
                    shorten::middle(&text, width).into_owned().into()
                }
                (Some(_), _) => shorten::end(&text, width).into_owned().into(),
            };
            let style = match column {
                Column::Operation => style::of(event),
                Column::Severity => matched.map_or(PLAIN, |matched| style::of_severity(matched.severity)),
                Column::Result if matches!(&event.what, What::File { file } if file.result < 0) => RED,
                _ => PLAIN,
            };
            put_padded(&text, width, style, out);
        }
        match matched.filter(|matched| !matched.message.is_empty()) {
            Some(matched) => {
                let message = cell(&matched.message);
                let message = self.detail.map_or(Cow::Borrowed(&*message), |room| shorten::end(&message, room));
                out.put(&message, PLAIN);
            }
            None => self.put_detail(event, out),
        }
    }
}

impl Column {
    fn name(self) -> &'static str {
        match self {
            Self::Time | Self::Milliseconds | Self::Utc => "TIME",
            Self::Node => "NODE",
            Self::Namespace => "NAMESPACE",
            Self::Pod => "POD",
            Self::Container => "CONTAINER",
            Self::Pid => "PID",
            Self::Ppid => "PPID",
            Self::Parent => "PARENT",
            Self::Uid => "UID",
            Self::Process | Self::ProcessAndPid => "PROCESS",
            Self::Operation => "OP",
            Self::Result => "RESULT",
            Self::Severity => "SEVERITY",
            Self::Rule => "RULE",
        }
    }
}

const NONE: Cow<'static, str> = Cow::Borrowed("-");

fn put_padded(text: &str, width: usize, style: Style, out: &mut impl Pieces) {
    const BLANKS: &str = "                                        ";
    out.put(text, style);
    let mut padding = width.saturating_sub(shorten::width(text)) + GAP;
    while padding > 0 {
        let blanks = padding.min(BLANKS.len());
        out.put(&BLANKS[..blanks], PLAIN);
        padding -= blanks;
    }
}

/// The subjects in so many columns.
fn fit(detail: &words::Detail<'_>, room: usize) -> String {
    match detail.subjects.as_slice() {
        [command] if detail.is_command => shorten::end(command, room).into_owned(),
        [path] => shorten::middle(path, room).into_owned(),
        [from, to, ..] => {
            let room = room.saturating_sub(3);
            // A short one leaves its room to the other.
            let first = (room / 2).max(room.saturating_sub(shorten::width(to)));
            let from = shorten::middle(from, first);
            let to = shorten::middle(to, room.saturating_sub(shorten::width(&from)));
            format!("{from} → {to}")
        }
        [] => String::new(),
    }
}

#[cfg(test)]
mod tests;
