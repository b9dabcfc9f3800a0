//! Control groups: which hierarchy tells containers apart here, and its ids.

use std::{io, path::{Path, PathBuf}};

/// The kind of hierarchy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CgroupVersion {
    /// One of the v1 hierarchies (no v2 tree is mounted).
    V1,
    /// The v2 tree alone.
    V2,
    /// v1 controllers beside a v2 tree; the v2 tree is chosen.
    Hybrid,
}

/// The hierarchy that the programs take ids from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// What kind.
    pub version: CgroupVersion,
    /// Where it is mounted.
    pub mount: PathBuf,
    /// Its number in the kernel and in /proc/PID/cgroup; 0 is v2.
    pub id: u32,
    /// Of v1, the controller by which it is known.
    pub controller: Option<String>,
}

impl Hierarchy {
    /// The path in this hierarchy, out of the text of /proc/PID/cgroup. Absolute, as seen from the reader's cgroup
    /// namespace.
    pub fn path_in<'a>(&self, proc_cgroup: &'a [u8]) -> Option<&'a [u8]> {
        proc_cgroup.split(|b| *b == b'\n').find_map(|line| {
            let mut parts = line.splitn(3, |b| *b == b':');
            let id: u32 = std::str::from_utf8(parts.next()?).ok()?.parse().ok()?;
            parts.next()?;
            let path = parts.next()?;
            (id == self.id).then_some(path)
        })
    }

    /// The folder of a path in this hierarchy.
    pub fn folder(&self, path: &[u8]) -> PathBuf {
        use std::os::unix::ffi::OsStrExt;
        let path = path.strip_prefix(b"/").unwrap_or(path);
        self.mount.join(std::ffi::OsStr::from_bytes(path))
    }
}

/// The hierarchy to use on this machine.
pub fn hierarchy() -> io::Result<Hierarchy> {
    todo!()
}

/// The kernfs id of a control group's folder.
pub fn id_of(folder: &Path) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    Ok(std::fs::metadata(folder)?.ino())
}
