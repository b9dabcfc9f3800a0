//! The thread that looks up watched files, and tells the kernel which they are.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Read as _,
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLockWriteGuard},
    time::{Duration, Instant},
};

use rustix::fs::{Mode, OFlags, open};

use super::{
    Paths, Shared,
    find::{ENTRIES, FILES, Found, Sought},
    names::Names,
    place,
};
use crate::bpf::{FileId, MapError, WatchedFiles};

/// How often it looks where nothing tells that there is something new.
const EVERY: Duration = Duration::from_secs(2);
/// After a look it rests so many times as long as that took: a CPU has other things to do.
const REST: u32 = 20;
/// So many processes of a container are tried for its root.
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

/// The paths of files.
type Files = BTreeMap<FileId, BTreeSet<Box<[u8]>>>;

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
            // What is new isn't kept waiting.
            let due = |(root, due): (&String, &Instant)| {
                let due = if self.found.contains_key(root) { (*due).max(rested) } else { *due };
                (due, root.clone())
            };
            let first = self.due.iter().map(due).min();
            if let Some((due, root)) = &first
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
            let pause = first.map_or(EVERY, |(due, _)| due - now);
            wishes = shared.changed.wait_timeout(wishes, pause).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Looks at a root, and brings the kernel up to date.
    fn look(&mut self, root: &str, groups: &[PathBuf]) {
        let opened = if root.is_empty() { node() } else { container(groups) };
        let Some(opened) = opened else {
            // It has no process at present: what it had is watched until it goes.
            self.found.entry(root.to_owned()).or_default();
            return;
        };
        let Self { sought, kernel, .. } = self;
        let Found { files, is_cut, failed, .. } = sought.find(opened.as_fd(), |file| kernel.identify(file));
        let place = place(root);
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
        let paths: Paths = paths.into_iter().map(Box::from).collect();
        let shared = Arc::clone(&self.shared);
        let known = self.numbers.get(&id).copied();
        let outcome = match known {
            None if paths.is_empty() => Ok(()),
            Some(number) if paths.is_empty() => {
                self.numbers.remove(&id);
                names(&shared).leaves(number);
                self.kernel.forget(id)
            }
            Some(number) => {
                names(&shared).change(number, paths);
                Ok(())
            }
            None => {
                let number = names(&shared).add(paths);
                let outcome = self.kernel.watch(id, number);
                match outcome {
                    Ok(()) => drop(self.numbers.insert(id, number)),
                    Err(_) => names(&shared).leaves(number),
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

/// The node's root: that of its first process, unless that can't be seen from here.
fn node() -> Option<OwnedFd> {
    root_of(1).or_else(|| open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok())
}

/// A container's root: that of one of its processes.
fn container(groups: &[PathBuf]) -> Option<OwnedFd> {
    groups.iter().find_map(|group| {
        // The id may be another process's by the time that its root is open; it isn't if it is still there afterwards.
        processes(group).into_iter().take(TRIED).find_map(|pid| root_of(pid).filter(|_| processes(group).contains(&pid)))
    })
}

fn root_of(pid: u32) -> Option<OwnedFd> {
    open(format!("/proc/{pid}/root"), OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()
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
