//! The folder that a log's files lie in.

use std::{
    ffi::OsStr,
    fs::{self, File, Metadata},
    io,
    path::{Path, PathBuf},
};
#[cfg(target_os = "linux")]
use std::{os::fd::OwnedFd, sync::Arc};

#[cfg(target_os = "linux")]
use rustix::fs::{Dir, FileType, Mode, OFlags, openat};

/// A folder, whose files are opened by their names.
#[derive(Debug, Clone)]
pub enum Folder {
    /// By its path, which may be of links; empty: the working directory.
    Path(PathBuf),
    /// Held open. Nothing leads out of it: a name is one component, and what it names is opened only if it is no link.
    #[cfg(target_os = "linux")]
    Held(Arc<OwnedFd>),
}

impl Folder {
    /// At this path, links followed.
    pub fn at(path: &Path) -> Self {
        Self::Path(path.to_owned())
    }

    /// At this path, and never out of it.
    #[cfg(target_os = "linux")]
    pub fn beneath(path: &Path) -> io::Result<Self> {
        let folder = rustix::fs::open(path, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self::Held(Arc::new(folder)))
    }

    /// Its folder of this name.
    #[cfg(target_os = "linux")]
    pub fn folder(&self, name: &str) -> io::Result<Self> {
        match self {
            Self::Path(path) => Ok(Self::Path(path.join(name))),
            Self::Held(folder) => Ok(Self::Held(Arc::new(open_in(folder, name.as_ref(), OFlags::DIRECTORY | OFlags::RDONLY)?))),
        }
    }

    /// The names of all that is in it, but for those that are no text.
    pub fn names(&self) -> io::Result<Vec<String>> {
        match self {
            Self::Path(path) => {
                let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
                fs::read_dir(path)?.map(|entry| Ok(entry?.file_name().into_string().unwrap_or_default())).collect()
            }
            #[cfg(target_os = "linux")]
            Self::Held(folder) => {
                let names = Dir::read_from(folder)?
                    .map(|entry| Ok(entry?))
                    .filter(|entry| !matches!(entry, Ok(entry) if entry.file_type() == FileType::Symlink))
                    .map(|entry: io::Result<_>| Ok(entry?.file_name().to_str().unwrap_or_default().to_owned()));
                names.collect()
            }
        }
    }

    /// What is under this name.
    pub fn about(&self, name: &OsStr) -> io::Result<Metadata> {
        match self {
            Self::Path(path) => fs::metadata(path.join(name)),
            #[cfg(target_os = "linux")]
            Self::Held(folder) => File::from(open_in(folder, name, OFlags::PATH)?).metadata(),
        }
    }

    /// Opens the file of this name.
    pub fn open(&self, name: &OsStr) -> io::Result<File> {
        // One that only opens when somebody writes to it would keep all others waiting.
        let no_file = || io::Error::other("it is no file");
        if !self.about(name)?.is_file() {
            return Err(no_file());
        }
        match self {
            Self::Path(path) => File::open(path.join(name)),
            #[cfg(target_os = "linux")]
            Self::Held(folder) => {
                // Another one may have its name by now.
                let file = File::from(open_in(folder, name, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?);
                if file.metadata()?.is_file() { Ok(file) } else { Err(no_file()) }
            }
        }
    }

    /// How a file of it is called.
    pub fn path_of(&self, name: &OsStr) -> PathBuf {
        match self {
            Self::Path(path) => path.join(name),
            #[cfg(target_os = "linux")]
            Self::Held(_) => name.into(),
        }
    }
}

/// Opens what is under a name, unless that leads elsewhere.
#[cfg(target_os = "linux")]
fn open_in(folder: &OwnedFd, name: &OsStr, how: OFlags) -> io::Result<OwnedFd> {
    let mut components = Path::new(name).components();
    let is_name =
        matches!((components.next(), components.next()), (Some(std::path::Component::Normal(only)), None) if only == name);
    if !is_name {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not the name of a file in the folder"));
    }
    Ok(openat(folder, name, how | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn nothing_leads_out_of_a_held_folder() {
        let outside = tempfile::tempdir().unwrap();
        let inside = outside.path().join("inside");
        fs::create_dir_all(inside.join("deeper")).unwrap();
        for path in [outside.path().join("secret.log"), inside.join("audit.log"), inside.join("deeper/audit.log")] {
            fs::write(path, "text").unwrap();
        }
        symlink(outside.path().join("secret.log"), inside.join("link.log")).unwrap();
        symlink(outside.path(), inside.join("up")).unwrap();
        let folder = Folder::beneath(&inside).unwrap();
        assert!(folder.open("audit.log".as_ref()).is_ok());
        for name in ["link.log", "../secret.log", "..", ".", "", "deeper/audit.log", "up", "deeper", "audit.log/", "/etc/passwd"]
        {
            assert!(folder.open(name.as_ref()).is_err(), "{name}");
        }
        for name in ["up", "..", "deeper/..", "link.log", "audit.log"] {
            assert!(folder.folder(name).is_err(), "{name}");
        }
        assert!(folder.folder("deeper").unwrap().open("audit.log".as_ref()).is_ok());
        assert!(!folder.names().unwrap().iter().any(|name| name == "link.log" || name == "up"));
        assert!(folder.about("link.log".as_ref()).unwrap().is_symlink());
    }

    #[test]
    fn a_fifo_in_a_folder_keeps_nobody_waiting() {
        let folder = tempfile::tempdir().unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, folder.path().join("audit.log"), Mode::RWXU).unwrap();
        for folder in [Folder::at(folder.path()), Folder::beneath(folder.path()).unwrap()] {
            assert!(folder.open("audit.log".as_ref()).is_err());
        }
    }
}
