//! The processes that events refer to, in a bounded table of numbered slots that both ends of the stream keep.
//!
//! A process is known by its pid, its start, and how many programs it has executed. Its description comes from its exec; for
//! a child that has executed nothing, from its parent; for one that was there before the probes, from /proc.

use knark_specs::frame::{Ancestor, Item, PROCESS_SLOTS, Process, ProcessSource};
use rustc_hash::FxHashMap;

use crate::{
    bpf::{Exec, Head, Upper},
    procfs::{self, MAX_ANCESTORS},
};

/// The table.
#[derive(Debug, Default)]
pub struct Processes {
    by_pid: FxHashMap<u32, u32>,
    slots: Vec<Entry>,
    hand: usize,
}

#[derive(Debug, Clone)]
struct Entry {
    identity: Identity,
    container: u32,
    uid: u32,
    gid: u32,
    used: bool,
    ppid: u32,
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

/// What a process runs: the same for it and the children that it forks, until one executes something else.
#[derive(Debug, Clone)]
struct Image {
    source: ProcessSource,
    comm: Vec<u8>,
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
        if let Some(slot) = self.by_pid.get(&head.tgid).copied() {
            let entry = &mut self.slots[slot as usize];
            if entry.identity == Identity::of(head) {
                entry.used = true;
                if (entry.uid, entry.gid, entry.container) == (head.uid, head.gid, container) {
                    return slot;
                }
                (entry.uid, entry.gid, entry.container) = (head.uid, head.gid, container);
                define(slot, entry, batch);
                return slot;
            }
        }
        let image = self.inherited(head).or_else(|| self.found(head)).unwrap_or_else(|| self.unknown(head));
        self.insert(head, container, image, batch)
    }

    /// A process executed a program: its slot, filled anew.
    pub fn exec(&mut self, exec: &Exec<'_>, args: &[u8], container: u32, batch: &mut Vec<u8>) -> u32 {
        let ancestors: Vec<Forebear> = exec
            .ancestors
            .iter()
            .map(|a| Forebear {
                pid: a.tgid,
                start_ns: a.start_ns,
                comm: a.comm().to_vec(),
                exe: self.exe(a.tgid, a.start_ns),
            })
            .collect();
        let image = Image {
            source: ProcessSource::Exec,
            comm: exec.head.comm().to_vec(),
            exe: exec.exe.walked.to_vec(),
            args: args.to_vec(),
            args_cut_from: if exec.args_cut() { u32::try_from(exec.args_total).unwrap_or(u32::MAX) } else { 0 },
            cwd: exec.cwd.walked.to_vec(),
            upper_layer: match exec.upper() {
                Upper::Yes => Some(true),
                Upper::No => Some(false),
                Upper::NotOverlay | Upper::Unknown => None,
            },
            memfd: exec.memfd(),
            ancestors,
            ancestors_cut: exec.more_ancestors(),
        };
        self.insert(&exec.head, container, image, batch)
    }

    /// The main thread's name of the process in a slot.
    pub fn comm(&self, slot: u32) -> &[u8] {
        self.slots.get(slot as usize).map_or(b"", |entry| &entry.image.comm)
    }

    /// A child that executed nothing runs what its parent ran when it was forked, and has executed as often as that.
    fn inherited(&self, head: &Head) -> Option<Image> {
        let parent = self.entry(head.ppid, head.parent_start_ns)?;
        if parent.identity.exec_id != head.exec_id || parent.image.source == ProcessSource::Unknown {
            return None;
        }
        Some(Image {
            source: ProcessSource::Fork,
            comm: head.comm().to_vec(),
            ..self.descend(parent)
        })
    }

    fn descend(&self, parent: &Entry) -> Image {
        let mut image = parent.image.clone();
        let own = Forebear {
            pid: parent.identity.pid,
            start_ns: parent.identity.start_ns,
            comm: parent.image.comm.clone(),
            exe: parent.image.exe.clone(),
        };
        image.ancestors.insert(0, own);
        if image.ancestors.len() > MAX_ANCESTORS {
            image.ancestors.truncate(MAX_ANCESTORS);
            image.ancestors_cut = true;
        }
        image
    }

    fn found(&self, head: &Head) -> Option<Image> {
        let found = procfs::process(head.tgid, head.start_ns)?;
        Some(Image {
            source: ProcessSource::Proc,
            comm: found.comm,
            exe: found.exe,
            args: found.args,
            args_cut_from: 0,
            cwd: found.cwd,
            ancestors: self.proc_ancestors(head.ppid),
            ..self.unknown(head)
        })
    }

    fn unknown(&self, head: &Head) -> Image {
        Image {
            source: ProcessSource::Unknown,
            comm: head.comm().to_vec(),
            exe: Vec::new(),
            args: Vec::new(),
            args_cut_from: 0,
            cwd: Vec::new(),
            upper_layer: None,
            memfd: false,
            ancestors: Vec::new(),
            ancestors_cut: false,
        }
    }

    fn proc_ancestors(&self, ppid: u32) -> Vec<Forebear> {
        procfs::ancestors(ppid)
            .into_iter()
            .map(|(pid, stat)| Forebear { pid, start_ns: stat.start_ns(), exe: self.exe(pid, stat.start_ns()), comm: stat.comm })
            .collect()
    }

    fn exe(&self, pid: u32, start_ns: u64) -> Vec<u8> {
        match self.entry(pid, start_ns) {
            Some(entry) => entry.image.exe.clone(),
            None => procfs::exe(pid, start_ns),
        }
    }

    fn entry(&self, pid: u32, start_ns: u64) -> Option<&Entry> {
        let slot = *self.by_pid.get(&pid)?;
        Some(&self.slots[slot as usize]).filter(|entry| entry.identity.start_ns == start_ns)
    }

    fn insert(&mut self, head: &Head, container: u32, image: Image, batch: &mut Vec<u8>) -> u32 {
        let entry = Entry {
            identity: Identity::of(head),
            container,
            uid: head.uid,
            gid: head.gid,
            used: true,
            ppid: head.ppid,
            image,
        };
        let slot = match self.by_pid.get(&head.tgid) {
            Some(slot) => *slot,
            None => self.free(),
        };
        let at = slot as usize;
        if at < self.slots.len() {
            self.slots[at] = entry;
        } else {
            self.slots.push(entry);
        }
        self.by_pid.insert(head.tgid, slot);
        define(slot, &self.slots[at], batch);
        slot
    }

    /// A slot that nothing has used since the clock's hand last passed it.
    fn free(&mut self) -> u32 {
        if self.slots.len() < PROCESS_SLOTS as usize {
            return u32::try_from(self.slots.len()).unwrap_or(0);
        }
        loop {
            let at = self.hand;
            self.hand = (self.hand + 1) % self.slots.len();
            if !std::mem::take(&mut self.slots[at].used) {
                self.by_pid.remove(&self.slots[at].identity.pid);
                return u32::try_from(at).unwrap_or(0);
            }
        }
    }
}

fn define(slot: u32, entry: &Entry, batch: &mut Vec<u8>) {
    let image = &entry.image;
    let item = Item::Process(Process {
        slot,
        pid: entry.identity.pid,
        ppid: entry.ppid,
        start_ns: entry.identity.start_ns,
        uid: entry.uid,
        gid: entry.gid,
        comm: &image.comm,
        exe: &image.exe,
        args: &image.args,
        args_cut_from: image.args_cut_from,
        cwd: &image.cwd,
        upper_layer: image.upper_layer,
        memfd: image.memfd,
        source: image.source,
        ancestors: image
            .ancestors
            .iter()
            .map(|a| Ancestor { pid: a.pid, start_ns: a.start_ns, comm: &a.comm, exe: &a.exe })
            .collect(),
        container: entry.container,
        ancestors_cut: image.ancestors_cut,
    });
    crate::batch::put(&item, batch);
}
