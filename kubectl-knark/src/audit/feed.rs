//! One audit log as a node of the pipeline: it says what a tracer would say.

use knark_specs::{
    audit::{self, NoRecord, Piece, Seen, Splitter},
    frame::{Batch, Bodies, Ending, Hello, Item, Probe, Stage, Status, Up},
};

use knark_audit_log::{Log, Next};

use super::node::{NodeLog, Word};
use crate::source::Input;

/// A log that is being read.
pub struct Feed {
    node: u32,
    log: Source,
    /// It has been opened.
    begun: bool,
    splitter: Splitter,
    told: Told,
}

/// Where a log is read.
pub enum Source {
    /// Here.
    Here(Log),
    /// On its node.
    There(Box<NodeLog>),
}

/// What there was so far.
struct Told {
    /// Older requests aren't wanted.
    since_ns: u64,
    bodies: Option<Bodies>,
    /// Items that were not passed on yet.
    items: Vec<u8>,
    batches: u64,
    sent: u64,
    /// Too old, or there before.
    filtered: u64,
    repeated: u64,
    unreadable: u64,
    /// The latest time that was read, in nanoseconds since the epoch.
    time_ns: u64,
}

/// What came of a step.
pub enum Step {
    /// This is to be said.
    Told(Vec<Input>),
    /// There is nothing more at the moment.
    Waiting,
    /// There is nothing more.
    Ended,
    /// Nothing more can be had.
    Failed(anyhow::Error),
}

impl Feed {
    /// A log of which nothing has been read. Requests from before `since_ns` (since the epoch) are left out.
    pub fn new(node: u32, log: Source, since_ns: u64, bodies: Option<Bodies>) -> Self {
        let mut items = Vec::new();
        put(&audit::process(), &mut items);
        let told = Told { since_ns, bodies, items, batches: 0, sent: 0, filtered: 0, repeated: 0, unreadable: 0, time_ns: 0 };
        Self { node, log, begun: false, splitter: Splitter::default(), told }
    }

    /// The introduction. What is on a node is not there at once.
    pub fn begin(&mut self) -> Vec<Input> {
        let name = self.log.name().to_owned();
        let mut inputs = vec![Input::Node { node: self.node, name }];
        inputs.extend(matches!(self.log, Source::Here(_)).then(|| self.hello()));
        inputs
    }

    fn hello(&mut self) -> Input {
        self.begun = true;
        let hello = Hello {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            kernel: String::new(),
            arch: String::new(),
            probes: vec![Probe { name: "audit log".to_owned(), serves: "api".to_owned(), missing: None }],
            realtime_offset_ns: 0,
            hostname: self.log.name().to_owned(),
            portable: Vec::new(),
        };
        Input::Up { node: self.node, message: Up::Hello(hello) }
    }

    /// Whether it has been opened.
    pub fn is_begun(&self) -> bool {
        self.begun
    }

    /// Whether it lies on a node, whose tracer has last words.
    pub fn is_there(&self) -> bool {
        matches!(self.log, Source::There(_))
    }

    /// How far it has been read, in nanoseconds since the epoch.
    pub fn time_ns(&self) -> u64 {
        self.told.time_ns
    }

    /// Reads on, with room for a piece.
    pub fn step(&mut self, piece: &mut [u8], seen: &mut Seen) -> Step {
        let Self { node, log, splitter, told, .. } = self;
        let word = match log {
            Source::Here(log) => Word::Log(log.next(piece)),
            Source::There(log) => log.next(piece),
        };
        let next = match word {
            Word::Log(next) => next,
            Word::Begun => return Step::Told(vec![self.hello()]),
            Word::Phase(phase) => return Step::Told(vec![Input::Phase { node: *node, phase }]),
            Word::Clock(offset_ns) => return Step::Told(vec![Input::Clock { node: *node, offset_ns }]),
            Word::Gone(None) => return Step::Ended,
            Word::Gone(Some(error)) => return Step::Failed(error),
        };
        match next {
            Next::Bytes(length) => {
                let file = log.reading();
                splitter.push(&piece[..length], |piece| told.take(piece, &file, seen));
            }
            Next::Broken(why) => {
                let file = log.reading();
                told.unreadable += 1;
                told.note(&format!("{file} could not be read to its end, so requests are missed: {why}"));
                splitter.end(|piece| told.take(piece, &file, seen));
            }
            Next::FileEnded(note) => {
                let file = log.reading();
                splitter.end(|piece| told.take(piece, &file, seen));
                if let Some(note) = note {
                    told.note(&format!("{file} {note}"));
                }
            }
            Next::Nothing => return Step::Waiting,
            Next::End => return Step::Ended,
        }
        // Before its Hello there is nothing that could be said.
        Step::Told(if self.begun { self.say() } else { Vec::new() })
    }

    /// The last words where it ends too early: what was begun, and all that follows, is missed.
    pub fn fail(mut self, error: anyhow::Error) -> Vec<Input> {
        if self.begun {
            let (file, mut seen) = (self.log.reading(), Seen::default());
            let Self { splitter, told, .. } = &mut self;
            splitter.end(|piece| told.take(piece, &file, &mut seen));
            told.unreadable += 1;
        }
        self.end_with(Some(error))
    }

    /// The last words.
    pub fn end(self) -> Vec<Input> {
        self.end_with(None)
    }

    /// The last words where it is left before its end. Of one that is followed, there is none.
    pub fn leave(mut self, follow: bool) -> Vec<Input> {
        if self.begun && !follow {
            let file = self.log.reading();
            self.told.note(&format!("{file} was not read to its end"));
        }
        self.end_with(None)
    }

    fn end_with(mut self, error: Option<anyhow::Error>) -> Vec<Input> {
        let gone = Input::Gone { node: self.node, error };
        if !self.begun {
            return vec![gone];
        }
        let Told { repeated, unreadable, .. } = self.told;
        if repeated > 0 {
            self.told.note(&format!("{repeated} {} there before, and shown once", were(repeated)));
        }
        if unreadable > 1 {
            self.told.note(&format!("{unreadable} {} not to be read, and counted as lost", were(unreadable)));
        }
        let mut inputs = self.say();
        let bye = Up::Bye { reason: Ending::Stopped, status: self.told.status() };
        inputs.push(Input::Up { node: self.node, message: bye });
        inputs.push(gone);
        inputs
    }

    fn say(&mut self) -> Vec<Input> {
        let told = &mut self.told;
        let mut messages = Vec::new();
        if !told.items.is_empty() {
            told.batches += 1;
            messages.push(Up::Batch(Batch { seq: told.batches, items: std::mem::take(&mut told.items) }));
        }
        messages.push(Up::Status(told.status()));
        let node = self.node;
        messages.into_iter().map(|message| Input::Up { node, message }).collect()
    }
}

impl Source {
    /// As events call it.
    fn name(&self) -> &str {
        match self {
            Self::Here(log) => &log.name,
            Self::There(log) => &log.name,
        }
    }

    /// The file that is being read.
    fn reading(&self) -> String {
        match self {
            Self::Here(log) => log.reading(),
            Self::There(log) => log.reading(),
        }
    }
}

impl Told {
    fn take(&mut self, piece: Piece<'_>, file: &str, seen: &mut Seen) {
        let (line, parsed) = match piece {
            Piece::Damage { line, why } => return self.miss(file, line, &why),
            Piece::Object { line, json } => (line, audit::parse(json, self.bodies)),
        };
        let record = match parsed {
            Ok(Some(record)) => record,
            Ok(None) => return,
            Err(error) => return self.miss(file, line, &shown(&error)),
        };
        self.time_ns = self.time_ns.max(record.time_ns());
        if record.time_ns() < self.since_ns {
            self.filtered += 1;
            return;
        }
        let before = self.items.len();
        put(&record.item(), &mut self.items);
        if seen.is_new(&self.items[before..]) {
            self.sent += 1;
        } else {
            self.items.truncate(before);
            self.filtered += 1;
            self.repeated += 1;
        }
    }

    /// Counts what could not be read; the first is shown.
    fn miss(&mut self, file: &str, line: u64, why: &dyn std::fmt::Display) {
        self.unreadable += 1;
        if self.unreadable == 1 {
            self.note(&format!("{file}, line {line}: {why}; what can't be read is counted as lost"));
        }
    }

    fn note(&mut self, text: &str) {
        put(&Item::Note(text), &mut self.items);
    }

    fn status(&self) -> Status {
        let Self { sent, filtered, unreadable, time_ns, batches, .. } = *self;
        Status {
            seen: sent + filtered + unreadable,
            filtered,
            sent,
            lost: (unreadable > 0).then_some((Stage::Unreadable, unreadable)).into_iter().collect(),
            watermark_ns: time_ns,
            last_seq: batches,
            ..Status::default()
        }
    }
}

/// In words for a line; what JSON's parser says of columns is about the event, which may be one of a list's.
fn shown(error: &NoRecord) -> String {
    let text = error.to_string();
    text.split(" at line ").next().unwrap_or_default().to_owned()
}

fn were(number: u64) -> &'static str {
    if number == 1 { "event was" } else { "events were" }
}

fn put(item: &Item<'_>, items: &mut Vec<u8>) {
    if let Err(error) = minicbor::encode(item, items) {
        unreachable!("encoding to memory can't fail: {error}");
    }
}
