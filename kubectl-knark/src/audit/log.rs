//! The bytes of an audit log: of its files, one after another, as they were written, and of what is still being added.

use std::{
    collections::VecDeque,
    fs::{self, File, Metadata},
    io::{self, BufReader, Cursor, ErrorKind, Read},
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, TryRecvError, sync_channel},
};

use anyhow::ensure;
use flate2::read::MultiGzDecoder;
use knark_specs::audit::{Series, series, uncompressed};
use ruzstd::decoding::StreamingDecoder;

use super::PIECE;
use crate::exit::UsageError;

/// What a gzip file begins with.
const GZIP: &[u8] = &[0x1f, 0x8b];
/// What a zstd file begins with.
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
/// How many pieces of a pipe wait to be taken.
const PIECES: usize = 4;

/// A log.
pub struct Log {
    /// As the user calls it.
    pub name: String,
    from: From,
}

enum From {
    Files(Files),
    Pipe(Receiver<io::Result<Vec<u8>>>),
}

/// What is next.
pub enum Next {
    /// So many bytes.
    Bytes(usize),
    /// A file has ended, and with it what was begun in it; maybe there is something to say of that.
    FileEnded(Option<&'static str>),
    /// A file ends here, since this went wrong.
    Broken(io::Error),
    /// More may come.
    Nothing,
    /// Nothing more comes.
    End,
}

/// Files that are read one after another.
#[derive(Default)]
struct Files {
    /// The next ones.
    waiting: VecDeque<PathBuf>,
    open: Option<Open>,
    /// The last one that was opened.
    path: PathBuf,
    /// The file that is followed.
    live: Option<PathBuf>,
    /// Full files of the same log that need not be read any more.
    known: Vec<String>,
}

struct Open {
    from: Box<dyn Read + Send>,
    /// What tells it from another file of the same name.
    id: (u64, u64),
    read: u64,
    /// It is the one that is followed.
    is_live: bool,
    /// Another file has taken its name: what is there now is all.
    is_full: bool,
}

impl Log {
    /// The logs of that path: several if it is a folder with several.
    pub fn find(path: &Path, follow: bool) -> anyhow::Result<Vec<Self>> {
        if path.as_os_str() == "-" {
            return Ok(vec![Self { name: "standard input".to_owned(), from: From::Pipe(pipe(|| Ok(io::stdin()))) }]);
        }
        let name = path.display().to_string();
        let about = fs::metadata(path)?;
        if about.is_dir() {
            return Self::of_folder(path, follow);
        }
        if !about.is_file() {
            let path = path.to_owned();
            return Ok(vec![Self { name, from: From::Pipe(pipe(move || File::open(path))) }]);
        }
        File::open(path)?;
        let live = follow.then(|| path.to_owned());
        let known = siblings(path).map(|series| series.rotated).unwrap_or_default();
        let waiting = VecDeque::from([path.to_owned()]);
        Ok(vec![Self { name, from: From::Files(Files { waiting, live, known, ..Files::default() }) }])
    }

    fn of_folder(folder: &Path, follow: bool) -> anyhow::Result<Vec<Self>> {
        let all = logs_in(folder)?;
        ensure!(
            !all.is_empty(),
            UsageError::because("the folder holds no audit logs, such as audit.log and audit-2026-01-02T03-04-05.678.log.gz")
        );
        let log = |series: Series| {
            let path = folder.join(&series.live);
            let mut waiting: VecDeque<_> = series.rotated.iter().map(|name| folder.join(name)).collect();
            if series.has_live {
                waiting.push_back(path.clone());
            }
            let name = path.display().to_string();
            let live = follow.then_some(path);
            Self { name, from: From::Files(Files { waiting, live, known: series.rotated, ..Files::default() }) }
        };
        Ok(all.into_iter().map(log).collect())
    }

    /// Whether all that it will ever hold is there.
    pub fn is_complete(&self) -> bool {
        matches!(&self.from, From::Files(files) if files.live.is_none())
    }

    /// The file that is being read.
    pub fn reading(&self) -> String {
        match &self.from {
            From::Files(files) => files.path.display().to_string(),
            From::Pipe(_) => self.name.clone(),
        }
    }

    /// What comes next; bytes are put into `piece`.
    pub fn next(&mut self, piece: &mut [u8]) -> Next {
        match &mut self.from {
            From::Files(files) => files.next(piece),
            From::Pipe(pieces) => match pieces.try_recv() {
                Ok(Ok(bytes)) if bytes.is_empty() => Next::FileEnded(None),
                Ok(Ok(bytes)) => {
                    piece[..bytes.len()].copy_from_slice(&bytes);
                    Next::Bytes(bytes.len())
                }
                Ok(Err(error)) => Next::Broken(error),
                Err(TryRecvError::Empty) => Next::Nothing,
                Err(TryRecvError::Disconnected) => Next::End,
            },
        }
    }
}

impl Files {
    fn next(&mut self, piece: &mut [u8]) -> Next {
        let Some(open) = &mut self.open else { return self.open_next() };
        match open.from.read(piece) {
            Ok(0) => self.at_end(),
            Ok(length) => {
                open.read += u64::try_from(length).unwrap_or(u64::MAX);
                Next::Bytes(length)
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Next::Bytes(0),
            Err(error) => {
                // It may well fail again, and from its beginning all would come again.
                if self.open.take().is_some_and(|open| open.is_live) {
                    self.live = None;
                }
                Next::Broken(error)
            }
        }
    }

    fn open_next(&mut self) -> Next {
        let path = match (self.waiting.pop_front(), &self.live) {
            (Some(path), _) => path,
            (None, Some(live)) => live.clone(),
            (None, None) => return Next::End,
        };
        let is_live = self.live.as_ref() == Some(&path);
        match Open::new(&path, is_live) {
            Ok(open) => {
                // Nothing is ever added to a compressed file.
                self.live = self.live.take().filter(|_| open.is_live || !is_live);
                self.open = Some(open);
                self.path = path;
                Next::Bytes(0)
            }
            // It was renamed, and its successor isn't there yet.
            Err(error) if is_live && error.kind() == ErrorKind::NotFound => Next::Nothing,
            Err(error) => {
                self.path = path;
                // It can't be followed either.
                self.live = self.live.take().filter(|_| !is_live);
                Next::Broken(error)
            }
        }
    }

    /// Of a file that is followed, the end may not be the last.
    fn at_end(&mut self) -> Next {
        let Some(open) = self.open.as_mut().filter(|open| open.is_live && !open.is_full) else {
            if self.open.take().is_some_and(|open| open.is_live) {
                self.catch_up();
            }
            return Next::FileEnded(None);
        };
        match fs::metadata(&self.path) {
            Ok(now) if id(&now) != open.id => {
                // What was written to it before it got another name may not have been read yet.
                open.is_full = true;
                Next::Bytes(0)
            }
            // As with tail -F: one that has grown again before anybody looked isn't told from one that was not cut.
            Ok(now) if now.len() < open.read => {
                self.open = None;
                Next::FileEnded(Some(
                    "was cut to a smaller size and is read from its beginning again; what was added right before that may be missed",
                ))
            }
            _ => Next::Nothing,
        }
    }

    /// Files that were filled since the last one was opened are to be read as well.
    fn catch_up(&mut self) {
        let Some(series) = self.live.as_deref().and_then(siblings) else { return };
        let known: Vec<_> = self.known.iter().map(|name| uncompressed(name)).collect();
        let new = series.rotated.iter().filter(|name| !known.contains(&uncompressed(name)));
        // The first is the one that was followed. Numbers change with each file, so they don't tell.
        if series.is_dated {
            let folder = self.path.parent().unwrap_or(Path::new("")).to_owned();
            self.waiting.extend(new.skip(1).map(|name| folder.join(name)));
        }
        self.known = series.rotated;
    }
}

impl Open {
    fn new(path: &Path, is_live: bool) -> io::Result<Self> {
        // One that only opens when somebody writes to it would keep all others waiting.
        if !fs::metadata(path)?.is_file() {
            return Err(io::Error::other("in a folder of logs, it is no file"));
        }
        let file = File::open(path)?;
        let id = id(&file.metadata()?);
        let (from, is_plain) = decompressed(file)?;
        Ok(Self { from, id, read: 0, is_live: is_live && is_plain, is_full: false })
    }
}

/// The log that a file belongs to as the one that is written to.
fn siblings(live: &Path) -> Option<Series> {
    let name = live.file_name()?.to_str()?;
    let folder = live.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    logs_in(folder).ok()?.into_iter().find(|series| series.live == name)
}

fn logs_in(folder: &Path) -> io::Result<Vec<Series>> {
    let names: Vec<String> =
        fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().into_string().unwrap_or_default())).collect::<io::Result<_>>()?;
    Ok(series(names.iter().map(String::as_str)))
}

/// Opens and reads what may never come in a thread that nobody waits for: a FIFO opens when somebody writes to it. An empty piece is
/// the end.
fn pipe<R: Read + Send + 'static>(open: impl FnOnce() -> io::Result<R> + Send + 'static) -> Receiver<io::Result<Vec<u8>>> {
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
    pieces
}

/// What is in it, by its first bytes, and whether that is what it says as it stands.
fn decompressed(mut from: impl Read + Send + 'static) -> io::Result<(Box<dyn Read + Send>, bool)> {
    let mut first = Vec::new();
    from.by_ref().take(ZSTD.len() as u64).read_to_end(&mut first)?;
    let (gzip, zstd) = (first.starts_with(GZIP), first == ZSTD);
    let whole = Cursor::new(first).chain(from);
    Ok(if gzip {
        (Box::new(MultiGzDecoder::new(BufReader::new(whole))), false)
    } else if zstd {
        (Box::new(Zstd { rest: Some(Box::new(BufReader::new(whole))), frame: None }), false)
    } else {
        (Box::new(whole), true)
    })
}

/// All frames of a zstd file.
struct Zstd {
    /// What follows the frame; with the frame while there is one.
    rest: Option<Box<dyn io::BufRead + Send>>,
    frame: Option<StreamingDecoder<Box<dyn io::BufRead + Send>, ruzstd::decoding::FrameDecoder>>,
}

impl Read for Zstd {
    fn read(&mut self, piece: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(mut frame) = self.frame.take() {
                let length = frame.read(piece)?;
                if length > 0 {
                    self.frame = Some(frame);
                    return Ok(length);
                }
                self.rest = Some(frame.into_inner());
            }
            let Some(mut rest) = self.rest.take() else { return Ok(0) };
            if rest.fill_buf()?.is_empty() {
                return Ok(0);
            }
            self.frame = Some(StreamingDecoder::new(rest).map_err(io::Error::other)?);
        }
    }
}

#[cfg(unix)]
fn id(about: &Metadata) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt as _;
    (about.dev(), about.ino())
}

/// Where files have no number, the time at which they were made tells them apart.
#[cfg(not(unix))]
fn id(about: &Metadata) -> (u64, u64) {
    (about.created().map_or(0, super::nanoseconds), 0)
}

#[cfg(test)]
mod tests;
