//! Alerts as Kive posts them to a trap's callback: one `KiveAlert` per request.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Notice, subject};
use crate::{
    event::{Event, What},
    frame::FileOp,
};

/// The version of Kive's format.
const VERSION: &str = "v1";

/// One alert.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[expect(clippy::struct_field_names, reason = "the names are Kive's")]
pub struct KiveAlert<'n> {
    kive_alert_version: &'static str,
    kive_policy_name: &'n str,
    timestamp: &'n str,
    metadata: Metadata<'n>,
    custom_metadata: BTreeMap<&'static str, &'n str>,
    pod: Pod<'n>,
    node: Node<'n>,
    process: Process<'n>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Metadata<'n> {
    path: std::borrow::Cow<'n, str>,
    inode: u64,
    mask: i32,
    kernel_id: &'static str,
    callback: &'n str,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Pod<'n> {
    name: &'n str,
    namespace: &'n str,
    ip: &'static str,
    container: Container<'n>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Container<'n> {
    id: &'n str,
    name: &'n str,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Node<'n> {
    name: &'n str,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Process<'n> {
    pid: u32,
    tgid: u32,
    uid: u32,
    gid: u32,
    binary: &'n str,
    cwd: &'n str,
    arguments: String,
}

/// The body for one alert. Pod and process are those of who did it; `kernel-id` and the pod's `ip` aren't known and empty. The rule
/// and its message are in `custom-metadata`. `callback` is the address that it is sent to, as far as that is no secret.
pub fn alert<'n>(notice: &'n Notice, callback: &'n str) -> KiveAlert<'n> {
    let (event, rule, process) = (&notice.event, notice.rule(), &notice.event.process);
    let container = event.container.as_ref();
    KiveAlert {
        kive_alert_version: VERSION,
        kive_policy_name: &rule.policy,
        timestamp: &event.time,
        metadata: Metadata { path: subject::object(event), inode: inode(event), mask: mask(event), kernel_id: "", callback },
        custom_metadata: [("rule", &*rule.rule), ("severity", rule.severity.name()), ("message", &*rule.message)].into(),
        pod: Pod {
            name: subject::pod(event),
            namespace: subject::namespace(event),
            ip: "",
            container: Container {
                id: container.map_or("", |container| &container.id),
                name: container.map_or("", |container| &container.name),
            },
        },
        node: Node { name: &event.node.name },
        process: Process {
            // Kive's pid is the thread's.
            pid: event.thread.as_ref().map_or(process.pid, |thread| thread.tid),
            tgid: process.pid,
            uid: process.uid,
            gid: process.gid,
            binary: &process.exe,
            cwd: &process.cwd,
            arguments: process.args.iter().collect::<Vec<_>>().join(" "),
        },
    }
}

fn inode(event: &Event) -> u64 {
    match &event.what {
        What::File { file } => file.inode.unwrap_or(0),
        What::Exec { exec } => exec.inode,
        What::Exit { .. } | What::Api { .. } => 0,
    }
}

/// What was to be done, as the kernel's inode_permission is asked for it (`MAY_*` in include/linux/fs.h).
fn mask(event: &Event) -> i32 {
    const EXEC: i32 = 1;
    const WRITE: i32 = 2;
    const READ: i32 = 4;
    const APPEND: i32 = 8;
    const OPEN: i32 = 0x20;
    match &event.what {
        What::Exec { .. } => EXEC | OPEN,
        What::File { file } => {
            let has = |flag: &str| file.flags.iter().flatten().any(|given| given == flag);
            let append = if has("O_APPEND") { APPEND } else { 0 };
            match file.op {
                FileOp::Open => READ | OPEN,
                FileOp::WriteOpen | FileOp::Create if has("O_RDWR") => READ | WRITE | OPEN | append,
                FileOp::WriteOpen | FileOp::Create => WRITE | OPEN | append,
                _ => WRITE,
            }
        }
        What::Exit { .. } | What::Api { .. } => 0,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_body_is_kives() {
        let want = json!({
            "kive-alert-version": "v1", "kive-policy-name": "bait", "timestamp": "2026-01-02T03:04:05.123456789Z",
            "metadata": { "path": "/etc/shadow", "inode": 12, "mask": 36, "kernel-id": "", "callback": "https://siem.example" },
            "custom-metadata": { "rule": "shadow-read", "severity": "high", "message": "cat read /etc/shadow" },
            "pod": { "name": "web-0", "namespace": "prod", "ip": "", "container": { "id": "c0ffee", "name": "app" } },
            "node": { "name": "knark-1" },
            "process": { "pid": 7, "tgid": 7, "uid": 1000, "gid": 100, "binary": "/bin/cat", "cwd": "/", "arguments": "cat a b" },
        });
        let notice = crate::alert::tests::read();
        assert_eq!(serde_json::to_value(alert(&notice, "https://siem.example")).unwrap(), want);
    }

    #[test]
    fn the_mask_says_what_was_to_be_done() {
        for (event, want) in [
            (json!({ "exec": {} }), 0x21),
            (json!({ "file": { "op": "write-open", "flags": ["O_WRONLY", "O_APPEND"] } }), 0x2a),
            (json!({ "file": { "op": "create", "flags": ["O_RDWR"] } }), 0x26),
            (json!({ "file": { "op": "chmod" } }), 2),
            (json!({ "api": {} }), 0),
        ] {
            assert_eq!(mask(&crate::alert::tests::notice(&event).event), want, "{event}");
        }
    }
}
