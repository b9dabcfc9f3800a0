//! Alerts as log records of OpenTelemetry: the body of an OTLP/HTTP request, in JSON
//! (<https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding>).

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Notice, subject};
use crate::policy::Severity;

/// The body of a request that is made now. Names of attributes are those of OpenTelemetry's semantic conventions where it has one.
pub fn logs(notices: &[&Notice], now: Timestamp, version: &str) -> Value {
    // Receivers read records of one node and pod more cheaply together, but each alert is whole this way.
    let resources: Vec<_> = notices.iter().map(|notice| resource(notice, now, version)).collect();
    json!({ "resourceLogs": resources })
}

/// How many records an answer says were rejected, and why (`ExportLogsServiceResponse.partial_success`); `None`: all were taken. What
/// isn't JSON says nothing.
pub fn rejected(answer: &[u8]) -> Option<(u64, String)> {
    let answer: Value = serde_json::from_slice(answer).ok()?;
    let partial = answer.get("partialSuccess")?;
    let count = partial.get("rejectedLogRecords")?;
    // 64-bit numbers are texts in this encoding, and not everybody knows.
    let count = count.as_u64().or_else(|| count.as_str()?.parse().ok()).filter(|count| *count > 0)?;
    let why = partial.get("errorMessage").and_then(Value::as_str).unwrap_or("no reason given");
    Some((count, subject::shorten(why, 200).into_owned()))
}

fn resource(notice: &Notice, now: Timestamp, version: &str) -> Value {
    let (event, rule, process) = (&notice.event, notice.rule(), &notice.event.process);
    let (pod, container) = (event.kubernetes.as_ref(), event.container.as_ref());
    let resource = [
        ("service.name", "kubectl-knark"),
        ("k8s.node.name", &event.node.name),
        ("k8s.namespace.name", pod.map_or("", |pod| &pod.namespace)),
        ("k8s.pod.name", pod.map_or("", |pod| &pod.pod)),
        ("k8s.pod.uid", pod.map_or("", |pod| &pod.pod_uid)),
        ("k8s.container.name", container.map_or("", |container| &container.name)),
        ("container.id", container.map_or("", |container| &container.id)),
        ("container.image.name", container.map_or("", |container| &container.image)),
    ];
    let texts = [
        ("knark.policy", &*rule.policy),
        ("knark.rule", &*rule.rule),
        ("knark.event.type", event.what.name()),
        ("knark.object", &*subject::object(event)),
        ("user.name", &*subject::user(event)),
        ("process.executable.path", &*process.exe),
        ("process.executable.name", &*process.comm),
        ("process.working_directory", &*process.cwd),
    ]
    .map(|(name, value)| text(name, value));
    let numbers = [
        ("process.pid", u64::from(process.pid)),
        ("process.parent_pid", u64::from(process.ppid)),
        ("knark.count", notice.alert.count),
    ]
    .map(|(name, number)| json!({ "key": name, "value": { "intValue": number.to_string() } }));
    let lists = [
        ("process.command_args", process.args.iter().map(str::to_owned).collect::<Vec<_>>()),
        ("knark.tags", rule.tags.clone()),
        ("knark.references", rule.references.clone()),
    ]
    .into_iter()
    .filter(|(_, items)| !items.is_empty())
    .map(|(name, items)| {
        let items: Vec<_> = items.into_iter().map(|item| json!({ "stringValue": item })).collect();
        json!({ "key": name, "value": { "arrayValue": { "values": items } } })
    });
    let (number, severity) = severity(rule.severity);
    json!({
        "resource": { "attributes": resource.map(|(name, value)| text(name, value)).into_iter().flatten().collect::<Vec<_>>() },
        "scopeLogs": [{
            "scope": { "name": "kubectl-knark", "version": version },
            "logRecords": [{
                "timeUnixNano": nanoseconds(event.time.parse().unwrap_or(now)),
                "observedTimeUnixNano": nanoseconds(now),
                "severityNumber": number,
                "severityText": severity,
                "eventName": "knark.alert",
                "body": { "stringValue": rule.message },
                "attributes": texts.into_iter().flatten().chain(numbers).chain(lists).collect::<Vec<_>>(),
            }],
        }],
    })
}

/// An attribute; none of what isn't known.
fn text(name: &str, value: &str) -> Option<Value> {
    (!value.is_empty()).then(|| json!({ "key": name, "value": { "stringValue": value } }))
}

/// 64-bit numbers are texts in this encoding.
fn nanoseconds(time: Timestamp) -> String {
    time.as_nanosecond().max(0).to_string()
}

/// OpenTelemetry's number and the name of it.
fn severity(severity: Severity) -> (u8, &'static str) {
    match severity {
        Severity::Info => (9, "INFO"),
        Severity::Low => (10, "INFO2"),
        Severity::Medium => (13, "WARN"),
        Severity::High => (17, "ERROR"),
        Severity::Critical => (21, "FATAL"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_rejected_is_told() {
        for (answer, want) in [
            ("", None),
            ("{}", None),
            (r#"{"partialSuccess":{}}"#, None),
            (r#"{"partialSuccess":{"rejectedLogRecords":"0","errorMessage":"slow down"}}"#, None),
            (r#"{"partialSuccess":{"rejectedLogRecords":"2","errorMessage":"too old"}}"#, Some((2, "too old"))),
            (r#"{"partialSuccess":{"rejectedLogRecords":1}}"#, Some((1, "no reason given"))),
            (r#"{"partialSuccess":{"rejectedLogRecords":-1}}"#, None),
        ] {
            let got = rejected(answer.as_bytes());
            assert_eq!(got.as_ref().map(|(count, why)| (*count, why.as_str())), want, "{answer}");
        }
    }

    #[test]
    fn an_alert_is_a_log_record() {
        let logs = logs(&[&crate::alert::tests::read()], "2026-01-02T04:00:00Z".parse().unwrap(), "1.2.3");
        let record = &logs["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0];
        assert_eq!(record["timeUnixNano"], "1767323045123456789");
        assert_eq!(record["observedTimeUnixNano"], "1767326400000000000");
        assert_eq!((&record["severityNumber"], &record["severityText"]), (&json!(17), &json!("ERROR")));
        assert_eq!(record["body"], json!({ "stringValue": "cat read /etc/shadow" }));
        let attribute = |list: &Value, name: &str| {
            let list = list["attributes"].as_array().unwrap();
            list.iter().find(|attribute| attribute["key"] == name).map(|attribute| attribute["value"].clone())
        };
        assert_eq!(attribute(record, "process.pid"), Some(json!({ "intValue": "7" })));
        assert_eq!(
            attribute(record, "process.command_args"),
            Some(json!({ "arrayValue": { "values": [{ "stringValue": "cat" }, { "stringValue": "a b" }] } }))
        );
        assert_eq!(attribute(&logs["resourceLogs"][0]["resource"], "k8s.pod.name"), Some(json!({ "stringValue": "web-0" })));
    }
}
