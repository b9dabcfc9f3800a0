//! Receivers in the network: HTTP with and without TLS, outages, and what waits on disk meanwhile.

use std::{fs, process::Command, time::Instant};

use knark_tests::program::seen;
use serde_json::json;

use super::{
    account, kept, lines, reads, replay, run,
    server::{Answer, Server, certificates},
    told,
};

/// Nothing listens there: it was given to someone who has gone.
fn nowhere() -> String {
    Server::free_address()
}

#[test]
fn a_webhook_is_sent_our_own_body_with_certificates_token_and_headers() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(Some(certificates(folder.path())), &[]);
    let at = folder.path().display();
    fs::write(folder.path().join("token"), "s3cr3t\n").unwrap();
    fs::write(folder.path().join("key"), "k3y").unwrap();
    let webhook = format!(
        "webhook:https://localhost:{}/in?team=blue#caFile={at}/ca.pem&certFile={at}/client.pem&keyFile={at}/client.key&tokenFile={at}/token\
         &header=X-Team:blue&headerFile=X-Key:{at}/key",
        server.address.port()
    );
    let output = run(&folder, 3, &["--alert-to", &webhook]);
    assert!(output.status.success(), "{}", seen(&output));
    let request = server.next();
    assert_eq!(request.line, "POST /in?team=blue HTTP/1.1");
    let headers = ["authorization", "x-team", "x-key", "content-type"].map(|name| request.header(name));
    assert_eq!(headers, ["Bearer s3cr3t", "blue", "k3y", "application/json"].map(Some));
    let mut alerts = Vec::new();
    for request in std::iter::once(request).chain(server.rest()) {
        assert_eq!((&request.body["apiVersion"], &request.body["kind"]), (&json!("knark.dev/v1alpha1"), &json!("Alerts")));
        alerts.extend(request.body["alerts"].as_array().unwrap().clone());
    }
    assert_eq!(told(&alerts), [("shell", 1), ("passwd-read", 1), ("shadow-read", 1), ("passwd-read", 2)]);
    assert_eq!(account(&output), [format!("alerts to webhook https://localhost:{}: 4 delivered", server.address.port())]);
    assert!(!seen(&output).contains("s3cr3t"), "{}", seen(&output));
    assert_eq!(kept(&folder.path().join("state/kubectl-knark/alerts")), [""; 0].map(std::path::PathBuf::from));
}

#[test]
fn a_server_that_is_not_trusted_is_sent_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(Some(certificates(folder.path())), &[]);
    let other = tempfile::tempdir().unwrap();
    certificates(other.path());
    // What the server says of a client without a certificate is heard only if it comes before the connection's end.
    for (ca, words) in [(other.path(), "invalid peer certificate"), (folder.path(), "sending alerts: client error")] {
        let webhook = format!("webhook:https://localhost:{}#caFile={}/ca.pem&spool=none", server.address.port(), ca.display());
        let output = run(&folder, 1, &["--alert-to", &webhook, "--alert-drain", "1s"]);
        assert_eq!(output.status.code(), Some(3), "{}", seen(&output));
        assert!(String::from_utf8_lossy(&output.stderr).contains(words), "{}", seen(&output));
        assert!(account(&output)[0].ends_with(": 0 delivered, 3 lost"), "{}", seen(&output));
    }
    assert_eq!(server.rest().len(), 0);
}

#[test]
fn other_systems_get_the_bodies_that_they_know() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(None, &[]);
    let url = format!("http://{}", server.address);
    let send = |receiver: String| {
        let output = run(&folder, 1, &["--alert-to", &receiver]);
        assert!(output.status.success(), "{}", seen(&output));
        server.rest()
    };
    let requests = send(format!("webhook:{url}/kubecop#format=kubecop"));
    assert_eq!(requests[0].body["kind"], "RuntimeAlerts");
    let requests = send(format!("webhook:{url}/kive#format=kive"));
    assert_eq!(requests.len(), 3);
    assert_eq!(
        (&requests[1].body["kive-policy-name"], &requests[1].body["metadata"]["path"]),
        (&json!("bait"), &json!("/etc/passwd"))
    );
    let requests = send(format!("alertmanager:{url}/prefix/"));
    assert_eq!(requests[0].line, "POST /prefix/api/v2/alerts HTTP/1.1");
    assert_eq!(requests[0].body[0]["labels"]["severity"], "low");
    let requests = send(format!("otlp:{url}"));
    assert_eq!(requests[0].line, "POST /v1/logs HTTP/1.1");
    assert!(requests[0].body["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0]["timeUnixNano"].is_string());
}

#[test]
fn what_fails_is_tried_again_until_it_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    for answers in [&[Answer::Status(500), Answer::Status(503)][..], &[Answer::Cut, Answer::Cut], &[Answer::Nothing]] {
        let server = Server::start(None, answers);
        let webhook = format!("webhook:http://{}#timeout=500ms&format=kive", server.address);
        let output = run(&folder, 1, &["--alert-to", &webhook]);
        assert!(output.status.success(), "{answers:?}: {}", seen(&output));
        assert!(account(&output)[0].ends_with(": 3 delivered"), "{}", seen(&output));
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains("it is tried again") && text.contains("takes alerts again"), "{}", seen(&output));
        let rules: Vec<_> = server.rest().iter().map(|request| request.body["custom-metadata"]["rule"].clone()).collect();
        let mut want = vec!["shell"; answers.len()];
        want.extend(["shell", "passwd-read", "shadow-read"]);
        assert_eq!(rules, want, "{answers:?}");
    }
}

#[test]
fn who_wants_to_be_asked_again_at_once_is_not_asked_without_end() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(None, &[Answer::Status(503); 1_000]);
    let output = run(&folder, 1, &["--alert-to", &format!("webhook:http://{}", server.address), "--alert-drain", "1s"]);
    assert_eq!(output.status.code(), Some(3), "{}", seen(&output));
    let requests = server.rest().len();
    assert!((1..10).contains(&requests), "{requests}");
}

#[test]
fn what_is_refused_is_told_and_the_rest_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    // The first request has several alerts, of which one is wrong: they are sent one by one.
    let server = Server::start(None, &[Answer::Status(400), Answer::Status(400), Answer::Status(200)]);
    let output = run(&folder, 1, &["--alert-to", &format!("webhook:http://{}#format=kive", server.address)]);
    assert_eq!(output.status.code(), Some(3), "{}", seen(&output));
    assert!(account(&output)[0].ends_with(": 1 delivered, 2 refused"), "{}", seen(&output));
}

#[test]
fn an_outage_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let spool = folder.path().join("spool");
    let address = nowhere();
    let webhook = format!("webhook:http://{address}#format=kive&spool={}", spool.display());
    let flags = ["--alert-to", &webhook, "--alert-cooldown", "0s", "--alert-drain", "1s"];
    // More than wait in memory.
    let output = replay(&folder, reads(3_000), &flags).output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", seen(&output));
    let files = kept(&spool);
    assert_eq!(files.len(), 1, "{files:?}");
    let want = format!(
        "alerts to webhook http://{address}: 0 delivered, 3002 kept in {} until a trace has this receiver again",
        files[0].display()
    );
    assert_eq!(account(&output), [want]);
    #[cfg(unix)]
    assert_eq!(std::os::unix::fs::MetadataExt::mode(&fs::metadata(&files[0]).unwrap()) & 0o777, 0o600);
    assert_eq!(fs::read_to_string(&files[0]).unwrap().lines().count(), 3_003);
    // The same receiver, now there: first what waits.
    let server = Server::start_at(&address);
    let output = replay(&folder, reads(1), &["--alert-to", &webhook, "--alert-drain", "100s"]).output().unwrap();
    assert!(output.status.success(), "{}", seen(&output));
    assert_eq!(account(&output), [format!("alerts to webhook http://{address}: 3005 delivered")]);
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("3002 alerts of an earlier trace are delivered first"),
        "{}",
        seen(&output)
    );
    let requests = server.rest();
    let mut paths: Vec<_> = requests.iter().map(|request| request.body["metadata"]["path"].as_str().unwrap()).collect();
    assert_eq!(paths.len(), 3_005);
    paths.dedup();
    assert_eq!(kept(&spool), [""; 0].map(std::path::PathBuf::from));
}

#[test]
fn a_full_disk_is_told_and_the_trace_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk");
    fs::create_dir(&disk).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"]).arg(&disk).status();
    assert!(mounted.unwrap().success(), "mounting a tmpfs needs root");
    let address = nowhere();
    let webhook = format!("webhook:http://{address}#spool={}/spool", disk.display());
    let output = replay(&folder, reads(3_000), &["--alert-to", &webhook, "--alert-cooldown", "0s", "--alert-drain", "1s"])
        .output()
        .unwrap();
    let files = kept(&disk.join("spool"));
    let whole = fs::read_to_string(&files[0]).unwrap();
    let unmounted = Command::new("umount").arg(&disk).status();
    assert!(unmounted.unwrap().success());
    assert_eq!(output.status.code(), Some(3), "{}", seen(&output));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("alerts are lost: writing the spool: No space left on device"), "{}", seen(&output));
    assert!(text.contains("3002 events shown"), "{}", seen(&output));
    // What fitted is whole.
    let alerts = lines(whole.split_once('\n').unwrap().1.as_bytes());
    let account = &account(&output)[0];
    assert!(account.contains(&format!(" {} lost, {} kept", 3_002 - alerts.len(), alerts.len())), "{account}");
}

#[test]
fn who_never_answers_holds_up_neither_the_trace_nor_for_long_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(None, &[Answer::Nothing]);
    let webhook = format!("webhook:http://{}", server.address);
    let file = folder.path().join("out.json");
    let began = Instant::now();
    let flags = ["--alert-to", &webhook, "--alert-to", file.to_str().unwrap(), "--alert-drain", "1s"];
    let output = run(&folder, 3, &flags);
    assert!(began.elapsed().as_secs() < 8, "{:?}", began.elapsed());
    assert_eq!(output.status.code(), Some(3), "{}", seen(&output));
    assert_eq!(lines(&fs::read(&file).unwrap()).len(), 4);
    assert!(account(&output)[0].contains(": 0 delivered, 4 kept in "), "{}", seen(&output));
}
