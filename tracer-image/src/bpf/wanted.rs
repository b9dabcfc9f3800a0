//! What is wanted of files and executions, by what is done and by the path: exactly, and as the programs are told.

use std::collections::BTreeMap;

use knark_abi::WANTED_BYTES;
use knark_specs::frame::{self, FileOp};
use rustc_hash::FxHashMap;

/// The programs tell so many paths apart. With more, all paths pass, and only user space tells them apart.
const KERNEL_PATHS: usize = 16_384;

/// A set of file operations; executions count as one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Effects(u32);

impl Effects {
    const EXEC: Effects = Effects(1 << 31);
    /// All that can be done to files.
    const FILE: Effects = Effects(!Self::EXEC.0);

    /// What is watched where nothing is named.
    pub(super) fn usual() -> Effects {
        Effects::default().with(FileOp::USUAL)
    }

    pub(super) const fn of(op: FileOp) -> Effects {
        Effects(1 << op as u8)
    }

    pub(super) fn with(self, ops: &[FileOp]) -> Effects {
        ops.iter().fold(self, |all, op| Effects(all.0 | Effects::of(*op).0))
    }

    fn add(&mut self, others: Effects) {
        self.0 |= others.0;
    }

    /// A bit for each operation, by its number.
    pub(super) const fn bits(self) -> u32 {
        self.0
    }

    pub(super) const fn has_any(self, of: Effects) -> bool {
        self.0 & of.0 != 0
    }
}

/// What is wanted.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    anywhere: Effects,
    somewhere: Effects,
    paths: FxHashMap<Box<[u8]>, Effects>,
    /// The longest of those that are folders.
    longest_folder: usize,
    /// What is wanted of watched files, whatever their paths.
    same: Effects,
    /// Of these paths the tracer itself has to know when another file takes the place, or there is none any more.
    watched: Vec<Box<[u8]>>,
}

/// How a path comes to lead to another file.
const REPLACES: [FileOp; 5] = [FileOp::Create, FileOp::Rename, FileOp::Link, FileOp::Symlink, FileOp::Unlink];

/// What the programs are told.
pub(super) struct Kernel {
    /// Wanted whatever the path.
    pub(super) anywhere: u32,
    /// Wanted on some paths.
    pub(super) somewhere: u32,
    /// Keys of the map, their lengths in bits, and effects.
    pub(super) paths: Vec<([u8; WANTED_BYTES], u32, u32)>,
}

impl Wanted {
    /// Of a plan.
    pub fn new(want: &frame::Want) -> Wanted {
        let mut all = Wanted::default();
        all.add(Effects::EXEC, &want.exec);
        for file in &want.file {
            let effects = if file.ops.is_empty() { Effects::usual() } else { Effects::default().with(&file.ops) };
            all.add(effects, &file.paths);
        }
        all
    }

    /// With the files that are watched under whatever name.
    #[must_use]
    pub fn with_same(mut self, files: Option<&frame::SameFiles>) -> Wanted {
        let Some(files) = files else { return self };
        self.same = Effects::default().with(&files.ops);
        let place = |path: &frame::SamePath| match path {
            frame::SamePath::Plain(path) => path.clone(),
            frame::SamePath::Regex { folder, .. } => folder.clone(),
        };
        // Changes anywhere are too many to hear of: the tracer looks again by itself, too.
        let places = files.paths.iter().map(place).filter(|place| place.starts_with('/') && place.len() > 1);
        self.watched = places.map(|place| place.into_bytes().into()).collect();
        self
    }

    /// Whether an operation is wanted on a watched file that has this path.
    pub fn same_file(&self, op: FileOp, path: &[u8]) -> bool {
        self.same.has_any(Effects::of(op)) && self.has(Effects::of(op), path)
    }

    /// Whether an execution is wanted, of this path.
    pub fn exec(&self, path: &[u8]) -> bool {
        self.has(Effects::EXEC, path)
    }

    /// Whether an operation is wanted on this path; `None`: on any that it could be.
    pub fn file(&self, op: FileOp, path: Option<&[u8]>) -> bool {
        let effect = Effects::of(op);
        path.map_or_else(|| self.could_be(effect), |path| self.has(effect, path))
    }

    /// Whether any operation on files is wanted.
    pub fn files(&self) -> bool {
        self.could_be(Effects::FILE)
    }

    /// Whether any of these is wanted on any path.
    fn could_be(&self, effects: Effects) -> bool {
        self.anywhere.has_any(effects) || self.somewhere.has_any(effects)
    }

    /// Whether probes for any of these are wanted.
    pub(super) fn asks_for(&self, effects: Effects) -> bool {
        self.could_be(effects) || !self.watched.is_empty() && effects.has_any(Effects::default().with(&REPLACES))
    }

    fn add(&mut self, effects: Effects, paths: &frame::Wanted) {
        let frame::Wanted::Paths(paths) = paths else { return self.anywhere.add(effects) };
        for path in paths {
            self.somewhere.add(effects);
            self.paths.entry(Box::from(path.as_slice())).or_default().add(effects);
            if path.ends_with(b"/") {
                self.longest_folder = self.longest_folder.max(path.len());
            }
        }
    }

    fn has(&self, effect: Effects, path: &[u8]) -> bool {
        let named = |name: &[u8]| self.paths.get(name).is_some_and(|effects| effects.has_any(effect));
        // Only as far as folders reach: a path may have thousands of components.
        let front = &path[..path.len().min(self.longest_folder)];
        let mut folders = front.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| &path[..=at]);
        self.anywhere.has_any(effect) || self.somewhere.has_any(effect) && (named(path) || folders.any(named))
    }

    /// As the programs are told it: they let through at least what [`Self::file`] does.
    pub(super) fn kernel(&self) -> Kernel {
        let replaces = if self.watched.is_empty() { Effects::default() } else { Effects::default().with(&REPLACES) };
        let (anywhere, somewhere) = (self.anywhere.0 & Effects::FILE.0, (self.somewhere.0 | replaces.0) & Effects::FILE.0);
        if self.paths.len() + self.watched.len() > KERNEL_PATHS {
            return Kernel { anywhere: anywhere | somewhere, somewhere: 0, paths: Vec::new() };
        }
        let mut keys: BTreeMap<Vec<u8>, u32> = BTreeMap::new();
        let watched = self.watched.iter().map(|path| (path, &replaces));
        for (path, effects) in self.paths.iter().chain(watched) {
            let mut key = path.to_vec();
            if !key.ends_with(b"/") {
                key.push(0);
            }
            // Its front stands for one that is too long, and for what else begins so.
            key.truncate(WANTED_BYTES);
            *keys.entry(key).or_default() |= effects.0 & Effects::FILE.0;
        }
        // The longest key decides alone, so it says what shorter ones do, too. These come right before it.
        let mut around: Vec<(Vec<u8>, u32)> = Vec::new();
        let mut paths = Vec::with_capacity(keys.len());
        for (key, mut effects) in keys {
            while around.last().is_some_and(|(outer, _)| !key.starts_with(outer)) {
                around.pop();
            }
            effects |= around.last().map_or(0, |(_, outer)| *outer);
            let (mut bytes, mut bits) = ([0; WANTED_BYTES], 0);
            for (place, byte) in bytes.iter_mut().zip(&key) {
                *place = *byte;
                bits += 8;
            }
            paths.push((bytes, bits, effects));
            around.push((key, effects));
        }
        Kernel { anywhere, somewhere, paths }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(paths: &[&str]) -> frame::Wanted {
        frame::Wanted::Paths(paths.iter().map(|path| path.as_bytes().to_vec().into()).collect())
    }

    fn wanted(file: &[(&[FileOp], frame::Wanted)]) -> Wanted {
        let file = file.iter().map(|(ops, paths)| frame::WantedFile { ops: ops.to_vec(), paths: paths.clone() }).collect();
        Wanted::new(&frame::Want { exec: paths(&["/bin/", "/usr/bin/nc"]), file })
    }

    /// As the kernel looks it up.
    fn passes(kernel: &Kernel, op: FileOp, path: &str) -> bool {
        let mut key = path.as_bytes().to_vec();
        key.push(0);
        let longest = kernel.paths.iter().filter(|(bytes, bits, _)| key.starts_with(&bytes[..*bits as usize / 8]));
        let found = longest.max_by_key(|(_, bits, _)| *bits).map_or(0, |(_, _, effects)| *effects);
        (kernel.anywhere | kernel.somewhere & found) & Effects::of(op).0 != 0
    }

    #[test]
    fn folders_and_exact_paths_are_told_apart() {
        use FileOp::{Chmod, Open, Rename, Unlink, WriteOpen};
        let long = format!("/{}/", "x".repeat(300));
        let long_file = format!("{long}f");
        let wanted = wanted(&[
            (&[Chmod], paths(&["/etc/", "/etc/kubernetes/pki/"])),
            (&[WriteOpen, Open], paths(&["/etc/kubernetes/", "/etc/shadow"])),
            (&[Unlink], frame::Wanted::All),
            (&[Rename], paths(&[&long, "/a/b"])),
        ]);
        let kernel = wanted.kernel();
        let all = [Open, Chmod, Unlink, Rename];
        for (path, ops) in [
            ("/etc/kubernetes/x", &all[..3]),
            ("/etc/kubernetes/pki/deep/er", &all[..3]),
            ("/etc/kubernetes", &[Chmod, Unlink]),
            ("/etc/kubernetes2/x", &[Chmod, Unlink]),
            ("/etc/shadow", &all[..3]),
            ("/etc/shadow-", &[Chmod, Unlink]),
            ("/etc/shadow/x", &[Chmod, Unlink]),
            ("/etc", &[Unlink]),
            ("/a/b", &[Unlink, Rename]),
            ("/a/b/c", &[Unlink]),
            ("a/b", &[Unlink]),
            (&long_file, &[Unlink, Rename]),
        ] {
            for op in all {
                assert_eq!(wanted.file(op, Some(path.as_bytes())), ops.contains(&op), "{op:?} {path}");
                assert_eq!(passes(&kernel, op, path), ops.contains(&op), "kernel, {op:?} {path}");
            }
        }
        assert!(wanted.file(Chmod, None) && !wanted.file(FileOp::Mkdir, None));
        assert!(wanted.exec(b"/bin/sh") && wanted.exec(b"/usr/bin/nc") && !wanted.exec(b"/usr/bin/ncat"));
        // only the front of what is too long is in the kernel, which lets more pass
        let almost = format!("/{}y", "x".repeat(299));
        assert!(passes(&kernel, Rename, &almost) && !wanted.file(Rename, Some(almost.as_bytes())));
    }

    #[test]
    fn of_watched_files_the_tracer_hears_what_replaces_them() {
        use FileOp::{Chmod, Create, Open, Rename, Unlink};
        let files = frame::SameFiles {
            ops: vec![Open],
            paths: vec![
                frame::SamePath::Plain("/etc/shadow".into()),
                frame::SamePath::Regex { folder: "/keys/".into(), regex: "^/keys/.*[.]pem$".into() },
                frame::SamePath::Regex { folder: String::new(), regex: "^.*$".into() },
            ],
        };
        let narrow = wanted(&[(&[Open], paths(&["/etc/shadow", "/keys/"]))]);
        let asks = |wanted: &Wanted, op| wanted.asks_for(Effects::of(op));
        assert!(!asks(&narrow, Rename));
        let wanted = narrow.with_same(Some(&files));
        let kernel = wanted.kernel();
        for (path, op, in_kernel, exactly) in [
            ("/etc/shadow", Open, true, true),
            ("/etc/shadow", Rename, true, false),
            ("/keys/a", Create, true, false),
            ("/keys/a", Unlink, true, false),
            ("/keys/a", Chmod, false, false),
            ("/etc/x", Create, false, false),
        ] {
            assert_eq!(passes(&kernel, op, path), in_kernel, "{op:?} {path}");
            assert_eq!(wanted.file(op, Some(path.as_bytes())), exactly, "{op:?} {path}");
        }
        assert!(asks(&wanted, Rename) && !asks(&wanted, Chmod) && !wanted.file(Rename, None));
        assert!(wanted.same_file(Open, b"/etc/shadow") && wanted.same_file(Open, b"/keys/x.pem"));
        assert!(!wanted.same_file(Open, b"/etc/x") && !wanted.same_file(Rename, b"/etc/shadow"));
    }

    #[test]
    fn nothing_is_not_everything() {
        let none = wanted(&[(&[], paths(&[]))]);
        assert!(!none.files() && !none.file(FileOp::Open, Some(b"/")));
        let any = wanted(&[(&[], frame::Wanted::All)]);
        assert!(any.files() && any.file(FileOp::Removexattr, Some(b"")) && !any.exec(b"/sbin/x"));
        assert!(!any.file(FileOp::Write, None) && !any.file(FileOp::MapExec, Some(b"/lib/x")));
    }

    #[test]
    fn too_many_paths_are_left_to_user_space() {
        let names: Vec<String> = (0..=KERNEL_PATHS).map(|n| format!("/p/{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let wanted = wanted(&[(&[FileOp::Open], paths(&names))]);
        let kernel = wanted.kernel();
        assert!(kernel.paths.is_empty() && passes(&kernel, FileOp::Open, "/q") && !passes(&kernel, FileOp::Chmod, "/q"));
        assert!(wanted.file(FileOp::Open, Some(b"/p/16384")) && !wanted.file(FileOp::Open, Some(b"/p/x")));
    }
}
