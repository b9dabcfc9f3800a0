//! A container's names, from the OCI bundle that its runtime left on the node.
//!
//! `config.json` is written before the container's first process starts and holds the names as annotations, so that the
//! shortest-lived container has its name without the API server. Where bundles lie is told by the shims that run here:
//! a containerd shim's working directory is a bundle and its siblings, by container id, are the others'; CRI-O's conmon has
//! the bundle as an argument.

use std::{
    fs,
    io::Read as _,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde::Deserialize;

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

/// A bundle's folder is `before/ID/after`. `before` leads through the /proc entry of a shim, since a pod doesn't see the
/// host's folders otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
struct BundlePlace {
    before: PathBuf,
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
        self.places.iter().find_map(|place| {
            let folder = place.before.join(id).join(&place.after);
            let file = fs::File::open(folder.join("config.json")).ok()?;
            let mut text = Vec::new();
            file.take(MAX_CONFIG).read_to_end(&mut text).ok()?;
            parse(&text)
        })
    }
}

fn search() -> Vec<BundlePlace> {
    let mut places: Vec<(PathBuf, BundlePlace)> = Vec::new();
    let Ok(proc) = fs::read_dir("/proc") else { return Vec::new() };
    for entry in proc.flatten().filter(|entry| entry.file_name().as_bytes().first().is_some_and(u8::is_ascii_digit)) {
        let process = entry.path();
        let Ok(comm) = fs::read(process.join("comm")) else { continue };
        let found = if comm.starts_with(b"containerd-shim") {
            // The working directory of a shim is its sandbox's bundle.
            fs::read_link(process.join("cwd")).ok().and_then(|cwd| {
                let place = BundlePlace { before: process.join("cwd/.."), after: PathBuf::new() };
                Some((cwd.parent()?.to_owned(), place))
            })
        } else if comm.starts_with(b"conmon") {
            fs::read(process.join("cmdline")).ok().and_then(|cmdline| {
                let (before, after) = conmon(&cmdline)?;
                Some((before.clone(), BundlePlace { before: process.join("root").join(before), after }))
            })
        } else {
            None
        };
        // One shim for each folder is enough, and the oldest is the likeliest to stay.
        if let Some((folder, place)) = found
            && !places.iter().any(|(known, _)| *known == folder)
        {
            places.push((folder, place));
        }
    }
    places.into_iter().map(|(_, place)| place).collect()
}

/// Where CRI-O's bundles lie, from a conmon's `-b BUNDLE` and `-c ID`: what stands before and after the id.
fn conmon(cmdline: &[u8]) -> Option<(PathBuf, PathBuf)> {
    let args: Vec<&[u8]> = cmdline.split(|b| *b == 0).collect();
    let value = |flag: &[u8]| args.windows(2).find(|pair| pair[0] == flag).map(|pair| pair[1]);
    let bundle = Path::new(std::ffi::OsStr::from_bytes(value(b"-b")?));
    let id = std::ffi::OsStr::from_bytes(value(b"-c")?);
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
    fn where_bundles_lie() {
        let command = b"/usr/bin/conmon\0-b\0/run/containers/storage/overlay-containers/abc/userdata\0-c\0abc\0";
        let (before, after) = conmon(command).unwrap();
        assert_eq!(before, Path::new("run/containers/storage/overlay-containers"));
        assert_eq!(after, Path::new("userdata"));
        assert_eq!(conmon(b"conmon\0--version\0"), None);
    }
}
