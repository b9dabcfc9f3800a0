//! The files below a root that have watched paths.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use knark_specs::{
    frame::{SameFiles, SamePath},
    policy::pattern::{PathPattern, Paths, PatternError},
};
use rustix::{
    fs::{Dir, FileType, Mode, OFlags, ResolveFlags, fstat, fstatfs, openat, openat2},
    io::Errno,
};

use crate::bpf::FileId;

/// So many files that globs match are watched below a root ...
pub const FILES: usize = 1_024;
/// ... and so many names in folders are looked at for that.
pub const ENTRIES: usize = 20_000;
/// Bytes of the paths of those files: a container may give them long names.
const FILE_BYTES: usize = 128 << 10;
/// Bytes of the paths of folders that are still to be looked through.
const FOLDER_BYTES: usize = 1 << 20;
/// Folders are looked through down to this depth below the one that a glob begins with.
const DEPTH: usize = 32;

/// So often the kernel is asked for a path while others rename something.
const ATTEMPTS: usize = 8;

/// File systems that hold no files of anybody's: proc, sysfs, the two of control groups, debugfs, tracefs, bpf, securityfs.
const MADE_UP: [u64; 8] = [0x9fa0, 0x6265_6572, 0x0027_e0eb, 0x6367_7270, 0x6462_6720, 0x7472_6163, 0xcafe_4a11, 0x7363_6673];

/// Which paths are watched.
#[derive(Debug, Default)]
pub struct Sought {
    exact: BTreeSet<String>,
    /// What is to be looked through: none lies within another one.
    folders: Vec<String>,
    patterns: Paths,
}

/// The paths of files.
pub type Files = BTreeMap<FileId, BTreeSet<Box<[u8]>>>;

/// What there is.
#[derive(Debug, Default)]
pub struct Found {
    /// The paths of files.
    pub files: Files,
    /// There is more in folders than is looked at.
    pub is_cut: bool,
    /// A file or folder could not be looked at: the first one, and why.
    pub failed: Option<(String, io::Error)>,
    /// The paths of single files that could not be looked at.
    unknown: BTreeSet<Box<[u8]>>,
    failures: usize,
    by_glob: usize,
    by_glob_bytes: usize,
    entries: usize,
}

impl Sought {
    /// Of a plan.
    pub fn new(files: &SameFiles) -> Result<Self, PatternError> {
        let (mut sought, mut folders) = (Sought::default(), BTreeSet::new());
        for path in &files.paths {
            let (pattern, folder) = match path {
                SamePath::Plain(path) if path.ends_with('/') => (PathPattern::Folder(path.clone()), Some(path.as_str())),
                SamePath::Plain(path) => (PathPattern::Exact(path.clone()), None),
                SamePath::Regex { folder, regex } => {
                    let folder = if folder.is_empty() { "/" } else { folder };
                    (PathPattern::Regex { regex: regex.clone(), begin: folder.to_owned() }, Some(folder))
                }
            };
            sought.patterns.add(&pattern);
            match folder {
                // What isn't below the root has no such path: the names of pipes and the like.
                _ if !pattern.folder().starts_with('/') => {}
                Some(folder) => drop(folders.insert(folder.to_owned())),
                None => sought.exact.extend(match pattern {
                    PathPattern::Exact(path) => Some(path),
                    PathPattern::Folder(_) | PathPattern::Regex { .. } => None,
                }),
            }
        }
        sought.patterns.finish()?;
        // One that contains others comes before them.
        for folder in folders {
            if !sought.folders.last().is_some_and(|outer| folder.starts_with(outer.as_str())) {
                sought.folders.push(folder);
            }
        }
        Ok(sought)
    }

    /// Whether this path is watched.
    pub fn has(&self, path: &[u8]) -> bool {
        !self.patterns.find(path).is_empty()
    }

    /// Whether this path is that of a single file, which no glob or folder has to match.
    pub fn is_exact(&self, path: &[u8]) -> bool {
        str::from_utf8(path).is_ok_and(|path| self.exact.contains(path))
    }

    /// Looks below roots; what is looked at is limited for all of them together. `identify` tells how the kernel knows what is open.
    pub fn find(&self, roots: &[OwnedFd], mut identify: impl FnMut(BorrowedFd<'_>) -> io::Result<FileId>) -> Found {
        let mut found = Found::default();
        for (root, path) in roots.iter().flat_map(|root| self.exact.iter().map(move |path| (root, path.as_bytes()))) {
            let failures = found.failures;
            match open(root.as_fd(), path, OFlags::PATH) {
                Ok(file) => found.add(file.as_fd(), path, &mut identify),
                Err(error) => found.missed(path, error),
            }
            if found.failures > failures {
                found.unknown.insert(path.into());
            }
        }
        for (root, folder) in
            roots.iter().flat_map(|root| self.folders.iter().map(move |folder| (root.as_fd(), folder.as_bytes())))
        {
            match open(root, folder, OFlags::RDONLY | OFlags::DIRECTORY) {
                Ok(opened) => self.look_through(root, opened, folder, &mut found, &mut identify),
                Err(error) => found.missed(folder, error),
            }
        }
        found
    }

    /// Keeps of what was found before what has only not been looked at this time.
    pub fn keep(&self, found: &mut Found, before: &Files) {
        if !found.is_cut && found.failed.is_none() {
            return;
        }
        let seen: BTreeSet<Box<[u8]>> = found.files.values().flatten().cloned().collect();
        let is_open = |path: &[u8]| if self.is_exact(path) { found.unknown.contains(path) } else { !seen.contains(path) };
        let before = before.iter().flat_map(|(id, paths)| paths.iter().map(move |path| (*id, path)));
        let mut kept: Vec<_> = before.filter(|(_, path)| is_open(path)).collect();
        kept.sort_by_key(|(_, path)| !self.is_exact(path));
        // Whoever makes and removes files can't have ever more of them kept.
        let mut bytes = 0;
        for (id, path) in kept.into_iter().take(FILES) {
            bytes += path.len();
            if bytes > FILE_BYTES {
                break;
            }
            found.files.entry(id).or_default().insert(path.clone());
        }
    }

    fn look_through(
        &self,
        root: BorrowedFd<'_>,
        folder: OwnedFd,
        path: &[u8],
        found: &mut Found,
        identify: &mut impl FnMut(BorrowedFd<'_>) -> io::Result<FileId>,
    ) {
        // Each is opened when its turn comes: there may be many, and descriptors are few.
        let mut waiting = vec![(path.to_vec(), 0)];
        let mut first = Some(folder);
        let mut waiting_bytes = path.len();
        while let Some((path, depth)) = waiting.pop() {
            waiting_bytes -= path.len();
            let folder = match first.take() {
                Some(folder) => Ok(folder),
                None => open_folder(root, &path),
            };
            let folder = match folder {
                Ok(folder) => folder,
                Err(error) => {
                    found.missed(&path, error);
                    continue;
                }
            };
            if is_made_up(&folder) {
                continue;
            }
            let entries = match Dir::read_from(&folder) {
                Ok(entries) => entries,
                Err(error) => {
                    found.missed(&path, error);
                    continue;
                }
            };
            for entry in entries {
                let entry = match entry {
                    Ok(entry) => entry,
                    Err(error) => {
                        found.missed(&path, error);
                        break;
                    }
                };
                let name = entry.file_name().to_bytes();
                if name == b"." || name == b".." {
                    continue;
                }
                found.entries += 1;
                if found.entries > ENTRIES || found.by_glob >= FILES || found.by_glob_bytes > FILE_BYTES {
                    found.is_cut = true;
                    return;
                }
                let whole = [&path, name].concat();
                if is_folder(&folder, &entry) {
                    if depth < DEPTH && waiting_bytes < FOLDER_BYTES {
                        let inner = [&whole[..], b"/"].concat();
                        waiting_bytes += inner.len();
                        waiting.push((inner, depth + 1));
                    } else {
                        found.is_cut = true;
                    }
                } else if self.has(&whole) {
                    found.by_glob += 1;
                    found.by_glob_bytes += whole.len();
                    match open(root, &whole, OFlags::PATH) {
                        Ok(file) => found.add(file.as_fd(), &whole, identify),
                        Err(error) => found.missed(&whole, error),
                    }
                }
            }
        }
    }
}

impl Found {
    fn add(&mut self, file: BorrowedFd<'_>, path: &[u8], identify: &mut impl FnMut(BorrowedFd<'_>) -> io::Result<FileId>) {
        // A link to a device or a folder makes no file of these: what masks something leads to /dev/null, which is everybody's.
        match fstat(file) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => {}
            Ok(_) => return,
            Err(error) => return self.missed(path, error),
        }
        match identify(file) {
            Ok(id) => drop(self.files.entry(id).or_default().insert(path.into())),
            Err(error) => self.fail(path, error),
        }
    }

    fn missed(&mut self, path: &[u8], error: Errno) {
        // It isn't there, which is what is found of most.
        if !matches!(error, Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG) {
            self.fail(path, error.into());
        }
    }

    fn fail(&mut self, path: &[u8], error: io::Error) {
        self.failures += 1;
        self.failed.get_or_insert_with(|| (String::from_utf8_lossy(path).into_owned(), error));
    }
}

/// Opens a path as the processes below the root would. That it is a path only keeps devices and pipes from noticing.
fn open(root: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let once = || openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve);
    // Where something is renamed or mounted meanwhile, the kernel can't tell whether `..` leads out of the root.
    (1..ATTEMPTS).map(|_| once()).find(|outcome| !matches!(outcome, Err(Errno::AGAIN))).unwrap_or_else(once)
}

/// A folder whose last component is no link to another.
fn open_folder(root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Errno> {
    // A slash at the end would follow a link.
    let path = path.strip_suffix(b"/").unwrap_or(path);
    open(root, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW)
}

fn is_made_up(folder: &OwnedFd) -> bool {
    fstatfs(folder).is_ok_and(|found| u64::try_from(found.f_type).is_ok_and(|kind| MADE_UP.contains(&kind)))
}

/// Whether an entry is a folder, and no link to one.
fn is_folder(folder: &OwnedFd, entry: &rustix::fs::DirEntry) -> bool {
    match entry.file_type() {
        FileType::Unknown => {
            let opened = openat(folder, entry.file_name(), OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty());
            opened.and_then(fstat).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
        }
        kind => kind == FileType::Directory,
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{MetadataExt as _, symlink},
        path::Path,
    };

    use super::*;

    /// As stat tells it, which will do on an ordinary file system.
    fn identify(file: BorrowedFd<'_>) -> io::Result<FileId> {
        let stat = fstat(file)?;
        Ok(FileId { ino: stat.st_ino, dev: 0, generation: 0 })
    }

    fn plain(path: &str) -> SamePath {
        SamePath::Plain(path.into())
    }

    fn regex(folder: &str, regex: &str) -> SamePath {
        SamePath::Regex { folder: folder.into(), regex: regex.into() }
    }

    fn sought(paths: Vec<SamePath>) -> Sought {
        Sought::new(&SameFiles { ops: Vec::new(), paths }).unwrap()
    }

    fn look(root: &Path, paths: Vec<SamePath>) -> Found {
        sought(paths).find(&[fs::File::open(root).unwrap().into()], identify)
    }

    fn names(root: &Path, found: &Found, file: &str) -> Vec<String> {
        let ino = fs::metadata(root.join(file)).unwrap().ino();
        let names = found.files.get(&FileId { ino, dev: 0, generation: 0 }).into_iter().flatten();
        names.map(|name| String::from_utf8_lossy(name).into_owned()).collect()
    }

    #[test]
    fn files_are_found_as_who_lives_below_the_root_would() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        fs::create_dir_all(at("etc/keys/deep")).unwrap();
        fs::create_dir_all(at("home/a/.ssh")).unwrap();
        for file in ["etc/shadow", "etc/keys/one", "etc/keys/deep/two", "home/a/.ssh/id_a", "home/a/.ssh/config"] {
            fs::write(at(file), "").unwrap();
        }
        symlink("/etc", at("linked")).unwrap();
        symlink("../../../../../../etc/shadow", at("etc/out")).unwrap();
        fs::hard_link(at("etc/shadow"), at("etc/keys/shadow")).unwrap();
        symlink("/etc/keys", at("etc/keys/again")).unwrap();

        let all = vec![
            plain("/etc/shadow"),
            plain("/linked/shadow"),
            plain("/etc/out"),
            plain("/etc/none"),
            plain("/etc/shadow/none"),
            plain("pipe:[1]"),
            plain("/etc/keys/"),
            plain("/etc/keys/deep/"),
            regex("/home/", "^/home/[^/]*/\\.ssh/id_[^/]*$"),
        ];
        let found = look(root.path(), all);
        assert!(found.failed.is_none() && !found.is_cut, "{found:?}");
        assert_eq!(names(root.path(), &found, "etc/shadow"), ["/etc/keys/shadow", "/etc/out", "/etc/shadow", "/linked/shadow"]);
        assert_eq!(names(root.path(), &found, "etc/keys/one"), ["/etc/keys/one"]);
        assert_eq!(names(root.path(), &found, "etc/keys/deep/two"), ["/etc/keys/deep/two"]);
        assert_eq!(names(root.path(), &found, "home/a/.ssh/id_a"), ["/home/a/.ssh/id_a"]);
        assert_eq!(names(root.path(), &found, "home/a/.ssh/config"), [""; 0]);
    }

    #[test]
    fn no_more_is_looked_at_than_is_allowed() {
        let root = tempfile::tempdir().unwrap();
        for n in 0..FILES + 10 {
            fs::write(root.path().join(n.to_string()), "").unwrap();
        }
        let found = look(root.path(), vec![regex("", "^.*$")]);
        assert!(found.is_cut);
        assert_eq!(found.files.len(), FILES);
        let found = look(root.path(), vec![regex("", "^/1.$")]);
        assert_eq!((found.files.len(), found.is_cut), (10, false));
        let long = "x".repeat(250);
        fs::create_dir_all(root.path().join(format!("{long}/{long}/{long}"))).unwrap();
        for n in 0..200 {
            fs::write(root.path().join(format!("{long}/{long}/{long}/{n}")), "").unwrap();
        }
        let found = look(root.path(), vec![regex("", "^/x+/x+/x+/.*$")]);
        assert!(found.is_cut && found.files.len() < 200, "{}", found.files.len());
        let mut deep = root.path().to_owned();
        for _ in 0..=DEPTH {
            deep.push("d");
        }
        fs::create_dir_all(&deep).unwrap();
        assert!(look(root.path(), vec![regex("/", "^/x$")]).is_cut);
    }

    #[test]
    fn only_what_is_a_file_counts() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        fs::create_dir(at("folder")).unwrap();
        fs::write(at("file"), "").unwrap();
        symlink("/folder", at("to_folder")).unwrap();
        drop(std::os::unix::net::UnixListener::bind(at("socket")).unwrap());
        let found = look(root.path(), vec![plain("/folder"), plain("/to_folder"), plain("/socket"), regex("/", "^/.*$")]);
        assert!(found.failed.is_none(), "{found:?}");
        assert_eq!(found.files.len(), 1);
        assert_eq!(names(root.path(), &found, "file"), ["/file"]);
    }

    #[test]
    fn several_roots_are_looked_at_together() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        for folder in ["one", "two"] {
            fs::create_dir(at(folder)).unwrap();
            fs::write(at(folder).join("file"), "").unwrap();
        }
        let roots = ["one", "two"].map(|name| OwnedFd::from(fs::File::open(at(name)).unwrap()));
        let found = sought(vec![plain("/file")]).find(&roots, identify);
        assert_eq!([names(root.path(), &found, "one/file"), names(root.path(), &found, "two/file")], [["/file"], ["/file"]]);
    }

    #[test]
    fn what_could_not_be_looked_at_is_kept() {
        let root = tempfile::tempdir().unwrap();
        for file in ["exact", "globbed"] {
            fs::write(root.path().join(file), "").unwrap();
        }
        let sought = sought(vec![plain("/exact"), regex("/", "^/glob.*$")]);
        let roots = [fs::File::open(root.path()).unwrap().into()];
        let before = sought.find(&roots, identify).files;
        assert_eq!(before.len(), 2);
        let with = |change: &dyn Fn(&mut Found)| {
            let mut found = Found::default();
            change(&mut found);
            sought.keep(&mut found, &before);
            found.files.into_values().flatten().map(|path| String::from_utf8_lossy(&path).into_owned()).collect::<BTreeSet<_>>()
        };
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        assert_eq!(with(&|_| ()), set(&[]));
        assert_eq!(with(&|found| found.is_cut = true), set(&["/globbed"]));
        assert_eq!(with(&|found| found.missed(b"/", Errno::IO)), set(&["/globbed"]));
        assert_eq!(with(&|found| found.missed(b"/", Errno::NOENT)), set(&[]));

        let mut failed = sought.find(&roots, |_| Err(io::Error::other("broken")));
        assert!(failed.files.is_empty() && failed.failed.is_some());
        sought.keep(&mut failed, &before);
        assert_eq!(failed.files, before);
    }

    #[test]
    fn folders_within_others_are_looked_through_once() {
        let found = sought(vec![plain("/a/b/"), plain("/a/"), regex("/a/b/c/", "x"), plain("/ab/"), regex("/a/", "y")]);
        assert_eq!(found.folders, ["/a/", "/ab/"]);
        assert!(found.has(b"/a/b/c") && !found.has(b"/a") && !found.has(b"/ac"));
    }
}
