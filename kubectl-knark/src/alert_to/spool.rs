//! What a receiver can't take for now, on disk: a file of JSON lines, the oldest first, of bounded size, readable by its owner alone.
//!
//! A file belongs to one receiver, and to one process at a time, which locks it. What a process leaves, the next one with this
//! receiver takes up. Its first line says how far it was delivered, so that after a crash little is delivered twice and nothing lost.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

use knark_specs::alert::Notice;

/// The first line: a number of so many digits.
const DIGITS: usize = 20;
const HEADER: u64 = DIGITS as u64 + 1;
/// A longer line is none of ours.
const LINE: u64 = 16 << 20;
/// So many processes may have the same receiver at a time.
const SLOTS: u32 = 100;

/// A receiver's spool.
#[derive(Debug)]
pub struct Spool {
    folder: PathBuf,
    name: String,
    limit: u64,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    file: File,
    path: PathBuf,
    /// Up to here it was delivered.
    read: u64,
    end: u64,
    /// Lines from there on.
    lines: u64,
}

/// What was read.
#[derive(Debug, Default)]
pub struct Chunk {
    /// The oldest alerts.
    pub notices: Vec<Notice>,
    /// Lines that are no alerts.
    pub damaged: u64,
    /// How much they take; not where they are, since that may change meanwhile.
    bytes: u64,
    lines: u64,
}

impl Spool {
    /// The spool of this name; takes up what an earlier process left. The file is made once it is needed.
    ///
    /// # Errors
    /// What was left can't be read.
    pub fn new(folder: PathBuf, name: String, limit: u64) -> io::Result<Self> {
        let mut spool = Self { folder, name, limit, open: None };
        spool.open = spool.slot(false)?;
        if spool.open.as_ref().is_some_and(|open| open.lines == 0) {
            spool.finish()?;
        }
        Ok(spool)
    }

    /// Lines that wait.
    pub fn lines(&self) -> u64 {
        self.open.as_ref().map_or(0, |open| open.lines)
    }

    /// Where they are.
    pub fn path(&self) -> Option<&Path> {
        self.open.as_ref().map(|open| &*open.path)
    }

    /// Adds one. What can't be added as a whole isn't there at all.
    ///
    /// # Errors
    /// There is no room, or the file can't be made or written.
    pub fn add(&mut self, notice: &Notice) -> io::Result<()> {
        let mut line = serde_json::to_vec(notice)?;
        line.push(b'\n');
        if self.open.is_none() {
            self.open = self.slot(true)?;
        }
        let limit = self.limit;
        let length = line.len() as u64;
        let Some(open) = &mut self.open else {
            return Err(io::Error::other("other processes use all of this receiver's spools"));
        };
        if open.end + length > limit {
            open.compact()?;
        }
        if open.end + length > limit {
            return Err(io::Error::new(io::ErrorKind::StorageFull, format!("the spool is full: it may hold {limit} bytes")));
        }
        open.file.seek(SeekFrom::Start(open.end))?;
        if let Err(error) = open.file.write_all(&line) {
            // Half a line would damage the next one.
            open.file.set_len(open.end)?;
            return Err(error);
        }
        open.end += length;
        open.lines += 1;
        Ok(())
    }

    /// Reads the oldest ones, so many at most.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn read(&mut self, most: usize) -> io::Result<Chunk> {
        let Some(open) = &mut self.open else { return Ok(Chunk::default()) };
        open.file.seek(SeekFrom::Start(open.read))?;
        let mut chunk = Chunk::default();
        let waiting = open.end - open.read;
        let mut reader = BufReader::new(&mut open.file);
        let mut line = Vec::new();
        while chunk.notices.len() < most && chunk.bytes < waiting {
            line.clear();
            let length = reader.by_ref().take(LINE).read_until(b'\n', &mut line)?;
            if length == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the spool has been shortened by someone else"));
            }
            chunk.bytes += length as u64;
            chunk.lines += 1;
            match serde_json::from_slice(&line) {
                Ok(notice) => chunk.notices.push(notice),
                Err(_) => chunk.damaged += 1,
            }
        }
        Ok(chunk)
    }

    /// What was read has been delivered.
    ///
    /// # Errors
    /// That can't be written down.
    pub fn delivered(&mut self, chunk: &Chunk) -> io::Result<()> {
        let Some(open) = &mut self.open else { return Ok(()) };
        open.read += chunk.bytes;
        open.lines = open.lines.saturating_sub(chunk.lines);
        if open.read >= open.end {
            // Its room is free for others.
            open.file.set_len(HEADER)?;
            (open.read, open.end, open.lines) = (HEADER, HEADER, 0);
        }
        open.write_header()
    }

    /// Removes the file where nothing waits in it.
    ///
    /// # Errors
    /// It can't be removed, or what waits can't be brought to the disk.
    pub fn finish(&mut self) -> io::Result<()> {
        match self.open.take() {
            Some(open) if open.lines == 0 => fs::remove_file(&open.path),
            Some(open) => {
                let synced = open.file.sync_all();
                self.open = Some(open);
                synced
            }
            None => Ok(()),
        }
    }

    /// The first file that no other process uses, and that is there or may be made.
    ///
    /// Between opening a file and locking it, whoever had it may have removed it: then it is looked for again.
    fn slot(&self, make: bool) -> io::Result<Option<Open>> {
        if make {
            make_folder(&self.folder)?;
        }
        match owner::keeps(&self.folder) {
            Ok(true) => {}
            Ok(false) => {
                let text = format!("the folder {} must be yours, and writable by nobody else", self.folder.display());
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        }
        for slot in 0..SLOTS {
            let path = self.folder.join(format!("{}.{slot}.jsonl", self.name));
            loop {
                let file = match options(make).open(&path) {
                    Ok(file) => file,
                    Err(error) if error.kind() == io::ErrorKind::NotFound && !make => break,
                    Err(error) => return Err(error),
                };
                match file.try_lock() {
                    Ok(()) => {}
                    Err(fs::TryLockError::WouldBlock) => break,
                    Err(fs::TryLockError::Error(error)) => return Err(error),
                }
                match owner::whose(&file, &path)? {
                    Whose::Ours => return Open::new(file, path).map(Some),
                    Whose::Nobodys => {}
                    Whose::Others => {
                        let text = format!("{} is another user's, no plain file, or has a second name", path.display());
                        return Err(io::Error::other(text));
                    }
                }
            }
        }
        Ok(None)
    }
}

impl Open {
    fn new(file: File, path: PathBuf) -> io::Result<Self> {
        let mut open = Self { file, path, read: HEADER, end: HEADER, lines: 0 };
        let length = open.file.metadata()?.len();
        if length == 0 {
            open.write_header()?;
            return Ok(open);
        }
        let mut header = Vec::new();
        (&mut open.file).take(HEADER).read_to_end(&mut header)?;
        let digits = header.strip_suffix(b"\n").filter(|digits| digits.len() == DIGITS && digits.iter().all(u8::is_ascii_digit));
        let Some(digits) = digits.and_then(|digits| std::str::from_utf8(digits).ok()) else {
            return Err(io::Error::other(format!("{} is no spool of this program: move it away", open.path.display())));
        };
        open.end = length;
        // What can't be told is delivered once more.
        open.read = digits.parse().ok().filter(|read| (HEADER..=length).contains(read)).unwrap_or(HEADER);
        open.file.seek(SeekFrom::Start(open.read))?;
        let mut reader = BufReader::new(&mut open.file);
        let mut whole = open.read;
        let mut at = open.read;
        loop {
            let buffer = reader.fill_buf()?;
            if buffer.is_empty() {
                break;
            }
            for (offset, _) in buffer.iter().enumerate().filter(|(_, byte)| **byte == b'\n') {
                open.lines += 1;
                whole = at + offset as u64 + 1;
            }
            let length = buffer.len();
            at += length as u64;
            reader.consume(length);
        }
        if whole < open.end {
            // A process ended while it wrote.
            open.file.set_len(whole)?;
            open.end = whole;
        }
        Ok(open)
    }

    /// Moves what waits to the beginning, where more than that was delivered before it: so nothing is overwritten that waits, and after
    /// a crash some may be delivered twice. At least half of the spool's size is there for what waits.
    fn compact(&mut self) -> io::Result<()> {
        let waiting = self.end - self.read;
        if self.read - HEADER < waiting.max(1) {
            return Ok(());
        }
        let mut buffer = vec![0; 64 << 10];
        let mut moved = 0;
        while moved < waiting {
            let most = buffer.len().min(usize::try_from(waiting - moved).unwrap_or(usize::MAX));
            self.file.seek(SeekFrom::Start(self.read + moved))?;
            self.file.read_exact(&mut buffer[..most])?;
            self.file.seek(SeekFrom::Start(HEADER + moved))?;
            self.file.write_all(&buffer[..most])?;
            moved += most as u64;
        }
        self.file.sync_data()?;
        self.read = HEADER;
        self.write_header()?;
        self.end = HEADER + waiting;
        self.file.set_len(self.end)
    }

    fn write_header(&mut self) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(format!("{:0DIGITS$}\n", self.read).as_bytes())
    }
}

fn options(make: bool) -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(make).truncate(false);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600).custom_flags((rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits().cast_signed());
    }
    options
}

/// Whose a file is.
enum Whose {
    Ours,
    /// It has no name any more, or another one has it.
    #[cfg_attr(not(unix), expect(dead_code, reason = "only Unix removes files that are open"))]
    Nobodys,
    /// Another user's, or one that has other names as well.
    Others,
}

/// Who else may have a hand in files and folders.
#[cfg(unix)]
mod owner {
    use std::{
        fs::{self, File, Permissions},
        io,
        os::unix::fs::{MetadataExt as _, PermissionsExt as _},
        path::Path,
    };

    use super::Whose;

    /// Whose an open file is; readable by its owner alone from now on.
    pub(super) fn whose(file: &File, path: &Path) -> io::Result<Whose> {
        let open = file.metadata()?;
        let named = match fs::symlink_metadata(path) {
            Ok(named) => named,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Whose::Nobodys),
            Err(error) => return Err(error),
        };
        if (open.dev(), open.ino()) != (named.dev(), named.ino()) {
            return Ok(Whose::Nobodys);
        }
        if !open.is_file() || open.nlink() != 1 || open.uid() != rustix::process::geteuid().as_raw() {
            return Ok(Whose::Others);
        }
        file.set_permissions(Permissions::from_mode(0o600))?;
        Ok(Whose::Ours)
    }

    /// Whether nobody else can put files into a folder.
    pub(super) fn keeps(folder: &Path) -> io::Result<bool> {
        let metadata = fs::metadata(folder)?;
        Ok(metadata.uid() == rustix::process::geteuid().as_raw() && metadata.mode() & 0o022 == 0)
    }
}

/// Elsewhere the user's own folder is all that there is to rely on.
#[cfg(not(unix))]
mod owner {
    use std::{fs::File, io, path::Path};

    use super::Whose;

    pub(super) fn whose(file: &File, _: &Path) -> io::Result<Whose> {
        Ok(if file.metadata()?.is_file() { Whose::Ours } else { Whose::Others })
    }

    pub(super) fn keeps(folder: &Path) -> io::Result<bool> {
        folder.metadata().map(|metadata| metadata.is_dir())
    }
}

fn make_folder(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn notice(path: &str) -> Notice {
        let event = knark_specs::cases::event(json!({ "file": { "path": path } }).as_object().unwrap()).unwrap();
        let mut notice = serde_json::to_value(event).unwrap();
        notice["matches"] = json!([{ "policy": "p", "rule": "r", "severity": "high", "message": "m" }]);
        notice["alert"] = json!({ "key": [], "count": 1, "first_time": "" });
        serde_json::from_value(notice).unwrap()
    }

    fn spool(folder: &tempfile::TempDir, limit: u64) -> Spool {
        Spool::new(folder.path().join("a/b"), "name".into(), limit).unwrap()
    }

    #[test]
    fn the_next_process_takes_up_what_one_left() {
        let folder = tempfile::tempdir().unwrap();
        let mut one = spool(&folder, 1 << 20);
        assert_eq!(one.path(), None);
        for path in ["/1", "/2", "/3"] {
            one.add(&notice(path)).unwrap();
        }
        let first = one.read(1).unwrap();
        assert_eq!(first.notices, [notice("/1")]);
        one.delivered(&first).unwrap();
        one.finish().unwrap();
        // It isn't another's as long as this one has it.
        assert_eq!(spool(&folder, 1 << 20).lines(), 0);
        drop(one);
        let mut next = spool(&folder, 1 << 20);
        assert_eq!(next.lines(), 2);
        next.add(&notice("/4")).unwrap();
        let rest = next.read(10).unwrap();
        assert_eq!(rest.notices, ["/2", "/3", "/4"].map(notice));
        next.delivered(&rest).unwrap();
        let path = next.path().unwrap().to_owned();
        assert_eq!((next.lines(), fs::metadata(&path).unwrap().len()), (0, HEADER));
        next.finish().unwrap();
        assert!(!path.exists());
    }

    #[cfg(unix)]
    #[test]
    fn only_its_owner_reads_it_and_links_are_not_followed() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let mut one = spool(&folder, 1 << 20);
        one.add(&notice("/1")).unwrap();
        let path = one.path().unwrap().to_owned();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        drop(one);
        fs::rename(&path, folder.path().join("elsewhere")).unwrap();
        std::os::unix::fs::symlink(folder.path().join("elsewhere"), &path).unwrap();
        assert!(Spool::new(folder.path().join("a/b"), "name".into(), 1 << 20).is_err());
    }

    #[test]
    fn it_grows_no_larger_than_it_may() {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = spool(&folder, 2_000);
        let added = (0..10).take_while(|_| spool.add(&notice("/1")).is_ok()).count();
        assert!((1..10).contains(&added), "{added}");
        assert!(fs::metadata(spool.path().unwrap()).unwrap().len() <= 2_000);
        let all = spool.read(10).unwrap();
        assert_eq!((all.notices.len(), all.damaged), (added, 0));
        spool.delivered(&all).unwrap();
        spool.add(&notice("/1")).unwrap();
    }

    #[test]
    fn damage_is_told_and_what_is_whole_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/name.0.jsonl");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let line = serde_json::to_string(&notice("/1")).unwrap();
        for (text, lines, whole, damaged) in [
            (format!("{HEADER:020}\nnonsense\n{line}\n{{\"half"), 2, 1, 1),
            (format!("{:020}\n{line}\n", 7), 1, 1, 0),
            (format!("{:020}\n{line}\n", u64::MAX), 1, 1, 0),
            (String::new(), 0, 0, 0),
        ] {
            fs::write(&path, &text).unwrap();
            let mut spool = spool(&folder, 1 << 20);
            assert_eq!(spool.lines(), lines, "{text}");
            let chunk = spool.read(10).unwrap();
            assert_eq!((chunk.notices.len(), chunk.damaged), (whole, damaged), "{text}");
        }
        for text in [format!("{:>20}\n{line}\n", "x"), "short".to_owned(), line] {
            fs::write(&path, &text).unwrap();
            let refused = Spool::new(folder.path().join("a/b"), "name".into(), 1 << 20).unwrap_err().to_string();
            assert!(refused.contains("is no spool of this program"), "{refused}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }

    #[cfg(unix)]
    #[test]
    fn nobody_else_has_a_hand_in_it() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let mut one = spool(&folder, 1 << 20);
        one.add(&notice("/1")).unwrap();
        let path = one.path().unwrap().to_owned();
        drop(one);
        let again = || Spool::new(folder.path().join("a/b"), "name".into(), 1 << 20);
        let second = folder.path().join("second");
        fs::hard_link(&path, &second).unwrap();
        assert!(again().unwrap_err().to_string().contains("has a second name"));
        fs::remove_file(&second).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(again().unwrap().lines(), 1);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(path.parent().unwrap(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(again().unwrap_err().to_string().contains("writable by nobody else"));
    }

    #[test]
    fn what_was_delivered_takes_no_room() {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = spool(&folder, 4_000);
        spool.add(&notice("/0")).unwrap();
        // One always waits, and many more go through than there is room for.
        for n in 1..100 {
            let oldest = spool.read(1).unwrap();
            spool.add(&notice(&format!("/{n}"))).unwrap();
            assert_eq!(oldest.notices, [notice(&format!("/{}", n - 1))]);
            spool.delivered(&oldest).unwrap();
            assert!(fs::metadata(spool.path().unwrap()).unwrap().len() <= 4_000);
        }
        drop(spool);
        let mut next = super::tests::spool(&folder, 4_000);
        assert_eq!(next.read(10).unwrap().notices, [notice("/99")]);
    }
}
