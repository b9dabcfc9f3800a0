//! `-o table` and `-o wide`: a line per event, in columns that are fixed when the first line is written.
//!
//! Columns that tell of any event come first. Those that tell of processes a request has nothing to say in: its line goes on
//! as a sentence where they would begin, but in a wide table, whose columns programs may count.

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
    words::{self, Extent},
};

/// Between two columns.
const GAP: usize = 2;
/// Less than this is no use for paths: on a narrower terminal lines wrap.
const LEAST_DETAIL: usize = 16;
/// So much of what was done stays beside what is remarked on it.
const LEAST_SUBJECT: usize = 12;
/// So much of a user's name does.
const LEAST_NAME: usize = 8;
/// A terminal that has no room for who did it beside what was done.
const NARROW: usize = 60;
/// A terminal that has room for all that can be told at a glance.
const COMFORTABLE: usize = 100;
/// From here on there is room for more about an execution or a file.
const MORE: usize = 60;
/// The same for a request, whose line has more to say.
const MORE_OF_REQUEST: usize = 90;

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
    /// How many of these tell of any event, requests included.
    common: usize,
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
    NsPid,
    Ppid,
    Parent,
    Uid,
    NsUid,
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
        Self { layout, columns: Vec::new(), common: 0, detail: None, many_nodes: false, times: LocalTime::default() }
    }

    /// Fits the columns to the scene and the width.
    pub fn lay_out(&mut self, scene: &Scene<'_>) {
        use Column::{
            Container, Milliseconds, Namespace, Node, NsPid, NsUid, Operation, Parent, Pid, Ppid, Process, ProcessAndPid, Result,
            Rule, Severity, Time, Uid, Utc,
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
            add(NsPid, 7, true);
            add(Ppid, 7, true);
            add(Parent, 15, true);
            add(Uid, 5, true);
            add(NsUid, 5, true);
            add(Process, 15, true);
            add(Operation, 10, true);
            add(Result, 6, true);
            add(Severity, 8, scene.policies);
            add(Rule, 30, scene.policies);
        } else {
            let comfortable = room >= COMFORTABLE;
            let who = !scene.requests && room >= NARROW;
            let pods = who && !local;
            add(Time, 8, !comfortable);
            add(Milliseconds, 12, comfortable);
            add(Severity, 8, scene.policies);
            add(Rule, 24, scene.policies && comfortable);
            // Of requests alone, whose API server or log told of them.
            add(Node, 12, (pods || scene.requests && !local) && room >= 130 && scene.nodes > 1);
            add(Column::Pod, pod(if comfortable { 28 } else { 16 }), pods);
            add(Container, 12, who && room >= 140);
            add(Pid, 7, who && room >= if local { COMFORTABLE } else { 110 });
            add(Uid, 5, who && room >= if local { 120 } else { 160 });
            add(ProcessAndPid, 18, who && local && !comfortable);
            // Where no number follows its name: at the end, where the command line of an execution takes its room.
            let last = pods && room < 110 && !scene.policies;
            add(Process, 15, who && comfortable && !last);
            add(Operation, 10, !scene.requests && (!scene.policies || room >= 130));
            add(Process, if comfortable { 15 } else { 10 }, last);
        }
        let is_common = |(column, _): &(Column, usize)| {
            matches!(column, Time | Milliseconds | Severity | Rule) || scene.requests && *column == Node
        };
        self.common =
            if self.layout.wide { columns.len() } else { columns.iter().take_while(|column| is_common(column)).count() };
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
            Column::NsPid => number(process.ns_pid),
            Column::Ppid => Cow::Owned(process.ppid.to_string()),
            Column::Parent => process.ancestors.first().map_or(NONE, |parent| cell(&parent.comm)),
            Column::Uid => Cow::Owned(process.uid.to_string()),
            Column::NsUid => number(process.ns_uid),
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

    /// How many of the columns an event's line has; what it has to say takes the room of the others.
    fn columns_of(&self, event: &Event) -> usize {
        let all = self.columns.len();
        match (&event.what, self.columns.last()) {
            (What::Api { .. }, _) => self.common,
            // Its command line stands for the process's name.
            (What::Exec { .. }, Some((Column::Process, _))) if !self.layout.wide => all - 1,
            _ => all,
        }
    }

    fn put_detail(&self, event: &Event, room: Option<usize>, out: &mut impl Pieces) {
        let more = if matches!(event.what, What::Api { .. }) { MORE_OF_REQUEST } else { MORE };
        let extent = match room {
            _ if self.layout.wide => Extent::Whole,
            Some(room) if room < more => Extent::Brief,
            _ => Extent::Usual,
        };
        let detail = words::detail(event, extent);
        // A wide table has a column for it.
        let error = detail.error.filter(|_| !self.layout.wide).map(|error| format!(" {error}")).unwrap_or_default();
        let (mut subject, mut exe) = (detail.subject(), detail.exe.as_deref().map(|exe| format!(" [{exe}]")).unwrap_or_default());
        let mut marks = detail.remarks();
        if let Some(room) = room {
            let room = room.saturating_sub(shorten::width(&detail.tail) + shorten::width(&error)).max(LEAST_DETAIL / 2);
            // What was done says more than what is remarked on it, and whose shell it is more than which program that was.
            let left = room.saturating_sub(shorten::width(&subject).min(LEAST_SUBJECT));
            marks = enclosed(marks, left);
            exe = enclosed(exe, left.saturating_sub(shorten::width(&marks)).max(LEAST_ENCLOSED));
            subject = fit(&detail, room.saturating_sub(shorten::width(&marks) + shorten::width(&exe)));
        }
        out.put(&subject, PLAIN);
        out.put(&exe, PLAIN);
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
        let columns = self.columns_of(event);
        for at in 0..columns {
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
        let spared = &self.columns[columns..];
        let mut room = self.detail.map(|room| room + spared.iter().map(|(_, width)| width + GAP).sum::<usize>());
        if let Some(matched) = matched.filter(|matched| !matched.message.is_empty()) {
            let message = cell(&matched.message);
            let message = room.map_or(Cow::Borrowed(&*message), |room| shorten::end(&message, room));
            out.put(&message, PLAIN);
            if self.layout.wide {
                out.put(&words::detail(event, Extent::Whole).remarks(), DIM);
            }
            return;
        }
        // Among events of other kinds it is to be told what this is.
        if spared.iter().any(|(column, _)| *column == Column::Operation) {
            let kind = words::operation(event);
            put_padded(kind, kind.len(), style::of(event), out);
            room = room.map(|room| room.saturating_sub(kind.len() + GAP));
        }
        self.put_detail(event, room, out);
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
            Self::NsPid => "NSPID",
            Self::Ppid => "PPID",
            Self::Parent => "PARENT",
            Self::Uid => "UID",
            Self::NsUid => "NSUID",
            Self::Process | Self::ProcessAndPid => "PROCESS",
            Self::Operation => "OP",
            Self::Result => "RESULT",
            Self::Severity => "SEVERITY",
            Self::Rule => "RULE",
        }
    }
}

const NONE: Cow<'static, str> = Cow::Borrowed("-");

/// What is told only where it is another number than the one beside it.
fn number(own: Option<u32>) -> Cow<'static, str> {
    own.map_or(NONE, |own| Cow::Owned(own.to_string()))
}

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

/// What is left at least of what is enclosed: ` […]`.
const LEAST_ENCLOSED: usize = 4;

/// What stands in parentheses or brackets, cut within them; nothing where not even its cut would show.
fn enclosed(text: String, room: usize) -> String {
    if shorten::width(&text) <= room {
        return text;
    }
    let (Some(bracket), true) = (text.chars().next_back(), room >= LEAST_ENCLOSED) else { return String::new() };
    let inside = &text[..text.len() - bracket.len_utf8()];
    format!("{}{bracket}", shorten::end(inside, room - 1))
}

/// The subjects, and who did it, in so many columns.
fn fit(detail: &words::Detail<'_>, room: usize) -> String {
    if let Some(who) = &detail.who {
        let what = detail.subjects.join(" ");
        // What was done leaves a third to who did it, and more if it is short.
        let who = shorten::middle(who, (room / 3).max(LEAST_NAME).max(room.saturating_sub(shorten::width(&what) + 1)));
        let what = shorten::end(&what, room.saturating_sub(shorten::width(&who) + 1));
        return format!("{who} {what}");
    }
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
