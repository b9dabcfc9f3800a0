//! The bytes of an audit log: of its files, one after another, as they were written, and of what is still being added.
//!
//! The plugin reads the files of its own machine, the tracer those of a node.

mod compressed;
mod files;
mod folder;
mod pipe;

use std::{
    borrow::Cow,
    fs::{self, File},
    io,
    path::Path,
};

use knark_specs::audit::{Series, series};

pub use compressed::decompressed;

use files::Files;
use folder::Folder;
use pipe::Pipe;

/// How much is read at a time, in bytes.
pub const PIECE: usize = 64 << 10;

/// A log.
pub struct Log {
    /// As it is called: its path, or `standard input`.
    pub name: String,
    from: From,
}

enum From {
    Files(Box<Files>),
    Pipe(Pipe),
}

/// What is next.
pub enum Next {
    /// So many bytes.
    Bytes(usize),
    /// A file has ended, and with it what was begun in it; maybe there is something to say of that, after the file's name.
    FileEnded(Option<Cow<'static, str>>),
    /// A file ends here, since this went wrong.
    Broken(io::Error),
    /// More may come.
    Nothing,
    /// Nothing more comes.
    End,
}

/// Why a log can't be read.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// The system's word.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A folder without logs.
    #[error("the folder holds no audit logs, such as audit.log and audit-2026-01-02T03-04-05.678.log.gz")]
    NoLogs,
    /// A folder of which one log was asked for.
    #[error("the folder holds several logs: name one of {}", .0.join(", "))]
    SeveralLogs(Vec<String>),
    /// It leads elsewhere, maybe out of the folder.
    #[error("it is a symbolic link, which is not followed: name the file that it leads to")]
    Link,
    /// A pipe, a device or the like.
    #[error("it is neither a file nor a folder")]
    NoFile,
    /// Between two looks at it.
    #[error("it was renamed or removed")]
    Gone,
}

impl Log {
    /// The logs of that path: several if it is a folder with several; `-` is standard input. With `follow`, they go on for as long as
    /// something may be added to them.
    pub fn find(path: &Path, follow: bool) -> Result<Vec<Self>, FindError> {
        if path.as_os_str() == "-" {
            return Ok(vec![Self { name: "standard input".to_owned(), from: From::Pipe(Pipe::read(|| Ok(io::stdin()))) }]);
        }
        let about = fs::metadata(path)?;
        if about.is_dir() {
            let folder = Folder::at(path);
            return Ok(logs_in(&folder)?.into_iter().map(|series| Self::of_series(&folder, &series, follow)).collect());
        }
        if !about.is_file() {
            let (name, path) = (path.display().to_string(), path.to_owned());
            return Ok(vec![Self { name, from: From::Pipe(Pipe::read(move || File::open(path))) }]);
        }
        let live = path.file_name().ok_or(FindError::NoFile)?;
        Ok(vec![Self::of_file(Folder::at(path.parent().unwrap_or(Path::new(""))), live.to_owned(), follow)?])
    }

    /// The log of that name in a folder, or the only one of its folder of that name; of the folder itself if the name is empty. Out of
    /// the folder nothing leads: links are not followed.
    #[cfg(target_os = "linux")]
    pub fn find_beneath(folder: &Path, name: &str, follow: bool) -> Result<Self, FindError> {
        let mut folder = Folder::beneath(folder)?;
        if !name.is_empty() {
            let about = folder.about(name.as_ref())?;
            match about.file_type() {
                kind if kind.is_symlink() => return Err(FindError::Link),
                kind if kind.is_file() => return Self::of_file(folder, name.into(), follow),
                kind if kind.is_dir() => folder = folder.folder(name)?,
                _ => return Err(FindError::NoFile),
            }
        }
        let mut all = logs_in(&folder)?;
        match (all.pop(), all.is_empty()) {
            (Some(only), true) => Ok(Self::of_series(&folder, &only, follow)),
            (last, _) => Err(FindError::SeveralLogs(all.into_iter().chain(last).map(|series| series.live).collect())),
        }
    }

    fn of_file(folder: Folder, live: std::ffi::OsString, follow: bool) -> Result<Self, FindError> {
        folder.open(&live)?;
        let name = folder.path_of(&live).display().to_string();
        let mut files = Files::of(folder, live, follow);
        if !files.begin_with_the_live_one() && !follow {
            return Err(FindError::Gone);
        }
        Ok(Self { name, from: From::Files(Box::new(files)) })
    }

    fn of_series(folder: &Folder, series: &Series, follow: bool) -> Self {
        let name = folder.path_of(series.live.as_ref()).display().to_string();
        let mut files = Files::of(folder.clone(), series.live.clone().into(), follow);
        files.begin();
        Self { name, from: From::Files(Box::new(files)) }
    }

    /// Whether all that it will ever hold is there.
    pub fn is_complete(&self) -> bool {
        matches!(&self.from, From::Files(files) if !files.follow)
    }

    /// The file that is being read.
    pub fn reading(&self) -> String {
        match &self.from {
            From::Files(files) => files.reading().display().to_string(),
            From::Pipe(_) => self.name.clone(),
        }
    }

    /// What comes next; bytes are put into `piece`, which has room for [`PIECE`].
    pub fn next(&mut self, piece: &mut [u8]) -> Next {
        match &mut self.from {
            From::Files(files) => files.next(piece),
            From::Pipe(pipe) => pipe.next(piece),
        }
    }
}

fn logs_in(folder: &Folder) -> Result<Vec<Series>, FindError> {
    let names = folder.names()?;
    let all = series(names.iter().map(String::as_str));
    if all.is_empty() { Err(FindError::NoLogs) } else { Ok(all) }
}
