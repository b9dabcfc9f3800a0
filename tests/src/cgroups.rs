//! Control groups of this machine.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};

/// Where those of version 2 are mounted.
pub fn mounted() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts").context("reading what is mounted")?;
    let mut mounts = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let mounted = mounts.find(|fields| fields.get(2) == Some(&"cgroup2"));
    mounted.and_then(|fields| Some(fields.get(1)?.into())).context("control groups of version 2 are not mounted")
}

/// The file that says how much memory the control group of this process may have, of either version.
pub fn memory_limit(pid: u32) -> Result<PathBuf> {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).context("reading a process's control groups")?;
    let group = |wanted: &str| {
        let mut groups = groups.lines().filter_map(|line| line.splitn(3, ':').collect::<Vec<_>>().try_into().ok());
        groups.find_map(|[_, controllers, path]: [&str; 3]| {
            controllers.split(',').any(|controller| controller == wanted).then(|| path.trim_start_matches('/').to_owned())
        })
    };
    if let Some(path) = group("memory") {
        return Ok(PathBuf::from("/sys/fs/cgroup/memory").join(path).join("memory.limit_in_bytes"));
    }
    Ok(mounted()?.join(group("").context("the process has no control group")?).join("memory.max"))
}
