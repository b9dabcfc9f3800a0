//! Alerts as syslog messages (RFC 5424).

use std::fmt::Write as _;

use super::{Notice, subject};
use crate::policy::Severity;

/// `security/authorization messages` (authpriv).
const FACILITY: u8 = 10;
/// Of structured data; the number is that which RFC 5612 keeps for documentation, since this project has none of its own.
const SD_ID: &str = "knark@32473";
/// A parameter's value has so many bytes at most, and the message as well: receivers must take 2,048 in all, and need take no more.
const VALUE: usize = 96;

/// The message, without what separates it from the next. `pid` is the sender's. It has at most 2,048 bytes, which all receivers should
/// take (RFC 5426, 3.2): longer texts end in an ellipsis.
pub fn message(notice: &Notice, pid: u32) -> String {
    const MOST: usize = 2_048;
    let (event, rule, process) = (&notice.event, notice.rule(), &notice.event.process);
    let container = event.container.as_ref();
    let priority = FACILITY * 8 + severity(rule.severity);
    // More precise than microseconds a timestamp must not be.
    let time = match event.time.split_once('.') {
        Some((seconds, fraction)) => format!("{seconds}.{}Z", fraction.trim_end_matches('Z').get(..6).unwrap_or("0")),
        None => event.time.clone(),
    };
    let (host, id) = (printable(&event.node.name, 255), printable(&rule.rule, 32));
    let mut out = format!("<{priority}>1 {time} {host} knark {pid} {id} [{SD_ID}");
    let count = notice.alert.count.to_string();
    let process_id = process.pid.to_string();
    for (name, value) in [
        ("policy", &*rule.policy),
        ("rule", &*rule.rule),
        ("severity", rule.severity.name()),
        ("count", &*count),
        ("namespace", subject::namespace(event)),
        ("pod", subject::pod(event)),
        ("container", container.map_or("", |container| &container.name)),
        ("pid", &*process_id),
        ("exe", &*process.exe),
        ("user", &*subject::user(event)),
        ("object", &*subject::object(event)),
    ] {
        if !value.is_empty() {
            let _ = write!(out, " {name}=\"{}\"", parameter(value));
        }
    }
    // The byte order mark says that what follows is UTF-8.
    out.push_str("] \u{feff}");
    let room = MOST.saturating_sub(out.len());
    out.push_str(&subject::shorten(&one_line(&rule.message), room));
    out
}

/// RFC 5424, 6.2.1.
fn severity(severity: Severity) -> u8 {
    match severity {
        Severity::Info => 6,
        Severity::Low => 5,
        Severity::Medium => 4,
        Severity::High => 3,
        Severity::Critical => 2,
    }
}

/// A header's field: printable ASCII without spaces.
fn printable(text: &str, most: usize) -> String {
    let text: String = text.chars().map(|c| if c.is_ascii_graphic() { c } else { '_' }).take(most).collect();
    if text.is_empty() { "-".to_owned() } else { text }
}

/// A parameter's value: three characters are escaped in it.
fn parameter(text: &str) -> String {
    let mut out = String::new();
    for c in one_line(&subject::shorten(text, VALUE)).chars() {
        if matches!(c, '"' | '\\' | ']') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// Control characters could end a message early, or begin one that nobody sent.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_message_is_rfc_5424s() {
        assert_eq!(
            message(&crate::alert::tests::read(), 42),
            "<83>1 2026-01-02T03:04:05.123456Z knark-1 knark 42 shadow-read [knark@32473 policy=\"bait\" rule=\"shadow-read\" \
             severity=\"high\" count=\"3\" namespace=\"prod\" pod=\"web-0\" container=\"app\" pid=\"7\" exe=\"/bin/cat\" \
             user=\"1000\" object=\"/etc/shadow\"] \u{feff}cat read /etc/shadow"
        );
    }

    #[test]
    fn hostile_texts_neither_end_it_nor_make_it_long() {
        let path = format!("/a\"]\\\n<0>1 {}", "\"".repeat(4096));
        let mut notice = crate::alert::tests::notice(&json!({
            "node": { "name": "a b\n" }, "process": { "exe": path, "uid": 0 }, "file": { "path": path },
        }));
        notice.matches[0].message = "ä\n".repeat(4096);
        notice.matches[0].policy = "\\".repeat(4096);
        let message = message(&notice, u32::MAX);
        assert!(message.len() <= 2_048, "{}", message.len());
        assert!(!message.contains(char::is_control), "{message}");
        assert!(message.contains(" a_b_ knark "), "{message}");
        assert!(message.contains("object=\"/a\\\"\\]\\\\\u{fffd}<0>1 "), "{message}");
    }
}
