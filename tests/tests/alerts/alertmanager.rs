//! Alerts to a real Alertmanager.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use knark_tests::program::seen;
use serde_json::{Value, json};

use super::{account, run};

/// One of the test's own.
struct Alertmanager(Child);

impl Drop for Alertmanager {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What it answers, where it does.
fn get(address: &str, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.contains(" 200 ").then(|| body.to_owned())
}

#[test]
fn a_real_alertmanager_takes_alerts_and_knows_repeats() {
    let folder = tempfile::tempdir().unwrap();
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let config = folder.path().join("alertmanager.yml");
    fs::write(&config, "{route: {receiver: nobody}, receivers: [{name: nobody}]}").unwrap();
    let mut command = Command::new("alertmanager");
    command.arg(format!("--config.file={}", config.display())).arg(format!("--storage.path={}", folder.path().display()));
    command.arg(format!("--web.listen-address={address}")).arg("--cluster.listen-address=").stderr(Stdio::null());
    let _running = Alertmanager(command.spawn().expect("alertmanager (`tests/setup.sh alerts` installs it)"));
    let deadline = Instant::now() + Duration::from_secs(30);
    while get(&address, "/-/ready").is_none() {
        assert!(Instant::now() < deadline, "the Alertmanager isn't ready in time");
        thread::sleep(Duration::from_millis(20));
    }
    for _ in 0..2 {
        let output = run(&folder, 3, &["--alert-to", &format!("alertmanager:http://{address}")]);
        assert!(output.status.success(), "{}", seen(&output));
        assert_eq!(account(&output), [format!("alerts to alertmanager http://{address}: 4 delivered")]);
    }
    let alerts: Value = serde_json::from_str(&get(&address, "/api/v2/alerts").expect("its alerts")).unwrap();
    let mut names: Vec<_> =
        alerts.as_array().unwrap().iter().map(|alert| alert["labels"]["alertname"].as_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["passwd-read", "shadow-read", "shell"], "repeats are the same alert: {alerts}");
    let passwd = alerts.as_array().unwrap().iter().find(|alert| alert["labels"]["alertname"] == "passwd-read").unwrap();
    assert_eq!(passwd["status"]["state"], "active");
    assert_eq!(
        passwd["labels"],
        json!({
            "alertname": "passwd-read", "rule_name": "passwd-read", "policy": "bait", "severity": "high", "node_name": "knark-1",
            "namespace": "prod", "pod_name": "web-7d9f8b6c5-x2x7k", "container_name": "app", "container_id": "c0ffee00c0ffee00",
            "comm": "sh", "user": "1000", "uid": "1000", "gid": "1000", "object": "/etc/passwd",
        })
    );
    assert_eq!(passwd["annotations"]["message"], "/bin/sh read /etc/passwd");
}
