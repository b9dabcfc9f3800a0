//! `trace --local` on this kernel, as root.
#![expect(clippy::unwrap_used, reason = "a test has no better way to end")]

use std::{
    fs::{self, File},
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use knark_tests::{
    cluster::Trace,
    console::Console,
    program::{check, plugin, seen, tracer},
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// `kubectl-knark trace --local ARGS`.
fn trace(args: &[&str]) -> Command {
    let mut command = plugin();
    command.env("KNARK_TRACER", tracer()).args(["trace", "--local"]).args(args);
    command
}

/// A shell that executes `/bin/true tick-N` until told to run its script.
struct Shell {
    child: Child,
    folder: tempfile::TempDir,
}

impl Shell {
    fn new(script: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ticking = "n=0; while [ ! -e go ]; do /bin/true tick-$n; n=$((n+1)); sleep 0.05; done";
        let child = Command::new("/bin/sh").arg("-c").arg(format!("{ticking}; {script}")).current_dir(&folder).spawn().unwrap();
        Self { child, folder }
    }

    /// The flags that choose it and what it starts.
    fn pid(&self) -> String {
        format!("--pid={}", self.child.id())
    }

    fn go(&mut self) {
        self.go_on("go");
    }

    /// Makes the file that it waits for last.
    fn go_on(&mut self, name: &str) {
        File::create(self.folder.path().join(name)).unwrap();
        self.child.wait().unwrap();
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn summary(events: &[Value]) -> &Value {
    let last = events.last().unwrap();
    assert_eq!(last["type"], "summary", "{last}");
    let node = &last["summary"]["nodes"][0];
    let lost: u64 = node["lost"].as_object().unwrap().values().filter_map(Value::as_u64).sum();
    let number = |name: &str| node[name].as_u64().unwrap();
    assert_eq!(number("seen"), number("shown") + number("filtered") + lost, "{last}");
    assert_eq!(number("shown"), events.len() as u64 - 1, "{last}");
    &last["summary"]
}

#[test]
fn what_a_shell_does_is_shown() {
    let mut shell =
        Shell::new("echo hello > file; chmod 600 file; mv file other; rm other; mkdir d; cat missing 2> /dev/null; exit 7");
    let mut trace = Trace::start(&mut trace(&["-o", "json", "--on", "exec,file,exit", &shell.pid()]));
    trace.first_tick();
    shell.go();
    let exit = trace.event("the shell's end", |e| e["exit"]["code"] == 7);
    assert_eq!(exit["process"]["comm"], "sh");
    assert_eq!(trace.interrupt(), Some(0), "{}", trace.words());

    let events = trace.events();
    summary(&events);
    let file = |op: &str, name: &str| {
        let path = shell.path(name);
        let found = events.iter().find(|e| e["file"]["op"] == op && e["file"]["path"] == path.as_str());
        found.unwrap_or_else(|| panic!("no {op} of {path}\n{}", trace.words())).clone()
    };
    assert_eq!(file("create", "file")["file"]["created"], true);
    let chmod = file("chmod", "file");
    assert_eq!((&chmod["file"]["mode"], &chmod["process"]["comm"]), (&"0600".into(), &"chmod".into()));
    assert_eq!(chmod["process"]["ancestors"][0]["pid"], shell.child.id());
    assert_eq!(file("rename", "file")["file"]["to"]["path"], shell.path("other").as_str());
    file("unlink", "other");
    file("mkdir", "d");
    let missing = file("open", "missing");
    assert_eq!((&missing["file"]["error"], &missing["file"]["result"]), (&"ENOENT".into(), &(-2).into()));
    let exec = events.iter().find(|e| e["type"] == "exec" && e["process"]["comm"] == "chmod").unwrap();
    assert_eq!(exec["process"]["args"], serde_json::json!(["chmod", "600", "file"]));
    assert_eq!(exec["process"]["cwd"], shell.folder.path().to_str().unwrap());
}

#[test]
fn a_process_in_namespaces_of_its_own_has_both_ids() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
    // There before the trace, and without a part of it that would execute something.
    let script = "n=0; while [ ! -e go ]; do /bin/true tick-$n; n=$((n+1)); sleep 0.05; done; : > mine; \
                  while [ ! -e seen ]; do sleep 0.05; done";
    let mut inside = Command::new("setpriv");
    inside.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    inside.args(["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child", "/bin/sh", "-c", script]);
    let mut inside = inside.current_dir(&folder).spawn().unwrap();
    let mut trace = Trace::start(&mut trace(&["-o", "json", "--on", "exec,file", &format!("--pid={}", inside.id())]));
    trace.first_tick();
    File::create(folder.path().join("go")).unwrap();
    let of = |event: &Value| ["ns_pid", "ns_uid", "ns_gid", "uid", "source"].map(|name| event["process"][name].clone());
    let mine = trace.event("what the shell made", |e| e["file"]["path"].as_str().is_some_and(|path| path.ends_with("/mine")));
    // Until then it is there to be looked up.
    File::create(folder.path().join("seen")).unwrap();
    assert_eq!(serde_json::json!(of(&mine)), serde_json::json!([1, 0, 0, 65534, "proc"]), "{mine}");
    assert!(mine["process"]["pid"].as_u64() > Some(1), "{mine}");
    let tick = trace.event("what it executed", |e| e["type"] == "exec" && e["process"]["comm"] == "true");
    let [ns_pid, ns_uid, ..] = of(&tick);
    assert!(ns_pid.as_u64() > Some(1) && ns_uid == 0, "{tick}");
    inside.wait().unwrap();
    assert_eq!(trace.interrupt(), Some(0), "{}", trace.words());
}

#[test]
fn delivered_and_lost_are_what_was_made() {
    const MADE: u64 = 100_000;
    for (ring, name) in [("16K", "knark-made-1"), ("8M", "knark-made-2")] {
        let mut trace = Trace::start(&mut trace(&["-o", "json", "--on", "file", "--ring-buffer", ring, "--comm", name]));
        // The first open that is seen shows that the rest will be; all were counted.
        let made = thread::Builder::new().name(name.to_owned()).spawn(|| {
            let open = || File::open("/etc/hostname").map(drop).unwrap();
            for _ in 0..100 {
                open();
                thread::sleep(Duration::from_millis(50));
            }
            (0..MADE).for_each(|_| open());
        });
        trace.event("open", |e| e["file"]["path"] == "/etc/hostname");
        made.unwrap().join().unwrap();
        let status = trace.interrupt();
        let events = trace.events();
        let sums = summary(&events);
        let (shown, lost) = (sums["shown"].as_u64().unwrap(), sums["lost"].as_u64().unwrap());
        // Of the slow ones at the beginning, those before the probes were attached are missing.
        assert!((MADE..=MADE + 100).contains(&(shown + lost)), "{ring}: {sums}");
        assert_eq!(status, Some(if lost > 0 { 3 } else { 0 }), "{ring}: {sums}\n{}", trace.stderr());
        assert!(ring != "16K" || lost > 0, "a buffer of {ring} lost nothing: {sums}");
    }
}

#[test]
fn a_recording_shows_the_same_again() {
    let mut shell = Shell::new("echo hello > file; rm file; /bin/true last");
    let recording = shell.path("rec.knark");
    let mut trace = Trace::start(&mut trace(&["-o", "json", "--record", &recording, &shell.pid()]));
    trace.first_tick();
    shell.go();
    trace.event("last exec", |e| e["process"]["args"][1] == "last");
    assert_eq!(trace.interrupt(), Some(0), "{}", trace.words());

    let output = plugin().args(["replay", &recording, "-o", "json"]).output().unwrap();
    assert!(output.status.success(), "{}", seen(&output));
    let lines = String::from_utf8(output.stdout).unwrap();
    let replayed: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let live = trace.events();
    assert_eq!(replayed[..replayed.len() - 1], live[..live.len() - 1]);
    let sums = |events: &[Value]| summary(events)["nodes"].clone();
    assert_eq!(sums(&replayed), sums(&live));
}

#[test]
fn a_file_is_watched_under_all_its_names() {
    let script = "ln secret name; cat name; cat other; unshare --mount sh -c 'mount --bind secret bound && cat bound'; \
                  mv next secret; ln secret again; while [ ! -e seen ]; do cat again; done; /bin/true last";
    let mut shell = Shell::new(&format!("({script}) > /dev/null"));
    for name in ["secret", "other", "bound", "next"] {
        std::fs::write(shell.path(name), "x").unwrap();
    }
    let policy = serde_json::json!({
        "apiVersion": "knark.dev/v1alpha1", "kind": "TracePolicy", "metadata": {"name": "names"},
        "spec": {"rules": [
            {"name": "tick", "exec": {"paths": ["**/true", "**/coreutils"]}},
            {"name": "secret", "message": "{{file.path}} is {{file.same_as}}",
             "file": {"ops": ["open", "link"], "paths": [shell.path("secret")], "sameFile": true}},
        ]},
    });
    let file = shell.path("policy.json");
    std::fs::write(&file, policy.to_string()).unwrap();
    let mut trace = Trace::start(&mut trace(&["-o", "json", "-f", &file, &shell.pid()]));
    trace.first_tick();
    File::create(shell.path("go")).unwrap();
    let secret = shell.path("secret");
    let open = |name: &str| {
        let path = shell.path(name);
        let event = trace.event(name, |event| event["file"]["op"] == "open" && event["file"]["path"] == path.as_str());
        assert_eq!(event["file"]["same_as"], serde_json::json!([secret]), "{event}");
        assert_eq!(event["matches"][0]["rule"], "secret", "{event}");
        assert_eq!(event["matches"][0]["message"], format!("{path} is {secret}"));
    };
    open("name");
    open("bound");
    // What has taken the place of the watched file is watched as soon as the tracer has seen that.
    open("again");
    shell.go_on("seen");
    trace.event("last exec", |event| event["process"]["args"][1] == "last");
    assert_eq!(trace.interrupt(), Some(0), "{}", trace.words());
    let events = trace.events();
    summary(&events);
    let other = shell.path("other");
    assert!(!events.iter().any(|event| event["file"]["path"] == other.as_str()), "{}", trace.words());
    let link = events.iter().find(|event| event["file"]["op"] == "link").unwrap();
    assert_eq!((&link["file"]["path"], &link["matches"][0]["rule"]), (&secret.as_str().into(), &"secret".into()));
}

#[test]
fn it_ends_when_enough_was_seen() {
    let shell = Shell::new("");
    let output = trace(&["-o", "json", "--max-events", "3", &shell.pid()]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", seen(&output));
    assert_eq!(output.stdout.split(|b| *b == b'\n').filter(|line| !line.is_empty()).count(), 4, "{}", seen(&output));

    let begun = Instant::now();
    let output = trace(&["--for", "1s", "--comm", "knark-nobody"]).output().unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(1));
    assert_eq!(output.status.code(), Some(0), "{}", seen(&output));
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("TIME "), "{}", seen(&output));
}

#[test]
fn it_ends_when_nobody_reads_even_if_nothing_happens() {
    let mut child = trace(&["--comm", "knark-nobody"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stdout.is_empty(), "{}", seen(&output));
    // what this kernel keeps from being seen is said before
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.lines().all(|line| line.starts_with("note: ")), "{}", seen(&output));
}

/// The tracer that this trace started.
fn tracer_of(trace: &Trace) -> Pid {
    let begun = Instant::now();
    loop {
        let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", trace.pid())).unwrap_or_default();
        if let Some(pid) = children.split_whitespace().next().and_then(|pid| Pid::from_raw(pid.parse().ok()?)) {
            return pid;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "the tracer doesn't start: {}", trace.words());
        thread::sleep(Duration::from_millis(20));
    }
}

/// The same command where this was done to what is mounted.
fn mounted_otherwise(change: &str, command: &Command) -> Command {
    let mut other = Command::new("unshare");
    other.args(["--mount", "sh", "-c", &format!("{change} && exec \"$@\""), "sh"]);
    other.arg(command.get_program()).args(command.get_args());
    other.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    other
}

#[test]
fn where_tracefs_is_not_mounted_the_tracer_has_its_own() {
    let mut shell = Shell::new("rm go");
    let unmount = "umount -l /sys/kernel/debug/tracing 2> /dev/null; umount -l /sys/kernel/tracing; ! ls /sys/kernel/tracing/events 2> /dev/null";
    let mut trace = Trace::start(&mut mounted_otherwise(unmount, &trace(&["-o", "json", &shell.pid()])));
    trace.first_tick();
    shell.go();
    trace.event("unlink", |e| e["file"]["op"] == "unlink");
    assert_eq!(trace.interrupt(), Some(0), "{}", trace.words());
    summary(&trace.events());
}

#[test]
fn a_kernel_without_btf_is_traced_by_a_file_of_it() {
    const HIDDEN: &str = "mount -t tmpfs none /sys/kernel/btf";
    let mut shell = Shell::new("cat /etc/passwd > /dev/null; rm given");
    let said = mounted_otherwise(HIDDEN, &trace(&["--for", "1s", &shell.pid()])).output().unwrap();
    assert_eq!(said.status.code(), Some(1), "{}", seen(&said));
    let words = String::from_utf8_lossy(&said.stderr);
    assert!(words.contains("has no BTF (/sys/kernel/btf/vmlinux)") && words.contains("--btf FILE"), "{words}");

    let given = shell.path("given");
    std::fs::copy("/sys/kernel/btf/vmlinux", &given).unwrap();
    let mut trace = Trace::start(&mut mounted_otherwise(HIDDEN, &trace(&["-o", "json", "--btf", &given, &shell.pid()])));
    trace.first_tick();
    shell.go();
    let unlink = trace.event("unlink", |e| e["file"]["op"] == "unlink");
    assert_eq!(unlink["process"]["comm"], "rm");
    assert_eq!(trace.interrupt(), Some(0), "{}", trace.words());
    let events = trace.events();
    summary(&events);
    assert!(events.iter().any(|e| e["file"]["path"] == "/etc/passwd" && e["process"]["comm"] == "cat"));
}

#[test]
fn a_killed_tracer_is_told_at_once() {
    let shell = Shell::new("");
    let mut trace = Trace::start(&mut trace(&["-o", "json", &shell.pid()]));
    trace.first_tick();
    kill_process(tracer_of(&trace), Signal::KILL).unwrap();
    assert_eq!(trace.end().code(), Some(1), "{}", trace.words());
    trace.says("error: the tracer ended (signal: 9 (SIGKILL))");
    assert_eq!(trace.events().last().unwrap()["summary"]["nodes"][0]["incomplete"], true);
}

#[test]
fn the_tracer_dies_with_the_plugin() {
    let shell = Shell::new("");
    let mut trace = Trace::start(&mut trace(&["-o", "json", &shell.pid()]));
    trace.first_tick();
    let tracer = tracer_of(&trace);
    trace.signal(Signal::KILL);
    trace.end();
    let begun = Instant::now();
    while rustix::process::test_kill_process(tracer).is_ok() && !is_zombie(tracer) {
        assert!(begun.elapsed() < Duration::from_secs(15), "the tracer still runs");
        thread::sleep(Duration::from_millis(50));
    }
}

fn is_zombie(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z'))
}

#[test]
fn others_than_root_are_told_of_sudo() {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("kubectl-knark");
    std::fs::copy(plugin().get_program(), &copy).unwrap();
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let output = Command::new(copy).args(["trace", "--local"]).uid(65534).gid(65534).output().unwrap();
    check(
        &output,
        "status 1\n--- stdout\n--- stderr\nerror: tracing this host needs root: run `sudo kubectl-knark trace --local`\n",
    );
}

#[test]
fn a_missing_tracer_is_named() {
    let output = trace(&[]).env("KNARK_TRACER", "/nonexistent/knark-tracer").output().unwrap();
    let want = "error: starting the tracer /nonexistent/knark-tracer: No such file or directory (os error 2)\n";
    check(&output, &format!("status 1\n--- stdout\n--- stderr\n{want}"));
}

#[test]
fn the_dashboard_shows_what_happens_and_stays_until_it_is_left() {
    let mut shell = Shell::new("cat /etc/passwd > /dev/null");
    let record = shell.path("rec.knark");
    let arguments = [&shell.pid(), "--on", "exec", "-o", "tui", "--record", &record];
    let mut console = Console::start(&trace(&arguments), 24, 100);
    console.wait_for(&["live · 0 lost", "/bin/true tick-"]);
    console.type_keys(" ");
    console.wait_for(&["paused: "]);
    shell.go();
    console.wait_until("many events wait", |screen| !screen.contents().contains("paused: 0 wait"));
    console.type_keys(" ");
    console.wait_for(&["cat /etc/passwd"]);
    console.type_keys("q");
    console.wait_until("the summary", |screen| !screen.alternate_screen() && screen.contents().contains(" 0 lost on "));
    assert_eq!(console.wait().0, 0);
    assert!(console.is_cooked());
    assert!(Path::new(&record).exists());

    let mut console = Console::start(&trace(&["--on", "exec", "-o", "tui"]), 24, 100);
    console.wait_for(&["live · 0 lost"]);
    console.hang_up();
    console.wait();

    let mut console = Console::start(&trace(&["--for", "1s", "--comm", "no-such-process", "-o", "tui"]), 24, 100);
    console.wait_for(&["ended · 0 lost"]);
    console.type_keys("q");
    console.wait_until("the summary", |screen| !screen.alternate_screen() && screen.contents().contains("0 events shown"));
    assert_eq!(console.wait().0, 0);
}
