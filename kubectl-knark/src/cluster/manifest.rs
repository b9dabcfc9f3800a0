//! The tracer's pod and the Job around it.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::{
    api::{
        batch::v1::{Job, JobSpec},
        core::v1::{Pod, PodTemplateSpec},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use knark_specs::frame::LOG_FOLDER;
use serde_json::{Value, json};

use super::{control_plane::Servers, selector::is_word};

/// Bears the session's id.
pub const SESSION: &str = "knark.dev/session";
/// Bears the user's name, or what of it fits into a label.
pub const USER: &str = "knark.dev/user";
/// What all that is made here bears; with [`MANAGED_BY`].
pub const NAME: (&str, &str) = ("app.kubernetes.io/name", "kubectl-knark");
/// Who made it.
pub const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "kubectl-knark");
/// The tracer's container.
pub const CONTAINER: &str = "tracer";
/// The tracer's only file.
pub const BINARY: &str = "/knark-tracer";
/// How long a tracer waits for its plugin before it ends itself: with all that comes after, the pod is gone within 15 s.
pub const GRACE: Duration = Duration::from_secs(10);

/// How long a finished Job stays, should nobody remove it.
const TTL_SECONDS: i32 = 30;
/// What the tracer may do: load programs (BPF), attach them and read their buffers (PERFMON), look into other processes'
/// /proc entries (SYS_PTRACE), read tracefs and container bundles of other users (DAC_READ_SEARCH).
pub const CAPABILITIES: [&str; 4] = ["BPF", "PERFMON", "SYS_PTRACE", "DAC_READ_SEARCH"];

/// What it may do besides on a node whose API server it traces: since Linux 6.16 (commit ba677dbe77af), and in stable kernels
/// before, PERFMON isn't enough for uprobes.
const SERVER_CAPABILITY: &str = "SYS_ADMIN";

/// What the Jobs of a session have in common.
#[derive(Debug, Clone)]
pub struct Template {
    /// Where they are made.
    pub namespace: String,
    /// The session's id.
    pub session: String,
    /// Who asked for it.
    pub user: String,
    /// The tracer's image.
    pub image: String,
    /// When it is pulled.
    pub pull_policy: String,
    /// With which secrets.
    pub pull_secrets: Vec<String>,
    /// Where API servers are traced.
    pub servers: Servers,
    /// Instead of tracing, an audit log is read that lies in this folder of the node.
    pub log_folder: Option<String>,
    /// All capabilities instead of the fewest.
    pub privileged: bool,
    /// When the cluster itself ends it.
    pub deadline: Duration,
    /// The session's public key, in base64.
    pub public_key: String,
}

impl Template {
    /// The name of the Job with this number.
    pub fn job_name(&self, number: u32) -> String {
        format!("knark-{}-{number}", self.session)
    }

    /// The Job of one node.
    pub fn job(&self, number: u32, node: &str) -> serde_json::Result<Job> {
        let pod = self.pod(number, node)?;
        Ok(Job {
            metadata: pod.metadata.clone(),
            spec: Some(JobSpec {
                // Later than the pod's own, whose end says why.
                active_deadline_seconds: Some(self.deadline_seconds().saturating_add(10)),
                backoff_limit: Some(0),
                ttl_seconds_after_finished: Some(TTL_SECONDS),
                template: PodTemplateSpec { metadata: Some(ObjectMeta { name: None, ..pod.metadata }), spec: pod.spec },
                ..JobSpec::default()
            }),
            status: None,
        })
    }

    /// The pod by itself, to ask admission about it.
    pub fn pod(&self, number: u32, node: &str) -> serde_json::Result<Pod> {
        let pull_secrets: Vec<_> = self.pull_secrets.iter().map(|name| json!({ "name": name })).collect();
        // Looking into an API server's program takes as much memory as the program has bytes.
        let memory = if self.servers.are_on(node) { "384Mi" } else { "256Mi" };
        let (volumes, mounts): (Vec<_>, Vec<_>) = self.host_paths().into_iter().unzip();
        serde_json::from_value(json!({
            "metadata": {
                "name": self.job_name(number),
                "namespace": self.namespace,
                "labels": self.labels(),
                "annotations": { USER: self.user, "knark.dev/node": node },
            },
            "spec": {
                "nodeName": node,
                "activeDeadlineSeconds": self.deadline_seconds(),
                "restartPolicy": "Never",
                "hostPID": self.log_folder.is_none(),
                "automountServiceAccountToken": false,
                "enableServiceLinks": false,
                "terminationGracePeriodSeconds": 2,
                "tolerations": [{ "operator": "Exists" }],
                "imagePullSecrets": pull_secrets,
                "securityContext": { "runAsUser": 0, "runAsGroup": 0, "runAsNonRoot": false },
                "containers": [{
                    "name": CONTAINER,
                    "image": self.image,
                    "imagePullPolicy": self.pull_policy,
                    "command": [BINARY],
                    "args": ["serve", "--key", self.public_key, "--grace", format!("{}s", GRACE.as_secs())],
                    // So that the tracer leaves out itself and the connections to it.
                    "env": [{ "name": "KNARK_POD_UID", "valueFrom": { "fieldRef": { "fieldPath": "metadata.uid" } } }],
                    "terminationMessagePolicy": "FallbackToLogsOnError",
                    "resources": {
                        "requests": { "cpu": "10m", "memory": "32Mi" },
                        "limits": { "memory": memory },
                    },
                    "securityContext": self.security(node),
                    "volumeMounts": mounts,
                }],
                "volumes": volumes,
            },
        }))
    }

    fn security(&self, node: &str) -> Value {
        // Who reads a file of root's as root needs nothing more.
        let added = if self.log_folder.is_some() || self.privileged { &[][..] } else { &CAPABILITIES };
        let server = (self.servers.are_on(node) && !self.privileged).then_some(SERVER_CAPABILITY);
        let mut security = json!({
            "privileged": self.privileged,
            "allowPrivilegeEscalation": self.privileged,
            "readOnlyRootFilesystem": true,
            "capabilities": { "drop": ["ALL"], "add": added.iter().copied().chain(server).collect::<Vec<_>>() },
            "seccompProfile": { "type": "Unconfined" },
            "appArmorProfile": { "type": "Unconfined" },
            "seLinuxOptions": { "type": "spc_t" },
        });
        if self.log_folder.is_some() {
            security["seccompProfile"]["type"] = "RuntimeDefault".into();
            // The runtime's default where the node has AppArmor; named, it would be refused where it has not.
            security["appArmorProfile"] = Value::Null;
        }
        security
    }

    /// What of the node is mounted, read-only: each volume, and its place in the container.
    fn host_paths(&self) -> Vec<(Value, Value)> {
        let mount = |name: &str, path: &str, kind: &str, at: &str| {
            let volume = json!({ "name": name, "hostPath": { "path": path, "type": kind } });
            (volume, json!({ "name": name, "mountPath": at, "readOnly": true }))
        };
        match &self.log_folder {
            // A folder that isn't there must not be made.
            Some(folder) => {
                let (volume, mut mounted) = mount("log", folder, "Directory", LOG_FOLDER);
                mounted["recursiveReadOnly"] = "IfPossible".into();
                vec![(volume, mounted)]
            }
            None => vec![
                mount("tracefs", "/sys/kernel/tracing", "", "/sys/kernel/tracing"),
                // A container sees its own part of the cgroup tree only.
                mount("cgroup", "/sys/fs/cgroup", "", "/host/sys/fs/cgroup"),
            ],
        }
    }

    fn deadline_seconds(&self) -> i64 {
        // A pod's deadline is an int32 in effect.
        self.deadline.as_secs().clamp(1, i32::MAX.unsigned_abs().into()).cast_signed()
    }

    fn labels(&self) -> BTreeMap<&str, String> {
        BTreeMap::from([
            (NAME.0, NAME.1.to_owned()),
            (MANAGED_BY.0, MANAGED_BY.1.to_owned()),
            ("app.kubernetes.io/version", env!("CARGO_PKG_VERSION").to_owned()),
            (SESSION, self.session.clone()),
            (USER, user_label(&self.user)),
        ])
    }
}

/// A user's name as a label's value: as it is where Kubernetes allows that, else with a hash in place of what doesn't fit.
pub fn user_label(user: &str) -> String {
    if !user.is_empty() && is_word(user) {
        return user.to_owned();
    }
    // FNV-1a, so that two names that differ in forbidden characters alone stay apart, in every version of this program.
    let hash = user.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    let plain: String =
        user.chars().map(|c| if c.is_ascii_alphanumeric() || "-.".contains(c) { c } else { '_' }).take(40).collect();
    format!("u{hash:016x}_{plain}").trim_end_matches(['_', '-', '.']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template() -> Template {
        Template {
            namespace: "kube-system".into(),
            session: "0a1b2c3d".into(),
            user: "system:serviceaccount:ops:jane".into(),
            image: "example.com/tracer@sha256:abc".into(),
            pull_policy: "Never".into(),
            pull_secrets: vec!["mirror".into()],
            servers: Servers::On(["server".to_owned()].into()),
            log_folder: None,
            privileged: false,
            deadline: Duration::from_secs(90),
            public_key: "key=".into(),
        }
    }

    #[test]
    fn the_cluster_ends_what_the_client_leaves() {
        let job = template().job(3, "worker-1").unwrap();
        assert_eq!(job.metadata.name.as_deref(), Some("knark-0a1b2c3d-3"));
        let spec = job.spec.unwrap();
        assert_eq!((spec.active_deadline_seconds, spec.backoff_limit), (Some(100), Some(0)));
        assert_eq!(spec.ttl_seconds_after_finished, Some(30));
        let labels = spec.template.metadata.unwrap().labels.unwrap();
        assert_eq!(labels[SESSION], "0a1b2c3d");
        let pod = spec.template.spec.unwrap();
        assert_eq!(pod.active_deadline_seconds, Some(90));
        assert_eq!(pod.node_name.as_deref(), Some("worker-1"));
        assert_eq!(pod.restart_policy.as_deref(), Some("Never"));
        assert_eq!(pod.image_pull_secrets.unwrap()[0].name, "mirror");
    }

    #[test]
    fn the_pod_has_no_more_than_it_needs() {
        let pod = template().pod(0, "n").unwrap().spec.unwrap();
        assert_eq!(pod.automount_service_account_token, Some(false));
        assert_eq!((pod.host_pid, pod.host_network, pod.host_ipc), (Some(true), None, None));
        let context = pod.containers[0].security_context.clone().unwrap();
        assert_eq!((context.privileged, context.read_only_root_filesystem), (Some(false), Some(true)));
        assert_eq!(context.capabilities.unwrap().drop.unwrap(), ["ALL"]);
        for (node, most) in [("n", "DAC_READ_SEARCH"), ("server", "SYS_ADMIN")] {
            let pod = template().pod(0, node).unwrap().spec.unwrap();
            let context = pod.containers[0].security_context.clone().unwrap();
            assert_eq!(context.capabilities.unwrap().add.unwrap().last().map(String::as_str), Some(most));
        }
        for volume in pod.volumes.unwrap() {
            let mounts = pod.containers[0].volume_mounts.as_ref().unwrap();
            assert!(mounts.iter().all(|m| m.name != volume.name || m.read_only == Some(true)), "{}", volume.name);
        }
    }

    #[test]
    fn a_pod_that_reads_a_log_has_its_folder_and_nothing_else() {
        let template = Template { servers: Servers::Nowhere, log_folder: Some("/var/log/kubernetes".into()), ..template() };
        let pod = template.pod(0, "n").unwrap().spec.unwrap();
        assert_eq!((pod.host_pid, pod.host_network, pod.host_ipc), (Some(false), None, None));
        let context = pod.containers[0].security_context.clone().unwrap();
        assert_eq!(context.capabilities.unwrap().add.unwrap(), [] as [&str; 0]);
        assert_eq!((context.privileged, context.seccomp_profile.unwrap().type_.as_str()), (Some(false), "RuntimeDefault"));
        let [volume] = &pod.volumes.unwrap()[..] else { panic!("one volume") };
        let path = volume.host_path.as_ref().unwrap();
        assert_eq!((path.path.as_str(), path.type_.as_deref()), ("/var/log/kubernetes", Some("Directory")));
        let [mount] = &pod.containers[0].volume_mounts.as_ref().unwrap()[..] else { panic!("one mount") };
        assert_eq!((mount.mount_path.as_str(), mount.read_only), (LOG_FOLDER, Some(true)));
        assert_eq!(mount.recursive_read_only.as_deref(), Some("IfPossible"));
        // As logs are on nodes with SELinux, nothing else may read them.
        assert_eq!(context.se_linux_options.unwrap().type_.as_deref(), Some("spc_t"));
    }

    #[test]
    fn users_fit_into_labels() {
        assert_eq!(user_label("jane.doe"), "jane.doe");
        for user in ["system:serviceaccount:ops:jane", "jane@example.com", "", "é", &"x".repeat(200), "oidc:/"] {
            let label = user_label(user);
            assert!(is_word(&label) && !label.is_empty(), "{user}: {label}");
        }
        assert_ne!(user_label("a@b"), user_label("a:b"));
    }
}
