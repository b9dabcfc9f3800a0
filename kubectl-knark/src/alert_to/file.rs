//! Alerts at the end of a file, as JSON lines or as comma-separated values.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use futures::future::BoxFuture;
use knark_specs::alert::{Notice, csv};

use super::delivery::{Failure, Sink};
use crate::exit::UsageError;

/// A file. It is opened anew each time, so that it may be moved away meanwhile.
pub struct AlertFile {
    path: PathBuf,
    csv: bool,
}

impl AlertFile {
    /// Of JSON lines, or of comma-separated values.
    ///
    /// # Errors
    /// It can't be written.
    pub fn open(path: &str, csv: bool) -> anyhow::Result<Self> {
        let path = PathBuf::from(path);
        let odd = std::fs::metadata(&path).is_ok_and(|metadata| !metadata.is_file() && !is_character_device(&metadata));
        if odd {
            // Opening a pipe would wait for its reader, and for how long nobody knows.
            return Err(UsageError::because(format!("{} is no file: for a pipe or a socket use exec:", path.display())));
        }
        open(&path).with_context(|| format!("opening {} for alerts", path.display()))?;
        Ok(Self { path, csv })
    }
}

impl Sink for AlertFile {
    fn most(&self) -> usize {
        1_000
    }

    fn send<'s>(&'s mut self, notices: &'s [&'s Notice]) -> BoxFuture<'s, Result<(), Failure>> {
        Box::pin(async move {
            let mut text = String::new();
            for notice in notices {
                if self.csv {
                    csv::line(notice, &mut text);
                } else {
                    text.push_str(&serde_json::to_string(notice)?);
                    text.push('\n');
                }
            }
            let (path, header) = (self.path.clone(), self.csv);
            let written = tokio::task::spawn_blocking(move || append(&path, header, &text)).await;
            written.map_err(io::Error::other).flatten().with_context(|| format!("writing alerts to {}", self.path.display()))?;
            Ok(())
        })
    }
}

/// Adds all of it. Where an earlier write, by whomever, broke off inside a line, this begins a new one.
fn append(path: &Path, csv: bool, text: &str) -> io::Result<()> {
    let mut file = open(path)?;
    let metadata = file.metadata()?;
    let header = if csv && metadata.len() == 0 { csv::HEADER } else { "" };
    let torn = metadata.is_file() && metadata.len() > 0 && last_byte(path).is_ok_and(|last| last != b'\n');
    file.write_all(format!("{}{header}{text}", if torn { "\n" } else { "" }).as_bytes())
}

fn last_byte(path: &Path) -> io::Result<u8> {
    let mut file = File::open(path)?;
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last[0])
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    // Arguments and paths can hold secrets.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

#[cfg(unix)]
fn is_character_device(metadata: &std::fs::Metadata) -> bool {
    std::os::unix::fs::FileTypeExt::is_char_device(&metadata.file_type())
}

#[cfg(not(unix))]
fn is_character_device(_: &std::fs::Metadata) -> bool {
    false
}
