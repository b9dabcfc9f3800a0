//! One audit log as a node of the pipeline: it says what a tracer would say.

use knark_specs::{
    audit::{self, NoRecord, Piece, Seen, Splitter},
    frame::{Batch, Bodies, Ending, Hello, Item, Probe, Stage, Status, Up},
};

use super::log::{Log, Next};
use crate::source::Input;

/// A log that is being read.
pub struct Feed {
    node: u32,
    log: Log,
    splitter: Splitter,
    told: Told,
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
}

impl Feed {
    /// A log of which nothing has been read. Requests from before `since_ns` (since the epoch) are left out.
    pub fn new(node: u32, log: Log, since_ns: u64, bodies: Option<Bodies>) -> Self {
        let mut items = Vec::new();
        put(&audit::process(), &mut items);
        let told = Told { since_ns, bodies, items, batches: 0, sent: 0, filtered: 0, repeated: 0, unreadable: 0, time_ns: 0 };
        Self { node, log, splitter: Splitter::default(), told }
    }

    /// The introduction.
    pub fn begin(&mut self) -> Vec<Input> {
        let hello = Hello {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            kernel: String::new(),
            arch: String::new(),
            probes: vec![Probe { name: "audit log".to_owned(), serves: "api".to_owned(), missing: None }],
            realtime_offset_ns: 0,
            hostname: self.log.name.clone(),
        };
        let name = self.log.name.clone();
        vec![Input::Node { node: self.node, name }, Input::Up { node: self.node, message: Up::Hello(hello) }]
    }

    /// How far it has been read, in nanoseconds since the epoch.
    pub fn time_ns(&self) -> u64 {
        self.told.time_ns
    }

    /// Reads on, with room for a piece.
    pub fn step(&mut self, piece: &mut [u8], seen: &mut Seen) -> Step {
        let Self { log, splitter, told, .. } = self;
        match log.next(piece) {
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
        Step::Told(self.say())
    }

    /// The last words.
    pub fn end(mut self) -> Vec<Input> {
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
        inputs.push(Input::Gone { node: self.node, error: None });
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
