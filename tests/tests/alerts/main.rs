//! Alerts to receivers, through the plugin and a recording that policies match.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test has no better way to end")]

mod alertmanager;
mod live;
mod network;
mod server;
mod syslog;

use std::{
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Output},
};

use knark_specs::frame::{File, Item, Status};
use knark_tests::{
    program::{plugin, seen},
    recording::{Builder, CONTAINER, EXEC, FILE, PROCESS, path},
};
use serde_json::{Value, json};

const SECOND: u64 = 1_000_000_000;

/// Rules for opens of two files, and for executions.
const POLICY: &str = "
apiVersion: knark.dev/v1alpha1
kind: TracePolicy
metadata: {name: bait}
spec:
  rules:
  - {name: passwd-read, severity: high, file: {paths: [/etc/passwd]}, message: '{{process.exe}} read {{file.path}}', tags: [T1003]}
  - {name: shadow-read, severity: critical, file: {paths: [/etc/shadow]}, message: '{{process.exe}} read {{file.path}}'}
  - {name: shell, severity: low, exec: {}, message: '{{process.exe}} was run'}
";

/// A shell is run, and reads one file so many times, a second apart, and another one once.
fn reads(times: u64) -> Builder {
    let mut items = vec![Item::Container(CONTAINER), Item::Process(PROCESS), Item::Exec(EXEC)];
    items.extend((1..=times).map(|at| Item::File(File { time_ns: at * SECOND, ..FILE })));
    items.push(Item::File(File { time_ns: (times + 1) * SECOND, path: path(b"/etc/shadow"), ..FILE }));
    let seen = items.len() as u64 - 2;
    let last = Status { seen, sent: seen, now_ns: (times + 2) * SECOND, last_seq: 1, ..Status::default() };
    Builder::default().node(0, "knark-1").status(0, Status { now_ns: 1, ..Status::default() }).items(0, &items).bye(0, last)
}

/// `replay` of it with the policy and these flags, ready to run. What the plugin keeps, it keeps in the folder.
fn replay(folder: &tempfile::TempDir, recording: Builder, flags: &[&str]) -> Command {
    let policy = folder.path().join("policy.yaml");
    fs::write(&policy, POLICY).unwrap();
    let mut command = plugin();
    command.env("XDG_STATE_HOME", folder.path().join("state")).arg("replay").arg(recording.file(folder).unwrap());
    command.arg("-f").arg(policy).args(flags);
    command
}

fn run(folder: &tempfile::TempDir, times: u64, flags: &[&str]) -> Output {
    replay(folder, reads(times), flags).output().unwrap()
}

fn lines(text: &[u8]) -> Vec<Value> {
    text.split(|b| *b == b'\n').filter(|line| !line.is_empty()).map(|line| serde_json::from_slice(line).unwrap()).collect()
}

/// Each alert's rule and count.
fn told(alerts: &[Value]) -> Vec<(&str, u64)> {
    let one = |alert: &'_ Value| alert["alert"]["count"].as_u64().unwrap();
    alerts.iter().map(|alert| (alert["matches"][0]["rule"].as_str().unwrap(), one(alert))).collect()
}

/// What the plugin said of receivers.
fn account(output: &Output) -> Vec<String> {
    String::from_utf8_lossy(&output.stderr).lines().filter(|line| line.starts_with("alerts to ")).map(str::to_owned).collect()
}

/// The files that the plugin keeps.
fn kept(folder: &Path) -> Vec<std::path::PathBuf> {
    fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn repeats_are_counted_in_files_and_on_standard_output() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("alerts.json");
    let csv = folder.path().join("alerts.csv");
    let (to_file, to_csv) = (file.to_str().unwrap(), format!("csv:{}", csv.display()));
    let flags = ["--alert-to", to_file, "--alert-to", &to_csv, "--alert-to", "stdout", "--alert-cooldown", "3s"];
    let output = run(&folder, 5, &flags);
    assert!(output.status.success(), "{}", seen(&output));
    // At 1 s at once; 2 and 3 are told at 4 s, when its cool-down ends and the next begins; 4 and 5 at the end.
    let want = [("shell", 1), ("passwd-read", 1), ("passwd-read", 2), ("shadow-read", 1), ("passwd-read", 2)];
    let written = lines(&fs::read(&file).unwrap());
    assert_eq!(told(&written), want);
    assert_eq!(lines(&output.stdout), written, "{}", seen(&output));
    assert_eq!(
        written[2]["alert"],
        json!({
            "key": ["bait", "passwd-read", "c0ffee00c0ffee00", "/bin/sh", "1000", "/etc/passwd"], "count": 2,
            "first_time": "2026-01-02T03:04:07.000000000Z",
        })
    );
    let text = fs::read_to_string(&csv).unwrap();
    let rows: Vec<_> = text.lines().collect();
    assert!(
        rows[0].starts_with("time,severity,policy,rule,")
            && rows[2].contains(",high,bait,passwd-read,/bin/sh read /etc/passwd,1,")
    );
    assert_eq!(rows.len(), 6);
    assert_eq!(
        account(&output),
        [format!("alerts to {to_file}: 5 delivered"), format!("alerts to {}: 5 delivered", csv.display())]
    );
    // What is there already stays, even half a line, and a header is written once.
    fs::OpenOptions::new().append(true).open(&file).unwrap().write_all(b"{\"half").unwrap();
    let again = run(&folder, 5, &flags);
    assert!(again.status.success(), "{}", seen(&again));
    let text = fs::read_to_string(&file).unwrap();
    let (halves, whole): (Vec<_>, Vec<_>) = text.lines().partition(|line| *line == "{\"half");
    assert_eq!((halves.len(), lines(whole.join("\n").as_bytes()).len()), (1, 10));
    assert_eq!(fs::read_to_string(&csv).unwrap().lines().count(), 11);
    #[cfg(unix)]
    assert_eq!(std::os::unix::fs::MetadataExt::mode(&fs::metadata(&file).unwrap()) & 0o777, 0o600);
}

#[test]
fn the_user_says_what_repeats_have_in_common() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(&folder, 3, &["--alert-to", "stdout", "--alert-key", "policy"]);
    assert_eq!(told(&lines(&output.stdout)), [("shell", 1), ("shadow-read", 4)]);
    let output = run(&folder, 3, &["--alert-to", "stdout", "--alert-cooldown", "0s"]);
    assert_eq!(lines(&output.stdout).len(), 5);
}

#[test]
fn a_program_reads_them_and_is_started_again_when_it_ends() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let exec = format!("exec:/bin/sh#arg=-c&arg=cat%20%3E%3E%20%22$0%22&arg={}", out.display());
    let output = run(&folder, 3, &["--alert-to", &exec]);
    assert!(output.status.success(), "{}", seen(&output));
    assert_eq!(
        told(&lines(&fs::read(&out).unwrap())),
        [("shell", 1), ("passwd-read", 1), ("shadow-read", 1), ("passwd-read", 2)]
    );
    assert_eq!(account(&output), ["alerts to /bin/sh: 4 delivered"]);
    // One that fails is told of.
    let output = run(&folder, 3, &["--alert-to", "exec:/bin/sh#arg=-c&arg=cat%20%3E/dev/null;%20exit%203"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("/bin/sh has failed (exit status: 3)"), "{}", seen(&output));
    assert_eq!(
        (output.status.code(), account(&output)),
        (Some(3), vec!["alerts to /bin/sh: 4 delivered, perhaps not all".to_owned()])
    );
    let output = run(&folder, 3, &["--alert-to", "exec:/nowhere/hook"]);
    assert_eq!(output.status.code(), Some(1), "{}", seen(&output));
    assert!(String::from_utf8_lossy(&output.stderr).contains("starting /nowhere/hook"), "{}", seen(&output));
}

#[test]
fn a_program_that_never_reads_holds_up_the_end_no_longer_than_it_may() {
    let folder = tempfile::tempdir().unwrap();
    // A pipe holds less than this.
    let output = run(
        &folder,
        2_000,
        &["--alert-to", "exec:/bin/sleep#arg=1000", "--alert-cooldown", "0s", "--alert-drain", "1s", "--alert-key", "rule"],
    );
    assert_eq!(output.status.code(), Some(3), "{}", seen(&output));
    let [account] = &*account(&output) else { panic!("{}", seen(&output)) };
    assert!(account.starts_with("alerts to /bin/sleep: ") && account.contains(" lost"), "{account}");
}

#[test]
fn what_cannot_be_meant_is_refused_before_anything_is_traced() {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    fs::write(&token, "s3cr3t\n").unwrap();
    let plain = format!("webhook:http://siem.example/#tokenFile={}", token.display());
    for (receiver, words) in [
        ("webhok:https://siem.example", "did you mean \"webhook\"?"),
        ("webhook:https://user:pass@siem.example/", "must not hold a user's password"),
        ("webhook:ftp://siem.example/", "begins with https:// or http://"),
        ("webhook:https://siem.example#header=Authorization:Bearer%20x", "use headerFile=Authorization:FILE"),
        ("webhook:https://siem.example#certFile=a.pem", "certFile and keyFile belong together"),
        ("webhook:https://siem.example#timeout=soon", "is no duration"),
        ("syslog:udp:host", "is no address"),
        ("syslog:tcp://localhost:1#caFile=a", "certificates are for syslog:tls://"),
        ("events", "there is none here"),
        (&plain, "a token sent over http:// can be read on the way"),
    ] {
        let output = run(&folder, 1, &["--alert-to", receiver]);
        assert_eq!(output.status.code(), Some(2), "{receiver}: {}", seen(&output));
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains(words) && !text.contains("s3cr3t") && !text.contains("pass@"), "{receiver}: {}", seen(&output));
    }
    for (receiver, words) in [
        ("/nowhere/alerts.json", "opening /nowhere/alerts.json for alerts"),
        ("webhook:https://siem.example#tokenFile=/nowhere/token", "reading the secret in /nowhere/token"),
        ("webhook:https://siem.example#caFile=/nowhere/ca", "reading the certificates in /nowhere/ca"),
    ] {
        let output = run(&folder, 1, &["--alert-to", receiver]);
        assert_eq!(output.status.code(), Some(1), "{receiver}: {}", seen(&output));
        assert!(String::from_utf8_lossy(&output.stderr).contains(words), "{receiver}: {}", seen(&output));
    }
    let output = plugin().arg("replay").arg(folder.path().join("rec.knark")).args(["--alert-to", "stdout"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", seen(&output));
    assert!(String::from_utf8_lossy(&output.stderr).contains("name some by -f or --pack"), "{}", seen(&output));
}

#[test]
fn receivers_may_stand_in_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let (file, out) = (folder.path().join("receivers.yaml"), folder.path().join("out.json"));
    let text = |to: &str| format!("apiVersion: knark.dev/v1alpha1\nkind: AlertReceivers\nreceivers:\n- {{to: '{to}'}}\n");
    fs::write(&file, text(out.to_str().unwrap())).unwrap();
    let output = run(&folder, 1, &["--alert-receivers", file.to_str().unwrap()]);
    assert!(output.status.success(), "{}", seen(&output));
    assert_eq!(lines(&fs::read(&out).unwrap()).len(), 3);
    fs::write(&file, text("webhok:x")).unwrap();
    let output = run(&folder, 1, &["--alert-receivers", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2), "{}", seen(&output));
    assert!(String::from_utf8_lossy(&output.stderr).contains("did you mean \"webhook\"?"), "{}", seen(&output));
}
