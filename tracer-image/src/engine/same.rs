//! The engine's part in files that are watched under whatever name: where they are looked for, and what tells that there may be
//! something new.

use std::time::Duration;

use knark_specs::frame::FileOp;

use super::{EngineError, Tracer};
use crate::{
    bpf::{Probes, Record},
    encode,
    same::{Paths, Watch},
};

/// How long the beginning waits for the files to be looked up; what takes longer is watched from then on.
const PATIENCE: Duration = Duration::from_secs(5);
/// The first processes of a container may still be in another root than its own: so many executions are taken for signs of a new one.
const FIRST_EXECS: u8 = 8;

impl Tracer {
    /// Begins to watch, where that is asked for.
    pub(super) fn watch_files(&mut self, probes: &mut Probes) -> Result<(), EngineError> {
        let (Some(files), Some(kernel)) = (&self.plan.same, probes.take_watched()) else { return Ok(()) };
        let watch = Watch::begin(files, kernel)?;
        watch.set_roots(self.containers.roots());
        if !watch.settle(PATIENCE) {
            self.note("sameFile: looking up the watched files takes its time: until then their other names are not known");
        }
        self.same = Some(watch);
        Ok(())
    }

    /// Takes in containers that have come and gone, and tells what is worth knowing.
    pub(super) fn look_after_files(&mut self) {
        let Some(watch) = &self.same else { return };
        if self.containers.take_changed() {
            watch.set_roots(self.containers.roots());
            self.young.retain(|id, _| self.containers.is_known(*id));
        }
        for note in watch.take_notes() {
            self.note(&note);
        }
    }

    /// Has a root looked at where this record says that a watched path may lead to another file than before.
    pub(super) fn see_files_change(&mut self, record: &Record<'_>) {
        let Some(watch) = &self.same else { return };
        let root = self.containers.root(record.head().cgroup);
        let is_news = match record {
            Record::Exec(_) if root.is_empty() => false,
            Record::Exec(exec) => {
                let execs = self.young.entry(exec.head.cgroup).or_default();
                // Only what leads to a look counts.
                *execs += u8::from(*execs < FIRST_EXECS && watch.look_at(root));
                false
            }
            Record::Open(open) => open.created() && watch.is_about(&encode::open_path(open)),
            Record::Path(call) => {
                let makes_or_removes =
                    matches!(call.file_op(), FileOp::Create | FileOp::Rename | FileOp::Link | FileOp::Symlink | FileOp::Unlink);
                let is_about = || {
                    let (path, other) = encode::call_paths(call);
                    watch.is_about(&path) || other.is_some_and(|other| watch.is_about(&other))
                };
                call.result >= 0 && makes_or_removes && is_about()
            }
            _ => false,
        };
        if is_news {
            watch.look_at(root);
        }
    }

    /// The watched paths of the files that a record is about, whatever they were reached by.
    pub(super) fn watched_paths(&self, record: &Record<'_>) -> Vec<Paths> {
        let (first, second) = match record {
            Record::Open(open) => (open.same, 0),
            Record::Path(call) => (call.same[0], call.same[1]),
            _ => return Vec::new(),
        };
        let Some(watch) = &self.same else { return Vec::new() };
        [first, second].into_iter().filter(|number| *number != 0).filter_map(|number| watch.paths(number)).collect()
    }
}
