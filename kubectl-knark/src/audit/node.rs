//! An audit log of a node, as its tracer passes it on.

use std::{borrow::Cow, io};

use anyhow::{Context as _, anyhow};
use knark_audit_log::Next;
use knark_specs::frame::{LogPart, Up};
use tokio::{
    runtime::Handle,
    sync::mpsc::{self, error::TryRecvError},
};

use crate::{
    cluster::{LogPlace, LogStream},
    source::Input,
};

/// A log that a pod reads.
pub struct NodeLog {
    /// As events name it.
    pub name: String,
    node: String,
    place: LogPlace,
    inputs: mpsc::Receiver<Input>,
    /// Of a batch, what has not been taken yet begins there.
    batch: (Vec<u8>, usize),
    /// The file that is being read.
    reading: String,
    runtime: Handle,
}

/// What is next.
pub enum Word {
    /// Of the log itself.
    Log(Next),
    /// The tracer has opened it.
    Begun,
    /// What the node does meanwhile.
    Phase(String),
    /// The node's clock minus this machine's, in ns.
    Clock(i64),
    /// Nothing more comes; what went wrong.
    Gone(Option<anyhow::Error>),
}

impl Drop for NodeLog {
    fn drop(&mut self) {
        // The tracer says its last words only to somebody who hears them.
        let (_, closed) = mpsc::channel(1);
        let mut inputs = std::mem::replace(&mut self.inputs, closed);
        self.runtime.spawn(async move { while inputs.recv().await.is_some() {} });
    }
}

impl NodeLog {
    /// Reads that one. Called on the runtime.
    pub fn new(stream: LogStream) -> Self {
        let LogStream { name, node, place, inputs } = stream;
        let reading = place.to_string();
        Self { name, node, place, inputs, batch: (Vec::new(), 0), reading, runtime: Handle::current() }
    }

    /// The file that is being read.
    pub fn reading(&self) -> String {
        format!("{} of node {}", self.reading, self.node)
    }

    /// What comes next; bytes are put into `piece`.
    pub fn next(&mut self, piece: &mut [u8]) -> Word {
        if self.batch.1 < self.batch.0.len() {
            return match self.part(piece) {
                Ok(next) => Word::Log(next),
                Err(error) => Word::Gone(Some(self.about(error))),
            };
        }
        match self.inputs.try_recv() {
            Ok(Input::Up { message: Up::Hello(_), .. }) => Word::Begun,
            Ok(Input::Up { message: Up::Batch(batch), .. }) => {
                self.batch = (batch.items, 0);
                Word::Log(Next::Bytes(0))
            }
            Ok(Input::Phase { phase, .. }) => Word::Phase(phase),
            Ok(Input::Clock { offset_ns, .. }) => Word::Clock(offset_ns),
            Ok(Input::Gone { error, .. }) => Word::Gone(error.map(|error| self.about(error))),
            Ok(_) => Word::Log(Next::Bytes(0)),
            Err(TryRecvError::Empty) => Word::Log(Next::Nothing),
            // A connection always has a last word.
            Err(TryRecvError::Disconnected) => Word::Gone(Some(
                self.about(anyhow!("what follows its tracer has failed; what came of the log until then is shown")),
            )),
        }
    }

    /// The next part of the batch.
    fn part(&mut self, piece: &mut [u8]) -> anyhow::Result<Next> {
        let (batch, read) = &mut self.batch;
        let mut decoder = minicbor::Decoder::new(&batch[*read..]);
        let part: LogPart<'_> = decoder.decode().context("what the tracer sent is damaged")?;
        *read += decoder.position();
        Ok(match part {
            LogPart::File(name) => {
                self.reading = format!("{}/{name}", self.place.folder);
                Next::Bytes(0)
            }
            LogPart::Bytes(bytes) => {
                let room = piece.get_mut(..bytes.len()).ok_or_else(|| anyhow!("what the tracer sent is too long"))?;
                room.copy_from_slice(bytes);
                Next::Bytes(bytes.len())
            }
            LogPart::Ended(note) => Next::FileEnded(note.map(|note| Cow::Owned(note.to_owned()))),
            LogPart::Broken(why) => Next::Broken(io::Error::other(why.to_owned())),
        })
    }

    fn about(&self, error: anyhow::Error) -> anyhow::Error {
        error.context(format!("reading the audit log {} of node {}", self.place, self.node))
    }
}
