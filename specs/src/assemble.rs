//! Frames in, events out: joins each event to the process, container and pod that were defined before it.

mod api;

use std::{collections::HashMap, sync::Arc};

use jiff::Timestamp;

use crate::{
    event::{self, Event, What},
    frame::{self, CONTAINER_SLOTS, Item, PROCESS_SLOTS},
    linux::{Mode, errno_name, open_flags, signal_name},
    texts,
};

/// All definitions of a node take this much memory at most, in bytes. A tracer keeps to much less.
const CAPACITY: usize = 128 << 20;

/// So many notes are kept until they are taken, each of so many characters.
const NOTES: usize = 64;
const NOTE: usize = 1024;

/// One node's definitions.
#[derive(Debug)]
pub struct Assembler {
    node: Arc<event::Node>,
    aarch64: bool,
    clock: Clock,
    processes: Vec<Option<Slot>>,
    containers: Vec<Option<Contained>>,
    pods: HashMap<String, Arc<frame::Pod>>,
    /// How much memory all of them take.
    bytes: usize,
    notes: Vec<String>,
}

#[derive(Debug, Clone)]
struct Slot {
    process: Arc<event::Process>,
    container: u32,
}

#[derive(Debug, Clone)]
struct Contained {
    container: Arc<event::Container>,
    kubernetes: Option<Arc<event::Kubernetes>>,
    /// What [`Self::measure`] gave last.
    bytes: usize,
}

impl Contained {
    fn measure(&self) -> usize {
        let event::Container { id, name, image, .. } = &*self.container;
        let kubernetes = self.kubernetes.as_ref().map_or(0, |kubernetes| {
            let event::Kubernetes { namespace, pod, pod_uid, labels, owner } = &**kubernetes;
            let owner = owner.as_ref().map_or(0, |owner| owner.kind.len() + owner.name.len());
            let labels = labels.as_ref().map_or(0, texts::map_bytes);
            size_of::<event::Kubernetes>() + namespace.len() + pod.len() + pod_uid.len() + labels + owner
        });
        size_of::<event::Container>() + id.len() + name.len() + image.len() + kubernetes
    }
}

/// Why a batch can't be understood.
#[derive(Debug, thiserror::Error)]
pub enum AssembleError {
    /// Not the expected bytes.
    #[error("damaged batch: {0}")]
    Cbor(#[from] minicbor::decode::Error),
    /// A slot out of range.
    #[error("damaged batch: slot {0} is out of range")]
    Slot(u32),
    /// An event of a process that was never defined.
    #[error("damaged batch: an event refers to process slot {0}, which was never defined")]
    Undefined(u32),
    /// More than a tracer ever defines.
    #[error("damaged batch: what it defines takes more than {} MiB of memory", CAPACITY >> 20)]
    TooMuch,
}

impl Assembler {
    /// An empty table for one node.
    pub fn new(node: event::Node, hello: &frame::Hello) -> Self {
        Self {
            node: Arc::new(node),
            aarch64: hello.arch == "aarch64",
            clock: Clock { realtime_offset_ns: hello.realtime_offset_ns, ..Clock::default() },
            processes: Vec::new(),
            containers: Vec::new(),
            pods: HashMap::new(),
            bytes: 0,
            notes: Vec::new(),
        }
    }

    /// What the user has to know of the events so far, and was not given before.
    pub fn take_notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notes)
    }

    /// Takes over the clock that the tracer's status tells.
    pub fn set_realtime_offset(&mut self, realtime_offset_ns: i64) {
        self.clock.realtime_offset_ns = realtime_offset_ns;
    }

    /// Takes over a newly measured difference of the clocks.
    pub fn set_clock_offset(&mut self, clock_offset_ns: i64) {
        if self.node.clock_offset_ns != clock_offset_ns {
            Arc::make_mut(&mut self.node).clock_offset_ns = clock_offset_ns;
        }
    }

    /// Adds what the API server knows of a pod, for events from now on. Fails where there is no room for more.
    pub fn set_pod(&mut self, pod: Arc<frame::Pod>) -> Result<(), AssembleError> {
        self.forget_pod(&pod.uid);
        self.reserve(pod.bytes())?;
        let mut bytes = self.bytes;
        for contained in self.containers.iter_mut().flatten() {
            if let Some(kubernetes) = &mut contained.kubernetes
                && kubernetes.pod_uid == pod.uid
            {
                enrich(Arc::make_mut(kubernetes), &pod);
                let container = Arc::make_mut(&mut contained.container);
                if let Some(image) = pod.images.get(&container.name) {
                    image.clone_into(&mut container.image);
                }
                bytes -= std::mem::replace(&mut contained.bytes, 0);
                contained.bytes = contained.measure();
                bytes += contained.bytes;
                if bytes > CAPACITY {
                    break;
                }
            }
        }
        self.bytes = bytes;
        self.pods.insert(pod.uid.clone(), pod);
        self.reserve(0)
    }

    /// Forgets a pod that is gone.
    pub fn forget_pod(&mut self, uid: &str) {
        self.bytes -= self.pods.remove(uid).map_or(0, |pod| pod.bytes());
    }

    /// The events of a batch's items, in the order in which the tracer sent them, until `emit` says that it wants no more for
    /// now; how many bytes of the items were read.
    pub fn feed(&mut self, items: &[u8], mut emit: impl FnMut(Event) -> bool) -> Result<usize, AssembleError> {
        let mut left = frame::items(items);
        for item in left.by_ref() {
            let event = match item? {
                Item::Exec(exec) => self.event(exec.time_ns, exec.process, None, exec_of(&exec))?,
                Item::File(file) => {
                    let what = What::File { file: Box::new(file_of(&file, self.aarch64)) };
                    let mut event = self.event(file.time_ns, file.process, Some((file.tid, file.thread)), what)?;
                    if let Some(frame::Repeats { count, first_ns, last_ns }) = file.repeats {
                        let [first, last] = [first_ns, last_ns].map(|boot_ns| self.clock.wall(boot_ns));
                        (event.count, event.first_time, event.last_time) = (Some(count), Some(first), Some(last));
                    }
                    event
                }
                Item::Exit(exit) => {
                    let started = self.slot(exit.process)?.process.start_boot_ns;
                    self.event(exit.time_ns, exit.process, None, exit_of(&exit, started))?
                }
                Item::Api(api) => {
                    let received = api.received_ns.map(|received_ns| self.clock.wall(received_ns));
                    self.event(api.time_ns, api.process, None, api::of(&api, received))?
                }
                definition => {
                    self.define(definition)?;
                    continue;
                }
            };
            if !emit(event) {
                break;
            }
        }
        Ok(items.len() - left.rest().len())
    }

    fn define(&mut self, item: Item<'_>) -> Result<(), AssembleError> {
        match item {
            Item::Container(container) => self.define_container(&container),
            Item::Process(process) => self.define_process(&process),
            Item::Pod(pod) => self.set_pod(Arc::new(pod)),
            Item::Changed(changed) => self.change_process(&changed),
            Item::Note(note) => {
                if self.notes.len() < NOTES {
                    self.notes.push(note.chars().take(NOTE).collect());
                }
                Ok(())
            }
            Item::Exec(_) | Item::File(_) | Item::Exit(_) | Item::Api(_) => Ok(()),
        }
    }

    fn change_process(&mut self, changed: &frame::Changed) -> Result<(), AssembleError> {
        let slot = self.processes.get_mut(changed.slot as usize).and_then(Option::as_mut);
        let slot = slot.ok_or(AssembleError::Undefined(changed.slot))?;
        let process = Arc::make_mut(&mut slot.process);
        (process.uid, process.gid, slot.container) = (changed.uid, changed.gid, changed.container);
        (process.ns_uid, process.ns_gid) = (changed.ns_uid, changed.ns_gid);
        Ok(())
    }

    fn slot(&self, slot: u32) -> Result<&Slot, AssembleError> {
        self.processes.get(slot as usize).and_then(Option::as_ref).ok_or(AssembleError::Undefined(slot))
    }

    fn event(&mut self, time_ns: u64, process: u32, thread: Option<(u32, &[u8])>, what: What) -> Result<Event, AssembleError> {
        let time = self.clock.wall(time_ns);
        let Slot { process, container } = self.slot(process)?.clone();
        let contained = self.containers.get(container as usize).and_then(Option::as_ref);
        Ok(Event {
            schema: event::SCHEMA.into(),
            time,
            boot_ns: time_ns,
            count: None,
            first_time: None,
            last_time: None,
            node: Arc::clone(&self.node),
            kubernetes: contained.and_then(|c| c.kubernetes.clone()),
            container: contained.map(|c| Arc::clone(&c.container)),
            thread: thread
                .filter(|(tid, _)| *tid != process.pid)
                .map(|(tid, comm)| event::Thread { tid, comm: texts::text(comm).0 }),
            process,
            cause: None,
            what,
        })
    }

    fn define_container(&mut self, frame: &frame::Container<'_>) -> Result<(), AssembleError> {
        let pod = self.pods.get(frame.pod_uid).cloned();
        let image = pod.as_ref().and_then(|pod| pod.images.get(frame.name)).map_or(frame.image, String::as_str);
        let container = event::Container {
            id: frame.id.to_owned(),
            name: frame.name.to_owned(),
            image: image.to_owned(),
            cgroup_id: frame.cgroup_id,
        };
        let kubernetes = (!frame.pod_uid.is_empty()).then(|| {
            let mut kubernetes = event::Kubernetes {
                namespace: frame.namespace.to_owned(),
                pod: frame.pod.to_owned(),
                pod_uid: frame.pod_uid.to_owned(),
                labels: None,
                owner: None,
            };
            if let Some(pod) = &pod {
                enrich(&mut kubernetes, pod);
            }
            Arc::new(kubernetes)
        });
        let mut contained = Contained { container: Arc::new(container), kubernetes, bytes: 0 };
        contained.bytes = contained.measure();
        self.reserve(contained.bytes)?;
        let replaced = fill(&mut self.containers, frame.slot, CONTAINER_SLOTS, contained)?;
        self.bytes -= replaced.map_or(0, |contained| contained.bytes);
        Ok(())
    }

    fn define_process(&mut self, frame: &frame::Process<'_>) -> Result<(), AssembleError> {
        let (comm, comm_b64) = texts::text(frame.comm);
        let (exe, exe_b64) = texts::text(frame.exe);
        let (cwd, cwd_b64) = texts::text(frame.cwd);
        let (args, args_b64) = if frame.args.is_empty() {
            Default::default()
        } else {
            texts::list(frame.args.strip_suffix(b"\0").unwrap_or(frame.args).split(|b| *b == 0))
        };
        let process = event::Process {
            pid: frame.pid,
            ppid: frame.ppid,
            uid: frame.uid,
            gid: frame.gid,
            ns_pid: frame.ns_pid,
            ns_uid: frame.ns_uid,
            ns_gid: frame.ns_gid,
            comm,
            comm_b64,
            exe,
            exe_b64,
            args,
            args_b64,
            args_cut_from: (frame.args_cut_from > 0).then_some(frame.args_cut_from),
            cwd,
            cwd_b64,
            start_time: self.clock.wall(frame.start_ns),
            start_boot_ns: frame.start_ns,
            exe_upper_layer: frame.upper_layer,
            exe_memfd: frame.memfd,
            ancestors: frame
                .ancestors
                .iter()
                .map(|a| event::Ancestor {
                    pid: a.pid,
                    comm: texts::text(a.comm).0,
                    exe: texts::text(a.exe).0,
                    start_boot_ns: a.start_ns,
                })
                .collect(),
            ancestors_cut: frame.ancestors_cut,
            source: match frame.source {
                frame::ProcessSource::Exec => event::ProcessSource::Exec,
                frame::ProcessSource::Fork => event::ProcessSource::Fork,
                frame::ProcessSource::Proc => event::ProcessSource::Proc,
                frame::ProcessSource::Unknown => event::ProcessSource::Unknown,
            },
        };
        self.reserve(process.bytes())?;
        let slot = Slot { process: Arc::new(process), container: frame.container };
        let replaced = fill(&mut self.processes, frame.slot, PROCESS_SLOTS, slot)?;
        self.bytes -= replaced.map_or(0, |slot| slot.process.bytes());
        Ok(())
    }

    /// Counts what is about to be kept.
    fn reserve(&mut self, bytes: usize) -> Result<(), AssembleError> {
        if self.bytes + bytes > CAPACITY {
            return Err(AssembleError::TooMuch);
        }
        self.bytes += bytes;
        Ok(())
    }
}

/// Turns the node's boot time into wall time. Events come many to a second, so the text of the last second is kept.
#[derive(Debug, Default)]
struct Clock {
    realtime_offset_ns: i64,
    second: i64,
    /// Such as `2026-01-02T03:04:05`.
    text: String,
}

impl Clock {
    fn wall(&mut self, boot_ns: u64) -> String {
        const SECOND: i64 = 1_000_000_000;
        let nanos = i64::try_from(boot_ns).unwrap_or(i64::MAX).saturating_add(self.realtime_offset_ns);
        let second = nanos.div_euclid(SECOND);
        if second != self.second || self.text.is_empty() {
            let time = Timestamp::from_second(second).unwrap_or(Timestamp::UNIX_EPOCH);
            self.text = format!("{time:.0}");
            self.text.pop();
            self.second = second;
        }
        let mut time = String::with_capacity(self.text.len() + 11);
        time.push_str(&self.text);
        time.push('.');
        let (mut rest, mut digits) = (nanos.rem_euclid(SECOND).unsigned_abs(), [b'0'; 9]);
        for digit in digits.iter_mut().rev() {
            *digit = b"0123456789"[(rest % 10) as usize];
            rest /= 10;
        }
        time.extend(digits.map(char::from));
        time.push('Z');
        time
    }
}

/// Gives what was there before.
fn fill<T: Clone>(table: &mut Vec<Option<T>>, slot: u32, limit: u32, value: T) -> Result<Option<T>, AssembleError> {
    if slot >= limit {
        return Err(AssembleError::Slot(slot));
    }
    let at = slot as usize;
    if table.len() <= at {
        table.resize(at + 1, None);
    }
    Ok(table[at].replace(value))
}

fn enrich(kubernetes: &mut event::Kubernetes, pod: &frame::Pod) {
    kubernetes.labels = Some(pod.labels.clone());
    kubernetes.owner =
        (!pod.owner_kind.is_empty()).then(|| event::Owner { kind: pod.owner_kind.clone(), name: pod.owner_name.clone() });
    if !pod.name.is_empty() {
        kubernetes.pod.clone_from(&pod.name);
        kubernetes.namespace.clone_from(&pod.namespace);
    }
}

fn exec_of(frame: &frame::Exec<'_>) -> What {
    let (filename, filename_b64) = texts::text(frame.filename);
    let exec = event::Exec {
        filename,
        filename_b64,
        mode: Mode::of(frame.mode),
        uid: frame.uid,
        gid: frame.gid,
        inode: frame.inode,
        device: device(frame.device),
        deleted: frame.deleted,
        exe_cut: frame.exe_cut,
    };
    What::Exec { exec }
}

fn file_of(frame: &frame::File<'_>, aarch64: bool) -> event::File {
    use frame::FileOp::{Create, Open, WriteOpen};
    let opened = matches!(frame.op, Open | Create | WriteOpen);
    let same_as = frame.same_as.iter().flatten().map(|path| &***path);
    let (same_as, same_as_b64) = texts::list(same_as);
    event::File {
        op: frame.op,
        syscall: frame.syscall.to_owned(),
        path: path_of(&frame.path),
        same_as,
        same_as_b64,
        to: frame.to.as_ref().map(path_of),
        flags: frame.flags.map(|flags| if opened { open_flags(flags, aarch64) } else { vec![format!("{flags:#x}").into()] }),
        created: frame.created,
        mode: frame.mode.map(Mode::of),
        old_mode: frame.old_mode.map(Mode::of),
        uid: frame.uid,
        gid: frame.gid,
        old_uid: frame.old_uid,
        old_gid: frame.old_gid,
        size: frame.size,
        xattr: (!frame.xattr.is_empty()).then(|| texts::text(frame.xattr).0),
        inode: frame.inode,
        device: frame.device.map(device),
        result: frame.result,
        error: (frame.result < 0).then(|| errno_name(frame.result.saturating_neg())),
    }
}

fn path_of(frame: &frame::Path<'_>) -> event::Path {
    use event::PathMark::{Cut, Deleted, Late, Raced, Unreachable};
    let (path, path_b64) = texts::text(frame.path);
    event::Path {
        path,
        path_b64,
        path_source: if frame.argument { event::PathSource::Argument } else { event::PathSource::Kernel },
        path_argument: (!frame.asked.is_empty()).then(|| texts::text(frame.asked).0),
        path_marks: [
            (frame.deleted, Deleted),
            (frame.cut, Cut),
            (frame.unreachable, Unreachable),
            (frame.late, Late),
            (frame.raced, Raced),
        ]
        .into_iter()
        .filter_map(|(set, mark)| set.then_some(mark))
        .collect(),
    }
}

fn exit_of(frame: &frame::Exit, started_ns: u64) -> What {
    let signal = frame.code & 0x7f;
    let exit = event::Exit {
        code: (signal == 0).then_some(frame.code >> 8 & 0xff),
        signal: (signal != 0).then(|| signal_name(signal)),
        duration_ns: frame.time_ns.saturating_sub(started_ns),
    };
    What::Exit { exit }
}

/// `major:minor` of the kernel's own encoding of a device (include/linux/kdev_t.h).
fn device(device: u32) -> String {
    format!("{}:{}", device >> 20, device & 0xf_ffff)
}

#[cfg(test)]
mod tests;
