//! A container's names, from the OCI bundle that its runtime left on the node.
//!
//! `config.json` is written before the container's first process starts and holds the names as annotations, so that the
//! shortest-lived container has its name without the API server. Where bundles lie is told by the shims that run here:
//! a containerd shim's working directory is a bundle and its siblings, by container id, are the others'; CRI-O's conmon has
//! the bundle as an argument.
//!
//! Any process may call itself a shim, and what it calls its bundles would then be believed, so only root's processes outside
//! of pods' cgroups count. (A mount namespace tells nothing: a node may be a container.) Below a folder so found no link is
//! followed.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{self, Read as _},
    os::{fd::OwnedFd, unix::ffi::OsStrExt as _},
    path::{Component, Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::fs::{Mode, OFlags, openat};
use serde::Deserialize;

use crate::cgroup_path;

/// Larger configurations aren't read; real ones have some 20 KiB.
const MAX_CONFIG: u64 = 4 << 20;
/// A look through /proc costs milliseconds: unknown containers must not cause one each.
const SEARCH_EVERY: Duration = Duration::from_millis(100);

/// What a bundle says of its container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// The container's name in the pod's spec; empty for a sandbox.
    pub container: String,
    /// The pod's name.
    pub pod: String,
    /// The pod's namespace.
    pub namespace: String,
    /// The image as the runtime names it.
    pub image: String,
    /// It is the pod's sandbox, which the pod's spec doesn't list.
    pub sandbox: bool,
}

/// The folders in which bundles lie, as far as they are known.
#[derive(Debug, Default)]
pub struct Bundles {
    places: Vec<BundlePlace>,
    searched: Option<Instant>,
}

/// A bundle's folder is `before/ID/after`. `before` is held open: a pod doesn't see the host's folders but through the /proc
/// entry of a shim, and that may end.
#[derive(Debug)]
struct BundlePlace {
    before: OwnedFd,
    after: PathBuf,
}

impl Bundles {
    /// The names of a container; `None` when no bundle of it can be found. `id` must be hexadecimal.
    pub fn names(&mut self, id: &str) -> Option<Names> {
        if let Some(names) = self.look(id) {
            return Some(names);
        }
        if self.searched.is_some_and(|at| at.elapsed() < SEARCH_EVERY) {
            return None;
        }
        self.places = search();
        self.searched = Some(Instant::now());
        self.look(id)
    }

    fn look(&self, id: &str) -> Option<Names> {
        if id.is_empty() || !id.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return None;
        }
        self.places.iter().find_map(|place| parse(&place.config(id).ok()?))
    }
}

impl BundlePlace {
    fn config(&self, id: &str) -> io::Result<Vec<u8>> {
        let mut folder = open_folder(&self.before, OsStr::new(id), OFlags::NOFOLLOW)?;
        for part in self.after.components() {
            let Component::Normal(part) = part else { return Err(io::ErrorKind::InvalidInput.into()) };
            folder = open_folder(&folder, part, OFlags::NOFOLLOW)?;
        }
        // Whatever else it may be, it must not keep this from going on.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = File::from(openat(&folder, "config.json", flags, Mode::empty())?);
        let found = file.metadata()?;
        if !found.is_file() || found.len() > MAX_CONFIG {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut text = Vec::new();
        file.take(MAX_CONFIG).read_to_end(&mut text)?;
        Ok(text)
    }
}

fn open_folder(from: &OwnedFd, name: &OsStr, flags: OFlags) -> io::Result<OwnedFd> {
    Ok(openat(from, name, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | flags, Mode::empty())?)
}

fn search() -> Vec<BundlePlace> {
    let mut places: Vec<((u64, u64), BundlePlace)> = Vec::new();
    let Ok(proc) = fs::read_dir("/proc") else { return Vec::new() };
    for entry in proc.flatten().filter(|entry| entry.file_name().as_bytes().first().is_some_and(u8::is_ascii_digit)) {
        let Some(place) = Shim::open(&entry.path()).filter(Shim::is_trusted).and_then(|shim| shim.place()) else {
            continue;
        };
        let Ok(folder) = rustix::fs::fstat(&place.before) else { continue };
        // One shim for each folder is enough.
        let folder = (folder.st_dev, folder.st_ino);
        if !places.iter().any(|(known, _)| *known == folder) {
            places.push((folder, place));
        }
    }
    places.into_iter().map(|(_, place)| place).collect()
}

/// A process that calls itself a shim. Its folder in /proc is held open, and shows no other process that gets its number.
struct Shim {
    process: OwnedFd,
    comm: Vec<u8>,
}

impl Shim {
    fn open(process: &Path) -> Option<Self> {
        let comm = fs::read(process.join("comm")).ok()?;
        if !comm.starts_with(b"containerd-shim") && !comm.starts_with(b"conmon") {
            return None;
        }
        let process = OwnedFd::from(File::open(process).ok()?);
        let comm = read(&process, "comm")?;
        Some(Self { process, comm })
    }

    /// Any process may call itself a shim; one of a pod's is none.
    fn is_trusted(&self) -> bool {
        let (Some(status), Some(cgroups)) = (read(&self.process, "status"), read(&self.process, "cgroup")) else { return false };
        is_roots(&status) && !is_in_a_pod(&cgroups)
    }

    fn place(&self) -> Option<BundlePlace> {
        if self.comm.starts_with(b"containerd-shim") {
            // The working directory of a shim is its sandbox's bundle.
            let bundle = open_folder(&self.process, OsStr::new("cwd"), OFlags::empty()).ok()?;
            let before = open_folder(&bundle, OsStr::new(".."), OFlags::empty()).ok()?;
            Some(BundlePlace { before, after: PathBuf::new() })
        } else if self.comm.starts_with(b"conmon") {
            let (before, after) = conmon(&read(&self.process, "cmdline")?)?;
            let root = open_folder(&self.process, OsStr::new("root"), OFlags::empty()).ok()?;
            Some(BundlePlace { before: open_folder(&root, before.as_os_str(), OFlags::empty()).ok()?, after })
        } else {
            None
        }
    }
}

fn read(process: &OwnedFd, name: &str) -> Option<Vec<u8>> {
    let file = File::from(openat(process, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?);
    let mut text = Vec::new();
    file.take(MAX_CONFIG).read_to_end(&mut text).ok()?;
    Some(text)
}

/// Whether a /proc/PID/cgroup shows a pod's cgroup, in any hierarchy. A node may itself be a container, so those don't count.
fn is_in_a_pod(cgroups: &[u8]) -> bool {
    let paths = cgroups.split(|b| *b == b'\n').filter_map(|line| line.splitn(3, |b| *b == b':').nth(2));
    paths.into_iter().any(|path| cgroup_path::place(path).pod_uid().is_some())
}

/// Whether all user ids in a /proc/PID/status are 0: real, effective, saved and for files. The owner of the folder doesn't
/// tell, as any process can make that root.
fn is_roots(status: &[u8]) -> bool {
    let uids = status.split(|b| *b == b'\n').find_map(|line| line.strip_prefix(b"Uid:"));
    let uids = uids.and_then(|uids| std::str::from_utf8(uids).ok()).map(|uids| uids.split_ascii_whitespace().collect::<Vec<_>>());
    uids.is_some_and(|uids| uids == ["0"; 4])
}

/// Where CRI-O's bundles lie, from a conmon's `-b BUNDLE` and `-c ID`: what stands before and after the id.
fn conmon(cmdline: &[u8]) -> Option<(PathBuf, PathBuf)> {
    let args: Vec<&[u8]> = cmdline.split(|b| *b == 0).collect();
    let value = |flag: &[u8]| args.windows(2).find(|pair| pair[0] == flag).map(|pair| pair[1]);
    let bundle = Path::new(OsStr::from_bytes(value(b"-b")?));
    let id = OsStr::from_bytes(value(b"-c")?);
    let mut parts = bundle.strip_prefix("/").ok()?.iter();
    let before: PathBuf = parts.by_ref().take_while(|part| *part != id).collect();
    Some((before, parts.collect()))
}

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    annotations: std::collections::HashMap<String, String>,
}

fn parse(text: &[u8]) -> Option<Names> {
    let Config { mut annotations } = serde_json::from_slice(text).ok()?;
    let mut first = |keys: &[&str]| keys.iter().find_map(|key| annotations.remove(*key)).unwrap_or_default();
    let sandbox = matches!(first(&["io.kubernetes.cri.container-type", "io.kubernetes.cri-o.ContainerType"]).as_str(), "sandbox");
    let container = first(&["io.kubernetes.cri.container-name", "io.kubernetes.container.name"]);
    Some(Names {
        container: if sandbox { String::new() } else { container },
        pod: first(&["io.kubernetes.cri.sandbox-name", "io.kubernetes.pod.name"]),
        namespace: first(&["io.kubernetes.cri.sandbox-namespace", "io.kubernetes.pod.namespace"]),
        image: first(&["io.kubernetes.cri.image-name", "io.kubernetes.cri-o.ImageName", "io.kubernetes.cri-o.Image"]),
        sandbox,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_of_both_runtimes() {
        let containerd = br#"{"ociVersion":"1.0","annotations":{"io.kubernetes.cri.container-type":"container",
            "io.kubernetes.cri.container-name":"app","io.kubernetes.cri.sandbox-name":"web","io.kubernetes.cri.sandbox-namespace":"prod",
            "io.kubernetes.cri.image-name":"example/web:1"}}"#;
        let crio = br#"{"annotations":{"io.kubernetes.cri-o.ContainerType":"container","io.kubernetes.container.name":"app",
            "io.kubernetes.pod.name":"web","io.kubernetes.pod.namespace":"prod","io.kubernetes.cri-o.ImageName":"example/web:1"}}"#;
        for text in [&containerd[..], crio] {
            let names = parse(text).unwrap();
            assert_eq!((names.container.as_str(), names.pod.as_str(), names.namespace.as_str()), ("app", "web", "prod"));
            assert_eq!((names.image.as_str(), names.sandbox), ("example/web:1", false));
        }
        assert!(parse(br#"{"annotations":{"io.kubernetes.cri.container-type":"sandbox"}}"#).unwrap().sandbox);
        assert_eq!(parse(b"[not json"), None);
    }

    #[test]
    fn only_plain_files_beneath_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for id in ["good", "fifo", "link", "big"] {
            fs::create_dir(path(id)).unwrap();
        }
        fs::write(path("good/config.json"), "{}").unwrap();
        let mode = Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, path("fifo/config.json"), rustix::fs::FileType::Fifo, mode, 0).unwrap();
        std::os::unix::fs::symlink(path("good/config.json"), path("link/config.json")).unwrap();
        std::os::unix::fs::symlink(path("good"), path("folder")).unwrap();
        File::create(path("big/config.json")).unwrap().set_len(MAX_CONFIG + 1).unwrap();
        let place = |after: &str| BundlePlace { before: File::open(folder.path()).unwrap().into(), after: after.into() };
        assert_eq!(place("").config("good").unwrap(), b"{}");
        for id in ["fifo", "link", "folder", "big", "none"] {
            assert!(place("").config(id).is_err(), "{id}");
        }
        assert!(place("../good").config("good").is_err());
    }

    #[test]
    fn only_roots_processes_outside_of_pods_count() {
        assert!(is_roots(b"Name:\tUid:\nUid:\t0\t0\t0\t0\nGid:\t0\n"));
        for status in [&b"Uid:\t0\t0\t0\t7\n"[..], b"Uid:\t0\n", b"Name:\tx\n", b""] {
            assert!(!is_roots(status));
        }
        assert!(!is_in_a_pod(b"0::/system.slice/containerd.service\n"));
        assert!(!is_in_a_pod(b"0::/docker/0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef/system.slice\n"));
        let pod = "kubepods.slice/kubepods-pod8e3f30c4_dee8_2c53_b9d0_c255430c02d0.slice";
        assert!(is_in_a_pod(format!("5:memory:/\n0::/{pod}/cri-containerd-0123456789ab.scope\n").as_bytes()));
    }

    #[test]
    fn where_bundles_lie() {
        let command = b"/usr/bin/conmon\0-b\0/run/containers/storage/overlay-containers/abc/userdata\0-c\0abc\0";
        let (before, after) = conmon(command).unwrap();
        assert_eq!(before, Path::new("run/containers/storage/overlay-containers"));
        assert_eq!(after, Path::new("userdata"));
        assert_eq!(conmon(b"conmon\0--version\0"), None);
    }
}
