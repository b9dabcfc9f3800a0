//! The messages between tracer and plugin, encoded as CBOR (RFC 8949) with numbered fields.
//!
//! A field or a variant is added, never renumbered: a reader skips what it does not know. Containers and processes are
//! defined once, in a numbered slot, and events refer to the slot; a later definition of a slot replaces the earlier one,
//! so both sides need the same bounded tables and nothing has to be forgotten by message.

mod api;
mod item;
mod log;
mod status;

use minicbor::{Decode, Encode, bytes::ByteVec};

pub use api::*;
pub use item::*;
pub use log::*;
pub use status::*;

/// How many process slots a tracer may use; a reader refuses larger numbers.
pub const PROCESS_SLOTS: u32 = 16_384;
/// How many container slots a tracer may use. Slot 0 is the host itself and is never defined.
pub const CONTAINER_SLOTS: u32 = 4_096;

/// Longest BTF that a tracer takes, in bytes before compression: those of distributions' kernels have 4 to 8 MiB.
pub const BTF_BYTES_AT_MOST: u64 = 64 << 20;

/// Longest part of a body that can be asked for, in bytes: two of them fit into a message.
pub const BODY_BYTES_AT_MOST: u32 = 1 << 20;

/// A message from the tracer to the plugin.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub enum Up {
    /// The first message on every connection: sign this nonce with the session's key.
    #[n(0)]
    Challenge {
        /// Random bytes, new for every connection.
        #[cbor(n(0), with = "minicbor::bytes")]
        nonce: Vec<u8>,
        /// The stream's version, so that a plugin that doesn't speak it can say so before anything else.
        #[n(1)]
        protocol: u32,
        /// The tracer's own version.
        #[n(2)]
        version: String,
    },
    /// The probes are attached; events follow.
    #[n(1)]
    Hello(#[n(0)] Hello),
    /// Events and the definitions that they need.
    #[n(2)]
    Batch(#[n(0)] Batch),
    /// Counters and the watermark; also the tracer's heartbeat.
    #[n(3)]
    Status(#[n(0)] Status),
    /// The last message: why the tracer ends. Its probes are detached and all that they saw has been sent.
    #[n(4)]
    Bye {
        /// Why.
        #[n(0)]
        reason: Ending,
        /// The final counters.
        #[n(1)]
        status: Status,
    },
    /// The tracer can't do what it was asked; it ends.
    #[n(5)]
    Refuse {
        /// What was being done, what went wrong, and what to do, for the user's eyes.
        #[n(0)]
        message: String,
    },
}

/// Why a tracer ended by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Ending {
    /// The plugin asked for it.
    #[n(0)]
    Stopped,
    /// A signal (SIGTERM: the pod is being deleted).
    #[n(1)]
    Signal,
    /// No plugin was connected within the grace time.
    #[n(2)]
    Orphaned,
    /// The kernel side failed.
    #[n(3)]
    Failed,
}

/// What was attached, and where.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct Hello {
    /// The tracer's version.
    #[n(0)]
    pub version: String,
    /// The kernel's release, as uname(2) gives it.
    #[n(1)]
    pub kernel: String,
    /// The machine, as uname(2) gives it.
    #[n(2)]
    pub arch: String,
    /// Each probe, attached or not.
    #[n(3)]
    pub probes: Vec<Probe>,
    /// `CLOCK_REALTIME` minus `CLOCK_BOOTTIME` in nanoseconds.
    #[n(4)]
    pub realtime_offset_ns: i64,
    /// The host's name, as uname(2) gives it.
    #[n(5)]
    pub hostname: String,
    /// Calls that are seen by their tracepoints alone, where other kernels or rights give probes that see more.
    #[n(6)]
    #[cbor(default)]
    pub portable: Vec<Portable>,
}

/// Calls for which there are better probes than those that could be attached.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Portable {
    /// Their names.
    #[n(0)]
    pub calls: Vec<String>,
    /// Why the better ones aren't attached.
    #[n(1)]
    pub why: String,
}

/// One probe's fate on this kernel.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Probe {
    /// What it is attached to, such as `syscalls:sys_exit_openat`, or a function of a process.
    #[n(0)]
    pub name: String,
    /// The event kind that it serves: `exec`, `file`, `write`, `map-exec`, `exit`, `api` or `container`; `body`: a part of events of `api`.
    #[n(1)]
    pub serves: String,
    /// Why it isn't attached; `None` when it is.
    #[n(2)]
    pub missing: Option<String>,
}

/// A numbered piece of the stream. A plugin that reconnects asks for what follows the last number that it has.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Batch {
    /// 1 for the first batch of a session, then without gaps.
    #[n(0)]
    pub seq: u64,
    /// [`Item`]s, one CBOR value after another.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub items: Vec<u8>,
}

/// A message from the plugin to the tracer.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub enum Down {
    /// The answer to [`Up::Challenge`].
    #[n(0)]
    Auth {
        /// Ed25519 signature of the nonce.
        #[cbor(n(0), with = "minicbor::bytes")]
        signature: Vec<u8>,
        /// The last batch that the plugin has, 0 for none: what follows is sent (again).
        #[n(1)]
        resume_after: u64,
    },
    /// What to trace; the first message after [`Down::Auth`] on the first connection, ignored on later ones.
    #[n(1)]
    Plan(#[n(0)] Box<Plan>),
    /// Verdicts on pods; a later one on the same pod replaces the earlier.
    #[n(2)]
    Pods(#[n(0)] Vec<PodVerdict>),
    /// Batches up to this number arrived: the tracer forgets them.
    #[n(3)]
    Ack(#[n(0)] u64),
    /// The plugin's heartbeat.
    #[n(4)]
    Ping(#[n(0)] u64),
    /// Detach, send what is left, say [`Up::Bye`], end.
    #[n(5)]
    Stop,
}

/// What a tracer is to watch.
#[expect(clippy::struct_excessive_bools, reason = "kinds are chosen independently of one another")]
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub struct Plan {
    /// Process executions.
    #[n(0)]
    pub exec: bool,
    /// File operations.
    #[n(1)]
    pub file: bool,
    /// Process exits.
    #[n(2)]
    pub exit: bool,
    /// Whose.
    #[n(3)]
    pub target: Target,
    /// Size of the kernel's ring buffer in bytes, a power of two; 0 for the default.
    #[n(4)]
    pub ring_bytes: u32,
    /// Processes never to be traced, such as the plugin itself in local mode.
    #[n(5)]
    pub exclude_pids: Vec<u32>,
    /// Which of the chosen kinds' events are wanted; `None`: all. What isn't is filtered, in the kernel as far as it can tell.
    #[n(6)]
    pub want: Option<Want>,
    /// Requests to the Kubernetes API, of every API server on the node, whatever the target.
    #[cbor(n(7), default)]
    pub api: bool,
    /// What those that change something carry and are answered; `None`: not wanted.
    #[n(8)]
    pub bodies: Option<Bodies>,
    /// Read this audit log instead of all else.
    #[n(9)]
    pub log: Option<Box<LogPlan>>,
    /// What a kernel that doesn't describe its own types is like: BTF, compressed by gzip.
    #[n(10)]
    pub btf: Option<ByteVec>,
    /// So many file events each container may make per second, and as many at once after a quiet second; `None`: any number.
    #[n(11)]
    pub events_per_second: Option<u32>,
    /// Whether repeats of file events are counted instead of told one by one.
    #[n(12)]
    pub aggregate: Option<Aggregate>,
    /// Files that are wanted under whatever name.
    #[n(17)]
    pub same: Option<SameFiles>,
}

/// What file events have in common that are repeats of one another, besides what is done to which file, how, in which container and
/// by which user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Aggregate {
    /// The program.
    #[n(0)]
    Exe,
    /// The process and its program, and the thread's name.
    #[n(1)]
    Process,
}

/// How bodies of requests and responses are wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode)]
pub struct Bodies {
    /// Of each, so many bytes as they are in the API server's memory; a tracer takes at most [`BODY_BYTES_AT_MOST`].
    #[n(0)]
    pub limit: u32,
    /// What gives access isn't taken out.
    #[n(1)]
    pub show_secrets: bool,
}

/// Which executions and file operations are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub struct Want {
    /// Executions, by the executable, or by the script.
    #[n(0)]
    pub exec: Wanted,
    /// File operations: what any of these describes.
    #[n(1)]
    pub file: Vec<WantedFile>,
}

/// Operations that are wanted on some paths.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub struct WantedFile {
    /// What is done; empty: any of [`FileOp::USUAL`].
    #[n(0)]
    pub ops: Vec<FileOp>,
    /// To what: the path as the event says it, or the other one of a rename, link or symlink.
    #[n(1)]
    pub paths: Wanted,
}

/// Files that are wanted under other names than those that are given, too: hard links, bind mounts, paths in other mount namespaces.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub struct SameFiles {
    /// What is done; none: nothing.
    #[n(0)]
    pub ops: Vec<FileOp>,
    /// Which files: those that have such paths on the node or in a traced container.
    #[n(1)]
    pub paths: Vec<SamePath>,
}

/// Paths of files that are wanted under other names, too.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum SamePath {
    /// These bytes exactly; if they end in `/`, all below that folder, at any depth.
    #[n(0)]
    Plain(#[n(0)] String),
    /// All below a folder that a regular expression finds.
    #[n(1)]
    Regex {
        /// The folder, which ends in `/`; empty: any.
        #[n(0)]
        folder: String,
        /// The expression.
        #[n(1)]
        regex: String,
    },
}

/// Paths that are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub enum Wanted {
    /// Any.
    #[n(0)]
    #[default]
    All,
    /// These bytes exactly; one that ends in `/`: all below that folder, at any depth, and not the folder itself. Without
    /// empty, `.` and `..` components. None: nothing.
    #[n(1)]
    Paths(#[n(0)] Vec<ByteVec>),
}

/// Whose events a tracer watches.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub enum Target {
    /// Every process of the node.
    #[n(0)]
    #[default]
    Everything,
    /// Pods, as [`Down::Pods`] names them. A pod without a verdict is held, unless it lies outside of `namespace`.
    #[n(1)]
    Pods {
        /// Only pods of this namespace can be wanted; `None`: any.
        #[n(0)]
        namespace: Option<String>,
    },
    /// Processes of a host without a cluster. Conditions are joined by and, the values of one by or.
    #[n(2)]
    Host(#[n(0)] HostFilter),
}

/// The filters of local mode; an empty list sets no condition.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub struct HostFilter {
    /// These processes and their descendants.
    #[n(0)]
    pub pids: Vec<u32>,
    /// Thread names, as comm shows them (15 bytes at most).
    #[n(1)]
    pub comms: Vec<String>,
    /// Absolute paths of executables.
    #[n(2)]
    pub exes: Vec<String>,
    /// Cgroups, by path below the hierarchy's root, with all below them.
    #[n(3)]
    pub cgroups: Vec<String>,
    /// Containers, by id, id prefix or name.
    #[n(4)]
    pub containers: Vec<String>,
}

/// Whether a pod's events are wanted.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct PodVerdict {
    /// The pod's UID as its cgroup bears it (a static pod's is its `kubernetes.io/config.hash`).
    #[n(0)]
    pub uid: String,
    /// Wanted or not.
    #[n(1)]
    pub wanted: bool,
    /// Only these containers of it; empty: all.
    #[n(2)]
    pub containers: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_without_wishes_is_one_of_an_older_plugin() {
        let mut plan = Plan { file: true, ..Plan::default() };
        let with = |plan: &Plan| minicbor::to_vec(plan).unwrap();
        let mut older = with(&plan);
        // Whether requests are wanted came later still, and their bodies last; wishes before that are null.
        let later = older.split_off(older.len() - 2);
        older[0] -= 2;
        assert_eq!(later, [0xf6, 0xf4]);
        assert_eq!(minicbor::decode::<Plan>(&older).unwrap(), plan);
        plan.api = true;
        plan.bodies = Some(Bodies { limit: 1 << 16, show_secrets: true });
        plan.want = Some(Want {
            exec: Wanted::Paths(Vec::new()),
            file: vec![
                WantedFile { ops: vec![FileOp::Chmod], paths: Wanted::Paths(vec![b"/etc/\xff/".to_vec().into()]) },
                WantedFile::default(),
            ],
        });
        let newer = with(&plan);
        assert_eq!(minicbor::decode::<Plan>(&newer).unwrap(), plan);
        let regex = SamePath::Regex { folder: "/a/".into(), regex: "^/a/.*$".into() };
        let same = SameFiles { ops: vec![FileOp::Open], paths: vec![SamePath::Plain("/etc/shadow".into()), regex] };
        let watching = Plan { same: Some(same), ..plan.clone() };
        assert_eq!(minicbor::decode::<Plan>(&with(&watching)).unwrap(), watching);
        // new fields come last: what lies before it is as it was
        assert_eq!(newer[1..older.len()], older[1..]);
    }

    #[test]
    fn a_pod_without_containers_is_of_an_older_recording() {
        let mut pod = Pod { uid: "u".into(), ..Pod::default() };
        let older = minicbor::to_vec(&pod).unwrap();
        // An array of seven, as it was before.
        assert_eq!(older[0], 0x87);
        assert_eq!(minicbor::decode::<Pod>(&older).unwrap(), pod);
        let container = PodContainer { ephemeral: true, stdin: true, commands: vec![vec!["a".into()]] };
        pod.containers = Some([("c".to_owned(), container)].into());
        assert_eq!(minicbor::decode::<Pod>(&minicbor::to_vec(&pod).unwrap()).unwrap(), pod);
    }
}
