//! The files of a log, one after another, whatever becomes of their names meanwhile.

use std::{
    collections::VecDeque,
    ffi::{OsStr, OsString},
    fs::Metadata,
    io::{self, ErrorKind, Read},
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};

use knark_specs::audit::{COMPRESSED, Series, uncompressed};

use crate::{Next, compressed::decompressed, folder::Folder, logs_in};

/// Files that are read one after another.
pub struct Files {
    folder: Folder,
    /// Full ones that come next, the oldest first.
    waiting: VecDeque<Full>,
    open: Option<Open>,
    /// The last one that was opened.
    name: OsString,
    /// The one that is written to; it need not be there.
    live: OsString,
    /// More may come in it, and in its successors.
    pub follow: bool,
    /// It, or why it can't be read. Opened as soon as it is found: while older ones are read, it may get another name.
    held: Option<io::Result<Open>>,
    /// The full ones that were there when they were last looked for.
    known: Vec<Full>,
    /// Each of those keeps its name.
    is_dated: bool,
}

/// What is said of a file that is shorter than what was read of it, after its name.
const CUT: &str =
    "was cut to a smaller size and is read from its beginning again; what was added right before that may be missed";

/// A file that was full when it was found.
#[derive(Clone)]
struct Full {
    name: String,
    id: Option<Id>,
}

/// What tells a file from another one of the same name.
type Id = ((u64, u64), u128);

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

impl Files {
    /// Those of the log that is written to that one; nothing is opened yet.
    pub fn of(folder: Folder, live: OsString, follow: bool) -> Self {
        let name = live.clone();
        Self { folder, waiting: VecDeque::new(), open: None, name, live, follow, held: None, known: Vec::new(), is_dated: true }
    }

    /// All that are there come, the oldest first.
    pub fn begin(&mut self) {
        self.look(None);
    }

    /// Those that are full already are left out. Whether the last one is there.
    pub fn begin_with_the_live_one(&mut self) -> bool {
        self.look(None);
        self.waiting.clear();
        self.held.is_some()
    }

    /// The last one that was opened.
    pub fn reading(&self) -> PathBuf {
        self.folder.path_of(&self.name)
    }

    /// What comes next; bytes are put into `piece`.
    pub fn next(&mut self, piece: &mut [u8]) -> Next {
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
            self.name = full.name.clone().into();
            self.open_full(&full)
        } else if let Some(opened) = self.held.take() {
            self.name.clone_from(&self.live);
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
        let opened = Open::new(&self.folder, full.name.as_ref());
        let is_it = |open: &Open| self.is_dated || full.id.is_none_or(|id| id == open.id);
        if opened.as_ref().is_ok_and(is_it) {
            return opened;
        }
        // A date keeps its file, which may be compressed by now; files keep their ids when their numbers change.
        let others: Vec<_> = if self.is_dated {
            COMPRESSED.iter().map(|end| format!("{}{end}", full.name)).collect()
        } else {
            let all = self.full_files().0.into_iter();
            all.filter(|other| full.id.is_some() && other.id == full.id).map(|other| other.name).collect()
        };
        for name in others {
            if let Ok(open) = Open::new(&self.folder, name.as_ref()) {
                self.name = name.into();
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
            return Next::FileEnded(last.and_then(|last| self.look(Some(&last))).map(Into::into));
        };
        match self.folder.about(&self.live) {
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
                Next::FileEnded(Some(CUT.into()))
            }
            _ => Next::Nothing,
        }
    }

    /// Those that are full, the oldest first, and whether their names tell when they were full.
    fn full_files(&self) -> (Vec<Full>, bool) {
        let Some(series) = self.series() else { return (Vec::new(), true) };
        let full = |name: String| {
            let id = self.folder.about(name.as_ref()).ok().map(|about| id(&about));
            Full { name, id }
        };
        (series.rotated.into_iter().map(full).collect(), series.is_dated)
    }

    /// The log's files.
    fn series(&self) -> Option<Series> {
        let live = self.live.to_str()?;
        logs_in(&self.folder).ok()?.into_iter().find(|series| series.live == live)
    }

    /// Opens the file that is written to, and queues those that were filled since the last look; `last` is the one that was followed
    /// until now. What it gives is to be said of the log.
    fn look(&mut self, last: Option<&Open>) -> Option<&'static str> {
        // Before the names are listed: if it gets another one in between, it is known by its number.
        self.held = match Open::new(&self.folder, &self.live) {
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            opened => Some(opened),
        };
        let held = self.held.as_ref().and_then(|held| Some(held.as_ref().ok()?.id));
        let (mut full, is_dated) = self.full_files();
        full.retain(|file| file.id.is_none() || file.id != held);
        self.is_dated = is_dated;
        let known = std::mem::replace(&mut self.known, full.clone());
        let is_known = |file: &Full| {
            known.iter().any(|known| {
                if is_dated { known.plain_name() == file.plain_name() } else { known.id.is_some() && known.id == file.id }
            })
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
    fn plain_name(&self) -> &str {
        uncompressed(&self.name)
    }

    fn is_compressed(&self) -> bool {
        self.name != self.plain_name()
    }
}

impl Open {
    fn new(folder: &Folder, name: &OsStr) -> io::Result<Self> {
        let file = folder.open(name)?;
        let id = id(&file.metadata()?);
        let (from, is_plain) = decompressed(file)?;
        Ok(Self { from, id, read: 0, is_plain, is_live: false, is_full: false })
    }
}

/// The number of a file that is gone may be used again, so that the time at which it was made (ns since the epoch) belongs to it.
fn id(about: &Metadata) -> Id {
    #[cfg(unix)]
    let number = (std::os::unix::fs::MetadataExt::dev(about), std::os::unix::fs::MetadataExt::ino(about));
    #[cfg(not(unix))]
    let number = (0, 0);
    let nanoseconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    (number, about.created().map_or(0, nanoseconds))
}

#[cfg(test)]
mod tests;
