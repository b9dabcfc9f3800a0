//! The thread that looks up watched files, and tells the kernel which they are.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Read as _,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLockWriteGuard},
    time::{Duration, Instant},
};

use rustix::{
    fs::{Mode, OFlags, fstat, open},
    io::Errno,
};

use super::{
    Paths, Shared,
    find::{ENTRIES, FILES, Files, Found, Sought},
    names::Names,
    place,
};
use crate::bpf::{FileId, MapError, WatchedFiles};

/// How often it looks where nothing tells that there is something new.
const EVERY: Duration = Duration::from_secs(2);
/// After a look it rests so many times as long as that took: a CPU has other things to do.
const REST: u32 = 20;
/// The roots of so many processes of a container are looked at.
const TRIED: usize = 8;
/// Bytes of cgroup.procs that are read for that.
const PROCESSES_READ: u64 = 4 << 10;
/// So much is told of what can't be watched.
const NOTES: usize = 64;

/// The thread's own state.
pub struct Looker {
    sought: Arc<Sought>,
    shared: Arc<Shared>,
    kernel: WatchedFiles,
    due: BTreeMap<String, Instant>,
    /// What was found, by root.
    found: BTreeMap<String, Files>,
    numbers: BTreeMap<FileId, u32>,
    told: BTreeSet<String>,
    /// Of those, what is still to be told.
    notes: Vec<String>,
}

impl Looker {
    /// Knows nothing yet.
    pub fn new(sought: Arc<Sought>, shared: Arc<Shared>, kernel: WatchedFiles) -> Self {
        Self {
            sought,
            shared,
            kernel,
            due: BTreeMap::new(),
            found: BTreeMap::new(),
            numbers: BTreeMap::new(),
            told: BTreeSet::new(),
            notes: Vec::new(),
        }
    }

    /// Looks until told to stop.
    pub fn run(mut self) {
        let mut rested = Instant::now();
        while let Some((root, groups)) = self.next(rested) {
            let began = Instant::now();
            self.look(&root, &groups);
            rested = Instant::now() + began.elapsed() * REST;
            self.due.insert(root, began + EVERY);
        }
    }

    /// Waits for the next root to look at, not before that time.
    fn next(&mut self, rested: Instant) -> Option<(String, Vec<PathBuf>)> {
        let shared = Arc::clone(&self.shared);
        let mut wishes = shared.wishes();
        wishes.looking = None;
        loop {
            if wishes.stop {
                return None;
            }
            let now = Instant::now();
            let gone: Vec<String> = self.due.keys().filter(|root| !wishes.roots.contains_key(*root)).cloned().collect();
            for root in gone {
                self.due.remove(&root);
                self.take_over(&root, None);
            }
            for root in wishes.roots.keys() {
                self.due.entry(root.clone()).or_insert(now);
            }
            for root in std::mem::take(&mut wishes.at_once) {
                self.due.entry(root).and_modify(|due| *due = now.min(*due));
            }
            wishes.notes.append(&mut self.notes);
            // What is new isn't kept waiting. Of those that have waited for the rest to end, it is the turn of the one due first.
            let due = |(root, due): (&String, &Instant)| {
                let begin = if self.found.contains_key(root) { (*due).max(rested) } else { *due };
                (begin, *due, root.clone())
            };
            let first = self.due.iter().map(due).min();
            if let Some((due, _, root)) = &first
                && *due <= now
            {
                let groups = wishes.roots.get(root).cloned().unwrap_or_default();
                wishes.looking = Some((root.clone(), now));
                return Some((root.clone(), groups));
            }
            if !wishes.is_settled && self.due.keys().all(|root| self.found.contains_key(root)) {
                wishes.is_settled = true;
                shared.changed.notify_all();
            }
            let pause = first.map_or(EVERY, |(due, ..)| due - now);
            wishes = shared.changed.wait_timeout(wishes, pause).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Looks at a root, and brings the kernel up to date.
    fn look(&mut self, root: &str, groups: &[PathBuf]) {
        let place = place(root);
        let Opened { roots, failed } = if root.is_empty() { node() } else { container(groups) };
        if let Some(error) = failed {
            self.note(format!(
                "sameFile: {place} the root folder of no process can be opened, so the other names of some files are not known: {error}"
            ));
        }
        if roots.is_empty() {
            // It has no process at present: what it had is watched until it goes.
            self.found.entry(root.to_owned()).or_default();
            return;
        }
        let Self { sought, kernel, .. } = self;
        let mut found = sought.find(&roots, |file| kernel.identify(file));
        if let Some(before) = self.found.get(root) {
            sought.keep(&mut found, before);
        }
        let Found { files, is_cut, failed, .. } = found;
        if is_cut {
            self.note(format!(
                "sameFile: {place} there is more below the folders of globs than is looked through ({FILES} files, {ENTRIES} names), \
                 so the other names of some files are not known"
            ));
        }
        if let Some((path, error)) = failed {
            self.note(format!("sameFile: {path} {place} can't be looked up, so its other names are not known: {error}"));
        }
        self.take_over(root, Some(files));
    }

    /// What is there now below a root; None: the root is no more.
    fn take_over(&mut self, root: &str, new: Option<Files>) {
        let ids: BTreeSet<FileId> = new.iter().chain(self.found.get(root)).flat_map(BTreeMap::keys).copied().collect();
        let old = match new {
            Some(new) => self.found.insert(root.to_owned(), new),
            None => self.found.remove(root),
        };
        let (old, new) = (old.unwrap_or_default(), self.found.get(root));
        let is_new = |id: &FileId| old.get(id) != new.and_then(|new| new.get(id)) || !self.numbers.contains_key(id);
        let changed: Vec<FileId> = ids.into_iter().filter(is_new).collect();
        for id in changed {
            self.settle(id);
        }
    }

    /// Tells the kernel of a file, whose paths may have changed.
    fn settle(&mut self, id: FileId) {
        let paths: BTreeSet<&[u8]> =
            self.found.values().filter_map(|files| files.get(&id)).flatten().map(AsRef::as_ref).collect();
        // Those that are named exactly come first, lest the many that a glob may match push them out where there is a limit.
        let (exact, others): (Vec<_>, Vec<_>) = paths.into_iter().partition(|path| self.sought.is_exact(path));
        let paths: Paths = exact.into_iter().chain(others).map(Box::from).collect();
        let shared = Arc::clone(&self.shared);
        let known = self.numbers.get(&id).copied();
        let outcome = match known {
            None if paths.is_empty() => Ok(()),
            Some(number) if paths.is_empty() => {
                self.numbers.remove(&id);
                names(&shared).leaves(number);
                self.kernel.forget(id)
            }
            // Other paths, another number: records that are on their way mean those that the file had.
            _ => {
                let number = names(&shared).add(paths);
                let outcome = self.kernel.watch(id, number);
                let gone = match outcome {
                    Ok(()) => self.numbers.insert(id, number),
                    Err(_) => Some(number),
                };
                if let Some(gone) = gone {
                    names(&shared).leaves(gone);
                }
                outcome
            }
        };
        if let Err(error) = outcome {
            let reason = match error {
                MapError::Full { .. } => "there are too many".to_owned(),
                error => error.to_string(),
            };
            self.note(format!("sameFile: the other names of some files are not known: {reason}"));
        }
    }

    fn note(&mut self, text: String) {
        if self.told.len() < NOTES && self.told.insert(text.clone()) {
            self.notes.push(text);
        }
    }
}

fn names(shared: &Shared) -> RwLockWriteGuard<'_, Names> {
    shared.names.write().unwrap_or_else(PoisonError::into_inner)
}

/// Root folders of processes.
#[derive(Default)]
struct Opened {
    /// Each once.
    roots: Vec<OwnedFd>,
    /// Why the root of a process that is there could not be opened; only if there is none that could.
    failed: Option<Errno>,
}

/// The node's root: that of its first process, unless that can't be seen from here.
fn node() -> Opened {
    let (root, failed) = match root_of(1) {
        Ok(root) => (Ok(root), None),
        Err(error) => (folder("/"), Some(error).filter(|error| !is_gone(*error))),
    };
    Opened { roots: root.into_iter().collect(), failed }
}

/// A container's roots: those of its first processes, each of which may have one of its own.
fn container(groups: &[PathBuf]) -> Opened {
    let (mut opened, mut distinct, mut tried) = (Opened::default(), BTreeSet::new(), 0);
    for (group, pid) in groups.iter().flat_map(|group| processes(group).into_iter().map(move |pid| (group, pid))) {
        let root = root_of(pid).and_then(|root| Ok((fstat(&root)?, root)));
        // The id may be another process's by the time that its root is open; it isn't if it is still there afterwards.
        if !processes(group).contains(&pid) {
            continue;
        }
        match root {
            Ok((stat, root)) => {
                if distinct.insert((stat.st_dev, stat.st_ino)) {
                    opened.roots.push(root);
                }
            }
            Err(error) if is_gone(error) => continue,
            Err(error) => opened.failed = Some(error),
        }
        tried += 1;
        if tried == TRIED {
            break;
        }
    }
    opened.failed = opened.failed.filter(|_| opened.roots.is_empty());
    opened
}

fn root_of(pid: u32) -> Result<OwnedFd, Errno> {
    folder(&format!("/proc/{pid}/root"))
}

fn folder(path: &str) -> Result<OwnedFd, Errno> {
    open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// Whether the process is no more: it is waited for at most.
fn is_gone(error: Errno) -> bool {
    matches!(error, Errno::NOENT | Errno::SRCH)
}

/// The first processes of a control group.
fn processes(group: &Path) -> Vec<u32> {
    let mut text = String::new();
    let Ok(file) = fs::File::open(group.join("cgroup.procs")) else { return Vec::new() };
    if file.take(PROCESSES_READ).read_to_string(&mut text).is_err() {
        return Vec::new();
    }
    // The last line may be cut.
    text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')?.parse().ok()).filter(|pid| *pid != 0).collect()
}
