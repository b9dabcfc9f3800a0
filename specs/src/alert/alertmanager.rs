//! Alerts as Alertmanager's API takes them (`POST /api/v2/alerts`): <https://github.com/prometheus/alertmanager/blob/main/api/v2/openapi.yaml>

use std::{borrow::Cow, collections::BTreeMap};

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::{Notice, subject};

/// An alert that isn't told again for so long counts as resolved.
const RESOLVED_AFTER: SignedDuration = SignedDuration::from_hours(1);

/// One alert.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PostableAlert<'n> {
    /// What makes it this alert and no other.
    labels: BTreeMap<&'static str, Cow<'n, str>>,
    /// What else there is to say.
    annotations: BTreeMap<&'static str, Cow<'n, str>>,
    starts_at: &'n str,
    ends_at: String,
}

/// The alerts of a request that is made now.
///
/// Labels are KubeCop's, with the rule as `alertname`; process ids aren't among them but annotations, since each would make another
/// alert of what is the same one.
pub fn alerts<'n>(notices: &[&'n Notice], now: Timestamp) -> Vec<PostableAlert<'n>> {
    notices.iter().map(|notice| alert(notice, now)).collect()
}

fn alert(notice: &Notice, now: Timestamp) -> PostableAlert<'_> {
    let (event, rule, process) = (&notice.event, notice.rule(), &notice.event.process);
    let container = event.container.as_ref();
    let labels = [
        ("alertname", Cow::Borrowed(&*rule.rule)),
        ("rule_name", Cow::Borrowed(&*rule.rule)),
        ("policy", Cow::Borrowed(&*rule.policy)),
        ("severity", Cow::Borrowed(rule.severity.name())),
        ("node_name", Cow::Borrowed(&*event.node.name)),
        ("namespace", Cow::Borrowed(subject::namespace(event))),
        ("pod_name", Cow::Borrowed(subject::pod(event))),
        ("container_name", Cow::Borrowed(container.map_or("", |container| &container.name))),
        ("container_id", Cow::Borrowed(container.map_or("", |container| &container.id))),
        ("comm", Cow::Borrowed(&*process.comm)),
        ("user", subject::user(event)),
        ("uid", Cow::Owned(process.uid.to_string())),
        ("gid", Cow::Owned(process.gid.to_string())),
        ("object", subject::object(event)),
    ];
    let place = [subject::namespace(event), subject::pod(event)].into_iter().filter(|part| !part.is_empty());
    let place = place.collect::<Vec<_>>().join("/");
    let place = if place.is_empty() { &event.node.name } else { &place };
    let title = format!("{} in {place}", rule.rule);
    let annotations = [
        ("title", Cow::Owned(title.clone())),
        ("summary", Cow::Owned(title)),
        ("message", Cow::Borrowed(&*rule.message)),
        ("description", Cow::Borrowed(&*rule.message)),
        ("pid", Cow::Owned(process.pid.to_string())),
        ("ppid", Cow::Owned(process.ppid.to_string())),
        ("exe", Cow::Borrowed(&*process.exe)),
        ("count", Cow::Owned(notice.alert.count.to_string())),
        ("tags", Cow::Owned(rule.tags.join(","))),
        ("references", Cow::Owned(rule.references.join(" "))),
    ];
    // What was recorded long ago is news to the receiver all the same.
    let last = event.time.parse::<Timestamp>().unwrap_or(now).max(now);
    PostableAlert {
        labels: given(labels),
        annotations: given(annotations),
        starts_at: &notice.alert.first_time,
        ends_at: last.checked_add(RESOLVED_AFTER).unwrap_or(Timestamp::MAX).to_string(),
    }
}

/// An empty label is no label to Prometheus.
fn given<'n, const N: usize>(pairs: [(&'static str, Cow<'n, str>); N]) -> BTreeMap<&'static str, Cow<'n, str>> {
    pairs.into_iter().filter(|(_, value)| !value.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_alert_has_kubecops_labels() {
        let notice = crate::alert::tests::read();
        let now = "2026-01-02T04:00:00Z".parse().unwrap();
        let want = json!([{
            "labels": {
                "alertname": "shadow-read", "rule_name": "shadow-read", "policy": "bait", "severity": "high", "node_name": "knark-1",
                "namespace": "prod", "pod_name": "web-0", "container_name": "app", "container_id": "c0ffee", "comm": "cat",
                "user": "1000", "uid": "1000", "gid": "100", "object": "/etc/shadow",
            },
            "annotations": {
                "title": "shadow-read in prod/web-0", "summary": "shadow-read in prod/web-0", "message": "cat read /etc/shadow",
                "description": "cat read /etc/shadow", "pid": "7", "ppid": "1", "exe": "/bin/cat", "count": "3", "tags": "T1003",
                "references": "https://attack.mitre.org/techniques/T1003/",
            },
            "startsAt": "2026-01-02T03:04:01.000000000Z",
            "endsAt": "2026-01-02T05:00:00Z",
        }]);
        assert_eq!(serde_json::to_value(alerts(&[&notice], now)).unwrap(), want);
    }
}
