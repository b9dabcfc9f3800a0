//! Recordings made by hand, for what no kernel does on request.

use std::path::PathBuf;

use knark_specs::{
    frame::{Batch, Container, Ending, Exec, File, FileOp, Hello, Item, Path, Process, ProcessSource, Status, Up},
    packet::{MAGIC, Recorded, encode},
};

/// `CLOCK_BOOTTIME` 0 of these recordings is 2026-01-02T03:04:05Z.
pub const BOOT: i64 = 1_767_323_045_000_000_000;

/// A shell in a container, with which most cases are content.
pub const PROCESS: Process<'static> = Process {
    slot: 1,
    pid: 4711,
    ppid: 1,
    start_ns: 0,
    uid: 1000,
    gid: 1000,
    comm: b"sh",
    exe: b"/bin/sh",
    args: b"sh\0",
    args_cut_from: 0,
    cwd: b"/",
    upper_layer: None,
    memfd: false,
    source: ProcessSource::Exec,
    ancestors: Vec::new(),
    container: 1,
    ancestors_cut: false,
    ns_pid: None,
    ns_uid: None,
    ns_gid: None,
};

/// The container `app` of the pod `web` in `prod`.
pub const CONTAINER: Container<'static> = Container {
    slot: 1,
    cgroup_id: 77,
    id: "c0ffee00c0ffee00",
    name: "app",
    namespace: "prod",
    pod: "web-7d9f8b6c5-x2x7k",
    pod_uid: "u-1",
    image: "app:1",
};

/// A path that the kernel resolved.
pub const fn path(path: &'static [u8]) -> Path<'static> {
    Path { path, argument: false, deleted: false, cut: false, unreachable: false, late: false, raced: false, asked: b"" }
}

/// An open that went well.
pub const FILE: File<'static> = File {
    time_ns: 1_000_000,
    process: 1,
    tid: 4711,
    op: FileOp::Open,
    result: 3,
    path: path(b"/etc/passwd"),
    to: None,
    flags: Some(0o2_000_000),
    created: false,
    mode: Some(0o100_644),
    old_mode: None,
    uid: None,
    gid: None,
    old_uid: None,
    old_gid: None,
    inode: Some(12),
    device: Some(8 << 20 | 1),
    size: None,
    xattr: b"",
    thread: b"",
    syscall: "openat",
    repeats: None,
    same_as: None,
};

/// An execution; its process is defined before.
pub const EXEC: Exec<'static> = Exec {
    time_ns: 500_000,
    process: 1,
    filename: b"/bin/sh",
    inode: 11,
    device: 8 << 20 | 1,
    mode: 0o100_755,
    uid: 0,
    gid: 0,
    deleted: false,
    exe_cut: false,
};

/// A recording under construction.
#[derive(Debug)]
pub struct Builder {
    bytes: Vec<u8>,
    seq: u64,
}

impl Default for Builder {
    fn default() -> Self {
        Self { bytes: MAGIC.to_vec(), seq: 0 }
    }
}

impl Builder {
    /// A node and its tracer's introduction; an empty name means local mode.
    #[must_use]
    pub fn node(mut self, number: u32, name: &str) -> Self {
        self.push(&Recorded::Node { number, name: name.to_owned(), clock_offset_ns: 0 });
        let hello = Hello {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            kernel: "6.1.0".to_owned(),
            arch: "x86_64".to_owned(),
            probes: Vec::new(),
            realtime_offset_ns: BOOT,
            hostname: "host".to_owned(),
            portable: Vec::new(),
        };
        self.up(number, Up::Hello(hello))
    }

    /// Events and definitions of a node.
    #[must_use]
    pub fn items(mut self, node: u32, items: &[Item<'_>]) -> Self {
        let mut bytes = Vec::new();
        for item in items {
            if let Err(error) = minicbor::encode(item, &mut bytes) {
                unreachable!("encoding to memory can't fail: {error}");
            }
        }
        self.seq += 1;
        let seq = self.seq;
        self.up(node, Up::Batch(Batch { seq, items: bytes }))
    }

    /// A node's counters.
    #[must_use]
    pub fn status(self, node: u32, status: Status) -> Self {
        self.up(node, Up::Status(Status { realtime_offset_ns: BOOT, ..status }))
    }

    /// A node's last word.
    #[must_use]
    pub fn bye(self, node: u32, status: Status) -> Self {
        self.up(node, Up::Bye { reason: Ending::Stopped, status: Status { realtime_offset_ns: BOOT, ..status } })
    }

    /// Its bytes.
    pub fn bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// A file of it in this folder.
    ///
    /// # Errors
    /// Where it can't be written.
    pub fn file(self, folder: &tempfile::TempDir) -> std::io::Result<PathBuf> {
        let path = folder.path().join("rec.knark");
        std::fs::write(&path, self.bytes)?;
        Ok(path)
    }

    fn up(mut self, node: u32, message: Up) -> Self {
        self.push(&Recorded::Up { node, message });
        self
    }

    fn push(&mut self, packet: &Recorded) {
        self.bytes.extend(encode(packet));
    }
}
