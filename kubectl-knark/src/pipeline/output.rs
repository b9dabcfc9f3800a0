//! Standard output, written by a thread of its own: a reader that is slow, or has gone, must not keep the plugin from
//! hearing signals and from cleaning up.

use std::{
    io::{self, Write},
    thread::JoinHandle,
};

use tokio::sync::mpsc;

/// A chunk is handed to the writer at this size at the latest; its last event may go beyond.
pub const CHUNK: usize = 64 << 10;
/// How many chunks may wait for the writer.
const CHUNKS: usize = 4;

/// The way to standard output.
#[derive(Debug)]
pub struct Output {
    /// Where a chunk goes; closed when writing failed.
    pub chunks: mpsc::Sender<Vec<u8>>,
    /// Chunks that were written, to be filled again.
    spares: mpsc::Receiver<Vec<u8>>,
    writer: JoinHandle<io::Result<()>>,
}

impl Output {
    /// Starts the writer.
    pub fn to(mut sink: impl Write + Send + 'static) -> Self {
        let (chunks, mut received) = mpsc::channel::<Vec<u8>>(CHUNKS);
        let (written, spares) = mpsc::channel(CHUNKS);
        let writer = std::thread::spawn(move || {
            while let Some(mut chunk) = received.blocking_recv() {
                sink.write_all(&chunk)?;
                sink.flush()?;
                chunk.clear();
                // One event may be much longer than a chunk.
                chunk.shrink_to(2 * CHUNK);
                // Nobody needs it back at the end.
                let _ = written.try_send(chunk);
            }
            Ok(())
        });
        Self { chunks, spares, writer }
    }

    /// An empty chunk.
    pub fn spare(&mut self) -> Vec<u8> {
        self.spares.try_recv().unwrap_or_default()
    }

    /// Waits until all is written.
    pub async fn finish(self) -> io::Result<()> {
        drop(self.chunks);
        let joined = tokio::task::spawn_blocking(|| self.writer.join()).await;
        joined.map_err(io::Error::other)?.unwrap_or_else(|_| Err(io::Error::other("the writer panicked")))
    }
}

/// Whether nobody reads standard output any more. Writing would tell as well, but there may be nothing to write for long.
#[cfg(unix)]
pub fn reader_has_gone() -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let stdout = io::stdout();
    let mut fds = [PollFd::new(&stdout, PollFlags::empty())];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut fds, Some(&at_once)).is_ok() && fds[0].revents().intersects(PollFlags::ERR | PollFlags::NVAL)
}

/// Whether nobody reads standard output any more; on this system only writing tells.
#[cfg(not(unix))]
pub fn reader_has_gone() -> bool {
    false
}
