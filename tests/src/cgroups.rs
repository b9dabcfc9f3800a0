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
