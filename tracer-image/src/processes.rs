//! The processes that events refer to, in a bounded table of numbered slots that both ends of the stream keep.
//!
//! A process is known by its pid, its start, and how many programs it has executed. Its description comes from its exec; for
//! a child that has executed nothing, from its parent; for one that was there before the probes, from /proc.

use knark_specs::frame::{self, Changed, Item, PROCESS_SLOTS, Process, ProcessSource};
use rustc_hash::FxHashMap;

use crate::{
    bpf::{Ancestor, Exec, Head, UNMAPPED, Upper},
    procfs::{self, MAX_ANCESTORS},
};

/// All descriptions together take about this much memory; then those that were not used for longest are forgotten.
const CAPACITY: usize = 24 << 20;
/// A child that executed nothing shows this much of its parent's arguments: they were told with the parent.
const INHERITED_ARGS: usize = 4 << 10;
/// Executables of forebears outside of the table that are remembered.
const FOREBEARS: usize = 1024;
/// The user and group that a process sees where its namespace has no number for them (`/proc/sys/kernel/overflowuid`).
const OVERFLOW: u32 = 65_534;

/// The table.
#[derive(Debug, Default)]
pub struct Processes {
    by_pid: FxHashMap<u32, u32>,
    slots: Vec<Option<Entry>>,
    free: Vec<u32>,
    hand: usize,
    bytes: usize,
    forebears: FxHashMap<(u32, u64, Vec<u8>), Vec<u8>>,
}

#[derive(Debug)]
struct Entry {
    identity: Identity,
    container: u32,
    user: User,
    used: bool,
    ppid: u32,
    ns_pid: Option<u32>,
    source: ProcessSource,
    comm: Vec<u8>,
    image: Image,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    pid: u32,
    start_ns: u64,
    exec_id: u64,
}

impl Identity {
    fn of(head: &Head) -> Self {
        Self { pid: head.tgid, start_ns: head.start_ns, exec_id: head.exec_id }
    }
}

/// With whose rights it runs: as the node counts users, and, where these are other numbers there, as its own user namespace does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct User {
    uid: u32,
    gid: u32,
    ns_uid: Option<u32>,
    ns_gid: Option<u32>,
}

impl User {
    fn of(head: &Head) -> Self {
        let own = |own: u32, node: u32| (own != node).then_some(if own == UNMAPPED { OVERFLOW } else { own });
        Self { uid: head.uid, gid: head.gid, ns_uid: own(head.ns_uid, head.uid), ns_gid: own(head.ns_gid, head.gid) }
    }
}

/// What a process runs: the same for it and the children that it forks, until one executes something else.
#[derive(Debug, Default)]
struct Image {
    exe: Vec<u8>,
    args: Vec<u8>,
    args_cut_from: u32,
    cwd: Vec<u8>,
    upper_layer: Option<bool>,
    memfd: bool,
    ancestors: Vec<Forebear>,
    ancestors_cut: bool,
}

#[derive(Debug, Clone)]
struct Forebear {
    pid: u32,
    start_ns: u64,
    comm: Vec<u8>,
    exe: Vec<u8>,
}

impl Processes {
    /// The slot of the process that did this; what has to be told about it first goes to `batch`.
    pub fn slot(&mut self, head: &Head, container: u32, batch: &mut Vec<u8>) -> u32 {
        if let Some(slot) = self.by_pid.get(&head.tgid).copied()
            && let Some(entry) = self.slots.get_mut(slot as usize).and_then(Option::as_mut)
            && entry.identity == Identity::of(head)
        {
            entry.used = true;
            let user = User::of(head);
            if (entry.user, entry.container) != (user, container) {
                (entry.user, entry.container) = (user, container);
                let User { uid, gid, ns_uid, ns_gid } = user;
                crate::batch::put(&Item::Changed(Changed { slot, uid, gid, container, ns_uid, ns_gid }), batch);
            }
            return slot;
        }
        if head.repeats.is_some() {
            return self.past(head, container, batch);
        }
        let (source, comm, image) = self.inherited(head).or_else(|| self.found(head)).unwrap_or_else(|| {
            let comm = head.comm().to_vec();
            (ProcessSource::Unknown, comm, Image::default())
        });
        self.insert(head, container, (source, comm, image), batch)
    }

    /// A slot that holds until the next one is given, for what a process did that may have executed something else or ended since, and
    /// was not remembered. What is there under its pid says nothing of it.
    fn past(&mut self, head: &Head, container: u32, batch: &mut Vec<u8>) -> u32 {
        let nothing = || (ProcessSource::Unknown, head.comm().to_vec(), Image::default());
        let (source, comm, image) = self.inherited(head).unwrap_or_else(nothing);
        let entry = Entry { used: false, ..Entry::new(head, container, (source, comm, image)) };
        let slot = self.place();
        define(slot, &entry, batch);
        self.free.push(slot);
        slot
    }

    /// A process executed a program: its slot, filled anew.
    pub fn exec(&mut self, exec: &Exec<'_>, args: &[u8], container: u32, batch: &mut Vec<u8>) -> u32 {
        let forebear = |a: Ancestor| {
            let (pid, start_ns, comm) = (a.tgid, a.start_ns, a.comm().to_vec());
            Forebear { pid, start_ns, exe: self.exe(pid, start_ns, &comm), comm }
        };
        let image = Image {
            ancestors: exec.ancestors.iter().map(forebear).collect(),
            exe: exec.exe.walked.to_vec(),
            args: args.to_vec(),
            args_cut_from: args_cut_from(exec, args.len()),
            cwd: exec.cwd.walked.to_vec(),
            upper_layer: match exec.upper() {
                Upper::Yes => Some(true),
                Upper::No => Some(false),
                Upper::NotOverlay | Upper::Unknown => None,
            },
            memfd: exec.memfd(),
            ancestors_cut: exec.more_ancestors(),
        };
        self.insert(&exec.head, container, (ProcessSource::Exec, exec.head.comm().to_vec(), image), batch)
    }

    /// The main thread's name of the process in a slot.
    pub fn comm(&self, slot: u32) -> &[u8] {
        self.slots.get(slot as usize).and_then(Option::as_ref).map_or(b"", |entry| &entry.comm)
    }

    /// A child that executed nothing runs what its parent ran when it was forked, and has executed as often as that.
    fn inherited(&self, head: &Head) -> Option<(ProcessSource, Vec<u8>, Image)> {
        let parent = self.entry(head.ppid, head.parent_start_ns)?;
        let knows = parent.identity.exec_id == head.exec_id && parent.source != ProcessSource::Unknown;
        knows.then(|| (ProcessSource::Fork, head.comm().to_vec(), parent.image.child(parent)))
    }

    fn found(&mut self, head: &Head) -> Option<(ProcessSource, Vec<u8>, Image)> {
        // It may have executed something else since the event, which /proc doesn't tell but by its name.
        let found =
            procfs::process(head.tgid, head.start_ns).filter(|found| head.tid != head.tgid || found.comm == head.comm())?;
        let ancestors = procfs::ancestors(head.ppid).into_iter().map(|(pid, stat)| {
            let start_ns = stat.start_ns();
            Forebear { pid, start_ns, exe: self.exe(pid, start_ns, &stat.comm), comm: stat.comm }
        });
        let ancestors = ancestors.collect();
        let image = Image { exe: found.exe, args: found.args, cwd: found.cwd, ancestors, ..Image::default() };
        Some((ProcessSource::Proc, found.comm, image))
    }

    fn exe(&mut self, pid: u32, start_ns: u64, comm: &[u8]) -> Vec<u8> {
        if let Some(entry) = self.entry(pid, start_ns) {
            return entry.image.exe.clone();
        }
        let key = (pid, start_ns, comm.to_vec());
        if let Some(exe) = self.forebears.get(&key) {
            return exe.clone();
        }
        if self.forebears.len() >= FOREBEARS {
            self.forebears.clear();
        }
        let exe = procfs::exe(pid, start_ns);
        self.forebears.insert(key, exe.clone());
        exe
    }

    fn entry(&self, pid: u32, start_ns: u64) -> Option<&Entry> {
        let slot = *self.by_pid.get(&pid)?;
        self.slots.get(slot as usize)?.as_ref().filter(|entry| entry.identity.start_ns == start_ns)
    }

    fn insert(&mut self, head: &Head, container: u32, description: (ProcessSource, Vec<u8>, Image), batch: &mut Vec<u8>) -> u32 {
        let entry = Entry::new(head, container, description);
        if let Some(slot) = self.by_pid.remove(&head.tgid) {
            self.forget(slot);
        }
        self.bytes += entry.image.bytes();
        let slot = self.place();
        define(slot, &entry, batch);
        self.by_pid.insert(head.tgid, slot);
        if let Some(place) = self.slots.get_mut(slot as usize) {
            *place = Some(entry);
        }
        slot
    }

    /// An empty slot, after forgetting what there is no room for.
    fn place(&mut self) -> u32 {
        while self.bytes > CAPACITY && self.by_pid.len() > 1 || self.free.is_empty() && self.slots.len() >= PROCESS_SLOTS as usize
        {
            self.evict();
        }
        self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            u32::try_from(self.slots.len() - 1).unwrap_or(0)
        })
    }

    /// Forgets one that nothing has used since the clock's hand last passed it.
    fn evict(&mut self) {
        loop {
            let at = self.hand % self.slots.len();
            self.hand = at + 1;
            let Some(entry) = &mut self.slots[at] else { continue };
            if !std::mem::take(&mut entry.used) {
                self.by_pid.remove(&entry.identity.pid);
                return self.forget(u32::try_from(at).unwrap_or(0));
            }
        }
    }

    fn forget(&mut self, slot: u32) {
        if let Some(entry) = self.slots.get_mut(slot as usize).and_then(Option::take) {
            self.bytes -= entry.image.bytes();
            self.free.push(slot);
        }
    }
}

impl Entry {
    fn new(head: &Head, container: u32, (source, comm, image): (ProcessSource, Vec<u8>, Image)) -> Self {
        let ns_pid = (head.ns_tgid != head.tgid).then_some(head.ns_tgid);
        let (identity, user) = (Identity::of(head), User::of(head));
        Self { identity, container, user, used: true, ppid: head.ppid, ns_pid, source, comm, image }
    }
}

impl Image {
    /// What a child shows that executed nothing.
    fn child(&self, parent: &Entry) -> Self {
        let (pid, start_ns) = (parent.identity.pid, parent.identity.start_ns);
        let mut ancestors = vec![Forebear { pid, start_ns, comm: parent.comm.clone(), exe: self.exe.clone() }];
        ancestors.extend(self.ancestors.iter().take(MAX_ANCESTORS - 1).cloned());
        let whole = self.args.len() <= INHERITED_ARGS;
        let all = if self.args_cut_from > 0 { self.args_cut_from } else { u32::try_from(self.args.len()).unwrap_or(u32::MAX) };
        Self {
            exe: self.exe.clone(),
            args: self.args[..self.args.len().min(INHERITED_ARGS)].to_vec(),
            args_cut_from: if whole { self.args_cut_from } else { all },
            cwd: self.cwd.clone(),
            upper_layer: self.upper_layer,
            memfd: self.memfd,
            ancestors_cut: self.ancestors_cut || self.ancestors.len() >= MAX_ANCESTORS,
            ancestors,
        }
    }

    fn bytes(&self) -> usize {
        let ancestors: usize = self.ancestors.iter().map(|a| size_of::<Forebear>() + a.comm.len() + a.exe.len()).sum();
        size_of::<Entry>() + self.exe.len() + self.args.len() + self.cwd.len() + ancestors
    }
}

/// Besides the kernel's side, whose marks say so, user space may lack a part: a record that was lost, or had no room to wait.
fn args_cut_from(exec: &Exec<'_>, args: usize) -> u32 {
    let cut = exec.args_cut() || (args as u64) < exec.args_total;
    if cut { u32::try_from(exec.args_total).unwrap_or(u32::MAX) } else { 0 }
}

fn define(slot: u32, entry: &Entry, batch: &mut Vec<u8>) {
    let image = &entry.image;
    let ancestors = image.ancestors.iter();
    let item = Item::Process(Process {
        slot,
        pid: entry.identity.pid,
        ppid: entry.ppid,
        start_ns: entry.identity.start_ns,
        uid: entry.user.uid,
        gid: entry.user.gid,
        comm: &entry.comm,
        exe: &image.exe,
        args: &image.args,
        args_cut_from: image.args_cut_from,
        cwd: &image.cwd,
        upper_layer: image.upper_layer,
        memfd: image.memfd,
        source: entry.source,
        ancestors: ancestors.map(|a| frame::Ancestor { pid: a.pid, start_ns: a.start_ns, comm: &a.comm, exe: &a.exe }).collect(),
        container: entry.container,
        ancestors_cut: image.ancestors_cut,
        ns_pid: entry.ns_pid,
        ns_uid: entry.user.ns_uid,
        ns_gid: entry.user.ns_gid,
    });
    crate::batch::put(&item, batch);
}
