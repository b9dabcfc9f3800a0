//! Which cgroup is whose, whether its events are wanted, and its container's slot in the stream.
//!
//! The kernel filters by cgroup, and a new cgroup inherits its parent's verdict there before anything runs in it. So the
//! cgroups under which pods appear get Hold: the first events of a new pod come up and wait in user space until its verdict
//! is known. A cgroup that nobody wants isn't in the kernel's map at all.

use std::{
    collections::VecDeque,
    ffi::{OsStr, OsString},
    fs,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use knark_specs::frame::{CONTAINER_SLOTS, Container, HostFilter, Item, Limited, PodVerdict, Target};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::{
    batch,
    bpf::{Hierarchy, MapError, Probes, Verdict, cgroups},
    bundle::{Bundles, Names},
    cgroup_path::{Place, kubepods_root, place},
    same::Roots,
};

/// Removed cgroups are remembered for the events that are still on their way; no more than these.
const REMEMBERED: usize = 1024;
/// More cgroups than any node has; what a hostile container makes beyond them isn't followed, and that is counted.
const MAX_CGROUPS: usize = 65_536;

/// All cgroups of the node.
#[derive(Debug)]
pub struct Containers {
    target: Target,
    hierarchy: Hierarchy,
    verdicts: FxHashMap<String, PodVerdict>,
    cgroups: FxHashMap<u64, Cgroup>,
    by_id: FxHashMap<String, Known>,
    removed: VecDeque<u64>,
    slots_used: u32,
    slots_free: Vec<u32>,
    bundles: Bundles,
    own_pod: Option<String>,
    kubepods: Option<Vec<u8>>,
    changes: Vec<(u64, Verdict)>,
    /// Whose rate limit holds for a control group now.
    rates: Vec<(u64, Option<u64>)>,
    blind: u64,
    /// Some cgroup's verdict may be another one than when that was asked last.
    changed: bool,
}

#[derive(Debug)]
struct Cgroup {
    path: Vec<u8>,
    place: Place,
    verdict: Verdict,
    /// It lies where this node's kubelet puts its pods: nodes may share a kernel.
    ours: bool,
    /// The cgroup whose rate limit holds for it: its container's topmost. Never one that lies elsewhere, since a container may give its
    /// own the name of another one's.
    rate: u64,
}

/// A container, which may have cgroups of its own below its cgroup.
#[derive(Debug, Default)]
struct Known {
    names: Option<Names>,
    slot: u32,
    cgroups: u32,
}

/// What to do with an event.
#[derive(Debug, PartialEq, Eq)]
pub enum Decision<'a> {
    /// Send it.
    Send,
    /// Nobody wants it.
    Drop,
    /// This pod's verdict isn't known yet.
    Hold {
        /// The pod.
        pod_uid: &'a str,
    },
}

impl Containers {
    /// An empty table. `own_pod` is the UID of the pod that this tracer runs in, which is never traced.
    pub fn new(target: Target, hierarchy: Hierarchy, own_pod: Option<String>) -> Self {
        Self {
            target,
            hierarchy,
            verdicts: FxHashMap::default(),
            cgroups: FxHashMap::default(),
            by_id: FxHashMap::default(),
            removed: VecDeque::new(),
            slots_used: 0,
            slots_free: Vec::new(),
            bundles: Bundles::default(),
            own_pod,
            kubepods: None,
            changes: Vec::new(),
            rates: Vec::new(),
            blind: 0,
            changed: false,
        }
    }

    /// Takes in the cgroups that are there already. The probes must be attached: what is made meanwhile is then reported.
    pub fn scan(&mut self, probes: &mut Probes) -> Result<(), MapError> {
        let root = self.hierarchy.mount.clone();
        if let (Some(own), None) = (&self.own_pod, &self.kubepods) {
            let is_own = |path: &[u8]| matches!(place(path), Place::Pod { uid } if uid == *own);
            self.kubepods = find(&root, is_own).and_then(|path| kubepods_root(&path).map(<[u8]>::to_vec));
        }
        let mut waiting = vec![(root, b"/".to_vec(), 0)];
        while let Some((folder, path, parent)) = waiting.pop() {
            let Ok(id) = cgroups::id_of(&folder) else { continue };
            // The verdict first, the children after: one that is made in between inherits it.
            self.add(id, parent, &path);
            self.apply(probes)?;
            waiting.extend(children(&folder).into_iter().map(|(child, name)| (child, below(&path, &name), id)));
        }
        Ok(())
    }

    /// A cgroup was made, or is found. One that is known already stays as it is.
    pub fn add(&mut self, id: u64, parent: u64, path: &[u8]) {
        if self.cgroups.contains_key(&id) {
            return;
        }
        if self.cgroups.len() >= MAX_CGROUPS {
            self.blind += 1;
            return;
        }
        // A path that the kernel tells may begin above what is mounted here, so the parent is asked first.
        let below_ours =
            |root: &Vec<u8>| path.strip_prefix(root.as_slice()).is_some_and(|rest| rest.is_empty() || rest[0] == b'/');
        let ours = self.cgroups.get(&parent).is_some_and(|parent| parent.ours) || self.kubepods.as_ref().is_none_or(below_ours);
        let place = place(path);
        let rate = self.cgroups.get(&parent).filter(|parent| parent.place == place).map_or(id, |parent| parent.rate);
        let cgroup = Cgroup { path: path.to_vec(), place, verdict: Verdict::Ignore, ours, rate };
        if let Place::Container { id: container, .. } = &cgroup.place {
            self.by_id.entry(container.clone()).or_default().cgroups += 1;
            if !self.removed.contains(&id) {
                self.rates.push((id, Some(rate)));
            }
        }
        self.cgroups.insert(id, cgroup);
        self.judge(id);
    }

    /// A cgroup was removed.
    pub fn remove(&mut self, id: u64) {
        // Its verdict may have been set after the kernel had removed it.
        self.changes.retain(|(changed, _)| *changed != id);
        self.changes.push((id, Verdict::Ignore));
        self.rates.retain(|(changed, _)| *changed != id);
        if self.cgroups.get(&id).is_some_and(|cgroup| matches!(cgroup.place, Place::Container { .. })) {
            self.rates.push((id, None));
        }
        self.changed = true;
        self.removed.push_back(id);
        if self.removed.len() <= REMEMBERED {
            return;
        }
        let Some(cgroup) = self.removed.pop_front().and_then(|oldest| self.cgroups.remove(&oldest)) else { return };
        match cgroup.place {
            Place::Container { id, .. } => {
                if let Some(container) = self.by_id.get_mut(&id) {
                    container.cgroups -= 1;
                    if container.cgroups == 0 {
                        self.slots_free.extend(Some(container.slot).filter(|slot| *slot != 0));
                        self.by_id.remove(&id);
                    }
                }
            }
            // A static pod that comes back has the same UID.
            Place::Pod { uid } if !self.cgroups.values().any(|other| other.place.pod_uid() == Some(&uid)) => {
                self.verdicts.remove(&uid);
            }
            Place::Pod { .. } | Place::Other { .. } => {}
        }
    }

    /// Brings the kernel's filter up to date.
    pub fn apply(&mut self, probes: &mut Probes) -> Result<(), MapError> {
        for (id, verdict) in self.changes.drain(..) {
            match verdict {
                Verdict::Ignore => probes.remove_cgroup(id)?,
                Verdict::Trace | Verdict::Hold => match probes.set_cgroup(id, verdict) {
                    Err(MapError::Full { .. }) => self.blind += 1,
                    set => set?,
                },
            }
        }
        for (id, with) in self.rates.drain(..) {
            match probes.share_rate(id, with) {
                // Its own limit holds then. There is as much room for verdicts, without which nothing of it is seen.
                Err(MapError::Full { .. }) => {}
                set => set?,
            }
        }
        Ok(())
    }

    /// Takes over verdicts; afterwards events of these pods aren't held any more. True if a pod has become wanted whose
    /// cgroups nobody watched: they have to be looked for.
    pub fn decide(&mut self, pods: Vec<PodVerdict>) -> bool {
        let uids: FxHashSet<String> = pods.iter().map(|pod| pod.uid.clone()).collect();
        self.verdicts.extend(pods.into_iter().map(|pod| (pod.uid.clone(), pod)));
        let concerned = |cgroup: &Cgroup| cgroup.place.pod_uid().is_some_and(|uid| uids.contains(uid));
        let ids: Vec<u64> = self.cgroups.iter().filter(|(_, cgroup)| concerned(cgroup)).map(|(id, _)| *id).collect();
        ids.into_iter().filter(|id| self.judge(*id)).count() > 0
    }

    /// Looks again for the names that decide whether a container is wanted.
    pub fn look_again(&mut self) {
        let nameless = |cgroup: &Cgroup| match &cgroup.place {
            Place::Container { id, .. } => {
                cgroup.verdict == Verdict::Hold && self.by_id.get(id).is_some_and(|container| container.names.is_none())
            }
            Place::Pod { .. } | Place::Other { .. } => false,
        };
        let ids: Vec<u64> = self.cgroups.iter().filter(|(_, cgroup)| nameless(cgroup)).map(|(id, _)| *id).collect();
        for id in ids {
            self.judge(id);
        }
    }

    /// Whether what is held under this pod's UID can be judged now.
    pub fn is_decided(&self, pod_uid: &str) -> bool {
        self.verdicts.contains_key(pod_uid)
            && !self.cgroups.values().any(|c| {
                c.verdict == Verdict::Hold && matches!(c.place, Place::Container { .. }) && c.place.pod_uid() == Some(pod_uid)
            })
    }

    /// Whether this cgroup is in the table.
    pub fn is_known(&self, id: u64) -> bool {
        self.cgroups.contains_key(&id)
    }

    /// Whether containers may have come or gone since this was asked last.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// Where the files are that paths lead to: the node itself, and the containers that are traced or may come to be.
    pub fn roots(&self) -> Roots {
        let mut roots = Roots::from([(String::new(), Vec::new())]);
        let removed: FxHashSet<u64> = self.removed.iter().copied().collect();
        for (id, cgroup) in &self.cgroups {
            if let Place::Container { id: container, .. } = &cgroup.place
                && cgroup.verdict != Verdict::Ignore
                && !removed.contains(id)
            {
                roots.entry(container.clone()).or_default().push(self.hierarchy.folder(&cgroup.path));
            }
        }
        // The container's own comes before those that it has made.
        for folders in roots.values_mut() {
            folders.sort_unstable();
        }
        roots
    }

    /// Which of [`Self::roots`] the processes of this cgroup have.
    pub fn root(&self, id: u64) -> &str {
        match self.cgroups.get(&id).map(|cgroup| &cgroup.place) {
            Some(Place::Container { id, .. }) => id,
            _ => "",
        }
    }

    /// How many cgroups could not be watched.
    pub fn blind(&self) -> u64 {
        self.blind
    }

    /// Whose rate limit it is that holds for this cgroup: the container's name, or the cgroup's own.
    pub fn limited(&self, id: u64) -> Limited {
        let Some(cgroup) = self.cgroups.get(&id) else { return Limited::default() };
        match (&cgroup.place, self.names(cgroup)) {
            (Place::Container { id, .. }, names) => {
                let unnamed = Names::default();
                let names = names.unwrap_or(&unnamed);
                Limited {
                    namespace: names.namespace.clone(),
                    pod: names.pod.clone(),
                    container: names.container.clone(),
                    container_id: id.clone(),
                    ..Limited::default()
                }
            }
            _ => Limited { cgroup: String::from_utf8_lossy(&cgroup.path).into_owned(), ..Limited::default() },
        }
    }

    /// What to do with an event of this cgroup; `None` when the cgroup isn't known.
    pub fn decision(&self, id: u64) -> Option<Decision<'_>> {
        let cgroup = self.cgroups.get(&id)?;
        Some(match (cgroup.verdict, cgroup.place.pod_uid()) {
            (Verdict::Trace, _) => Decision::Send,
            (Verdict::Hold, Some(pod_uid)) => Decision::Hold { pod_uid },
            // Folders in which containers appear; what runs directly in them belongs to none.
            (Verdict::Hold, None) | (Verdict::Ignore, _) => Decision::Drop,
        })
    }

    /// The slot of this cgroup's container, 0 for none; what has to be told about it first goes to `batch`.
    pub fn slot(&mut self, cgroup_id: u64, batch: &mut Vec<u8>) -> u32 {
        let Some(Place::Container { pod_uid, id }) = self.cgroups.get(&cgroup_id).map(|cgroup| &cgroup.place) else { return 0 };
        let Some(container) = self.by_id.get_mut(id) else { return 0 };
        if container.slot != 0 {
            return container.slot;
        }
        let slot = match self.slots_free.pop() {
            Some(slot) => slot,
            None if self.slots_used + 1 < CONTAINER_SLOTS => {
                self.slots_used += 1;
                self.slots_used
            }
            None => return 0,
        };
        container.slot = slot;
        if container.names.is_none() {
            container.names = self.bundles.names(id);
        }
        let unnamed = Names::default();
        let names = container.names.as_ref().unwrap_or(&unnamed);
        let item = Item::Container(Container {
            slot,
            cgroup_id,
            id,
            name: &names.container,
            namespace: &names.namespace,
            pod: &names.pod,
            pod_uid: pod_uid.as_deref().unwrap_or_default(),
            image: &names.image,
        });
        batch::put(&item, batch);
        slot
    }

    /// Finds a cgroup's verdict, and changes the kernel's if it is another. True if it is wanted and nobody watched it.
    fn judge(&mut self, id: u64) -> bool {
        let Some(cgroup) = self.cgroups.get(&id) else { return false };
        if let Place::Container { id, .. } = &cgroup.place
            && let Some(container) = self.by_id.get_mut(id)
            && container.names.is_none()
        {
            container.names = self.bundles.names(id);
        }
        let verdict = self.verdict(cgroup);
        let before = cgroup.verdict;
        if let Some(cgroup) = self.cgroups.get_mut(&id) {
            cgroup.verdict = verdict;
        }
        // A new one has inherited something: what, depends on when its parent's was set.
        if !self.removed.contains(&id) {
            self.changes.push((id, verdict));
            self.changed = true;
        }
        before == Verdict::Ignore && verdict != Verdict::Ignore
    }

    fn verdict(&self, cgroup: &Cgroup) -> Verdict {
        if self.own_pod.is_some() && cgroup.place.pod_uid() == self.own_pod.as_deref() {
            return Verdict::Ignore;
        }
        match &self.target {
            Target::Everything => Verdict::Trace,
            Target::Pods { namespace } => self.pod_verdict(cgroup, namespace.as_deref()),
            Target::Host(filter) => self.host_verdict(cgroup, filter),
        }
    }

    fn names(&self, cgroup: &Cgroup) -> Option<&Names> {
        match &cgroup.place {
            Place::Container { id, .. } => self.by_id.get(id)?.names.as_ref(),
            Place::Pod { .. } | Place::Other { .. } => None,
        }
    }

    fn pod_verdict(&self, cgroup: &Cgroup, namespace: Option<&str>) -> Verdict {
        if !cgroup.ours {
            return Verdict::Ignore;
        }
        let uid = match &cgroup.place {
            Place::Other { kubepods: true } => return Verdict::Hold,
            Place::Other { kubepods: false } | Place::Container { pod_uid: None, .. } => return Verdict::Ignore,
            Place::Pod { uid } | Place::Container { pod_uid: Some(uid), .. } => uid,
        };
        let names = self.names(cgroup);
        let lies_in = |wanted: &str| names.is_none_or(|names| names.namespace.is_empty() || names.namespace == wanted);
        if !namespace.is_none_or(lies_in) || names.is_some_and(|names| names.sandbox) {
            return Verdict::Ignore;
        }
        match (self.verdicts.get(uid), names) {
            (None, _) => Verdict::Hold,
            (Some(pod), _) if !pod.wanted => Verdict::Ignore,
            (Some(pod), _) if pod.containers.is_empty() => Verdict::Trace,
            // Some of the pod's containers are wanted: each is judged by its name, as soon as it is known.
            (Some(_), None) => Verdict::Hold,
            (Some(pod), Some(names)) if pod.containers.contains(&names.container) => Verdict::Trace,
            (Some(_), Some(_)) => Verdict::Ignore,
        }
    }

    fn host_verdict(&self, cgroup: &Cgroup, filter: &HostFilter) -> Verdict {
        let inside = |wanted: &String| {
            let wanted = wanted.trim_end_matches('/').as_bytes();
            cgroup.path.strip_prefix(wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
        };
        if !filter.cgroups.is_empty() && !filter.cgroups.iter().any(inside) {
            return Verdict::Ignore;
        }
        if filter.containers.is_empty() {
            return Verdict::Trace;
        }
        match &cgroup.place {
            Place::Container { id, .. } => {
                let named = |wanted: &String| {
                    id.starts_with(wanted.as_str()) || self.names(cgroup).is_some_and(|names| names.container == *wanted)
                };
                if filter.containers.iter().any(named) { Verdict::Trace } else { Verdict::Ignore }
            }
            // The host's own processes may all be in the root; a container may appear in any other folder.
            Place::Other { kubepods: false } if cgroup.path == b"/" => Verdict::Ignore,
            Place::Pod { .. } | Place::Other { .. } => Verdict::Hold,
        }
    }
}

/// The folders in a folder.
fn children(folder: &Path) -> Vec<(PathBuf, OsString)> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let folders = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    folders.map(|entry| (entry.path(), entry.file_name())).collect()
}

fn below(path: &[u8], name: &OsStr) -> Vec<u8> {
    let path = path.strip_suffix(b"/").unwrap_or(path);
    [path, b"/", name.as_bytes()].concat()
}

fn find(root: &Path, wanted: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
    let mut waiting = vec![(root.to_owned(), b"/".to_vec())];
    while let Some((folder, path)) = waiting.pop() {
        if wanted(&path) {
            return Some(path);
        }
        waiting.extend(children(&folder).into_iter().map(|(child, name)| (child, below(&path, &name))));
    }
    None
}
