//! What a cgroup's path says of the pod and the container that it belongs to.
//!
//! The kubelet makes `kubepods[/QOS]/podUID` (cgroupfs driver) or `kubepods.slice[/kubepods-QOS.slice]/kubepods-QOS-podUID.slice`
//! (systemd driver, the UID's dashes written as underscores); the runtime adds `ID`, `cri-containerd-ID.scope`, `crio-ID.scope`
//! or the like below it. A static pod's UID is the hash of its configuration: 32 hexadecimal digits.

/// What kind of cgroup a path names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Neither a pod's nor a container's.
    Other {
        /// Pods appear below it.
        kubepods: bool,
    },
    /// A pod's own cgroup: its containers appear below it.
    Pod {
        /// The pod's UID.
        uid: String,
    },
    /// A container's cgroup, or one below it.
    Container {
        /// The pod's UID; `None` for a container outside of Kubernetes.
        pod_uid: Option<String>,
        /// The runtime's id.
        id: String,
    },
}

impl Place {
    /// The pod's UID, for a pod and for its containers.
    pub fn pod_uid(&self) -> Option<&str> {
        match self {
            Self::Pod { uid } | Self::Container { pod_uid: Some(uid), .. } => Some(uid),
            Self::Container { pod_uid: None, .. } | Self::Other { .. } => None,
        }
    }
}

/// Reads a path in the cgroup hierarchy. A node may itself be a container, so a pod goes before what stands above it, and
/// of containers without a pod the innermost counts.
pub fn place(path: &[u8]) -> Place {
    let (mut kubepods, mut pod_uid, mut container) = (false, None, None);
    for part in path.split(|b| *b == b'/').filter_map(|part| std::str::from_utf8(part).ok()) {
        // Named after the container that it watches, yet no part of it.
        if part.contains("conmon") {
            return Place::Other { kubepods: false };
        }
        kubepods |= is_kubepods(part);
        if let Some(uid) = uid(part).filter(|_| kubepods && pod_uid.is_none()) {
            (pod_uid, container) = (Some(uid), None);
        } else if let Some(id) = container_id(part)
            && (pod_uid.is_none() || container.is_none())
        {
            container = Some(id);
        }
    }
    match (pod_uid, container) {
        (Some(uid), None) => Place::Pod { uid },
        (None, Some(_)) if kubepods => Place::Other { kubepods },
        (pod_uid, Some(id)) => Place::Container { pod_uid, id: id.to_owned() },
        (None, None) => Place::Other { kubepods },
    }
}

/// The folder below which this node's kubelet puts its pods, out of the path of one of them.
pub fn kubepods_root(path: &[u8]) -> Option<&[u8]> {
    let mut end = 0;
    for part in path.split_inclusive(|b| *b == b'/') {
        end += part.len();
        let name = part.strip_suffix(b"/").unwrap_or(part);
        if std::str::from_utf8(name).is_ok_and(is_kubepods) {
            return path.get(..end).map(|root| root.strip_suffix(b"/").unwrap_or(root));
        }
    }
    None
}

fn is_kubepods(part: &str) -> bool {
    part.starts_with("kubepods") || part.contains("-kubepods")
}

fn uid(part: &str) -> Option<String> {
    let name = part.strip_suffix(".slice").map_or(part, |slice| slice.rsplit('-').next().unwrap_or(slice));
    let uid = name.strip_prefix("pod")?.replace('_', "-");
    let dashed = uid.len() == 36 && uid.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    let hash = uid.len() == 32 && uid.bytes().all(|b| b.is_ascii_hexdigit());
    (dashed || hash).then_some(uid)
}

fn container_id(part: &str) -> Option<&str> {
    let name = part.strip_suffix(".scope").unwrap_or(part);
    let id = name.rsplit('-').next()?;
    // With the systemd driver a cri-containerd path may also be written as slice:prefix:id.
    let id = id.rsplit(':').next()?;
    (id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit())).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const UID: &str = "3c4d2c1e-86ba-4d0b-9dd8-0c6a8a2f9e11";

    #[test]
    fn places() {
        let under = UID.replace('-', "_");
        let pod = || Place::Pod { uid: UID.into() };
        let container = || Place::Container { pod_uid: Some(UID.into()), id: ID.into() };
        for (path, want) in [
            ("/".to_owned(), Place::Other { kubepods: false }),
            ("/system.slice/ssh.service".to_owned(), Place::Other { kubepods: false }),
            ("/kubepods/burstable".to_owned(), Place::Other { kubepods: true }),
            ("/node-1/kubepods".to_owned(), Place::Other { kubepods: true }),
            ("/kubelet.slice/kubelet-kubepods.slice".to_owned(), Place::Other { kubepods: true }),
            (format!("/kubepods/pod{UID}"), pod()),
            (format!("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{under}.slice"), pod()),
            (format!("/node-1/kubepods/besteffort/pod{UID}/{ID}"), container()),
            (format!("/kubepods/pod{UID}/{ID}/nested/deeper"), container()),
            (format!("/kubepods.slice/kubepods-pod{under}.slice/cri-containerd-{ID}.scope"), container()),
            (format!("/kubepods.slice/kubepods-pod{under}.slice/crio-{ID}.scope/container"), container()),
            (
                format!("/kubepods/podc2d5a9f37a4e4f1db6b0a7de53d84f3b/{ID}"),
                Place::Container { pod_uid: Some("c2d5a9f37a4e4f1db6b0a7de53d84f3b".into()), id: ID.into() },
            ),
            (format!("/docker/{ID}/kubelet/kubepods"), Place::Other { kubepods: true }),
            (format!("/docker/{}/kubelet/kubepods/pod{UID}/{ID}", ID.replace('0', "f")), container()),
            (format!("/kubepods.slice/kubepods-pod{under}.slice/crio-conmon-{ID}.scope"), Place::Other { kubepods: false }),
            (format!("/docker/{ID}"), Place::Container { pod_uid: None, id: ID.into() }),
            (format!("/system.slice/docker-{ID}.scope"), Place::Container { pod_uid: None, id: ID.into() }),
            ("/kubepods/pod../../etc".to_owned(), Place::Other { kubepods: true }),
        ] {
            assert_eq!(place(path.as_bytes()), want, "{path}");
        }
    }

    #[test]
    fn where_a_kubelet_puts_its_pods() {
        for (path, root) in [
            (format!("/node-1/kubepods/burstable/pod{UID}"), "/node-1/kubepods"),
            (format!("/kubepods.slice/kubepods-pod{UID}.slice"), "/kubepods.slice"),
            (
                format!("/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{UID}.slice"),
                "/kubelet.slice/kubelet-kubepods.slice",
            ),
        ] {
            assert_eq!(kubepods_root(path.as_bytes()), Some(root.as_bytes()));
        }
        assert_eq!(kubepods_root(b"/system.slice/ssh.service"), None);
    }
}
