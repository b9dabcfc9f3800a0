//! A trace under way, watched by a test.

use std::{
    io::{BufRead as _, BufReader, Read},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::PATIENCE;

/// The plugin, running.
pub struct Trace {
    child: Child,
    stdout: Lines,
    stderr: Lines,
}

impl Drop for Trace {
    fn drop(&mut self) {
        // A test that failed: let the plugin remove its pods.
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_secs(20) && self.child.try_wait().is_ok_and(|status| status.is_none()) {
                thread::sleep(Duration::from_millis(50));
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

impl Trace {
    /// Starts it.
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the plugin starts");
        let stdout = Lines::read(child.stdout.take().expect("a pipe"));
        let stderr = Lines::read(child.stderr.take().expect("a pipe"));
        Self { child, stdout, stderr }
    }

    /// The first line of stdout that satisfies; waits for it.
    #[track_caller]
    pub fn line(&self, what: &str, found: impl Fn(&str) -> bool) -> String {
        self.stdout.wait(&found).unwrap_or_else(|| panic!("no {what} came\n{}", self.words()))
    }

    /// The first event of `-o json` that satisfies; waits for it.
    #[track_caller]
    pub fn event(&self, what: &str, found: impl Fn(&Value) -> bool) -> Value {
        let line = self.line(what, |line| serde_json::from_str(line).is_ok_and(|event| found(&event)));
        serde_json::from_str(&line).expect("it was parsed before")
    }

    /// Waits for a line of stderr that contains the text.
    #[track_caller]
    pub fn says(&self, text: &str) -> String {
        self.stderr.wait(|line| line.contains(text)).unwrap_or_else(|| panic!("{text:?} wasn't said\n{}", self.words()))
    }

    /// All events so far.
    pub fn events(&self) -> Vec<Value> {
        self.stdout.all().iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The numbers of the `tick-N` that were seen, in order.
    pub fn ticks(&self) -> Vec<u64> {
        self.events().iter().filter_map(tick).collect()
    }

    /// Waits for the first tick, which shows that the trace streams; its number.
    #[track_caller]
    pub fn first_tick(&self) -> u64 {
        tick(&self.event("tick", |event| tick(event).is_some())).unwrap_or_default()
    }

    /// Waits for a tick beyond this one.
    #[track_caller]
    pub fn tick_after(&self, number: u64) {
        self.event(&format!("tick after {number}"), |event| tick(event).is_some_and(|n| n > number));
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("the plugin still runs");
    }

    /// Waits for its end.
    #[track_caller]
    pub fn end(&mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                self.stdout.finish();
                self.stderr.finish();
                return status;
            }
            assert!(begun.elapsed() < PATIENCE, "the plugin doesn't end\n{}", self.words());
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Interrupts it as Ctrl-C does, and waits for its end; its exit status.
    #[track_caller]
    pub fn interrupt(&mut self) -> Option<i32> {
        self.signal(Signal::INT);
        self.end().code()
    }

    /// What it has said on both streams, for messages.
    pub fn words(&self) -> String {
        format!("--- stdout\n{}\n--- stderr\n{}", self.stdout.all().join("\n"), self.stderr.all().join("\n"))
    }

    /// All of stderr so far.
    pub fn stderr(&self) -> String {
        self.stderr.all().join("\n")
    }
}

/// N of an execution of `/bin/true tick-N`.
fn tick(event: &Value) -> Option<u64> {
    if event["type"] != "exec" {
        return None;
    }
    event["process"]["args"].as_array()?.iter().find_map(|arg| arg.as_str()?.strip_prefix("tick-")?.parse().ok())
}

/// The lines of a pipe as they come.
struct Lines {
    shared: Arc<(Mutex<State>, Condvar)>,
    reader: Option<thread::JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    lines: Vec<String>,
    ended: bool,
}

impl Lines {
    fn read(pipe: impl Read + Send + 'static) -> Self {
        let shared = Arc::new((Mutex::new(State::default()), Condvar::new()));
        let writer = Arc::clone(&shared);
        let reader = thread::spawn(move || {
            let mut pipe = BufReader::new(pipe);
            let mut line = Vec::new();
            while pipe.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                writer.0.lock().unwrap_or_else(PoisonError::into_inner).lines.push(text);
                writer.1.notify_all();
                line.clear();
            }
            writer.0.lock().unwrap_or_else(PoisonError::into_inner).ended = true;
            writer.1.notify_all();
        });
        Self { shared, reader: Some(reader) }
    }

    fn wait(&self, found: impl Fn(&str) -> bool) -> Option<String> {
        let begun = Instant::now();
        let (state, news) = &*self.shared;
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut looked_at = 0;
        loop {
            if let Some(line) = state.lines[looked_at..].iter().find(|line| found(line)) {
                return Some(line.clone());
            }
            looked_at = state.lines.len();
            let left = PATIENCE.checked_sub(begun.elapsed())?;
            if state.ended {
                return None;
            }
            state = news.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn all(&self) -> Vec<String> {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner).lines.clone()
    }

    fn finish(&mut self) {
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}
