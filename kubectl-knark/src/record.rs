//! Recordings: what the tracers sent, as it came, in a file; and back.

mod events;

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufWriter, Read, Write as _},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use knark_specs::{
    frame::{Batch, Item, Pod, Up, items},
    packet::{self, Decoder, MAGIC, PacketError, Recorded},
};

pub use events::events;

/// How much is read at a time.
const PIECE: usize = 256 << 10;

/// Writes a recording.
#[derive(Debug)]
pub struct Recorder {
    file: BufWriter<File>,
    path: PathBuf,
    /// The clock offset last written, by node.
    nodes: BTreeMap<u32, i64>,
    /// Pods that became known before any node did.
    early: Vec<Pod>,
}

impl Recorder {
    /// Makes the file, for its owner's eyes only. One that exists is never touched.
    pub fn create(path: &Path) -> anyhow::Result<Self> {
        let mut options = File::options();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let doing = || format!("making the recording {}", path.display());
        let file = options.open(path).map_err(|error| {
            let exists = error.kind() == std::io::ErrorKind::AlreadyExists;
            let remedy = if exists { ": recordings are never overwritten; choose another name" } else { "" };
            anyhow::anyhow!("{}: {error}{remedy}", doing())
        })?;
        let mut file = BufWriter::with_capacity(PIECE, file);
        file.write_all(&MAGIC).with_context(doing)?;
        Ok(Self { file, path: path.to_owned(), nodes: BTreeMap::new(), early: Vec::new() })
    }

    /// Adds what a node's tracer said.
    pub fn message(&mut self, node: u32, name: &str, clock_offset_ns: i64, message: &Up) -> anyhow::Result<()> {
        if self.nodes.insert(node, clock_offset_ns) != Some(clock_offset_ns) {
            self.write(&Recorded::Node { number: node, name: name.to_owned(), clock_offset_ns })?;
        }
        for pod in std::mem::take(&mut self.early) {
            self.pod(&pod)?;
        }
        // Cloning costs a copy of bytes that are about to be compressed and written.
        self.write(&Recorded::Up { node, message: message.clone() })
    }

    /// Adds what the API server knows of a pod.
    pub fn pod(&mut self, pod: &Pod) -> anyhow::Result<()> {
        let Some(node) = self.nodes.keys().next().copied() else {
            self.early.push(pod.clone());
            return Ok(());
        };
        let mut added = Vec::new();
        if minicbor::encode(Item::Pod(pod.clone()), &mut added).is_err() {
            unreachable!("encoding to memory can't fail");
        }
        // No tracer uses number 0, so this is told from what a tracer sent.
        self.write(&Recorded::Up { node, message: Up::Batch(Batch { seq: 0, items: added }) })
    }

    /// Writes what is left.
    pub fn finish(mut self) -> anyhow::Result<()> {
        self.file.flush().with_context(|| format!("writing the recording {}", self.path.display()))
    }

    fn write(&mut self, packet: &Recorded) -> anyhow::Result<()> {
        let written = self.file.write_all(&packet::encode(packet));
        written.with_context(|| format!("writing the recording {}", self.path.display()))
    }
}

/// Removes a recording that came to nothing: the trace failed before anything was written.
pub fn discard_empty(path: &Path) {
    if std::fs::metadata(path).is_ok_and(|file| file.len() <= MAGIC.len() as u64) {
        let _ = std::fs::remove_file(path);
    }
}

/// Reads a recording, piece by piece.
pub struct Recording<R> {
    from: R,
    decoder: Decoder,
    piece: Vec<u8>,
    /// How many bytes have been read.
    read: u64,
    /// Where the last whole packet ended.
    intact: u64,
}

/// Why a recording can't be read on.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// Not a recording at all.
    #[error("this is no recording of kubectl knark: it doesn't begin as one")]
    Magic,
    /// A recording of another version.
    #[error("this recording is of version {0}, and this kubectl knark reads version {ours}: use a newer one", ours = MAGIC[7])]
    Version(u8),
    /// The file could not be read.
    #[error("reading failed after {after} bytes: {error}")]
    Read {
        /// So far all was well.
        after: u64,
        /// What happened then.
        error: std::io::Error,
    },
    /// The file ends too soon.
    #[error("the recording is cut off: it ends inside the packet that begins at byte {0}; all before that was shown")]
    Truncated(u64),
    /// The bytes are wrong.
    #[error("the recording is damaged at byte {at}: {error}; all before that was shown")]
    Damaged {
        /// Where the packet begins.
        at: u64,
        /// What is wrong with it.
        error: PacketError,
    },
}

impl<R: Read> Recording<R> {
    /// Checks that this is a recording.
    pub fn open(mut from: R) -> Result<Self, RecordingError> {
        let mut magic = [0; MAGIC.len()];
        from.read_exact(&mut magic).map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => RecordingError::Magic,
            _ => RecordingError::Read { after: 0, error },
        })?;
        if magic[..7] != MAGIC[..7] {
            return Err(RecordingError::Magic);
        }
        if magic[7] != MAGIC[7] {
            return Err(RecordingError::Version(magic[7]));
        }
        let start = MAGIC.len() as u64;
        Ok(Self { from, decoder: Decoder::default(), piece: vec![0; PIECE], read: start, intact: start })
    }

    /// The next packet; `None` at the end.
    pub fn next(&mut self) -> Result<Option<Recorded>, RecordingError> {
        loop {
            match self.decoder.next::<Recorded>() {
                Ok(Some(packet)) => {
                    self.intact = self.read - self.decoder.pending() as u64;
                    return Ok(Some(packet));
                }
                Ok(None) => {}
                Err(error) => return Err(RecordingError::Damaged { at: self.intact, error }),
            }
            match self.from.read(&mut self.piece) {
                Ok(0) if self.decoder.is_inside_packet() => return Err(RecordingError::Truncated(self.intact)),
                Ok(0) => return Ok(None),
                Ok(length) => {
                    self.read += length as u64;
                    self.decoder.push(&self.piece[..length]);
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(RecordingError::Read { after: self.read, error }),
            }
        }
    }
}

/// The pods that a batch tells of, if it is one that [`Recorder::pod`] made.
pub fn pods_in(batch: &Batch) -> Option<Vec<Pod>> {
    if batch.seq != 0 {
        return None;
    }
    let pods = items(&batch.items).filter_map(|item| match item {
        Ok(Item::Pod(pod)) => Some(pod),
        _ => None,
    });
    Some(pods.collect())
}
