//! Recordings through the plugin: all formats, filters, damage, hostile names.
#![expect(clippy::unwrap_used, reason = "a test has no better way to end")]

use std::process::{Output, Stdio};

use knark_specs::frame::{Exit, File, FileOp, Item, Path, Process, Stage, Status};
use knark_tests::{
    program::{check, plugin, seen},
    recording::{Builder, CONTAINER, EXEC, FILE, PROCESS, path},
};

const SECOND: u64 = 1_000_000_000;

/// One of each, on one node.
fn one_of_each() -> Builder {
    let process = Process { args: b"sh\0-c\0cat /etc/passwd\0", ..PROCESS };
    let failed = File { result: -13, time_ns: 2_000_000, path: Path { argument: true, ..path(b"/etc/shadow") }, ..FILE };
    let chmod = File {
        time_ns: 3_000_000,
        op: FileOp::Chmod,
        result: 0,
        path: path(b"/srv/www/releases/2026-01-02/application/configuration/database.yaml"),
        flags: None,
        mode: Some(0o777),
        old_mode: Some(0o644),
        syscall: "fchmod",
        ..FILE
    };
    let rename = File {
        time_ns: 4_000_000,
        op: FileOp::Rename,
        result: 0,
        to: Some(path(b"/tmp/b")),
        path: path(b"/tmp/a"),
        flags: None,
        ..FILE
    };
    let items = [
        Item::Container(CONTAINER),
        Item::Process(process),
        Item::Exec(EXEC),
        Item::File(FILE),
        Item::File(failed),
        Item::File(chmod),
        Item::File(rename),
        Item::Exit(Exit { time_ns: SECOND, process: 1, code: 9 }),
    ];
    let last = Status { seen: 6, sent: 6, now_ns: 2 * SECOND, last_seq: 1, ..Status::default() };
    Builder::default().node(0, "knark-1").status(0, Status { now_ns: 1, ..Status::default() }).items(0, &items).bye(0, last)
}

fn replay(recording: Builder, args: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let file = recording.file(&folder).unwrap();
    plugin().arg("replay").arg(file).args(args).output().unwrap()
}

fn lines(output: &Output) -> Vec<serde_json::Value> {
    assert!(output.status.success(), "{}", seen(output));
    output.stdout.split(|b| *b == b'\n').filter(|l| !l.is_empty()).map(|line| serde_json::from_slice(line).unwrap()).collect()
}

#[test]
fn a_pipe_gets_everything_unshortened() {
    check(&replay(one_of_each(), &[]), "status 0
--- stdout
TIME          POD                           PID      PROCESS          OP          DETAIL
03:04:05.000  prod/web-7d9f8b6c5-x2x7k      4711     sh               exec        sh -c 'cat /etc/passwd'
03:04:05.001  prod/web-7d9f8b6c5-x2x7k      4711     sh               open        /etc/passwd O_RDONLY|O_CLOEXEC
03:04:05.002  prod/web-7d9f8b6c5-x2x7k      4711     sh               open        /etc/shadow O_RDONLY|O_CLOEXEC EACCES
03:04:05.003  prod/web-7d9f8b6c5-x2x7k      4711     sh               chmod       /srv/www/releases/2026-01-02/application/configuration/database.yaml 0644 → 0777
03:04:05.004  prod/web-7d9f8b6c5-x2x7k      4711     sh               rename      /tmp/a → /tmp/b
03:04:06.000  prod/web-7d9f8b6c5-x2x7k      4711     sh               exit        SIGKILL after 1s
--- stderr
6 events shown, 0 filtered, 0 lost on knark-1 in 2.0 s
");
}

#[test]
fn wide_has_all_columns() {
    check(&replay(one_of_each(), &["-o", "wide", "--no-headers", "--on", "exec"]), "status 0
--- stdout
2026-01-02T03:04:05.000Z  knark-1       prod          web-7d9f8b6c5-x2x7k   app           4711     -        1        -                1000   -      sh               exec        -       sh -c 'cat /etc/passwd'
--- stderr
1 event shown, 5 filtered, 0 lost on knark-1 in 2.0 s
");
}

#[test]
fn names_come_once() {
    check(
        &replay(one_of_each(), &["-o", "name"]),
        "status 0
--- stdout
pod/web-7d9f8b6c5-x2x7k
--- stderr
6 events shown, 0 filtered, 0 lost on knark-1 in 2.0 s
",
    );
}

#[test]
fn json_is_one_object_per_line_and_a_summary() {
    let output = replay(one_of_each(), &["-o", "json"]);
    let lines = lines(&output);
    let types: Vec<_> = lines.iter().map(|line| line["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["exec", "file", "file", "file", "file", "exit", "summary"]);
    assert_eq!(
        lines[6]["summary"],
        serde_json::json!({
            "seconds": 2.0, "shown": 6, "filtered": 0, "lost": 0,
            "nodes": [{"node": "knark-1", "seen": 6, "shown": 6, "filtered": 0, "lost": {}}],
        })
    );
    for line in output.stdout.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
        let read: knark_specs::event::Line = serde_json::from_slice(line).unwrap();
        assert_eq!(serde_json::to_vec(&read).unwrap(), line, "what is read is what was written");
    }
}

#[test]
fn yaml_is_one_document_per_event_and_a_summary() {
    let output = replay(one_of_each(), &["-o", "yaml", "--on", "exit"]);
    check(
        &output,
        "status 0
--- stdout
schema: knark.dev/v1alpha1
time: 2026-01-02T03:04:06.000000000Z
boot_ns: '1000000000'
node:
  name: knark-1
  clock_offset_ns: 0
kubernetes:
  namespace: prod
  pod: web-7d9f8b6c5-x2x7k
  pod_uid: u-1
container:
  id: c0ffee00c0ffee00
  name: app
  image: app:1
  cgroup_id: '77'
process:
  pid: 4711
  ppid: 1
  uid: 1000
  gid: 1000
  comm: sh
  exe: /bin/sh
  args:
  - sh
  - -c
  - cat /etc/passwd
  cwd: /
  start_time: 2026-01-02T03:04:05.000000000Z
  start_boot_ns: '0'
  exe_memfd: false
  ancestors: []
  source: exec
type: exit
exit:
  signal: SIGKILL
  duration_ns: '1000000000'
---
schema: knark.dev/v1alpha1
type: summary
summary:
  seconds: 2.0
  shown: 1
  filtered: 5
  lost: 0
  nodes:
  - node: knark-1
    seen: 6
    shown: 1
    filtered: 5
    lost: {}
--- stderr
1 event shown, 5 filtered, 0 lost on knark-1 in 2.0 s
",
    );
}

#[test]
fn filters_count_what_they_leave_out() {
    for (args, shown) in [
        (&["--on", "exec,exit"][..], 2),
        (&["--on", "file", "--max-events", "3"], 3),
        (&["-n", "prod"], 6),
        (&["-n", "dev"], 0),
        (&["--pod", "web-7d9f8b6c5-x2x7k", "-c", "c0ff"], 6),
        (&["--comm", "bash"], 0),
        (&["--exe", "/bin/sh", "--pid", "4711", "--node", "knark-1"], 6),
        (&["--max-events", "1"], 1),
    ] {
        let output = replay(one_of_each(), &[&["-o", "json"], args].concat());
        let lines = lines(&output);
        assert_eq!(lines.len(), shown + 1, "{args:?}");
        let sums = &lines[shown]["summary"];
        assert_eq!((sums["shown"].as_u64(), sums["filtered"].as_u64()), (Some(shown as u64), Some(6 - shown as u64)), "{args:?}");
    }
}

#[test]
fn nodes_are_merged_by_time() {
    let at = |ms: u64| Item::File(File { time_ns: ms * 1_000_000, ..FILE });
    let process = Item::Process(Process { container: 0, ..PROCESS });
    let until = |ms: u64| Status { seen: 2, sent: 2, watermark_ns: ms * 1_000_000, ..Status::default() };
    let recording = Builder::default()
        .node(0, "a")
        .node(1, "b")
        .items(0, &[process.clone(), at(10), at(30)])
        .status(0, until(35))
        .items(1, &[process, at(20)])
        .items(1, &[at(40)])
        .status(1, until(50))
        .bye(0, until(60))
        .bye(1, until(60));
    let lines = lines(&replay(recording, &["-o", "json"]));
    let order: Vec<_> =
        lines[..4].iter().map(|l| (l["node"]["name"].as_str().unwrap(), l["boot_ns"].as_str().unwrap())).collect();
    assert_eq!(order, [("a", "10000000"), ("b", "20000000"), ("a", "30000000"), ("b", "40000000")]);
}

#[test]
fn losses_are_told_and_make_status_3() {
    let last = Status { seen: 10, filtered: 2, sent: 6, lost: vec![(Stage::Ring, 2)], ..Status::default() };
    let recording = Builder::default().node(0, "knark-1").items(0, &[Item::Process(PROCESS), Item::File(FILE)]).bye(0, last);
    check(
        &replay(recording, &["-o", "name"]),
        "status 3
--- stdout
node/knark-1
--- stderr
1 event shown, 2 filtered, 7 lost on knark-1 in 0.0 s
NODE     SEEN  SHOWN  FILTERED  LOST  WHERE
knark-1    10      1         2     7  2 ring, 5 stream
",
    );
}

#[test]
fn a_match_is_told_by_the_status_as_of_a_trace() {
    let folder = tempfile::tempdir().unwrap();
    let policy = |path: &str| {
        let file = folder.path().join("policy.yaml");
        let text = "apiVersion: knark.dev/v1alpha1\nkind: TracePolicy\nmetadata: {name: p}\nspec:\n  rules:\n";
        std::fs::write(&file, format!("{text}  - {{name: r, file: {{paths: [{path}]}}}}\n")).unwrap();
        file.to_str().unwrap().to_owned()
    };
    for (path, flag, status) in
        [("/etc/passwd", Some("--fail-on-match"), 4), ("/etc/passwd", None, 0), ("/nowhere", Some("--fail-on-match"), 0)]
    {
        let policy = policy(path);
        let args: Vec<_> = ["-f", &policy].into_iter().chain(flag).collect();
        let output = replay(one_of_each(), &args);
        assert_eq!(output.status.code(), Some(status), "{path} {flag:?}: {}", seen(&output));
    }
    // What was lost weighs more, as in a trace.
    let last = Status { seen: 10, filtered: 2, sent: 6, lost: vec![(Stage::Ring, 2)], ..Status::default() };
    let lossy = Builder::default().node(0, "knark-1").items(0, &[Item::Process(PROCESS), Item::File(FILE)]).bye(0, last);
    assert_eq!(replay(lossy, &["-f", &policy("/etc/passwd"), "--fail-on-match"]).status.code(), Some(3));
}

#[test]
fn a_truncated_recording_shows_what_is_intact() {
    let whole = one_of_each().bytes();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rec.knark");
    std::fs::write(&file, &whole[..whole.len() - 3]).unwrap();
    let output = plugin().args(["replay", "--no-headers"]).arg(&file).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", seen(&output));
    assert_eq!(output.stdout.split(|b| *b == b'\n').count(), 7, "{}", seen(&output));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("the recording is cut off: it ends inside the packet that begins at byte "), "{error}");
    assert!(error.contains("the stream broke off"), "{error}");
}

#[test]
fn other_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rec.knark");
    for (bytes, why) in [
        (&b""[..], "this is no recording"),
        (b"KNARKR", "this is no recording"),
        (b"#!/bin/sh\necho", "this is no recording"),
        (b"KNARKRC\x02", "version 2"),
        (b"KNARKRC\x01\xff\xff\xff\xff", "damaged at byte 8"),
        (b"KNARKRC\x01\x02\0\0\0\x09\0", "unknown codec 9"),
    ] {
        std::fs::write(&file, bytes).unwrap();
        let output = plugin().arg("replay").arg(&file).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{bytes:?}: {}", seen(&output));
        assert!(String::from_utf8_lossy(&output.stderr).contains(why), "{bytes:?}: {}", seen(&output));
    }
    let output = plugin().args(["replay", "/nonexistent"]).output().unwrap();
    check(
        &output,
        "status 1
--- stdout
--- stderr
error: replaying /nonexistent: No such file or directory (os error 2)
",
    );
}

#[test]
fn damage_anywhere_is_an_error_at_worst() {
    let whole = one_of_each().bytes();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rec.knark");
    for at in (8..whole.len()).step_by(7) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x41;
        std::fs::write(&file, bytes).unwrap();
        let output = plugin().args(["replay", "-o", "json"]).arg(&file).output().unwrap();
        assert!(output.status.code().is_some_and(|code| [0, 1, 3].contains(&code)), "byte {at}: {}", seen(&output));
        assert!(!String::from_utf8_lossy(&output.stderr).contains("panicked"), "byte {at}: {}", seen(&output));
    }
}

#[test]
fn a_recording_comes_from_standard_input_too() {
    let folder = tempfile::tempdir().unwrap();
    let file = one_of_each().file(&folder).unwrap();
    let output = plugin().args(["replay", "-", "-o", "name"]).stdin(std::fs::File::open(file).unwrap()).output().unwrap();
    assert!(seen(&output).contains("pod/web-7d9f8b6c5-x2x7k"), "{}", seen(&output));
}

#[test]
fn a_reader_that_leaves_ends_it_quietly() {
    let mut recording = Builder::default().node(0, "knark-1").items(0, &[Item::Process(PROCESS)]);
    for _ in 0..400 {
        recording = recording.items(0, &[const { Item::File(FILE) }; 50]);
    }
    let folder = tempfile::tempdir().unwrap();
    let file = recording.file(&folder).unwrap();
    let mut child = plugin().arg("replay").arg(file).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    check(&child.wait_with_output().unwrap(), "status 0\n--- stdout\n--- stderr\n");
}

#[test]
fn hostile_names_command_nothing() {
    let process = Process { comm: b"a\x1b[2Jb", args: b"rm\0-rf\n\0\xe2\x80\xae\0\xff\0", ..PROCESS };
    let file = File { path: path(b"/tmp/\x1b]0;owned\x07\n\xff\xe2\x80\xae"), ..FILE };
    let items = [Item::Process(process), Item::Exec(EXEC), Item::File(file)];
    let status = Status { seen: 2, sent: 2, ..Status::default() };
    let recording = || Builder::default().node(0, "knark-1").items(0, &items).bye(0, status.clone());
    for format in ["table", "wide"] {
        let output = replay(recording(), &["-o", format, "--no-headers"]);
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(!text.contains(|c: char| c.is_control() && c != '\n' || c == '\u{202e}'), "{text:?}");
        for shown in [r"a\x1b[2Jb", r"rm $'-rf\n' $'\u{202e}' $'\xff'", r"/tmp/\x1b]0;owned\x07\n\xff\u{202e}"] {
            assert!(text.contains(shown), "{shown} is missing: {text}");
        }
    }
    let json = lines(&replay(recording(), &["-o", "json"]));
    assert_eq!(json[1]["file"]["path"], "/tmp/\u{1b}]0;owned\u{7}\n\u{fffd}\u{202e}");
    assert_eq!(json[1]["file"]["path_b64"], "L3RtcC8bXTA7b3duZWQHCv/igK4=");
    assert_eq!(json[0]["process"]["args_b64"], serde_json::json!(["cm0=", "LXJmCg==", "4oCu", "/w=="]));
}

#[test]
fn huge_names_break_nothing() {
    let name: &'static [u8] = vec![b'x'; 1 << 20].leak();
    let process = Process { args: name, args_cut_from: 2 << 20, ..PROCESS };
    let items = [Item::Process(process), Item::Exec(EXEC)];
    let recording =
        || Builder::default().node(0, "knark-1").items(0, &items).bye(0, Status { seen: 1, sent: 1, ..Status::default() });
    let output = replay(recording(), &["--no-headers"]);
    assert!(String::from_utf8_lossy(&output.stdout).ends_with("x [/bin/sh] (arguments cut)\n"));
    let json = lines(&replay(recording(), &["-o", "json"]));
    assert_eq!(json[0]["process"]["args"][0].as_str().unwrap().len(), 1 << 20);
    assert_eq!(json[0]["process"]["args_cut_from"], 2 << 20);
}
