//! Frames in, events out: joins each event to the process, container and pod that were defined before it.

use std::{collections::HashMap, sync::Arc};

use jiff::Timestamp;

use crate::{
    event::{self, Event, What},
    frame::{self, CONTAINER_SLOTS, Item, PROCESS_SLOTS},
    linux::{Mode, errno_name, open_flags, signal_name},
};

/// One node's definitions.
#[derive(Debug)]
pub struct Assembler {
    node: Arc<event::Node>,
    aarch64: bool,
    clock: Clock,
    processes: Vec<Option<Slot>>,
    containers: Vec<Option<Contained>>,
    pods: HashMap<String, frame::Pod>,
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
        }
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

    /// Adds what the API server knows of a pod, for events from now on.
    pub fn set_pod(&mut self, pod: frame::Pod) {
        for contained in self.containers.iter_mut().flatten() {
            if let Some(kubernetes) = &mut contained.kubernetes
                && kubernetes.pod_uid == pod.uid
            {
                enrich(Arc::make_mut(kubernetes), &pod);
                let container = Arc::make_mut(&mut contained.container);
                if let Some(image) = pod.images.get(&container.name) {
                    image.clone_into(&mut container.image);
                }
            }
        }
        self.pods.insert(pod.uid.clone(), pod);
    }

    /// Forgets a pod that is gone.
    pub fn forget_pod(&mut self, uid: &str) {
        self.pods.remove(uid);
    }

    /// The events of a batch, in the order in which the tracer sent them.
    pub fn feed(&mut self, batch: &frame::Batch, mut emit: impl FnMut(Event)) -> Result<(), AssembleError> {
        for item in frame::items(&batch.items) {
            match item? {
                Item::Container(container) => self.define_container(&container)?,
                Item::Process(process) => self.define_process(&process)?,
                Item::Pod(pod) => self.set_pod(pod),
                Item::Changed(changed) => self.change_process(&changed)?,
                Item::Exec(exec) => emit(self.event(exec.time_ns, exec.process, None, exec_of(&exec))?),
                Item::File(file) => {
                    let what = What::File { file: Box::new(file_of(&file, self.aarch64)) };
                    emit(self.event(file.time_ns, file.process, Some((file.tid, file.thread)), what)?);
                }
                Item::Exit(exit) => {
                    let started = self.slot(exit.process)?.process.start_boot_ns;
                    emit(self.event(exit.time_ns, exit.process, None, exit_of(&exit, started))?);
                }
            }
        }
        Ok(())
    }

    fn change_process(&mut self, changed: &frame::Changed) -> Result<(), AssembleError> {
        let slot = self.processes.get_mut(changed.slot as usize).and_then(Option::as_mut);
        let slot = slot.ok_or(AssembleError::Undefined(changed.slot))?;
        let process = Arc::make_mut(&mut slot.process);
        (process.uid, process.gid, slot.container) = (changed.uid, changed.gid, changed.container);
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
            node: Arc::clone(&self.node),
            kubernetes: contained.and_then(|c| c.kubernetes.clone()),
            container: contained.map(|c| Arc::clone(&c.container)),
            thread: thread
                .filter(|(tid, _)| *tid != process.pid)
                .map(|(tid, comm)| event::Thread { tid, comm: event::text(comm).0 }),
            process,
            what,
        })
    }

    fn define_container(&mut self, frame: &frame::Container<'_>) -> Result<(), AssembleError> {
        let pod = self.pods.get(frame.pod_uid);
        let image = pod.and_then(|pod| pod.images.get(frame.name)).map_or(frame.image, String::as_str);
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
            if let Some(pod) = pod {
                enrich(&mut kubernetes, pod);
            }
            Arc::new(kubernetes)
        });
        fill(&mut self.containers, frame.slot, CONTAINER_SLOTS, Contained { container: Arc::new(container), kubernetes })
    }

    fn define_process(&mut self, frame: &frame::Process<'_>) -> Result<(), AssembleError> {
        let (comm, comm_b64) = event::text(frame.comm);
        let (exe, exe_b64) = event::text(frame.exe);
        let (cwd, cwd_b64) = event::text(frame.cwd);
        let (args, args_b64) = if frame.args.is_empty() {
            (Vec::new(), None)
        } else {
            event::texts(frame.args.strip_suffix(b"\0").unwrap_or(frame.args).split(|b| *b == 0))
        };
        let process = event::Process {
            pid: frame.pid,
            ppid: frame.ppid,
            uid: frame.uid,
            gid: frame.gid,
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
                    comm: event::text(a.comm).0,
                    exe: event::text(a.exe).0,
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
        let slot = Slot { process: Arc::new(process), container: frame.container };
        fill(&mut self.processes, frame.slot, PROCESS_SLOTS, slot)
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

fn fill<T: Clone>(table: &mut Vec<Option<T>>, slot: u32, limit: u32, value: T) -> Result<(), AssembleError> {
    if slot >= limit {
        return Err(AssembleError::Slot(slot));
    }
    let at = slot as usize;
    if table.len() <= at {
        table.resize(at + 1, None);
    }
    table[at] = Some(value);
    Ok(())
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
    let (filename, filename_b64) = event::text(frame.filename);
    let exec = event::Exec {
        filename,
        filename_b64,
        mode: Mode(frame.mode),
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
    event::File {
        op: frame.op,
        syscall: frame.syscall.to_owned(),
        path: path_of(&frame.path),
        to: frame.to.as_ref().map(path_of),
        flags: frame.flags.map(|flags| if opened { open_flags(flags, aarch64) } else { vec![format!("{flags:#x}").into()] }),
        created: frame.created,
        mode: frame.mode.map(Mode),
        old_mode: frame.old_mode.map(Mode),
        uid: frame.uid,
        gid: frame.gid,
        old_uid: frame.old_uid,
        old_gid: frame.old_gid,
        size: frame.size,
        xattr: (!frame.xattr.is_empty()).then(|| event::text(frame.xattr).0),
        inode: frame.inode,
        device: frame.device.map(device),
        result: frame.result,
        error: (frame.result < 0).then(|| errno_name(frame.result.saturating_neg())),
    }
}

fn path_of(frame: &frame::Path<'_>) -> event::Path {
    use event::PathMark::{Cut, Deleted, Late, Raced, Unreachable};
    let (path, path_b64) = event::text(frame.path);
    event::Path {
        path,
        path_b64,
        path_source: if frame.argument { event::PathSource::Argument } else { event::PathSource::Kernel },
        path_argument: (!frame.asked.is_empty()).then(|| event::text(frame.asked).0),
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
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::frame::{Ancestor, Batch, Container, Exec, Exit, File, FileOp, Hello, Path, Pod, Process, ProcessSource};

    const HELLO: Hello = Hello {
        version: String::new(),
        kernel: String::new(),
        arch: String::new(),
        probes: Vec::new(),
        realtime_offset_ns: 1_767_323_045_000_000_000,
        hostname: String::new(),
    };

    const PROCESS: Process<'static> = Process {
        slot: 3,
        pid: 42,
        ppid: 1,
        start_ns: 1_500_000_000,
        uid: 1000,
        gid: 100,
        comm: b"sh",
        exe: b"/bin/sh",
        args: b"sh\0-c\0\0",
        args_cut_from: 0,
        cwd: b"/",
        upper_layer: None,
        memfd: false,
        source: ProcessSource::Exec,
        ancestors: Vec::new(),
        container: 0,
        ancestors_cut: false,
    };

    const CONTAINER: Container<'static> = Container {
        slot: 1,
        cgroup_id: u64::MAX,
        id: "c0ffee",
        name: "app",
        namespace: "prod",
        pod: "web",
        pod_uid: "u-1",
        image: "app:1",
    };

    const PATH: Path<'static> = Path {
        path: b"/etc/passwd",
        argument: false,
        deleted: false,
        cut: false,
        unreachable: false,
        late: false,
        raced: false,
        asked: b"",
    };

    const FILE: File<'static> = File {
        time_ns: 2_000_000_007,
        process: 3,
        tid: 42,
        op: FileOp::Open,
        result: 5,
        path: PATH,
        to: None,
        flags: None,
        created: false,
        mode: None,
        old_mode: None,
        uid: None,
        gid: None,
        old_uid: None,
        old_gid: None,
        inode: None,
        device: None,
        size: None,
        xattr: b"",
        thread: b"",
        syscall: "openat",
    };

    fn batch(items: &[Item<'_>]) -> Batch {
        let mut bytes = Vec::new();
        for item in items {
            minicbor::encode(item, &mut bytes).unwrap();
        }
        Batch { seq: 1, items: bytes }
    }

    fn events(items: &[Item<'_>]) -> Vec<Value> {
        let mut assembler = Assembler::new(event::Node { name: "n1".into(), clock_offset_ns: 0 }, &HELLO);
        let mut events = Vec::new();
        assembler.feed(&batch(items), |event| events.push(serde_json::to_value(event).unwrap())).unwrap();
        events
    }

    /// Checks some fields of the last event that the items make, by JSON pointer; null stands for a field that is absent too.
    fn check(items: &[Item<'_>], fields: &[(&str, Value)]) {
        let event = events(items).pop().unwrap();
        for (pointer, want) in fields {
            assert_eq!(event.pointer(pointer).unwrap_or(&Value::Null), want, "{pointer} of {event:#}");
        }
    }

    fn check_file(file: File<'static>, fields: &[(&str, Value)]) {
        check(&[Item::Process(PROCESS), Item::File(file)], fields);
    }

    #[test]
    fn an_event_is_joined_to_its_process_container_and_pod() {
        let pod = Pod {
            uid: "u-1".into(),
            labels: [("app".to_owned(), "web".to_owned())].into(),
            owner_kind: "ReplicaSet".into(),
            owner_name: "web-1".into(),
            namespace: "prod".into(),
            name: "web".into(),
            images: [("app".to_owned(), "app@sha256:1".to_owned())].into(),
        };
        let ancestors = vec![Ancestor { pid: 1, start_ns: 0, comm: b"init", exe: b"" }];
        let process = Process { container: 1, ancestors, ..PROCESS };
        let exec = Exec {
            time_ns: 2_000_000_000,
            process: 3,
            filename: b"/bin/sh",
            inode: 1 << 60,
            device: 8 << 20 | 1,
            mode: 0o100_755,
            uid: 0,
            gid: 0,
            deleted: false,
            exe_cut: false,
        };
        // The order in which pod and container become known doesn't matter.
        let (container, pod) = (Item::Container(CONTAINER), Item::Pod(pod));
        for known in [[container.clone(), pod.clone()], [pod, container]] {
            let items: Vec<_> = known.into_iter().chain([Item::Process(process.clone()), Item::Exec(exec.clone())]).collect();
            let want = json!({
                "schema": "knark.dev/v1alpha1",
                "time": "2026-01-02T03:04:07.000000000Z",
                "boot_ns": "2000000000",
                "node": {"name": "n1", "clock_offset_ns": 0},
                "kubernetes": {
                    "namespace": "prod", "pod": "web", "pod_uid": "u-1",
                    "labels": {"app": "web"}, "owner": {"kind": "ReplicaSet", "name": "web-1"},
                },
                "container": {"id": "c0ffee", "name": "app", "image": "app@sha256:1", "cgroup_id": "18446744073709551615"},
                "process": {
                    "pid": 42, "ppid": 1, "uid": 1000, "gid": 100, "comm": "sh", "exe": "/bin/sh", "args": ["sh", "-c", ""], "cwd": "/",
                    "start_time": "2026-01-02T03:04:06.500000000Z", "start_boot_ns": "1500000000", "exe_memfd": false,
                    "ancestors": [{"pid": 1, "comm": "init", "exe": "", "start_boot_ns": "0"}], "source": "exec",
                },
                "type": "exec",
                "exec": {"filename": "/bin/sh", "mode": "0755", "uid": 0, "gid": 0, "inode": "1152921504606846976", "device": "8:1"},
            });
            assert_eq!(events(&items), [want]);
        }
    }

    #[test]
    fn what_a_file_operation_changed() {
        let chmod = File { op: FileOp::Chmod, result: 0, mode: Some(0o100_777), old_mode: Some(0o100_644), ..FILE };
        check_file(chmod, &[("/file/op", json!("chmod")), ("/file/mode", json!("0777")), ("/file/old_mode", json!("0644"))]);
        let chown = File { op: FileOp::Chown, result: 0, uid: Some(0), ..FILE };
        check_file(chown, &[("/file/uid", json!(0)), ("/file/gid", json!(null)), ("/file/old_uid", json!(null))]);
        let truncate = File { op: FileOp::Truncate, size: Some(9), ..FILE };
        check_file(truncate, &[("/file/size", json!("9"))]);
        let moved = Path { path: b"/new", ..PATH };
        check_file(
            File { op: FileOp::Rename, to: Some(moved), flags: Some(2), ..FILE },
            &[("/file/to/path", json!("/new")), ("/file/flags", json!(["0x2"]))],
        );
    }

    #[test]
    fn failures_and_doubts_are_named() {
        let path = Path { path: b"/x/y", argument: true, late: true, asked: b"y", ..PATH };
        check_file(
            File { result: -2, path, flags: Some(0o101), ..FILE },
            &[
                ("/file/result", json!(-2)),
                ("/file/error", json!("ENOENT")),
                ("/file/path_source", json!("argument")),
                ("/file/path_argument", json!("y")),
                ("/file/path_marks", json!(["late"])),
                ("/file/flags", json!(["O_WRONLY", "O_CREAT"])),
            ],
        );
        check_file(
            FILE,
            &[("/file/error", json!(null)), ("/file/path_source", json!("kernel")), ("/file/path_marks", json!(null))],
        );
    }

    #[test]
    fn bytes_that_are_no_text_survive() {
        check_file(
            File { path: Path { path: b"/\xff\n", ..PATH }, ..FILE },
            &[("/file/path", json!("/\u{fffd}\n")), ("/file/path_b64", json!("L/8K"))],
        );
        let process = Process { args: b"a\0\xff\0", ..PROCESS };
        check(
            &[Item::Process(process), Item::File(FILE)],
            &[
                ("/process/args", json!(["a", "\u{fffd}"])),
                ("/process/args_b64", json!(["YQ==", "/w=="])),
                ("/file/path_b64", json!(null)),
            ],
        );
    }

    #[test]
    fn threads_are_named_where_they_differ() {
        check_file(FILE, &[("/thread", json!(null))]);
        check_file(File { tid: 43, thread: b"worker", ..FILE }, &[("/thread", json!({"tid": 43, "comm": "worker"}))]);
    }

    #[test]
    fn a_process_ends_by_itself_or_by_a_signal() {
        for (code, want) in [
            (0, json!({"code": 0, "duration_ns": "500000000"})),
            (3 << 8, json!({"code": 3, "duration_ns": "500000000"})),
            (9 | 0x80, json!({"signal": "SIGKILL", "duration_ns": "500000000"})),
        ] {
            let exit = Exit { time_ns: 2_000_000_000, process: 3, code };
            check(&[Item::Process(PROCESS), Item::Exit(exit)], &[("/type", json!("exit")), ("/exit", want)]);
        }
    }

    #[test]
    fn seconds_change_in_any_direction() {
        let mut clock = Clock { realtime_offset_ns: 1_767_323_045_000_000_000, ..Clock::default() };
        for (boot_ns, want) in [
            (0, "2026-01-02T03:04:05.000000000Z"),
            (1_999_999_999, "2026-01-02T03:04:06.999999999Z"),
            (2_000_000_000, "2026-01-02T03:04:07.000000000Z"),
            (1, "2026-01-02T03:04:05.000000001Z"),
        ] {
            assert_eq!(clock.wall(boot_ns), want);
        }
        clock.realtime_offset_ns = -1;
        assert_eq!(clock.wall(0), "1969-12-31T23:59:59.999999999Z");
    }

    #[test]
    fn damaged_batches_are_errors() {
        let mut assembler = Assembler::new(event::Node { name: String::new(), clock_offset_ns: 0 }, &HELLO);
        let mut feed = |items: &[Item<'_>]| assembler.feed(&batch(items), |_| {}).unwrap_err();
        assert!(matches!(feed(&[Item::File(FILE)]), AssembleError::Undefined(3)));
        assert!(matches!(feed(&[Item::Process(Process { slot: PROCESS_SLOTS, ..PROCESS })]), AssembleError::Slot(_)));
        assert!(matches!(feed(&[Item::Container(Container { slot: u32::MAX, ..CONTAINER })]), AssembleError::Slot(_)));
        let garbage = Batch { seq: 1, items: vec![0xff; 3] };
        assert!(matches!(assembler.feed(&garbage, |_| {}), Err(AssembleError::Cbor(_))));
    }
}
