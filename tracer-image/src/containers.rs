//! Which cgroup is whose, whether its events are wanted, and its container's slot in the stream.
//!
//! The kernel filters by cgroup, and a new cgroup inherits its parent's verdict there before anything runs in it. So the
//! cgroups under which pods appear get Hold: the first events of a new pod come up and wait in user space until its verdict
//! is known.

use std::{
    collections::VecDeque,
    ffi::{OsStr, OsString},
    fs,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use knark_specs::frame::{CONTAINER_SLOTS, Container, HostFilter, Item, PodVerdict, Target};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::{
    batch,
    bpf::{Hierarchy, MapError, Probes, Verdict, cgroups},
    bundle::{Bundles, Names},
    cgroup_path::{Place, kubepods_root, place},
};

/// Removed cgroups are remembered for the events that are still on their way; no more than these.
const REMEMBERED: usize = 1024;
/// Nobody nests cgroups deeper; a bound for the walk.
const MAX_DEPTH: usize = 32;

/// All cgroups of the node.
#[derive(Debug)]
pub struct Containers {
    target: Target,
    hierarchy: Hierarchy,
    verdicts: FxHashMap<String, PodVerdict>,
    cgroups: FxHashMap<u64, Cgroup>,
    removed: VecDeque<u64>,
    slots_used: u32,
    slots_free: Vec<u32>,
    bundles: Bundles,
    own_pod: Option<String>,
    kubepods: Option<Vec<u8>>,
    changes: Vec<(u64, Verdict)>,
}

#[derive(Debug, Clone)]
struct Cgroup {
    path: Vec<u8>,
    place: Place,
    names: Option<Names>,
    verdict: Verdict,
    slot: u32,
    /// It lies where this node's kubelet puts its pods: nodes may share a kernel.
    ours: bool,
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
            removed: VecDeque::new(),
            slots_used: 0,
            slots_free: Vec::new(),
            bundles: Bundles::default(),
            own_pod,
            kubepods: None,
            changes: Vec::new(),
        }
    }

    /// Takes in the cgroups that are there already. The probes must be attached: what is made meanwhile is then reported.
    pub fn scan(&mut self, probes: &mut Probes) -> Result<(), MapError> {
        let root = self.hierarchy.mount.clone();
        if let Some(own) = &self.own_pod {
            let is_own = |path: &[u8]| matches!(place(path), Place::Pod { uid } if uid == *own);
            self.kubepods = find(&root, b"/", &is_own, 0).and_then(|path| kubepods_root(&path).map(<[u8]>::to_vec));
        }
        self.scan_below(&root, b"/", 0, probes, 0)
    }

    fn scan_below(&mut self, folder: &Path, path: &[u8], parent: u64, probes: &mut Probes, depth: usize) -> Result<(), MapError> {
        let Ok(id) = cgroups::id_of(folder) else { return Ok(()) };
        // The verdict first, the children after: one that is made in between inherits it.
        self.add(id, parent, path, None);
        self.apply(probes)?;
        for (child, name) in children(folder, depth) {
            self.scan_below(&child, &below(path, &name), id, probes, depth + 1)?;
        }
        Ok(())
    }

    /// A cgroup was made, with the verdict that the kernel let it inherit, or is found. One that is known stays as it is.
    pub fn add(&mut self, id: u64, parent: u64, path: &[u8], inherited: Option<Verdict>) {
        if self.cgroups.contains_key(&id) {
            return;
        }
        // A path that the kernel tells may begin above what is mounted here, so the parent is asked first.
        let below_ours = |root: &Vec<u8>| path.strip_prefix(root.as_slice()).is_some_and(|rest| rest.is_empty() || rest[0] == b'/');
        let ours = self.cgroups.get(&parent).is_some_and(|parent| parent.ours) || self.kubepods.as_ref().is_none_or(below_ours);
        let mut cgroup =
            Cgroup { path: path.to_vec(), place: place(path), names: None, verdict: Verdict::Ignore, slot: 0, ours };
        cgroup.find_names(&mut self.bundles);
        cgroup.verdict = self.verdict(&cgroup);
        if inherited != Some(cgroup.verdict) {
            self.changes.push((id, cgroup.verdict));
        }
        self.cgroups.insert(id, cgroup);
    }

    /// Brings the kernel's filter up to date.
    pub fn apply(&mut self, probes: &mut Probes) -> Result<(), MapError> {
        for (id, verdict) in self.changes.drain(..) {
            probes.set_cgroup(id, verdict)?;
        }
        Ok(())
    }

    /// A cgroup was removed.
    pub fn remove(&mut self, id: u64) {
        self.removed.push_back(id);
        if self.removed.len() > REMEMBERED
            && let Some(oldest) = self.removed.pop_front()
            && let Some(cgroup) = self.cgroups.remove(&oldest)
        {
            if cgroup.slot != 0 {
                self.slots_free.push(cgroup.slot);
            }
            if let Place::Pod { uid } = &cgroup.place {
                self.verdicts.remove(uid);
            }
        }
    }

    /// Takes over verdicts; afterwards events of these pods aren't held any more.
    pub fn decide(&mut self, pods: Vec<PodVerdict>) {
        let uids: FxHashSet<String> = pods.iter().map(|pod| pod.uid.clone()).collect();
        self.verdicts.extend(pods.into_iter().map(|pod| (pod.uid.clone(), pod)));
        for cgroup in self.cgroups.values_mut().filter(|cgroup| cgroup.pod_uid().is_some_and(|uid| uids.contains(uid))) {
            cgroup.find_names(&mut self.bundles);
        }
        let judged: Vec<(u64, Verdict)> = self
            .cgroups
            .iter()
            .filter(|(_, cgroup)| cgroup.pod_uid().is_some_and(|uid| uids.contains(uid)))
            .map(|(id, cgroup)| (*id, self.verdict(cgroup)))
            .collect();
        for (id, verdict) in judged {
            if let Some(cgroup) = self.cgroups.get_mut(&id)
                && cgroup.verdict != verdict
            {
                cgroup.verdict = verdict;
                if !self.removed.contains(&id) {
                    self.changes.push((id, verdict));
                }
            }
        }
    }

    /// Whether this cgroup is in the table.
    pub fn is_known(&self, id: u64) -> bool {
        self.cgroups.contains_key(&id)
    }

    /// Whether this pod's events need not be held any more.
    pub fn is_decided(&self, pod_uid: &str) -> bool {
        self.verdicts.contains_key(pod_uid)
    }

    /// What to do with an event of this cgroup; `None` when the cgroup isn't known.
    pub fn decision(&self, id: u64) -> Option<Decision<'_>> {
        let cgroup = self.cgroups.get(&id)?;
        Some(match (cgroup.verdict, cgroup.pod_uid()) {
            (Verdict::Trace, _) => Decision::Send,
            (Verdict::Hold, Some(pod_uid)) => Decision::Hold { pod_uid },
            // Nothing but folders of pods and containers is held, and no process lives directly in those.
            (Verdict::Hold, None) | (Verdict::Ignore, _) => Decision::Drop,
        })
    }

    /// The slot of this cgroup's container, 0 for none; what has to be told about it first goes to `batch`.
    pub fn slot(&mut self, id: u64, batch: &mut Vec<u8>) -> u32 {
        let Some(cgroup) = self.cgroups.get_mut(&id) else { return 0 };
        if cgroup.slot != 0 {
            return cgroup.slot;
        }
        cgroup.find_names(&mut self.bundles);
        let Place::Container { pod_uid, id: container } = &cgroup.place else { return 0 };
        let slot = match self.slots_free.pop() {
            Some(slot) => slot,
            None if self.slots_used + 1 < CONTAINER_SLOTS => {
                self.slots_used += 1;
                self.slots_used
            }
            None => return 0,
        };
        let names = cgroup.names.clone().unwrap_or_default();
        let item = Item::Container(Container {
            slot,
            cgroup_id: id,
            id: container,
            name: &names.container,
            namespace: &names.namespace,
            pod: &names.pod,
            pod_uid: pod_uid.as_deref().unwrap_or_default(),
            image: &names.image,
        });
        batch::put(&item, batch);
        cgroup.slot = slot;
        slot
    }

    fn verdict(&self, cgroup: &Cgroup) -> Verdict {
        if self.own_pod.is_some() && cgroup.pod_uid() == self.own_pod.as_deref() {
            return Verdict::Ignore;
        }
        match &self.target {
            Target::Everything => Verdict::Trace,
            Target::Pods { namespace } => self.pod_verdict(cgroup, namespace.as_deref()),
            Target::Host(filter) => self.host_verdict(cgroup, filter),
        }
    }

    fn pod_verdict(&self, cgroup: &Cgroup, namespace: Option<&str>) -> Verdict {
        let names = cgroup.names.as_ref();
        if !cgroup.ours {
            return Verdict::Ignore;
        }
        let (uid, container) = match &cgroup.place {
            Place::Other { kubepods: true } => return Verdict::Hold,
            Place::Other { kubepods: false } | Place::Container { pod_uid: None, .. } => return Verdict::Ignore,
            Place::Pod { uid } => (uid, false),
            Place::Container { pod_uid: Some(uid), .. } => (uid, true),
        };
        let elsewhere = names.is_some_and(|names| namespace.is_some_and(|wanted| wanted != names.namespace));
        if elsewhere || names.is_some_and(|names| names.sandbox) {
            return Verdict::Ignore;
        }
        match (self.verdicts.get(uid), names) {
            (None, _) => Verdict::Hold,
            (Some(pod), _) if !pod.wanted => Verdict::Ignore,
            (Some(pod), _) if pod.containers.is_empty() => Verdict::Trace,
            (Some(pod), Some(names)) if pod.containers.contains(&names.container) => Verdict::Trace,
            (Some(_), Some(_)) => Verdict::Ignore,
            (Some(_), None) if container => Verdict::Ignore,
            // Some of the pod's containers are wanted: each new one is judged by its name.
            (Some(_), None) => Verdict::Hold,
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
                    id.starts_with(wanted.as_str()) || cgroup.names.as_ref().is_some_and(|names| names.container == *wanted)
                };
                if filter.containers.iter().any(named) { Verdict::Trace } else { Verdict::Ignore }
            }
            Place::Pod { .. } | Place::Other { kubepods: true } => Verdict::Hold,
            // A container may appear in any folder; one without folders is a service's own.
            Place::Other { kubepods: false } => {
                let is_folder = cgroup.path != b"/" && !children(&self.hierarchy.folder(&cgroup.path), 0).is_empty();
                if is_folder { Verdict::Hold } else { Verdict::Ignore }
            }
        }
    }
}

impl Cgroup {
    /// Reads the names of a container, unless they are known.
    fn find_names(&mut self, bundles: &mut Bundles) {
        if let (Place::Container { id, .. }, None) = (&self.place, &self.names) {
            self.names = bundles.names(id);
        }
    }

    fn pod_uid(&self) -> Option<&str> {
        match &self.place {
            Place::Pod { uid } | Place::Container { pod_uid: Some(uid), .. } => Some(uid),
            Place::Container { pod_uid: None, .. } | Place::Other { .. } => None,
        }
    }
}

/// The folders in a folder; none below the depth that anybody uses.
fn children(folder: &Path, depth: usize) -> Vec<(PathBuf, OsString)> {
    let Some(entries) = fs::read_dir(folder).ok().filter(|_| depth < MAX_DEPTH) else { return Vec::new() };
    let folders = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    folders.map(|entry| (entry.path(), entry.file_name())).collect()
}

fn below(path: &[u8], name: &OsStr) -> Vec<u8> {
    let path = path.strip_suffix(b"/").unwrap_or(path);
    [path, b"/", name.as_bytes()].concat()
}

fn find(folder: &Path, path: &[u8], wanted: &impl Fn(&[u8]) -> bool, depth: usize) -> Option<Vec<u8>> {
    if wanted(path) {
        return Some(path.to_vec());
    }
    children(folder, depth).into_iter().find_map(|(child, name)| find(&child, &below(path, &name), wanted, depth + 1))
}
