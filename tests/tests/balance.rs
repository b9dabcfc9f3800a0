//! The balance adds up: a load makes a known number of events as fast as it can, and each is shown or counted as lost.
#![expect(clippy::unwrap_used, reason = "a test has no better way to end")]

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use knark_tests::{
    cgroups,
    program::{plugin, seen, tracer},
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// A trace of what the load does, with its probes attached. What it prints is read all the time: a reader that waits would
/// be a reason for loss.
struct Trace {
    child: Child,
    lines: mpsc::Receiver<Value>,
    before: u64,
    folder: tempfile::TempDir,
}

impl Trace {
    fn start(args: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = plugin();
        command.args(["trace", "--local", "-o", "json"]).args(args).env("KNARK_TRACER", tracer());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in stdout.lines() {
                let _ = sender.send(serde_json::from_str(&line.unwrap()).unwrap());
            }
        });
        // Nothing says from outside that the probes are there but the first event; the load stops as it comes.
        let ready = folder.path().join("ready");
        std::fs::write(&ready, "").unwrap();
        let until = Instant::now() + Duration::from_mins(1);
        let mut before = 0;
        while before == 0 {
            assert!(load("open", 1, ready.to_str().unwrap()).status().unwrap().success());
            while lines.recv_timeout(Duration::from_millis(100)).is_ok() {
                before += 1;
            }
            assert!(Instant::now() < until && child.try_wait().unwrap().is_none(), "no event");
        }
        Self { child, lines, before, folder }
    }

    fn file(&self, name: &str) -> String {
        let path = self.folder.path().join(name);
        std::fs::write(&path, "").unwrap();
        path.canonicalize().unwrap().to_str().unwrap().to_owned()
    }

    /// Ends it as Ctrl-C does; the events since the start and the sums, which must agree with each other and the status.
    fn end(self) -> (Vec<Value>, Value) {
        kill_process(Pid::from_child(&self.child), Signal::INT).unwrap();
        let mut lines: Vec<Value> = self.lines.iter().collect();
        let output = self.child.wait_with_output().unwrap();
        let last = lines.pop().unwrap();
        assert_eq!(last["type"], "summary", "{}", seen(&output));
        let (sums, node) = (&last["summary"], &last["summary"]["nodes"][0]);
        let number = |value: &Value| value.as_u64().unwrap();
        let lost = number(&sums["lost"]);
        let aggregated = node["aggregated"].as_u64().unwrap_or(0);
        assert_eq!(number(&node["seen"]), number(&node["shown"]) + aggregated + number(&node["filtered"]) + lost, "{sums}");
        assert_eq!(number(&sums["shown"]), self.before + lines.len() as u64, "{sums}");
        assert_eq!(output.status.code(), Some(if lost > 0 { 3 } else { 0 }), "{sums} {}", seen(&output));
        (lines, sums.clone())
    }
}

fn load(kind: &str, count: u32, path: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bench"));
    command.args(["load", kind, &count.to_string(), path]).stdout(Stdio::null());
    command
}

/// Makes this many opens; how many of them were shown, and how many events were lost.
fn opens(made: u32, ring: &str) -> (u64, u64) {
    let trace = Trace::start(&["--comm", "bench-load", "--on", "file", "--ring-buffer", ring]);
    let file = trace.file("counted");
    assert!(load("open", made, &file).status().unwrap().success());
    let (lines, sums) = trace.end();
    let shown = lines.iter().filter(|line| line["file"]["path"] == *file).count() as u64;
    (shown, sums["lost"].as_u64().unwrap())
}

#[test]
fn every_open_arrives_or_is_counted() {
    let (shown, lost) = opens(100_000, "8M");
    assert_eq!(shown + lost, 100_000, "{lost} lost");
}

#[test]
fn a_buffer_too_small_loses_exactly_what_it_says() {
    let (shown, lost) = opens(100_000, "4K");
    assert!(lost > 0, "a ring of 4 KiB held all of 100,000 events");
    assert_eq!(shown + lost, 100_000, "{lost} lost");
}

/// A control group that goes with the test.
struct Group(PathBuf);

impl Group {
    fn new(name: &str) -> Self {
        Self::within(&cgroups::mounted().unwrap(), &format!("knark-{name}-{}", std::process::id()))
    }

    fn within(parent: &Path, name: &str) -> Self {
        let folder = parent.join(name);
        std::fs::create_dir(&folder).unwrap();
        Self(folder)
    }

    /// Runs the load within.
    fn run(&self, kind: &str, count: u32, path: &str) -> Child {
        let mut inside = Command::new("/bin/sh");
        inside.args(["-c", "echo 0 > \"$0/cgroup.procs\" && exec \"$@\""]).arg(&self.0);
        let load = load(kind, count, path);
        inside.arg(load.get_program()).args(load.get_args()).stdout(Stdio::null()).spawn().unwrap()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // It may take the kernel a moment to see that the group is empty.
        let until = Instant::now() + Duration::from_secs(10);
        while std::fs::remove_dir(&self.0).is_err() && Instant::now() < until {
            thread::yield_now();
        }
    }
}

/// Events of this path, those in counts as well.
fn events(lines: &[Value], path: &str) -> u64 {
    let of = lines.iter().filter(|line| line["file"]["path"] == *path);
    of.map(|line| line["count"].as_u64().unwrap_or(1)).sum()
}

#[test]
fn a_storm_beyond_the_rate_limit_is_counted_for_who_made_it() {
    let groups = [Group::new("noisy"), Group::new("quiet")];
    let trace = Trace::start(&["--comm", "bench-load", "--on", "file", "--ring-buffer", "1M", "--rate-limit", "1000"]);
    let files = [trace.file("noisy"), trace.file("quiet")];
    let children = [groups[0].run("open", 100_000, &files[0]), groups[1].run("burst", 800, &files[1])];
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let (lines, sums) = trace.end();
    let limited = sums["nodes"][0]["lost"]["rate-limit"].as_u64().unwrap();
    // The other has made fewer in all than it can make at once.
    assert_eq!((events(&lines, &files[0]) + limited, events(&lines, &files[1])), (100_000, 800), "{sums}");
    let name = groups[0].0.file_name().unwrap().to_str().unwrap();
    assert_eq!(sums["nodes"][0]["limited"], serde_json::json!([{ "cgroup": format!("/{name}"), "lost": limited }]), "{sums}");
    assert_eq!(sums["lost"], limited, "{sums}");
}

#[test]
fn control_groups_within_a_container_have_no_rates_of_their_own() {
    // What is called so is a container.
    let id = format!("{:064x}", std::process::id());
    let container = Group::within(&cgroups::mounted().unwrap(), &id);
    let before = Group::within(&container.0, "before");
    let trace = Trace::start(&["--comm", "bench-load", "--on", "file", "--rate-limit", "1000"]);
    let file = trace.file("noisy");
    let after = Group::within(&container.0, "after");
    let innermost = Group::within(&after.0, "innermost");
    let children = [&before, &after, &innermost, &container].map(|group| group.run("open", 25_000, &file));
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let (lines, sums) = trace.end();
    let limited = sums["nodes"][0]["lost"]["rate-limit"].as_u64().unwrap();
    assert_eq!(events(&lines, &file) + limited, 100_000, "{sums}");
    assert_eq!(sums["nodes"][0]["limited"], serde_json::json!([{ "container_id": id, "lost": limited }]), "{sums}");
    // Twice as many in the first second, and what CPUs let through that came at once.
    let most = 1000.0 * (sums["seconds"].as_f64().unwrap() + 2.0) + 64.0;
    let shown = u32::try_from(events(&lines, &file)).unwrap();
    assert!(f64::from(shown) <= most, "more than {most}: {sums}");
    drop(innermost);
}

#[test]
fn repeats_are_shown_by_their_count() {
    let trace = Trace::start(&["--comm", "bench-load", "--on", "file", "--ring-buffer", "64K", "--aggregate"]);
    let file = trace.file("counted");
    for _ in 0..2 {
        assert!(load("open", 50_000, &file).status().unwrap().success());
    }
    let (lines, sums) = trace.end();
    assert_eq!((events(&lines, &file), &sums["lost"]), (100_000, &0.into()), "{sums}");
    assert!(lines.len() < 1_000, "{} lines", lines.len());
    let counted = lines.iter().find(|line| line["count"].as_u64().is_some_and(|count| count > 1)).unwrap();
    let time = |name: &str| counted[name].as_str().unwrap();
    assert!(time("first_time") < time("last_time") && time("last_time") <= time("time"), "{counted}");
}

#[test]
fn every_exec_arrives_or_is_counted() {
    for ring in ["8M", "16K"] {
        let trace = Trace::start(&["--pid", &std::process::id().to_string(), "--on", "exec", "--ring-buffer", ring]);
        assert!(load("exec", 500, "/").status().unwrap().success());
        let (lines, sums) = trace.end();
        // The load is itself an exec in this scope.
        let execs = lines.iter().filter(|line| line["type"] == "exec").count() as u64;
        assert_eq!(execs + sums["lost"].as_u64().unwrap(), 501, "{ring}: {sums}");
    }
}

/// The tracer that this trace started.
fn tracer_of(trace: &Trace) -> Pid {
    let id = trace.child.id();
    let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
    Pid::from_raw(children.split_whitespace().next().unwrap().parse().unwrap()).unwrap()
}

/// As on a machine that gives them no time: the kernel's buffer, or what waits for the plugin, runs over.
#[test]
fn what_happens_while_nobody_reads_arrives_or_is_counted() {
    for stops in [tracer_of, |trace: &Trace| Pid::from_child(&trace.child)] {
        let trace = Trace::start(&["--comm", "bench-load", "--on", "file", "--ring-buffer", "64K"]);
        let file = trace.file("counted");
        let stopped = stops(&trace);
        kill_process(stopped, Signal::STOP).unwrap();
        let made = load("open", 50_000, &file).status();
        kill_process(stopped, Signal::CONT).unwrap();
        assert!(made.unwrap().success());
        let is_tracer = stopped != Pid::from_child(&trace.child);
        let (lines, sums) = trace.end();
        let shown = lines.iter().filter(|line| line["file"]["path"] == *file).count() as u64;
        let lost = sums["lost"].as_u64().unwrap();
        assert_eq!(shown + lost, 50_000, "{sums}");
        assert!(lost > 0 || !is_tracer, "64 KiB held what happened while the tracer stood still: {sums}");
    }
}

#[test]
fn control_groups_that_come_and_go_take_no_event_with_them() {
    let parent = cgroups::mounted().unwrap().join(format!("knark-balance-{}", std::process::id()));
    std::fs::create_dir(&parent).unwrap();
    let trace = Trace::start(&["--pid", &std::process::id().to_string(), "--on", "exec"]);
    for number in 0..1_000 {
        let group = parent.join(number.to_string());
        std::fs::create_dir(&group).unwrap();
        let script = "echo 0 > \"$0/cgroup.procs\" && exec /bin/true";
        assert!(Command::new("/bin/sh").args(["-c", script]).arg(&group).status().unwrap().success());
        // It may take the kernel a moment to see that the group is empty.
        let until = Instant::now() + Duration::from_secs(10);
        while let Err(error) = std::fs::remove_dir(&group) {
            assert!(Instant::now() < until, "{}: {error}", group.display());
        }
    }
    std::fs::remove_dir(&parent).unwrap();
    let (lines, sums) = trace.end();
    let execs = lines.iter().filter(|line| line["type"] == "exec").count() as u64;
    assert_eq!(execs + sums["lost"].as_u64().unwrap(), 2_000, "{sums}");
}
