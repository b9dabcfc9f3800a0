//! The bytes of an audit log: of its files, one after another, as they were written, and of what is still being added.

use std::{
    collections::VecDeque,
    fs::{self, File, Metadata},
    io::{self, ErrorKind, Read},
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, TryRecvError, sync_channel},
};

use anyhow::ensure;
use knark_specs::audit::{COMPRESSED, Series, series, uncompressed};

use super::{PIECE, compressed::decompressed};
use crate::exit::UsageError;

/// How many pieces of a pipe wait to be taken.
const PIECES: usize = 4;

/// A log.
pub struct Log {
    /// As the user calls it.
    pub name: String,
    from: From,
}

enum From {
    Files(Box<Files>),
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
struct Files {
    /// Full ones that come next, the oldest first.
    waiting: VecDeque<Full>,
    open: Option<Open>,
    /// The last one that was opened.
    path: PathBuf,
    /// The one that is written to; it need not be there.
    live: PathBuf,
    /// More may come in it, and in its successors.
    follow: bool,
    /// It, or why it can't be read. Opened as soon as it is found: while older ones are read, it may get another name.
    held: Option<io::Result<Open>>,
    /// The full ones that were there when they were last looked for.
    known: Vec<Full>,
    /// Each of those keeps its name.
    is_dated: bool,
}

/// A file that was full when it was found.
#[derive(Clone)]
struct Full {
    path: PathBuf,
    id: Option<Id>,
}

/// What tells a file from another one of the same name.
type Id = ((u64, u64), u64);

struct Open {
    from: Box<dyn Read + Send>,
    id: Id,
    read: u64,
    /// Something can be added to it.
    is_plain: bool,
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
        let mut files = Files::of(path.to_owned(), follow);
        files.look(None);
        files.waiting.clear();
        ensure!(follow || files.held.is_some(), "it was renamed or removed");
        Ok(vec![Self { name, from: From::Files(Box::new(files)) }])
    }

    fn of_folder(folder: &Path, follow: bool) -> anyhow::Result<Vec<Self>> {
        let all = logs_in(folder)?;
        ensure!(
            !all.is_empty(),
            UsageError::because("the folder holds no audit logs, such as audit.log and audit-2026-01-02T03-04-05.678.log.gz")
        );
        let log = |series: Series| {
            let path = folder.join(&series.live);
            let name = path.display().to_string();
            let mut files = Files::of(path, follow);
            files.look(None);
            Self { name, from: From::Files(Box::new(files)) }
        };
        Ok(all.into_iter().map(log).collect())
    }

    /// Whether all that it will ever hold is there.
    pub fn is_complete(&self) -> bool {
        matches!(&self.from, From::Files(files) if !files.follow)
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
    fn of(live: PathBuf, follow: bool) -> Self {
        let path = live.clone();
        Self { waiting: VecDeque::new(), open: None, path, live, follow, held: None, known: Vec::new(), is_dated: true }
    }

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
                    self.follow = false;
                }
                Next::Broken(error)
            }
        }
    }

    fn open_next(&mut self) -> Next {
        if self.follow && self.waiting.is_empty() && self.held.is_none() {
            // It was renamed, and its successor may be there by now.
            self.look(None);
        }
        let opened = if let Some(full) = self.waiting.pop_front() {
            self.path.clone_from(&full.path);
            self.open_full(&full)
        } else if let Some(opened) = self.held.take() {
            self.path.clone_from(&self.live);
            // Nothing is ever added to a compressed file. One that can't be read can't be followed either.
            self.follow &= opened.as_ref().is_ok_and(|open| open.is_plain);
            opened.map(|open| Open { is_live: self.follow, ..open })
        } else {
            return if self.follow { Next::Nothing } else { Next::End };
        };
        match opened {
            Ok(open) => {
                self.open = Some(open);
                Next::Bytes(0)
            }
            Err(error) => Next::Broken(error),
        }
    }

    /// A full file, whatever its name has become.
    fn open_full(&mut self, full: &Full) -> io::Result<Open> {
        let opened = Open::new(&full.path);
        let is_it = |open: &Open| self.is_dated || full.id.is_none_or(|id| id == open.id);
        if opened.as_ref().is_ok_and(is_it) {
            return opened;
        }
        // A date keeps its file, which may be compressed by now; files keep their ids when their numbers change.
        let others: Vec<_> = if self.is_dated {
            COMPRESSED.iter().map(|end| full.path.with_added_extension(&end[1..])).collect()
        } else {
            let all = full_files(&self.live).0.into_iter();
            all.filter(|other| full.id.is_some() && other.id == full.id).map(|other| other.path).collect()
        };
        for path in others {
            if let Ok(open) = Open::new(&path) {
                self.path = path;
                return Ok(open);
            }
        }
        // Under a number there is another one now.
        opened.and_then(|_| Err(io::Error::other("it was renamed before it could be read")))
    }

    /// Of a file that is followed, the end may not be the last.
    fn at_end(&mut self) -> Next {
        let Some(open) = self.open.as_mut().filter(|open| open.is_live && !open.is_full) else {
            // It stays open meanwhile: no other file can have its number.
            let last = self.open.take().filter(|open| open.is_live);
            return Next::FileEnded(last.and_then(|last| self.look(Some(&last))));
        };
        match fs::metadata(&self.live) {
            Ok(now) if id(&now) != open.id => {
                // What was written to it before it got another name may not have been read yet.
                open.is_full = true;
                Next::Bytes(0)
            }
            // As with tail -F: one that has grown again before anybody looked isn't told from one that was not cut.
            Ok(now) if now.len() < open.read => {
                self.open = None;
                // A copy of what it held is no file to be read.
                self.look(None);
                self.waiting.clear();
                Next::FileEnded(Some(
                    "was cut to a smaller size and is read from its beginning again; what was added right before that may be missed",
                ))
            }
            _ => Next::Nothing,
        }
    }

    /// Opens the file that is written to, and queues those that were filled since the last look; `last` is the one that was followed
    /// until now. What it gives is to be said of the log.
    fn look(&mut self, last: Option<&Open>) -> Option<&'static str> {
        // Before the names are listed: if it gets another one in between, it is known by its number.
        self.held = match Open::new(&self.live) {
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            opened => Some(opened),
        };
        let held = self.held.as_ref().and_then(|held| Some(held.as_ref().ok()?.id));
        let (mut full, is_dated) = full_files(&self.live);
        full.retain(|file| file.id.is_none() || file.id != held);
        self.is_dated = is_dated;
        let known = std::mem::replace(&mut self.known, full.clone());
        let is_known = |file: &Full| {
            known
                .iter()
                .any(|known| if is_dated { known.name() == file.name() } else { known.id.is_some() && known.id == file.id })
        };
        let newer = if let Some(at) = last.and_then(|last| full.iter().position(|file| file.id == Some(last.id))) {
            full.split_off(at + 1)
        } else {
            // Numbers change with each file, and compression makes another file: only those after one that is known are newer.
            let first = if is_dated { Some(0) } else { full.iter().rposition(is_known).map(|at| at + 1) };
            let Some(first) = first.or(known.is_empty().then_some(0)) else {
                return last.map(|_| "was rotated, and it can't be told which of the full files are new: requests may be missed");
            };
            let mut newer = full.split_off(first);
            newer.retain(|file| !is_known(file));
            // It was compressed.
            if last.is_some() && newer.first().is_some_and(Full::is_compressed) {
                newer.remove(0);
            }
            newer
        };
        self.waiting.extend(newer);
        None
    }
}

impl Full {
    /// Its name before it was compressed.
    fn name(&self) -> Option<&str> {
        self.path.file_name().and_then(|name| name.to_str()).map(uncompressed)
    }

    fn is_compressed(&self) -> bool {
        self.path.file_name().and_then(|name| name.to_str()) != self.name()
    }
}

impl Open {
    fn new(path: &Path) -> io::Result<Self> {
        // One that only opens when somebody writes to it would keep all others waiting.
        if !fs::metadata(path)?.is_file() {
            return Err(io::Error::other("in a folder of logs, it is no file"));
        }
        let file = File::open(path)?;
        let id = id(&file.metadata()?);
        let (from, is_plain) = decompressed(file)?;
        Ok(Self { from, id, read: 0, is_plain, is_live: false, is_full: false })
    }
}

/// The full files of the log that is written to this one, the oldest first, and whether their names tell when they were full.
fn full_files(live: &Path) -> (Vec<Full>, bool) {
    let Some(series) = siblings(live) else { return (Vec::new(), true) };
    let full = |name: String| {
        let path = live.with_file_name(name);
        let id = fs::metadata(&path).ok().map(|about| id(&about));
        Full { path, id }
    };
    (series.rotated.into_iter().map(full).collect(), series.is_dated)
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

/// The number of a file that is gone may be used again, so that the time at which it was made belongs to it.
fn id(about: &Metadata) -> Id {
    #[cfg(unix)]
    let number = (std::os::unix::fs::MetadataExt::dev(about), std::os::unix::fs::MetadataExt::ino(about));
    #[cfg(not(unix))]
    let number = (0, 0);
    (number, about.created().map_or(0, super::nanoseconds))
}

#[cfg(test)]
mod tests;
