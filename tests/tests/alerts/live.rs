//! Alerts while a trace runs, of this machine, as root.

use std::{
    fs,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use knark_tests::{
    cluster::Trace,
    program::{plugin, tracer},
};
use rustix::process::Signal;
use serde_json::Value;

use super::{POLICY, lines, server::Server};

/// A trace of this machine with the policy and these flags.
fn trace(folder: &tempfile::TempDir, flags: &[&str]) -> Trace {
    let policy = folder.path().join("policy.yaml");
    fs::write(&policy, POLICY).unwrap();
    let mut command = plugin();
    command.env("KNARK_TRACER", tracer()).env("XDG_STATE_HOME", folder.path().join("state"));
    command.args(["trace", "--local", "-o", "json", "-f", policy.to_str().unwrap(), "--on", "exec"]).args(flags);
    Trace::start(&mut command)
}

/// Runs `/bin/true WORD` until something is there.
fn run_until(word: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_mins(1);
    while !done() {
        assert!(Instant::now() < deadline, "{word} in vain");
        assert!(Command::new("/bin/true").arg(word).status().unwrap().success());
        thread::sleep(Duration::from_millis(100));
    }
}

fn says(event: &Value, word: &str) -> bool {
    event["process"]["args"][1] == word
}

#[test]
fn what_a_program_does_that_is_told_is_told_to_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let script = "while%20read%20-r%20line;%20do%20/bin/true%20of-the-hook;%20printf%20%27%25s%5Cn%27%20%22$line%22%20%3E%3E%20%22$0%22;%20done";
    let exec = format!("exec:/bin/sh#arg=-c&arg={script}&arg={}", out.display());
    let mut trace = trace(&folder, &["--alert-to", &exec, "--alert-cooldown", "0s"]);
    let told = || lines(&fs::read(&out).unwrap_or_default());
    run_until("of-the-test", || told().iter().any(|alert| says(alert, "of-the-test")));
    trace.event("the hook's own", |event| says(event, "of-the-hook"));
    assert_eq!(trace.interrupt(), Some(0), "{}", trace.words());
    let told = told();
    assert!(told.iter().all(|alert| !says(alert, "of-the-hook")), "{told:?}");
    assert!(told.iter().any(|alert| says(alert, "of-the-test")), "{told:?}");
}

#[test]
fn a_receiver_that_is_gone_does_not_hold_up_a_trace() {
    let folder = tempfile::tempdir().unwrap();
    let webhook = format!("webhook:http://{}", Server::free_address());
    let mut trace = trace(&folder, &["--alert-to", &webhook, "--alert-cooldown", "0s", "--alert-drain", "1h"]);
    run_until("before", || trace.events().iter().any(|event| says(event, "before")));
    trace.says("it is tried again, and alerts wait until then");
    run_until("after", || trace.events().iter().any(|event| says(event, "after")));
    // The first signal ends the trace, the next one the wait for receivers.
    trace.signal(Signal::INT);
    trace.line("a summary", |line| line.contains("\"summary\""));
    trace.signal(Signal::INT);
    assert_eq!(trace.end().code(), Some(3), "{}", trace.words());
    trace.says(" kept in ");
}
