//! What a tracer counted.

use minicbor::{Decode, Encode};

/// Where events are lost. Serialised by name in summaries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum Stage {
    /// The kernel's ring buffer was full.
    #[n(0)]
    Ring,
    /// Too many syscalls were between entry and exit.
    #[n(1)]
    InFlight,
    /// The kernel skipped a probe because another was running on the same CPU.
    #[n(2)]
    Probe,
    /// Events of a new pod were held for its verdict for too long, or were too many.
    #[n(3)]
    Held,
    /// The connection ended before what was sent arrived.
    #[n(4)]
    Stream,
    /// What an audit log holds could not be read.
    #[n(5)]
    Unreadable,
    /// A container made more file events than the rate limit lets through.
    #[n(6)]
    RateLimit,
}

impl Stage {
    /// The name that summaries use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ring => "ring",
            Self::InFlight => "in-flight",
            Self::Probe => "probe",
            Self::Held => "held",
            Self::Stream => "stream",
            Self::Unreadable => "unreadable",
            Self::RateLimit => "rate-limit",
        }
    }
}

/// Counters since the probes were attached, and how far the stream is complete.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub struct Status {
    /// Events that passed the kernel's filter.
    #[n(0)]
    pub seen: u64,
    /// Events that user space dropped because no target wants them.
    #[n(1)]
    pub filtered: u64,
    /// Events put into batches; one that stands for several counts as these.
    #[n(2)]
    pub sent: u64,
    /// Events held for a pod's verdict at this moment.
    #[n(3)]
    pub held: u64,
    /// Events lost, by stage; a stage without loss is left out.
    #[n(4)]
    pub lost: Vec<(Stage, u64)>,
    /// Every event up to this time (`CLOCK_BOOTTIME`, ns) is in a batch already sent.
    #[n(5)]
    pub watermark_ns: u64,
    /// `CLOCK_REALTIME` minus `CLOCK_BOOTTIME` in nanoseconds, now.
    #[n(6)]
    pub realtime_offset_ns: i64,
    /// The [`Down::Ping`]'s value that this answers at once; 0 in a status that answers none.
    #[n(7)]
    pub pong: u64,
    /// Number of the last batch.
    #[n(8)]
    pub last_seq: u64,
    /// When this was written (`CLOCK_BOOTTIME`, ns).
    #[n(9)]
    pub now_ns: u64,
    /// Whose events are lost for the rate limit ([`Stage::RateLimit`]), those that lost most first; at most [`LIMITED_AT_MOST`].
    #[cbor(n(10), default)]
    pub limited: Vec<Limited>,
}

/// So many containers are named for which the rate limit lost events. One more stands for all others.
pub const LIMITED_AT_MOST: usize = 64;

/// A container that made more file events than the rate limit lets through. What isn't known is empty; if all is, it stands for
/// several.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Limited {
    /// The pod's namespace.
    #[n(0)]
    pub namespace: String,
    /// The pod's name.
    #[n(1)]
    pub pod: String,
    /// The container's name in the pod's spec.
    #[n(2)]
    pub container: String,
    /// The runtime's id of it.
    #[n(3)]
    pub container_id: String,
    /// Outside of containers: the control group's path.
    #[n(4)]
    pub cgroup: String,
    /// How many events are lost.
    #[n(5)]
    pub lost: u64,
}

impl Status {
    /// The sum of what was lost.
    pub fn lost_total(&self) -> u64 {
        self.lost.iter().fold(0, |sum, (_, n)| sum.saturating_add(*n))
    }
}
