//! Traces of requests that come and go while an API server is under load, compared with its audit log.

use std::{
    collections::HashMap,
    fs,
    io::{BufRead as _, BufReader},
    process::{Child, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::{
    api_server::ApiServer,
    cluster::PATIENCE,
    program::{plugin, tracer},
};

/// What is under way when a trace is told to end is not held against it: so long before that all must be shown.
const MARGIN: Duration = Duration::from_millis(200);
const POLL: Duration = Duration::from_millis(20);

/// A trace of an API server's requests on this machine.
pub struct Session {
    child: Child,
    /// The API server's.
    process: u32,
    output: Arc<Mutex<Output>>,
    /// None when it has ended.
    reader: Option<JoinHandle<()>>,
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a trace has written so far. It is read when the trace has ended: that takes longer than tracing does.
#[derive(Debug, Default)]
struct Output {
    lines: Vec<u8>,
    complete: usize,
}

/// What a trace has shown.
#[derive(Debug, Default)]
pub struct Shown {
    /// When the first request ended that was shown; what has been received since then is shown. As RFC 3339, like all times here.
    pub from: Option<String>,
    /// When it was told to end, but for what is under way.
    pub to: String,
    /// How often the end of a request was shown, by audit id.
    pub complete: HashMap<String, u32>,
    /// What the trace itself says at its end.
    pub summary: Value,
}

/// What a trace showed beside what the audit log says of the same time.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Compared {
    /// Requests by the audit log.
    pub made: u64,
    /// Those that were shown not even once.
    pub missing: u64,
    /// Those that were shown more than once.
    pub twice: u64,
    /// What the trace itself counted as lost.
    pub lost: u64,
}

impl Session {
    /// Begins; `flags` are those of `trace` besides.
    pub fn start(server: &ApiServer, flags: &[&str]) -> Result<Self> {
        let mut command = plugin();
        command.env("KNARK_TRACER", tracer()).args(["trace", "--local", "--on", "api", "-o", "json"]).args(flags);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let stdout = child.stdout.take().context("a pipe")?;
        let output = Arc::new(Mutex::new(Output::default()));
        let (writer, process) = (Arc::clone(&output), format!("\"pid\":{},", server.pid()));
        let has = |line: &[u8], text: &str| line.windows(text.len()).any(|part| part == text.as_bytes());
        let reader = thread::spawn(move || {
            for line in BufReader::with_capacity(1 << 20, stdout).split(b'\n').map_while(Result::ok) {
                let mut output = writer.lock().unwrap_or_else(PoisonError::into_inner);
                output.complete += usize::from(has(&line, r#""stage":"complete""#) && has(&line, &process));
                output.lines.extend(line);
                output.lines.push(b'\n');
            }
        });
        Ok(Self { child, process: server.pid(), output, reader: Some(reader) })
    }

    /// The plugin's process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How many requests have been shown.
    pub fn shown(&self) -> usize {
        self.output.lock().unwrap_or_else(PoisonError::into_inner).complete
    }

    /// Ends it as Ctrl-C does; what it has shown.
    pub fn end(mut self) -> Result<Shown> {
        let to = Timestamp::try_from(SystemTime::now() - MARGIN)?;
        kill_process(Pid::from_child(&self.child), Signal::INT)?;
        let ended = self.child.wait()?;
        let read = self.reader.take().is_some_and(|reader| reader.join().is_ok());
        ensure!(read, "what the trace shows could not be read");
        // Where something was lost, the trace says so by its status as well; what is made of that is for the caller.
        let mut shown = Shown::default();
        for line in self.output.lock().unwrap_or_else(PoisonError::into_inner).lines.split(|byte| *byte == b'\n') {
            if let Ok(event) = serde_json::from_slice::<Value>(line) {
                shown.take(&event, self.process);
            }
        }
        ensure!(ended.success() || shown.summary["lost"].as_u64() > Some(0), "the trace failed: {ended}, {}", shown.summary);
        shown.to = format!("{to:.6}");
        Ok(shown)
    }
}

impl Shown {
    fn take(&mut self, event: &Value, pid: u32) {
        if event["type"] == "summary" {
            self.summary = event["summary"].clone();
        }
        let api = &event["api"];
        if event["process"]["pid"] != pid || api["stage"] != "complete" {
            return;
        }
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        self.from.get_or_insert_with(|| text(&event["time"]));
        *self.complete.entry(text(&api["audit_id"])).or_default() += 1;
    }
}

/// Holds what was shown against the server's audit log.
pub fn compare(server: &ApiServer, sessions: &[Shown]) -> Result<Vec<Compared>> {
    let mut compared: Vec<Compared> = sessions
        .iter()
        .map(|shown| Compared { lost: shown.summary["lost"].as_u64().unwrap_or(u64::MAX), ..Compared::default() })
        .collect();
    let log = BufReader::new(fs::File::open(server.audit_log()).context("opening the audit log")?);
    for line in log.split(b'\n') {
        let Ok(line) = serde_json::from_slice::<Value>(&line?) else { continue };
        let unauthenticated = line["stage"] == "ResponseStarted" && line["responseStatus"]["code"] == 401;
        if !unauthenticated && line["stage"] != "ResponseComplete" {
            continue;
        }
        let text = |field: &str| line[field].as_str().unwrap_or_default();
        for (shown, compared) in sessions.iter().zip(&mut compared) {
            let received = shown.from.as_deref().is_some_and(|from| text("requestReceivedTimestamp") > from);
            if received && text("stageTimestamp") < shown.to.as_str() {
                let times = shown.complete.get(text("auditID")).copied().unwrap_or_default();
                compared.made += 1;
                compared.missing += u64::from(times == 0);
                compared.twice += u64::from(times > 1);
            }
        }
    }
    Ok(compared)
}

/// Traces again and again, each time until so many requests have been shown, until `over`.
pub fn attach_and_detach(server: &ApiServer, each: usize, over: impl Fn(usize) -> bool) -> Result<Vec<Shown>> {
    let mut sessions = Vec::new();
    while !over(sessions.len()) {
        let (session, begun) = (Session::start(server, &[])?, Instant::now());
        while session.shown() < each && !over(sessions.len()) {
            ensure!(session.shown() > 0 || begun.elapsed() < PATIENCE, "no request is shown");
            thread::sleep(POLL);
        }
        sessions.push(session.end()?);
    }
    Ok(sessions)
}
