//! What comes through a pipe.

use std::{
    io::{self, ErrorKind, Read},
    sync::mpsc::{Receiver, TryRecvError, sync_channel},
};

use crate::{Next, PIECE, compressed::decompressed};

/// How many pieces wait to be taken.
const PIECES: usize = 4;

/// A pipe that is being read. An empty piece is its end.
pub struct Pipe(Receiver<io::Result<Vec<u8>>>);

impl Pipe {
    /// Opens and reads what may never come in a thread that nobody waits for: a FIFO opens when somebody writes to it.
    pub fn read<R: Read + Send + 'static>(open: impl FnOnce() -> io::Result<R> + Send + 'static) -> Self {
        let (sender, pieces) = sync_channel(PIECES);
        std::thread::spawn(move || {
            let mut from = match open().and_then(decompressed) {
                Ok((from, _)) => from,
                Err(error) => {
                    let _ = sender.send(Err(error));
                    return;
                }
            };
            let mut piece = vec![0; PIECE];
            loop {
                let read = match from.read(&mut piece) {
                    Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                    read => read.map(|length| piece[..length].to_vec()),
                };
                let is_last = !matches!(&read, Ok(bytes) if !bytes.is_empty());
                if sender.send(read).is_err() || is_last {
                    break;
                }
            }
        });
        Self(pieces)
    }

    /// What comes next.
    pub fn next(&self, piece: &mut [u8]) -> Next {
        match self.0.try_recv() {
            Ok(Ok(bytes)) if bytes.is_empty() => Next::FileEnded(None),
            Ok(Ok(bytes)) => {
                piece[..bytes.len()].copy_from_slice(&bytes);
                Next::Bytes(bytes.len())
            }
            Ok(Err(error)) => Next::Broken(error),
            Err(TryRecvError::Empty) => Next::Nothing,
            Err(TryRecvError::Disconnected) => Next::End,
        }
    }
}
