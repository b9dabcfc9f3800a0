//! Files that are watched under whatever name: which they are now, and which numbers they bear in the kernel.
//!
//! The paths are known, and the files that they lead to change: containers come and go, files are replaced. A thread of its own looks
//! them up, since a file system may take its time; it is told when there may be something new, and looks again by itself all the same.

mod find;
mod look;
mod names;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::PathBuf,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock},
    thread,
    time::{Duration, Instant},
};

use knark_specs::{frame::SameFiles, policy::pattern::PatternError};

use self::{find::Sought, look::Looker, names::Names};
use crate::bpf::WatchedFiles;

/// Where files are looked for: a container, by its id, or the node itself, whose is empty; and the folders of its control groups.
pub type Roots = BTreeMap<String, Vec<PathBuf>>;

/// The paths of a file: first those of rules that name it exactly.
pub type Paths = Arc<[Box<[u8]>]>;

/// What goes wrong at the beginning.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The plugin checks them, too.
    #[error("reading the paths of files to watch: {0}; update the plugin or the tracer")]
    Pattern(#[from] PatternError),
    /// No thread could be had.
    #[error("starting the thread that looks up watched files")]
    Thread(#[from] io::Error),
}

/// The watch; it ends when this is dropped.
#[derive(Debug)]
pub struct Watch {
    sought: Arc<Sought>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    wishes: Mutex<Wishes>,
    changed: Condvar,
    names: RwLock<Names>,
}

/// What the thread is to do, and what it has to say. As large as the number of containers at most, however late it is.
#[derive(Debug, Default)]
struct Wishes {
    roots: Roots,
    /// Those to look at now.
    at_once: BTreeSet<String>,
    /// Every root has been looked at.
    is_settled: bool,
    notes: Vec<String>,
    /// Where it is looking, and since when; nowhere as soon as that has been told of.
    looking: Option<(String, Instant)>,
    stop: bool,
}

/// A look that takes longer is told of: a container may have mounted a file system that never answers.
const SLOW: Duration = Duration::from_secs(10);

impl Shared {
    fn wishes(&self) -> MutexGuard<'_, Wishes> {
        self.wishes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watch {
    /// Begins to look.
    pub fn begin(files: &SameFiles, kernel: WatchedFiles) -> Result<Watch, WatchError> {
        let sought = Arc::new(Sought::new(files)?);
        let shared = Arc::new(Shared::default());
        let looker = Looker::new(Arc::clone(&sought), Arc::clone(&shared), kernel);
        thread::Builder::new().name("watched files".into()).spawn(move || looker.run())?;
        Ok(Watch { sought, shared })
    }

    /// These are all there are now.
    pub fn set_roots(&self, roots: Roots) {
        let mut wishes = self.shared.wishes();
        if wishes.roots != roots {
            wishes.roots = roots;
            wishes.is_settled = false;
            self.shared.changed.notify_all();
        }
    }

    /// There may be something new in this one. False if it isn't known yet, or is to be looked at anyway.
    pub fn look_at(&self, root: &str) -> bool {
        let mut wishes = self.shared.wishes();
        let is_taken = wishes.roots.contains_key(root) && wishes.at_once.insert(root.to_owned());
        if is_taken {
            self.shared.changed.notify_all();
        }
        is_taken
    }

    /// Waits until every root has been looked at; false if that takes longer.
    pub fn settle(&self, patience: Duration) -> bool {
        let wishes = self.shared.wishes();
        let waited = self.shared.changed.wait_timeout_while(wishes, patience, |wishes| !wishes.is_settled);
        waited.unwrap_or_else(PoisonError::into_inner).0.is_settled
    }

    /// Whether a file of this path is watched, if there is one.
    pub fn is_about(&self, path: &[u8]) -> bool {
        self.sought.has(path)
    }

    /// The watched paths of the file that bears, or bore, this number.
    pub fn paths(&self, number: u32) -> Option<Paths> {
        self.shared.names.read().unwrap_or_else(PoisonError::into_inner).paths(number)
    }

    /// What the user has to know.
    pub fn take_notes(&self) -> Vec<String> {
        let mut wishes = self.shared.wishes();
        let mut notes = std::mem::take(&mut wishes.notes);
        if let Some((root, _)) = wishes.looking.take_if(|(_, since)| since.elapsed() > SLOW) {
            notes.push(format!(
                "sameFile: looking up watched files {} takes more than {} s; until it ends, no others are looked up",
                place(&root),
                SLOW.as_secs()
            ));
        }
        notes
    }
}

/// Where a root is, in words.
fn place(root: &str) -> String {
    // As much of an id as people use.
    if root.is_empty() { "on the node".to_owned() } else { format!("in container {}", root.get(..12).unwrap_or(root)) }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // It isn't waited for: it may hang in a file system.
        self.shared.wishes().stop = true;
        self.shared.changed.notify_all();
    }
}
