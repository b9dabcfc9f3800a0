//! kube-forensics' PodCheckpoint: an order to capture a pod. It is no policy, so it is checked only.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Findings, ObjectMeta};
use crate::policy::TracePolicy;

/// An order to capture a pod.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PodCheckpoint {
    /// `forensics.orkaproj.io/v1alpha1`.
    pub api_version: String,
    /// `PodCheckpoint`.
    pub kind: String,
    /// Name and namespace of the order itself.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What to capture.
    pub spec: PodCheckpointSpec,
    /// What became of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<serde_json::Map<String, serde_json::Value>>,
}

/// What to capture, and where to put it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PodCheckpointSpec {
    /// Where to put it: a bucket, such as `s3://evidence`.
    pub destination: String,
    /// A folder in the bucket; `forensics` unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subpath: Option<String>,
    /// The pod's name.
    pub pod: String,
    /// The pod's namespace.
    pub namespace: String,
}

pub(super) fn check(checkpoint: &PodCheckpoint, findings: &mut Findings<'_>) -> Vec<TracePolicy> {
    let PodCheckpointSpec { destination, pod, namespace, .. } = &checkpoint.spec;
    for (field, value) in [("spec.pod", pod), ("spec.namespace", namespace), ("spec.destination", destination)] {
        if value.is_empty() {
            findings.error(field, "it is empty", "");
        }
    }
    if !destination.is_empty() && !destination.starts_with("s3://") {
        findings.warn("spec.destination", format!("{} is no bucket", super::cut(destination)), "buckets are written `s3://NAME`");
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use crate::{
        foreign::{Kind, convert},
        typed::node,
    };

    #[test]
    fn an_order_is_checked_and_is_no_policy() {
        let sample = |pod: &str, destination: &str| {
            node(&format!(
                "{{apiVersion: forensics.orkaproj.io/v1alpha1, kind: PodCheckpoint, metadata: {{name: a, namespace: b}}, \
                 spec: {{destination: '{destination}', subpath: forensics, pod: '{pod}', namespace: default}}}}"
            ))
        };
        let good = convert(&sample("web-0", "s3://evidence"), Kind::PodCheckpoint);
        assert_eq!((good.policies.len(), good.problems.len()), (0, 0));
        let bad = convert(&sample("", "/tmp"), Kind::PodCheckpoint);
        let fields: Vec<_> = bad.problems.iter().map(|problem| problem.field.as_str()).collect();
        assert_eq!(fields, ["spec.pod", "spec.destination"]);
    }
}
