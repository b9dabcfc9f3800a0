//! Lines of audit logs.

use serde_json::json;

/// A request at a time, in seconds after 2026-01-02T03:04:00Z, for a path that tells it from others; with its end of line.
#[must_use]
pub fn line(path: &str, seconds: u32) -> String {
    let time = format!("2026-01-02T03:04:{seconds:02}.000000Z");
    let event = json!({
        "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Metadata", "auditID": path, "stage": "ResponseComplete",
        "requestURI": path, "verb": "get", "user": {"username": "alice"}, "sourceIPs": ["192.0.2.1"],
        "responseStatus": {"code": 200}, "requestReceivedTimestamp": time, "stageTimestamp": time,
    });
    format!("{event}\n")
}
