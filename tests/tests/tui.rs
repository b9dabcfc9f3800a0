//! `-o tui` on a terminal: the real program, keys, and what the screen shows.
#![expect(clippy::unwrap_used, reason = "a test has no better way to end")]

use std::{path::Path, process::Command};

use knark_specs::frame::{Api, ApiDecision, ApiStage, ApiUser, File, Item, Process, Status};
use knark_tests::{
    console::Console,
    program::{plugin, seen},
    recording::{Builder, CONTAINER, EXEC, FILE, PROCESS, path},
};
use rustix::process::{Pid, Signal, kill_process};

const SECOND: u64 = 1_000_000_000;

/// A shell that reads a file and fails to read another, and requests of two users.
fn recording() -> Builder {
    let process = Process { args: b"sh\0-c\0cat /etc/passwd\0", ..PROCESS };
    let server =
        Process { slot: 2, pid: 99, comm: b"kube-apiserver", exe: b"/kube-apiserver", args: b"", container: 0, ..PROCESS };
    let failed = File { result: -13, time_ns: 2_000_000, path: path(b"/etc/shadow"), ..FILE };
    let alice = Api {
        time_ns: 3_000_000,
        process: 2,
        stage: ApiStage::Complete,
        request_id: "99-1",
        verb: b"get",
        resource: b"secrets",
        namespace: b"prod",
        name: b"db",
        uri: b"/api/v1/namespaces/prod/secrets/db",
        user: Some(ApiUser { name: b"alice", ..ApiUser::default() }),
        decision: Some(ApiDecision::Denied),
        code: Some(403),
        ..Api::default()
    };
    let mallory = Api {
        time_ns: 4_000_000,
        request_id: "99-2",
        verb: b"delete",
        user: Some(ApiUser { name: b"mallory\x1b]0;owned\x07", ..ApiUser::default() }),
        code: Some(200),
        ..alice.clone()
    };
    let items = [
        Item::Container(CONTAINER),
        Item::Process(process),
        Item::Process(server),
        Item::Exec(EXEC),
        Item::File(FILE),
        Item::File(failed),
        Item::Api(Box::new(alice)),
        Item::Api(Box::new(mallory)),
    ];
    let last = Status { seen: 5, sent: 5, now_ns: 2 * SECOND, last_seq: 1, ..Status::default() };
    Builder::default().node(0, "knark-1").status(0, Status { now_ns: 1, ..Status::default() }).items(0, &items).bye(0, last)
}

fn replay(folder: &tempfile::TempDir) -> Command {
    let file = recording().file(folder).unwrap();
    let mut command = plugin();
    command.arg("replay").arg(file).args(["-o", "tui"]).current_dir(folder);
    command
}

fn lines(path: &Path) -> Vec<serde_json::Value> {
    std::fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_recording_can_be_looked_through() {
    let folder = tempfile::tempdir().unwrap();
    let mut console = Console::start(&replay(&folder), 24, 80);
    let screen = console.wait_for(&["recording · 0 lost · 5 events · on knark-1", "timeline 5/5", "? help"]);
    assert!(screen.contains("03:04:05  prod/…b6c5-x2x7k  exec        sh -c 'cat /etc/passwd'"), "{screen}");
    assert!(!console.is_cooked());

    console.type_keys("/shad");
    console.wait_for(&["timeline 1/1 · /shad", "/etc/shadow EACCES"]);
    console.type_keys("\r\r");
    console.wait_for(&["details 1-", "open /etc/shadow", "\"schema\": \"knark.dev/v1alpha1\""]);
    console.type_keys("\x1b");
    console.wait_until("no details", |screen| !screen.contents().contains("details 1-"));
    console.type_keys("\x1b");
    console.wait_for(&["timeline 3/5"]);

    console.type_keys("v");
    console.wait_for(&["requests 2/2", "nodes 3/3", "alice get secrets prod/db 403"]);
    // A click on the first of the requests: status, title and names of columns are above it.
    console.type_keys("\x1b[<0;5;4M\x1b[<0;5;4m");
    console.wait_for(&["━ requests 1/2"]);
    console.type_keys("/user:mallory\r");
    console.wait_for(&["requests 1/1", "nodes 0/0", r"mallory\x1b]0;owned\x07 delete"]);

    console.type_keys("w");
    console.wait_for(&["write what is shown to the new file: knark-"]);
    console.type_keys("\x15shown.jsonl\r");
    console.wait_for(&["1 event written to shown.jsonl"]);
    let written = lines(&folder.path().join("shown.jsonl"));
    assert_eq!((written.len(), &written[0]["api"]["verb"]), (1, &"delete".into()));
    console.type_keys("w\x15shown.jsonl\r");
    console.wait_for(&["choose another name"]);
    assert_eq!(lines(&folder.path().join("shown.jsonl")), written);

    console.type_keys("\x1b");
    console.wait_for(&["requests 2/2"]);
    console.type_keys("v");
    console.wait_for(&["timeline "]);
    console.resize(10, 40);
    console.wait_until("a narrow screen", |screen| {
        let text = screen.contents();
        text.lines().count() == 10 && text.trim_end().ends_with("/ filter  Enter details")
    });
    console.resize(60, 200);
    console.wait_for(&["w write  l linked"]);
    console.type_keys("?");
    console.wait_for(&["filter as you type", "end the trace and leave"]);
    console.type_keys("\x1b");
    console.wait_until("no help", |screen| !screen.contents().contains("filter as you type"));

    console.type_keys("q");
    let screen = console
        .wait_until("the screen of before", |screen| !screen.alternate_screen() && screen.contents().contains("5 events shown"));
    assert_eq!(screen.trim(), "5 events shown, 0 filtered, 0 lost on knark-1 in 2.0 s");
    let (status, written) = console.wait();
    assert_eq!(status, 0);
    assert!(!written.contains("\x1b]"), "no title was set");
    assert!(console.is_cooked());
    console.wait_until("no mouse and a cursor", |screen| {
        screen.mouse_protocol_mode() == vt100::MouseProtocolMode::None && !screen.hide_cursor() && !screen.bracketed_paste()
    });
}

#[test]
fn ctrl_c_and_signals_leave_the_terminal_as_it_was() {
    for interrupt in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let mut console = Console::start(&replay(&folder), 24, 80);
        console.wait_for(&["recording · 0 lost"]);
        if interrupt {
            console.type_keys("/q\x03");
        } else {
            kill_process(Pid::from_raw(console.pid).unwrap(), Signal::TERM).unwrap();
        }
        console.wait_until("the screen of before", |screen| {
            !screen.alternate_screen() && screen.contents().trim().starts_with("5 events shown")
        });
        assert_eq!(console.wait().0, 0);
        assert!(console.is_cooked());
    }
}

#[test]
fn a_terminal_that_goes_ends_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut console = Console::start(&replay(&folder), 24, 80);
    console.wait_for(&["recording · 0 lost"]);
    console.hang_up();
    console.wait();
}

#[test]
fn colours_are_left_out_where_nobody_wants_them() {
    for colours in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let mut command = replay(&folder);
        if !colours {
            command.env("NO_COLOR", "1");
        }
        let mut console = Console::start(&command, 24, 80);
        console.wait_for(&["recording · 0 lost"]);
        console.type_keys("q");
        let (status, written) = console.wait();
        assert_eq!(status, 0);
        let coloured = ["\x1b[31", "\x1b[36", "\x1b[38;5;"].iter().any(|sequence| written.contains(sequence));
        assert_eq!(coloured, colours, "{written:?}");
    }
}

#[test]
fn without_a_terminal_it_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let output = replay(&folder).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", seen(&output));
    assert!(seen(&output).contains("standard output is none: run it in a terminal"), "{}", seen(&output));
    let record = folder.path().join("new.knark");
    let output = plugin().args(["trace", "--local", "-o", "tui", "--record"]).arg(&record).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", seen(&output));
    assert!(!record.exists());
}
