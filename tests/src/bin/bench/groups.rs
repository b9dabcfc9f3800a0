//! Control groups that are named as the kubelet names those of containers.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use knark_tests::cgroups;

/// A folder of them, which goes with it.
pub struct Groups(PathBuf);

impl Groups {
    /// Makes the folder.
    pub fn new() -> Result<Self> {
        let folder = cgroups::mounted()?.join(format!("kubepods-knark-{}.slice", std::process::id()));
        fs::create_dir(&folder).with_context(|| format!("making {}", folder.display()))?;
        Ok(Self(folder))
    }

    /// Makes the group of another pod's only container.
    pub fn container(&self, number: u64) -> Result<PathBuf> {
        let pod = self.0.join(format!("kubepods-pod00000000_0000_4000_8000_{number:012x}.slice"));
        let container = pod.join(format!("cri-containerd-{number:064x}.scope"));
        fs::create_dir_all(&container).with_context(|| format!("making {}", container.display()))?;
        Ok(container)
    }
}

/// Removes a container's group and its pod's.
pub fn remove_container(container: &Path) -> Result<()> {
    remove(container)?;
    container.parent().map_or(Ok(()), remove)
}

impl Drop for Groups {
    fn drop(&mut self) {
        let pods = fs::read_dir(&self.0).into_iter().flatten().flatten().map(|pod| pod.path());
        for pod in pods.filter(|pod| pod.is_dir()) {
            let containers = fs::read_dir(&pod).into_iter().flatten().flatten().map(|container| container.path());
            containers.filter(|container| container.is_dir()).for_each(|container| drop(remove(&container)));
            let _ = remove(&pod);
        }
        let _ = remove(&self.0);
    }
}

/// It may take the kernel a moment to see that a group is empty.
fn remove(group: &Path) -> Result<()> {
    let until = Instant::now() + Duration::from_secs(10);
    while let Err(error) = fs::remove_dir(group) {
        ensure!(Instant::now() < until, "removing {}: {error}", group.display());
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
