mod api;

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;
use crate::frame::{Ancestor, Container, Exec, Exit, File, FileOp, Hello, Path, Pod, Process, ProcessSource, Repeats};

const HELLO: Hello = Hello {
    version: String::new(),
    kernel: String::new(),
    arch: String::new(),
    probes: Vec::new(),
    realtime_offset_ns: 1_767_323_045_000_000_000,
    hostname: String::new(),
    portable: Vec::new(),
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
    ns_pid: None,
    ns_uid: None,
    ns_gid: None,
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
    repeats: None,
    same_as: None,
};

fn bytes(items: &[Item<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for item in items {
        minicbor::encode(item, &mut bytes).unwrap();
    }
    bytes
}

fn events(items: &[Item<'_>]) -> Vec<Value> {
    let mut assembler = Assembler::new(event::Node { name: "n1".into(), clock_offset_ns: 0 }, &HELLO);
    let mut events = Vec::new();
    let emit = |event| {
        events.push(serde_json::to_value(event).unwrap());
        true
    };
    assembler.feed(&bytes(items), emit).unwrap();
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
        containers: None,
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
fn a_process_has_the_ids_that_it_knows_itself_by() {
    let process = Process { ns_pid: Some(1), ns_uid: Some(0), ..PROCESS };
    let told = [("/process/pid", json!(42)), ("/process/ns_pid", json!(1)), ("/process/ns_gid", json!(null))];
    check(&[Item::Process(process.clone()), Item::File(FILE)], &told);
    let changed = frame::Changed { slot: 3, uid: 1001, gid: 100, container: 0, ns_uid: None, ns_gid: Some(7) };
    check(
        &[Item::Process(process), Item::Changed(changed), Item::File(FILE)],
        &[
            ("/process/uid", json!(1001)),
            ("/process/ns_pid", json!(1)),
            ("/process/ns_uid", json!(null)),
            ("/process/ns_gid", json!(7)),
        ],
    );
    check_file(FILE, &[("/process/ns_pid", json!(null)), ("/process/ns_uid", json!(null))]);
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
    check_file(FILE, &[("/file/error", json!(null)), ("/file/path_source", json!("kernel")), ("/file/path_marks", json!(null))]);
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
    check_file(File { repeats: Some(Repeats { count: 5, first_ns: 1, last_ns: 2 }), ..FILE }, &[("/count", json!(5))]);
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
    let mut feed = |items: &[Item<'_>]| assembler.feed(&bytes(items), |_| true).unwrap_err();
    assert!(matches!(feed(&[Item::File(FILE)]), AssembleError::Undefined(3)));
    assert!(matches!(feed(&[Item::Process(Process { slot: PROCESS_SLOTS, ..PROCESS })]), AssembleError::Slot(_)));
    assert!(matches!(feed(&[Item::Container(Container { slot: u32::MAX, ..CONTAINER })]), AssembleError::Slot(_)));
    assert!(matches!(assembler.feed(&[0xff; 3], |_| true), Err(AssembleError::Cbor(_))));
}

#[test]
fn a_batch_can_be_read_bit_by_bit() {
    let mut assembler = Assembler::new(event::Node { name: String::new(), clock_offset_ns: 0 }, &HELLO);
    let items = bytes(&[Item::Process(PROCESS), Item::File(FILE), Item::Process(PROCESS), Item::File(FILE), Item::File(FILE)]);
    let (mut read, mut parts) = (0, Vec::new());
    while read < items.len() {
        let mut events = 0;
        read += assembler
            .feed(&items[read..], |_| {
                events += 1;
                false
            })
            .unwrap();
        parts.push(events);
    }
    assert_eq!(parts, [1, 1, 1]);
}

#[test]
fn definitions_take_bounded_memory() {
    let mut assembler = Assembler::new(event::Node { name: String::new(), clock_offset_ns: 0 }, &HELLO);
    let args = vec![b'a'; 1 << 20];
    let process = |slot| bytes(&[Item::Process(Process { slot, args: &args, ..PROCESS })]);
    // One that takes another's place needs no more room.
    let before = [0, 1].map(|_| {
        assembler.feed(&process(0), |_| true).unwrap();
        assembler.bytes
    });
    assert_eq!(before[0], before[1]);
    let refused = (0..300).find_map(|slot| assembler.feed(&process(slot), |_| true).err());
    assert!(matches!(refused, Some(AssembleError::TooMuch)), "{refused:?}");
    assert!((100 << 20..=CAPACITY).contains(&assembler.bytes), "{}", assembler.bytes);

    let mut assembler = Assembler::new(event::Node { name: String::new(), clock_offset_ns: 0 }, &HELLO);
    let labels = BTreeMap::from([("a".to_owned(), "b".repeat(1 << 20))]);
    let pod = |uid| Arc::new(Pod { uid, labels: labels.clone(), ..Pod::default() });
    for n in 0..300 {
        assembler.set_pod(pod(n.to_string())).unwrap();
        assembler.forget_pod(&n.to_string());
    }
    assert_eq!(assembler.bytes, 0);
    let containers: Vec<_> = (1..300).map(|slot| Item::Container(Container { slot, pod_uid: "u", ..CONTAINER })).collect();
    assembler.feed(&bytes(&containers), |_| true).unwrap();
    // Each container shows its pod's labels.
    assert!(matches!(assembler.set_pod(pod("u".to_owned())), Err(AssembleError::TooMuch)));
}
