//! Control groups: which hierarchy tells containers apart here, and its ids.

use std::{
    ffi::OsStr,
    fs, io,
    os::unix::{
        ffi::{OsStrExt as _, OsStringExt as _},
        fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
};

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
    pub controller: Option<&'static str>,
}

impl Hierarchy {
    /// The path in this hierarchy, out of the text of /proc/PID/cgroup. Absolute, as seen from the reader's cgroup
    /// namespace.
    pub fn path_in<'a>(&self, proc_cgroup: &'a [u8]) -> Option<&'a [u8]> {
        proc_cgroup.split(|b| *b == b'\n').find_map(|line| {
            let (id, _, path) = line_of(line)?;
            (id == self.id).then_some(path)
        })
    }

    /// The folder of a path in this hierarchy.
    pub fn folder(&self, path: &[u8]) -> PathBuf {
        self.mount.join(OsStr::from_bytes(path.strip_prefix(b"/").unwrap_or(path)))
    }

    /// The id of a path in this hierarchy.
    pub fn id_of(&self, path: &[u8]) -> io::Result<u64> {
        id_of(&self.folder(path))
    }
}

/// Of v1's hierarchies, those that container runtimes always use, best first.
const V1: [(&str, &str); 2] = [("memory", "memory_cgrp_id"), ("pids", "pids_cgrp_id")];

/// The enumerator that numbers a v1 controller in the kernel.
pub(super) fn enumerator(controller: &str) -> Option<&'static str> {
    V1.iter().find(|(name, _)| *name == controller).map(|(_, enumerator)| *enumerator)
}

/// The hierarchy to use on this machine.
pub fn hierarchy() -> io::Result<Hierarchy> {
    choose(&fs::read("/proc/self/mountinfo")?, &fs::read("/proc/self/cgroup")?)
}

/// The kernfs id of a control group's folder: the kernel makes it the inode's number.
pub fn id_of(folder: &Path) -> io::Result<u64> {
    Ok(fs::metadata(folder)?.ino())
}

fn choose(mountinfo: &[u8], proc_cgroup: &[u8]) -> io::Result<Hierarchy> {
    let mut mounts: Vec<Mount> = mountinfo.split(|b| *b == b'\n').filter_map(Mount::parse).collect();
    mounts.sort_by_key(|mount| !mount.above);
    let v1 = mounts.iter().any(|m| !m.v2 && V1.iter().any(|(name, _)| m.has(name)));
    if let Some(mount) = mounts.iter().find(|m| m.v2) {
        let version = if v1 { CgroupVersion::Hybrid } else { CgroupVersion::V2 };
        return Ok(Hierarchy { version, mount: mount.folder.clone(), id: 0, controller: None });
    }
    V1.iter()
        .find_map(|(name, _)| {
            let mount = mounts.iter().find(|m| m.has(name))?;
            let id = proc_cgroup.split(|b| *b == b'\n').find_map(|line| {
                let (id, controllers, _) = line_of(line)?;
                controllers.split(|b| *b == b',').any(|c| c == name.as_bytes()).then_some(id)
            })?;
            Some(Hierarchy { version: CgroupVersion::V1, mount: mount.folder.clone(), id, controller: Some(name) })
        })
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no control group file system is mounted here"))
}

/// A line of /proc/PID/cgroup: `4:memory:/a/b`.
fn line_of(line: &[u8]) -> Option<(u32, &[u8], &[u8])> {
    let mut parts = line.splitn(3, |b| *b == b':');
    let id = std::str::from_utf8(parts.next()?).ok()?.parse().ok()?;
    Some((id, parts.next()?, parts.next()?))
}

struct Mount {
    v2: bool,
    /// It reaches above the reader's own cgroup namespace.
    above: bool,
    folder: PathBuf,
    options: Vec<u8>,
}

impl Mount {
    /// `36 35 0:30 / /sys/fs/cgroup/memory rw,nosuid - cgroup cgroup rw,memory`
    fn parse(line: &[u8]) -> Option<Mount> {
        let dash = line.windows(3).position(|w| w == b" - ")?;
        let mut before = line[..dash].split(|b| *b == b' ');
        let mut after = line[dash + 3..].split(|b| *b == b' ');
        let kind = after.next()?;
        if kind != b"cgroup" && kind != b"cgroup2" {
            return None;
        }
        let (root, folder) = (before.nth(3)?, before.next()?);
        // A part of a hierarchy, bound elsewhere, is of no use. In a cgroup namespace of its own, a pod sees its part as
        // `/`, and the whole, which the host's folder gives it, as `/../..`.
        if !root.split(|b| *b == b'/').all(|part| part.is_empty() || part == b"..") {
            return None;
        }
        Some(Mount {
            v2: kind == b"cgroup2",
            above: root.ends_with(b".."),
            folder: PathBuf::from(std::ffi::OsString::from_vec(unescape(folder))),
            options: after.nth(1)?.to_vec(),
        })
    }

    fn has(&self, controller: &str) -> bool {
        !self.v2 && self.options.split(|b| *b == b',').any(|o| o == controller.as_bytes())
    }
}

/// Blanks are written as `\040`.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, more)) = rest.split_first() {
        let digits = more.get(..3).filter(|_| *first == b'\\').and_then(|d| std::str::from_utf8(d).ok());
        if let Some(byte) = digits.and_then(|d| u8::from_str_radix(d, 8).ok()) {
            out.push(byte);
            rest = &more[3..];
        } else {
            out.push(*first);
            rest = more;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1_MOUNTS: &[u8] = b"30 29 0:25 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n";
    const V2_MOUNT: &[u8] = b"31 29 0:26 / /sys/fs/cgroup/a\\040b rw,relatime shared:1 - cgroup2 cgroup2 rw\n";
    const LINES: &[u8] = b"4:memory:/kubepods/x\n1:name=systemd:/s\n0::/v2\n";

    #[test]
    fn chooses_v2_wherever_it_is_mounted() {
        let got = choose(&[V1_MOUNTS, V2_MOUNT].concat(), LINES).unwrap();
        assert_eq!((got.version, got.id), (CgroupVersion::Hybrid, 0));
        assert_eq!(got.folder(b"/x"), Path::new("/sys/fs/cgroup/a b/x"));
        assert_eq!(got.path_in(LINES), Some(&b"/v2"[..]));
        assert_eq!(choose(V2_MOUNT, LINES).unwrap().version, CgroupVersion::V2);
    }

    #[test]
    fn takes_a_v1_controller_where_there_is_no_v2() {
        let got = choose(V1_MOUNTS, LINES).unwrap();
        assert_eq!((got.version, got.id, got.controller), (CgroupVersion::V1, 4, Some("memory")));
        assert_eq!(got.path_in(LINES), Some(&b"/kubepods/x"[..]));
        assert!(choose(b"", LINES).is_err());
    }
}
