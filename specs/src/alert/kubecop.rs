//! Alerts as KubeCop's HTTP exporter posts them: `RuntimeAlerts` of `kubescape.io/v1`.

use serde::Serialize;

use super::{Notice, subject};
use crate::policy::Severity;

/// The body of a request.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RuntimeAlerts<'n> {
    kind: &'static str,
    api_version: &'static str,
    spec: Spec<'n>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Spec<'n> {
    alerts: Vec<RuntimeAlert<'n>>,
}

/// One alert; what is empty is left out where KubeCop leaves it out.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct RuntimeAlert<'n> {
    #[serde(skip_serializing_if = "is_zero")]
    severity: u32,
    #[serde(skip_serializing_if = "str::is_empty")]
    command_name: &'n str,
    #[serde(skip_serializing_if = "is_zero")]
    pid: u32,
    #[serde(skip_serializing_if = "is_zero")]
    ppid: u32,
    #[serde(skip_serializing_if = "is_zero")]
    uid: u32,
    #[serde(skip_serializing_if = "is_zero")]
    gid: u32,
    rule_name: &'n str,
    message: &'n str,
    #[serde(rename = "containerID", skip_serializing_if = "str::is_empty")]
    container_id: &'n str,
    #[serde(skip_serializing_if = "str::is_empty")]
    container_name: &'n str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pod_namespace: &'n str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pod_name: &'n str,
    host_name: &'n str,
    node_name: &'n str,
}

/// The body for these alerts.
pub fn runtime_alerts<'n>(notices: &[&'n Notice]) -> RuntimeAlerts<'n> {
    let alerts = notices.iter().map(|notice| alert(notice)).collect();
    RuntimeAlerts { kind: "RuntimeAlerts", api_version: "kubescape.io/v1", spec: Spec { alerts } }
}

fn alert(notice: &Notice) -> RuntimeAlert<'_> {
    let (event, rule) = (&notice.event, notice.rule());
    let (process, container) = (&event.process, event.container.as_ref());
    RuntimeAlert {
        severity: priority(rule.severity),
        command_name: &process.comm,
        pid: process.pid,
        ppid: process.ppid,
        uid: process.uid,
        gid: process.gid,
        rule_name: &rule.rule,
        message: &rule.message,
        container_id: container.map_or("", |container| &container.id),
        container_name: container.map_or("", |container| &container.name),
        pod_namespace: subject::namespace(event),
        pod_name: subject::pod(event),
        host_name: &event.node.name,
        node_name: &event.node.name,
    }
}

/// KubeCop's number for a severity.
fn priority(severity: Severity) -> u32 {
    match severity {
        Severity::Info => 0,
        Severity::Low => 1,
        Severity::Medium => 5,
        Severity::High => 8,
        Severity::Critical => 10,
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_body_is_kubecops() {
        let want = json!({
            "kind": "RuntimeAlerts", "apiVersion": "kubescape.io/v1",
            "spec": { "alerts": [{
                "severity": 8, "commandName": "cat", "pid": 7, "ppid": 1, "uid": 1000, "gid": 100, "ruleName": "shadow-read",
                "message": "cat read /etc/shadow", "containerID": "c0ffee", "containerName": "app", "podNamespace": "prod",
                "podName": "web-0", "hostName": "knark-1", "nodeName": "knark-1",
            }] },
        });
        assert_eq!(serde_json::to_value(runtime_alerts(&[&crate::alert::tests::read()])).unwrap(), want);
    }
}
