//! The numbers of tracepoints, out of tracefs.
//!
//! Where it isn't mounted, a mount is made that is attached to no folder: it is read through its descriptor, and gone
//! with it, so that nothing is left behind and no one else sees it.

use std::{
    fs::File,
    io::{self, Read as _},
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{CWD, Mode, OFlags},
    mount::{FsMountFlags, FsOpenFlags, MountAttrFlags},
};

/// Where it usually is.
const FOLDERS: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// The folder `events`.
pub(super) struct Events {
    folder: OwnedFd,
    /// At one of its usual places.
    pub(super) mounted: bool,
}

impl Events {
    /// Finds it, or mounts it.
    pub(super) fn open() -> io::Result<Events> {
        const FOLDER: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
        for folder in FOLDERS {
            let events = Path::new(folder).join("events");
            match rustix::fs::openat(CWD, events.join("syscalls"), FOLDER, Mode::empty()) {
                Ok(_) => {
                    let folder = rustix::fs::openat(CWD, events, FOLDER, Mode::empty())?;
                    return Ok(Events { folder, mounted: true });
                }
                Err(rustix::io::Errno::NOENT) => {}
                Err(e) => return Err(e.into()),
            }
        }
        let root = detached("tracefs")?;
        let folder = rustix::fs::openat(root, "events", FOLDER, Mode::empty())?;
        Ok(Events { folder, mounted: false })
    }

    /// The number of a tracepoint; None if this kernel doesn't have it.
    pub(super) fn id(&self, name: &str) -> io::Result<Option<u64>> {
        let file = match rustix::fs::openat(
            self.folder.as_fd(),
            format!("syscalls/{name}/id"),
            OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        ) {
            Ok(file) => file,
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        let mut text = String::new();
        File::from(file).take(32).read_to_string(&mut text)?;
        let id = text.trim().parse().map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "not a number"))?;
        Ok(Some(id))
    }
}

/// Mounts a file system without giving it a place.
pub(super) fn detached(kind: &str) -> io::Result<OwnedFd> {
    let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_create(context.as_fd())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NOEXEC | MountAttrFlags::MOUNT_ATTR_NOSUID;
    Ok(rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}
