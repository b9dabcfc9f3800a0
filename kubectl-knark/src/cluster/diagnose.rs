//! What a tracer pod's state means.

use k8s_openapi::api::core::v1::{Container, ContainerStateTerminated, Event, Pod, PodStatus};

use super::manifest::{BINARY, CONTAINER};

/// All that a pod tells of a tracer that ended by itself.
pub const ENDED: &str = "the tracer ended";

/// How far a tracer's pod is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// On its way; what it does, for the progress line.
    Waiting(&'static str),
    /// Its process runs.
    Running,
    /// It won't run, or runs no longer: what happened and what to do.
    Over(String),
}

/// Reads a pod's state.
pub fn state(pod: &Pod) -> State {
    let Some(status) = &pod.status else { return State::Waiting("scheduling") };
    if let Some(why) = pod_over(pod, status) {
        return State::Over(why);
    }
    let tracer = pod.spec.iter().flat_map(|spec| &spec.containers).find(|container| container.name == CONTAINER);
    let container = status.container_statuses.iter().flatten().find(|container| container.name == CONTAINER);
    let Some(state) = container.and_then(|container| container.state.as_ref()) else {
        let scheduled = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
        return State::Waiting(if scheduled { "waiting for the node" } else { "scheduling" });
    };
    if let Some(terminated) = &state.terminated {
        return State::Over(terminated_text(terminated, tracer));
    }
    if state.running.is_some() {
        return State::Running;
    }
    let waiting = state.waiting.as_ref();
    let reason = waiting.and_then(|waiting| waiting.reason.as_deref()).unwrap_or_default();
    let message = waiting.and_then(|waiting| waiting.message.as_deref()).unwrap_or_default();
    waiting_state(reason, message, image(tracer))
}

/// Whether its process has ended for good.
pub fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

fn image(container: Option<&Container>) -> &str {
    container.and_then(|container| container.image.as_deref()).unwrap_or_default()
}

fn pod_over(pod: &Pod, status: &PodStatus) -> Option<String> {
    let reason = status.reason.as_deref().unwrap_or_default();
    let message = status.message.as_deref().unwrap_or_default();
    match reason {
        "DeadlineExceeded" => return Some("the tracer's deadline is over: allow more by --deadline or --for".to_owned()),
        "Evicted" => return Some(format!("the tracer was evicted: {message}")),
        // The node's kubelet refuses the pod: OutOfcpu, OutOfmemory, NodeAffinity, AppArmor, UnexpectedAdmissionError...
        _ if status.phase.as_deref() == Some("Failed") && status.container_statuses.as_ref().is_none_or(Vec::is_empty) => {
            return Some(format!("the node refuses the tracer: {}", joined(reason, message)));
        }
        _ => {}
    }
    let disrupted = status.conditions.iter().flatten().find(|c| c.type_ == "DisruptionTarget" && c.status == "True");
    if let Some(condition) = disrupted {
        let why = joined(condition.reason.as_deref().unwrap_or_default(), condition.message.as_deref().unwrap_or_default());
        return Some(format!("the cluster ends the tracer: {why}"));
    }
    pod.metadata.deletion_timestamp.as_ref().map(|_| "the tracer's pod is being deleted by someone else".to_owned())
}

fn waiting_state(reason: &str, message: &str, image: &str) -> State {
    State::Over(match reason {
        "ErrImageNeverPull" => format!(
            "the node does not have the image {image}, and --image-pull-policy is Never: load it there first, or let the node pull it (--image-pull-policy IfNotPresent)"
        ),
        "ErrImagePull" | "ImagePullBackOff" | "RegistryUnavailable" | "ImageInspectError" | "SignatureValidationFailed" => {
            format!(
                "the image {image} can't be pulled ({}): name a mirror by --image, add --image-pull-secret, or preload it and use --image-pull-policy Never",
                joined(reason, message)
            )
        }
        "InvalidImageName" => format!("{image:?} is no image name: correct --image"),
        "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" => not_startable(message, image),
        // ContainerCreating, PodInitializing, or a reason of a newer Kubernetes: time will tell.
        _ => return State::Waiting("creating the container"),
    })
}

fn not_startable(message: &str, image: &str) -> String {
    let missing = message.contains("no such file or directory") || message.contains("executable file not found");
    if missing && message.contains(BINARY) {
        return format!(
            "the image {image} has no {BINARY}, it is no tracer's: correct --image (`kubectl knark version` names the right one)"
        );
    }
    format!("the node can't start the tracer: {message}")
}

fn terminated_text(terminated: &ContainerStateTerminated, container: Option<&Container>) -> String {
    let image = image(container);
    let limits = container.and_then(|container| container.resources.as_ref()?.limits.as_ref());
    let limit = limits.and_then(|limits| limits.get("memory")).map_or_else(String::new, |limit| format!(" of {}", limit.0));
    let reason = terminated.reason.as_deref().unwrap_or_default();
    let message = terminated.message.as_deref().unwrap_or_default().trim();
    match (reason, terminated.exit_code) {
        ("OOMKilled", _) => format!(
            "the tracer used up its memory{limit} (OOMKilled): choose fewer targets or rules, or thin out events by --aggregate"
        ),
        ("StartError" | "ContainerCannotRun", _) => not_startable(message, image),
        ("ContainerStatusUnknown", _) => "the node lost the tracer's container".to_owned(),
        (_, 0) => ENDED.to_owned(),
        (_, code @ 129..=160) => format!("the tracer was killed by signal {} (exit code {code})", code - 128),
        (_, code) if message.is_empty() => format!("the tracer failed with exit code {code}"),
        (_, code) => format!("the tracer failed with exit code {code}: {message}"),
    }
}

/// Whether the pod's volumes are mounted and its sandbox is there; Kubernetes before 1.29 doesn't tell.
pub fn is_prepared(pod: &Pod) -> Option<bool> {
    let mut conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.find(|condition| condition.type_ == "PodReadyToStartContainers").map(|condition| condition.status == "True")
}

/// Why this folder of the node can't be mounted, out of the pod's events.
pub fn without_folder(folder: &str, events: &[Event]) -> Option<String> {
    let failed = events.iter().rfind(|event| event.reason.as_deref() == Some("FailedMount"))?;
    let why = failed.message.as_deref().unwrap_or_default();
    Some(if why.contains("is not a directory") {
        format!(
            "there is no folder {folder} on this node: --audit-log-path of its kube-apiserver says where the log is, and --node chooses \
             other nodes"
        )
    } else {
        format!("the folder {folder} of this node can't be mounted: {why}")
    })
}

/// Why a Job has no pod, out of its events.
pub fn without_pod(events: &[Event]) -> Option<String> {
    let failed = events.iter().rfind(|event| event.reason.as_deref() == Some("FailedCreate"));
    failed.and_then(|event| event.message.clone())
}

fn joined(reason: &str, message: &str) -> String {
    match (reason.is_empty(), message.is_empty()) {
        (true, true) => "no reason given".to_owned(),
        (true, false) => message.to_owned(),
        (false, true) => reason.to_owned(),
        (false, false) => format!("{reason}: {message}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(status: &Value) -> Pod {
        serde_json::from_value(json!({
            "spec": { "nodeName": "n", "containers": [{ "name": "tracer", "image": "example.com/t:1",
                "resources": { "limits": { "memory": "256Mi" } } }] },
            "status": status,
        }))
        .unwrap()
    }

    fn container(state: &Value) -> State {
        state_of(&json!({ "phase": "Pending", "containerStatuses": [
            { "name": "tracer", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state }] }))
    }

    fn state_of(status: &Value) -> State {
        state(&pod(status))
    }

    #[test]
    fn the_way_to_running() {
        assert_eq!(state(&Pod::default()), State::Waiting("scheduling"));
        assert_eq!(state_of(&json!({ "phase": "Pending" })), State::Waiting("waiting for the node"));
        assert_eq!(container(&json!({ "waiting": { "reason": "ContainerCreating" } })), State::Waiting("creating the container"));
        assert_eq!(container(&json!({ "running": {} })), State::Running);
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let event = |reason: &str, message: &str| {
            serde_json::from_value::<Event>(json!({ "metadata": {}, "involvedObject": {}, "reason": reason, "message": message }))
                .unwrap()
        };
        let missing = event(
            "FailedMount",
            "MountVolume.SetUp failed for volume \"log\" : hostPath type check failed: /x is not a directory",
        );
        let said = without_folder("/x", &[event("Pulled", ""), missing]).unwrap();
        assert!(said.contains("no folder /x") && said.contains("--audit-log-path"), "{said}");
        assert!(without_folder("/x", &[event("FailedMount", "a disk's fault")]).unwrap().contains("a disk's fault"));
        assert_eq!(without_folder("/x", &[event("Pulled", "")]), None);
        let prepared = |status: &str| {
            is_prepared(&pod(&json!({ "conditions": [{ "type": "PodReadyToStartContainers", "status": status }] })))
        };
        assert_eq!((prepared("False"), prepared("True"), is_prepared(&Pod::default())), (Some(false), Some(true), None));
    }

    #[test]
    fn what_went_wrong_is_named_with_its_remedy() {
        for (status, marks) in [
            (
                json!({ "waiting": { "reason": "ErrImagePull", "message": "not found" } }),
                ["example.com/t:1", "--image-pull-secret"],
            ),
            (json!({ "waiting": { "reason": "ErrImageNeverPull" } }), ["example.com/t:1", "--image-pull-policy"]),
            (json!({ "waiting": { "reason": "InvalidImageName" } }), ["example.com/t:1", "--image"]),
            (
                json!({ "terminated": { "exitCode": 128, "reason": "StartError", "message":
                    "exec: \"/knark-tracer\": stat /knark-tracer: no such file or directory" } }),
                ["no tracer's", "knark version"],
            ),
            (json!({ "terminated": { "exitCode": 137, "reason": "OOMKilled" } }), ["memory", "256Mi"]),
            (json!({ "terminated": { "exitCode": 137, "reason": "Error" } }), ["signal 9", "137"]),
            (json!({ "terminated": { "exitCode": 1, "reason": "Error", "message": "no BTF\n" } }), ["exit code 1", "no BTF"]),
        ] {
            let State::Over(text) = container(&status) else { panic!("{status}") };
            assert!(marks.iter().all(|mark| text.contains(mark)), "{text}");
        }
        for (status, mark) in [
            (json!({ "phase": "Failed", "reason": "OutOfmemory", "message": "Node didn't have enough resource" }), "OutOfmemory"),
            (json!({ "phase": "Failed", "reason": "Evicted", "message": "disk pressure" }), "disk pressure"),
            (json!({ "phase": "Failed", "reason": "DeadlineExceeded" }), "--deadline"),
        ] {
            let State::Over(text) = state_of(&status) else { panic!("{status}") };
            assert!(text.contains(mark), "{text}");
        }
    }
}
