//! Which cgroup is whose, whether its events are wanted, and its container's slot in the stream.
//!
//! The kernel filters by cgroup, and a new cgroup inherits its parent's verdict there before anything runs in it. So the
//! cgroups under which pods appear get Hold: the first events of a new pod come up and wait in user space until its verdict
//! is known.

use std::{collections::VecDeque, fs, io, path::Path};

use knark_specs::frame::{CONTAINER_SLOTS, Container, HostFilter, Item, PodVerdict, Target};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::{
    batch,
    bpf::{Hierarchy, MapError, Probes, Verdict, cgroups},
    bundle::{Bundles, Names},
    cgroup_path::{Place, place},
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
    changes: Vec<(u64, Verdict)>,
}

#[derive(Debug, Clone)]
struct Cgroup {
    path: Vec<u8>,
    place: Place,
    names: Option<Names>,
    verdict: Verdict,
    slot: u32,
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
            changes: Vec::new(),
        }
    }

    /// Takes in the cgroups that are there already. The probes must be attached: what is made meanwhile is then reported.
    pub fn scan(&mut self, probes: &mut Probes) -> Result<(), MapError> {
        let root = self.hierarchy.mount.clone();
        self.scan_below(&root, b"/", probes, 0)
    }

    fn scan_below(&mut self, folder: &Path, path: &[u8], probes: &mut Probes, depth: usize) -> Result<(), MapError> {
        let Ok(id) = cgroups::id_of(folder) else { return Ok(()) };
        // The verdict first, the children after: one that is made in between inherits it.
        self.add(id, path, None);
        self.apply(probes)?;
        let Ok(children) = children(folder) else { return Ok(()) };
        for name in children {
            if depth < MAX_DEPTH {
                let mut below = path.to_vec();
                if below != b"/" {
                    below.push(b'/');
                }
                below.extend_from_slice(std::os::unix::ffi::OsStrExt::as_bytes(name.as_os_str()));
                self.scan_below(&folder.join(&name), &below, probes, depth + 1)?;
            }
        }
        Ok(())
    }

    /// A cgroup was made, with the verdict that the kernel let it inherit, or is found. One that is known stays as it is.
    pub fn add(&mut self, id: u64, path: &[u8], inherited: Option<Verdict>) {
        if self.cgroups.contains_key(&id) {
            return;
        }
        let place = place(path);
        let names = match &place {
            Place::Container { id, .. } => self.bundles.names(id),
            Place::Pod { .. } | Place::Other { .. } => None,
        };
        let mut cgroup = Cgroup { path: path.to_vec(), place, names, verdict: Verdict::Ignore, slot: 0 };
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
        let Some(cgroup) = self.cgroups.get(&id) else { return 0 };
        let Place::Container { pod_uid, id: container } = &cgroup.place else { return 0 };
        if cgroup.slot != 0 {
            return cgroup.slot;
        }
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
        if let Some(cgroup) = self.cgroups.get_mut(&id) {
            cgroup.slot = slot;
        }
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
            Place::Other { kubepods: false } => match children(&self.hierarchy.folder(&cgroup.path)) {
                Ok(children) if !children.is_empty() && cgroup.path != b"/" => Verdict::Hold,
                _ => Verdict::Ignore,
            },
        }
    }
}

impl Cgroup {
    fn pod_uid(&self) -> Option<&str> {
        match &self.place {
            Place::Pod { uid } | Place::Container { pod_uid: Some(uid), .. } => Some(uid),
            Place::Container { pod_uid: None, .. } | Place::Other { .. } => None,
        }
    }
}

fn children(folder: &Path) -> io::Result<Vec<std::ffi::OsString>> {
    let entries = fs::read_dir(folder)?.flatten();
    Ok(entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.file_name()).collect())
}
