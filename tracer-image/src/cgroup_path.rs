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

/// Reads a path in the cgroup hierarchy.
pub fn place(path: &[u8]) -> Place {
    let (mut kubepods, mut pod_uid) = (false, None);
    for part in path.split(|b| *b == b'/') {
        let Ok(part) = std::str::from_utf8(part) else { continue };
        if part.starts_with("kubepods") || part.contains("-kubepods") {
            kubepods = true;
        }
        if pod_uid.is_none()
            && kubepods
            && let Some(uid) = uid(part)
        {
            pod_uid = Some(uid);
        } else if let Some(id) = container_id(part) {
            return Place::Container { pod_uid, id: id.to_owned() };
        }
    }
    match pod_uid {
        Some(uid) => Place::Pod { uid },
        None => Place::Other { kubepods },
    }
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
            (format!("/docker/{ID}"), Place::Container { pod_uid: None, id: ID.into() }),
            (format!("/system.slice/docker-{ID}.scope"), Place::Container { pod_uid: None, id: ID.into() }),
            ("/kubepods/pod../../etc".to_owned(), Place::Other { kubepods: true }),
        ] {
            assert_eq!(place(path.as_bytes()), want, "{path}");
        }
    }
}
