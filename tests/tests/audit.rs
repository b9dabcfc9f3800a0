//! Audit logs as a source of events, as a user meets them.
#![expect(clippy::unwrap_used, reason = "a test has no better way to end")]

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::mpsc::{Receiver, channel},
    time::Duration,
};

use knark_tests::{
    audit::line,
    program::{plugin, seen},
};
use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use serde_json::{Value, json};

/// Lines of a real API server of v1.34, and what they tell.
const LOG: &str = include_str!("../../specs/src/audit/tests/audit.log");
const REQUESTS: usize = 25;
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// The plugin where there is no cluster.
fn trace(args: &[&str]) -> Command {
    let mut command = plugin();
    command.arg("trace").args(args).env("KUBECONFIG", "/nonexistent/kubeconfig").stdin(Stdio::null());
    command
}

fn write(folder: &Path, name: &str, bytes: impl AsRef<[u8]>) -> String {
    let path = folder.join(name);
    fs::write(&path, bytes).unwrap();
    path.to_str().unwrap().to_owned()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    compress_to_vec(bytes, CompressionLevel::Fastest)
}

fn values(output: &Output) -> Vec<Value> {
    output
        .stdout
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect()
}

/// The events, and the summary's sums.
fn told(mut command: Command) -> (Vec<Value>, Value, Output) {
    let output = command.args(["-o", "json"]).output().unwrap();
    let mut events = values(&output);
    let summary = events.pop().unwrap_or_else(|| panic!("{}", seen(&output)));
    (events, summary["summary"].clone(), output)
}

fn paths(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["api"]["path"].as_str().unwrap()).collect()
}

#[test]
fn a_log_is_shown_without_a_cluster() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "audit.log", [line("/a", 1), line("/b", 2)].concat());
    let output = trace(&["--audit-log", "audit.log"]).current_dir(&folder).output().unwrap();
    let want = "\
TIME          DETAIL
03:04:01.000  alice get /a 200 after 0s
03:04:02.000  alice get /b 200 after 0s
";
    assert_eq!(String::from_utf8_lossy(&output.stdout), want, "{}", seen(&output));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.starts_with("2 events shown, 0 filtered, 0 lost on audit.log in "), "{said}");
}

#[test]
fn flags_choose_among_requests() {
    let folder = tempfile::tempdir().unwrap();
    let log = write(folder.path(), "audit.log", LOG);
    let (events, sums, output) = told(trace(&["--audit-log", &log, "--resource", "secrets", "--code", "200-299"]));
    let verbs: Vec<_> = events.iter().map(|event| event["api"]["verb"].as_str().unwrap()).collect();
    assert_eq!(verbs, ["create", "get"], "{}", seen(&output));
    assert_eq!((&sums["shown"], &sums["filtered"]), (&json!(2), &json!(REQUESTS - 2)));
}

#[test]
fn plain_and_compressed_logs_are_told_by_their_content() {
    let folder = tempfile::tempdir().unwrap();
    let (first, rest) = LOG.split_at(LOG.len() / 2);
    // Each may be several streams, one after another, and those may be cut anywhere.
    let gzips = [gzip(first.as_bytes()), gzip(rest.as_bytes())].concat();
    let zstds = [zstd(first.as_bytes()), zstd(rest.as_bytes())].concat();
    let mut all: Vec<Vec<Value>> = Vec::new();
    for bytes in [LOG.as_bytes().to_vec(), gzips.clone(), zstds.clone()] {
        let path = write(folder.path(), "log", &bytes);
        let (events, sums, output) = told(trace(&["--audit-log", &path]));
        assert_eq!((events.len(), &sums["lost"]), (REQUESTS, &json!(0)), "{}", seen(&output));
        all.push(events);
        let mut piped = trace(&["--audit-log", "-"]);
        piped.stdin(File::open(&path).unwrap());
        let (mut events, _, _) = told(piped);
        for event in &mut events {
            assert_eq!(event["node"]["name"], "standard input");
            event["node"]["name"] = json!(path);
        }
        all.push(events);
    }
    assert!(all.iter().all(|events| *events == all[0]));
}

#[test]
fn a_folder_is_read_in_the_order_in_which_it_was_written() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "audit.log", line("/4", 4));
    write(folder.path(), "audit-2026-01-02T03-04-03.500.log", line("/3", 3));
    write(folder.path(), "audit-2026-01-02T03-04-01.500.log.gz", gzip(line("/1", 1).as_bytes()));
    write(folder.path(), "audit-2026-01-02T03-04-02.500.log.zst", zstd(line("/2", 2).as_bytes()));
    write(folder.path(), "policy.yaml", "kind: Policy");
    let (events, sums, output) = told(trace(&["--audit-log", folder.path().to_str().unwrap()]));
    assert_eq!(paths(&events), ["/1", "/2", "/3", "/4"], "{}", seen(&output));
    assert_eq!(sums["nodes"][0]["node"], folder.path().join("audit.log").to_str().unwrap());
}

#[test]
fn logs_of_several_servers_come_in_one_order_and_each_event_once() {
    let folder = tempfile::tempdir().unwrap();
    let lines = |from: usize| {
        (from..3000).step_by(2).map(|at| line(&format!("/{at:04}"), u32::try_from(at).unwrap() / 60)).collect::<String>()
    };
    let one = write(folder.path(), "one", lines(0));
    let two = write(folder.path(), "two", gzip(lines(1).as_bytes()));
    let (events, sums, output) = told(trace(&["--audit-log", &one, "--audit-log", &two, "--audit-log", &one]));
    assert_eq!(events.len(), 3000, "{}", seen(&output));
    assert!(events.is_sorted_by_key(|event| event["time"].as_str().unwrap()));
    assert_eq!((&sums["filtered"], &sums["lost"]), (&json!(1500), &json!(0)));
    assert!(String::from_utf8_lossy(&output.stderr).contains("1500 events were there before"), "{}", seen(&output));
}

#[test]
fn what_webhooks_are_sent_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let items: Vec<Value> = LOG.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let list = json!({"kind": "EventList", "apiVersion": "audit.k8s.io/v1", "metadata": {}, "items": items});
    for text in [list.to_string(), serde_json::to_string_pretty(&list).unwrap()] {
        let path = write(folder.path(), "list", text);
        let (events, sums, output) = told(trace(&["--audit-log", &path]));
        assert_eq!((events.len(), &sums["lost"]), (REQUESTS, &json!(0)), "{}", seen(&output));
    }
}

#[test]
fn what_is_damaged_is_counted_and_said() {
    let folder = tempfile::tempdir().unwrap();
    let cut = line("/cut", 5);
    let text =
        [&line("/1", 1), "no JSON\n", &line("/2", 2), &line("/1", 1), "{\"kind\":\"Policy\"}\n", &cut[..cut.len() / 2]].concat();
    let path = write(folder.path(), "log", text);
    let (events, sums, output) = told(trace(&["--audit-log", &path]));
    assert_eq!(output.status.code(), Some(3), "{}", seen(&output));
    assert_eq!(paths(&events), ["/1", "/2"]);
    let want = json!({"node": path, "seen": 6, "shown": 2, "filtered": 1, "lost": {"unreadable": 3}});
    assert_eq!(sums["nodes"][0], want);
    let said = String::from_utf8_lossy(&output.stderr);
    for mark in ["line 2: this is not JSON", "1 event was there before", "3 events were not to be read"] {
        assert!(said.contains(mark), "{mark}: {said}");
    }
    let whole = gzip(LOG.repeat(20).as_bytes());
    let path = write(folder.path(), "log", &whole[..whole.len() / 2]);
    let (events, sums, output) = told(trace(&["--audit-log", &path]));
    assert_eq!(output.status.code(), Some(3), "{}", seen(&output));
    assert!(!events.is_empty() && sums["lost"].as_u64() > Some(0));
    assert!(String::from_utf8_lossy(&output.stderr).contains("could not be read to its end"), "{}", seen(&output));
}

#[test]
fn a_policy_decides_what_is_shown_and_the_exit_status() {
    let folder = tempfile::tempdir().unwrap();
    let log = write(folder.path(), "audit.log", LOG);
    let policy = "\
apiVersion: knark.dev/v1alpha1
kind: TracePolicy
metadata: {name: secrets}
spec: {rules: [{name: read, severity: high, api: {verbs: [get, list], resources: [secrets], codes: [\"200\"]}}]}
";
    let policy = write(folder.path(), "policy.yaml", policy);
    let (events, sums, output) = told(trace(&["--audit-log", &log, "-f", &policy, "--fail-on-match"]));
    assert_eq!(output.status.code(), Some(4), "{}", seen(&output));
    assert_eq!(events.len(), 1, "{}", seen(&output));
    assert_eq!((&events[0]["api"]["name"], &events[0]["matches"][0]["rule"]), (&json!("db"), &json!("read")));
    assert_eq!((&sums["matches"]["high"], &sums["filtered"]), (&json!(1), &json!(REQUESTS - 1)));
}

#[test]
fn a_request_that_lasts_matches_a_rule_once_wherever_it_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = "/api/v1/namespaces/shop/pods/web/attach";
    let from = line(path, 1).replace("ResponseComplete", "ResponseStarted");
    // It came in when the other line says.
    let mut to: Value = serde_json::from_str(&line(path, 2)).unwrap();
    to["requestReceivedTimestamp"] = "2026-01-02T03:04:01.000000Z".into();
    let to = to.to_string();
    let log = write(folder.path(), "audit.log", from + &to);
    let policy = "\
apiVersion: knark.dev/v1alpha1
kind: TracePolicy
metadata: {name: sessions}
spec: {rules: [{name: any, severity: high, api: {users: [alice]}}, {name: ended, api: {users: [alice]}, where: has(api.latency_ns)}]}
";
    let policy = write(folder.path(), "policy.yaml", policy);
    let record = folder.path().join("rec.knark");
    let (events, sums, output) = told({
        let mut command = trace(&["--audit-log", &log, "-f", &policy, "--record"]);
        command.arg(&record);
        command
    });
    let rules =
        |event: &Value| event["matches"].as_array().unwrap().iter().map(|found| found["rule"].clone()).collect::<Vec<_>>();
    assert_eq!(events.iter().map(rules).collect::<Vec<_>>(), [["any"], ["ended"]], "{}", seen(&output));
    assert_eq!(sums["matches"], json!({"high": 1, "medium": 1}));
    let mut replay = plugin();
    replay.arg("replay").arg(&record).args(["-f", &policy]);
    assert_eq!(told(replay).0, events);
    let tested = plugin().args(["policy", "test", &policy, "--explain", "--events"]).arg(&record).output().unwrap();
    let (shown, said) = (String::from_utf8_lossy(&tested.stdout), String::from_utf8_lossy(&tested.stderr));
    assert!(shown.contains("no   sessions/any: the request matched it when it began"), "{}", seen(&tested));
    assert!(said.ends_with("2 matches in 2 events\n"), "{}", seen(&tested));
}

#[test]
fn a_log_that_is_given_as_events_is_told_where_to_go() {
    let folder = tempfile::tempdir().unwrap();
    let log = write(folder.path(), "audit.log", LOG);
    let tested = plugin().args(["policy", "test", "--pack", "sensitive-api", "--events", &log]).output().unwrap();
    assert_eq!(tested.status.code(), Some(1), "{}", seen(&tested));
    assert!(String::from_utf8_lossy(&tested.stderr).contains("trace --audit-log FILE -f POLICY"), "{}", seen(&tested));
}

#[test]
fn rules_that_an_audit_log_can_not_match_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let log = write(folder.path(), "audit.log", LOG);
    let output = trace(&["--audit-log", &log, "--pack", "credentials"]).output().unwrap();
    assert!(output.status.success(), "{}", seen(&output));
    assert!(String::from_utf8_lossy(&output.stderr).contains("rules about file never match"), "{}", seen(&output));
}

#[test]
fn a_recording_of_it_shows_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let (log, other) = (write(folder.path(), "audit.log", LOG), write(folder.path(), "other.log", line("/other", 5)));
    let record = folder.path().join("rec.knark");
    for logs in [vec!["--audit-log", &log], vec!["--audit-log", &log, "--audit-log", &other]] {
        let (events, sums, output) = told({
            let mut command = trace(&logs);
            command.arg("--record").arg(&record);
            command
        });
        assert!(output.status.success(), "{}", seen(&output));
        let mut command = plugin();
        command.arg("replay").arg(&record);
        let (replayed, again, _) = told(command);
        assert_eq!((replayed, &again["nodes"]), (events, &sums["nodes"]));
        fs::remove_file(&record).unwrap();
    }
}

#[test]
fn bodies_come_where_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let log = write(folder.path(), "audit.log", LOG);
    let (events, _, _) = told(trace(&["--audit-log", &log]));
    assert!(events.iter().all(|event| event["api"].get("request_body").is_none()));
    let (events, _, output) = told(trace(&["--audit-log", &log, "--bodies"]));
    let patch = events.iter().find(|event| event["api"]["verb"] == "patch").unwrap();
    assert_eq!(patch["api"]["request_body"]["json"]["data"], json!({"x": "y"}), "{}", seen(&output));
    assert_eq!(patch["api"]["response_body"]["json"]["data"], json!({"a": "b", "x": "y"}));
}

#[test]
fn what_is_secret_in_bodies_comes_where_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let mut event: Value = serde_json::from_str(&line("/api/v1/namespaces/prod/secrets", 1)).unwrap();
    event["verb"] = json!("create");
    event["objectRef"] = json!({"resource": "secrets", "namespace": "prod", "name": "db", "apiVersion": "v1"});
    event["requestObject"] = json!({"kind": "Secret", "metadata": {"name": "db"}, "stringData": {"password": "correct-horse"}});
    event["responseObject"] = json!({"kind": "Secret", "data": {"password": "Y29ycmVjdC1ob3JzZQ=="}});
    let log = write(folder.path(), "audit.log", event.to_string());
    let record = folder.path().join("rec.knark");
    let (events, _, output) = told({
        let mut command = trace(&["--audit-log", &log, "--bodies"]);
        command.arg("--record").arg(&record);
        command
    });
    let body = &events[0]["api"]["request_body"]["json"];
    assert_eq!(
        (&body["metadata"]["name"], &body["stringData"]["password"]),
        (&json!("db"), &json!("redacted")),
        "{}",
        seen(&output)
    );
    let recorded = fs::read(&record).unwrap();
    for secret in ["correct-horse", "Y29ycmVjdC1ob3JzZQ=="] {
        assert!(!seen(&output).contains(secret), "{}", seen(&output));
        assert!(!recorded.windows(secret.len()).any(|bytes| bytes == secret.as_bytes()));
    }
    let (events, _, output) = told(trace(&["--audit-log", &log, "--bodies", "--show-secrets"]));
    for (body, place) in [("request_body", "stringData"), ("response_body", "data")] {
        let field = ["requestObject", "responseObject"][usize::from(place == "data")];
        assert_eq!(events[0]["api"][body]["json"][place], event[field][place], "{}", seen(&output));
    }
}

#[test]
fn what_is_older_can_be_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let log = write(folder.path(), "audit.log", line("/old", 1));
    let (events, sums, _) = told(trace(&["--audit-log", &log, "--since", "1s"]));
    assert_eq!((events.len(), &sums["filtered"]), (0, &json!(1)));
    let (events, _, _) = told(trace(&["--audit-log", &log, "--since", "1000years"]));
    assert_eq!(paths(&events), ["/old"]);
}

#[test]
fn wrong_usage_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let log = write(folder.path(), "audit.log", LOG);
    let empty = folder.path().join("empty");
    fs::create_dir(&empty).unwrap();
    for (args, status, mark) in [
        (&["--audit-log", &log, "--on", "exec"][..], 2, "--on leaves out api"),
        (&["--follow"], 2, "--audit-log"),
        (&["--audit-log", &log, "--show-secrets"], 2, "--bodies"),
        (&["--audit-log", "-", "--audit-log", "-"], 2, "only once"),
        (&["--audit-log", "-", "-f", "-"], 2, "standard input"),
        (&["--audit-log", "/nonexistent/audit.log"], 1, "reading the audit log /nonexistent/audit.log"),
        (&["--audit-log", empty.to_str().unwrap()], 2, "holds no audit logs"),
    ] {
        let output = trace(args).output().unwrap();
        assert_eq!(output.status.code(), Some(status), "{args:?}: {}", seen(&output));
        assert!(String::from_utf8_lossy(&output.stderr).contains(mark), "{args:?}: {}", seen(&output));
    }
}

/// A trace that goes on, and the paths that it tells of.
struct Following {
    child: Child,
    paths: Receiver<String>,
}

impl Following {
    fn start(mut command: Command) -> Self {
        let mut child = command.args(["--follow", "-o", "json"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (sender, paths) = channel();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let event: Value = serde_json::from_str(&line).unwrap();
                let path = event["api"]["path"].as_str().map_or_else(|| event["summary"].to_string(), str::to_owned);
                if sender.send(path).is_err() {
                    break;
                }
            }
        });
        Self { child, paths }
    }

    #[track_caller]
    fn expect(&self, path: &str) {
        assert_eq!(self.paths.recv_timeout(PATIENCE).as_deref(), Ok(path));
    }

    /// Ends it as Ctrl-C does; the summary and standard error.
    fn end(self) -> (Value, String) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        let output = self.child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", seen(&output));
        let summary = self.paths.recv_timeout(PATIENCE).unwrap();
        (serde_json::from_str(&summary).unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

fn append(path: &Path, text: &str) {
    File::options().append(true).create(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
}

fn log_in(folder: &tempfile::TempDir) -> (PathBuf, String) {
    let path = folder.path().join("audit.log");
    let text = path.to_str().unwrap().to_owned();
    (path, text)
}

#[test]
fn a_log_is_followed_over_rotation_and_truncation() {
    let folder = tempfile::tempdir().unwrap();
    let (path, name) = log_in(&folder);
    let earlier = "audit-2026-01-02T03-03-00.000.log";
    write(folder.path(), earlier, line("/earlier", 0));
    append(&path, &line("/1", 1));
    let following = Following::start(trace(&["--audit-log", &name]));
    following.expect("/1");
    // A line may come in parts.
    let second = line("/2", 2);
    append(&path, &second[..40]);
    append(&path, &[&second[40..], &line("/3", 3)].concat());
    following.expect("/2");
    following.expect("/3");
    // As the API server does it: what is written to the old name's file until then is still read.
    let full = folder.path().join("audit-2026-01-02T03-04-05.000.log");
    fs::rename(&path, &full).unwrap();
    append(&full, &line("/4", 4));
    following.expect("/4");
    append(&full, &line("/5", 5));
    append(&path, &line("/6", 6));
    following.expect("/5");
    following.expect("/6");
    // As copytruncate does it: the file is shorter than before, whenever that is seen.
    append(&path, &line("/7", 7));
    following.expect("/7");
    File::create(&path).unwrap();
    append(&path, &line("/8", 8));
    following.expect("/8");
    let (sums, said) = following.end();
    assert_eq!((&sums["shown"], &sums["lost"]), (&json!(8), &json!(0)), "{said}");
    assert!(said.contains("was cut to a smaller size"), "{said}");
}

#[test]
fn files_that_were_filled_meanwhile_are_read_as_well() {
    let folder = tempfile::tempdir().unwrap();
    let (path, name) = log_in(&folder);
    append(&path, &line("/1", 1));
    let following = Following::start(trace(&["--audit-log", &name]));
    following.expect("/1");
    // All of it at once, as far as the trace can tell: it sees the log's name only when the last file has it.
    fs::rename(&path, folder.path().join("audit-2026-01-02T03-04-01.000.log")).unwrap();
    write(folder.path(), "audit-2026-01-02T03-04-02.000.log.gz", gzip(line("/2", 2).as_bytes()));
    write(folder.path(), "audit-2026-01-02T03-04-03.000.log", line("/3", 3));
    append(&path, &line("/4", 4));
    for path in ["/2", "/3", "/4"] {
        following.expect(path);
    }
    let (sums, said) = following.end();
    assert_eq!((&sums["shown"], &sums["lost"]), (&json!(4), &json!(0)), "{said}");
}

#[test]
fn a_compressed_log_is_followed_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let log = write(folder.path(), "x.log.gz", gzip(line("/1", 1).as_bytes()));
    for name in [log.as_str(), folder.path().to_str().unwrap()] {
        let (events, sums, output) = told(trace(&["--audit-log", name, "--follow"]));
        assert_eq!(paths(&events), ["/1"], "{}", seen(&output));
        assert_eq!((&sums["filtered"], &sums["lost"]), (&json!(0), &json!(0)), "{}", seen(&output));
    }
}

#[test]
fn standard_input_is_followed_until_it_ends() {
    let mut following = Following::start({
        let mut command = trace(&["--audit-log", "-"]);
        command.stdin(Stdio::piped());
        command
    });
    let mut input = following.child.stdin.take().unwrap();
    for path in ["/1", "/2"] {
        input.write_all(line(path, 1).as_bytes()).unwrap();
        following.expect(path);
    }
    drop(input);
    let summary: Value = serde_json::from_str(&following.paths.recv_timeout(PATIENCE).unwrap()).unwrap();
    assert_eq!(summary["shown"], 2);
    assert!(following.child.wait().unwrap().success());
}

#[test]
fn a_fifo_that_nobody_writes_to_keeps_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU).unwrap();
    let log = write(folder.path(), "audit.log", line("/1", 1));
    let following = Following::start(trace(&["--audit-log", fifo.to_str().unwrap(), "--audit-log", &log]));
    // What is behind is waited for only so long.
    following.expect("/1");
    let (sums, said) = following.end();
    assert_eq!((&sums["shown"], &sums["lost"]), (&json!(1), &json!(0)), "{said}");
}

#[test]
fn an_input_that_never_ends_keeps_nobody() {
    let mut following = Following::start({
        let mut command = trace(&["--audit-log", "-"]);
        command.stdin(Stdio::piped());
        command
    });
    let mut input = following.child.stdin.take().unwrap();
    input.write_all(line("/1", 1).as_bytes()).unwrap();
    following.expect("/1");
    let (sums, said) = following.end();
    assert_eq!(sums["shown"], 1, "{said}");
    drop(input);
}
