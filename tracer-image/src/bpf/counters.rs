//! What the programs counted, summed over CPUs.

use knark_abi::kind;

/// One kind of event. `seen == emitted + aggregated + lost() + in_flight()` holds exactly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Events in scope.
    pub seen: u64,
    /// Records put into the ring.
    pub emitted: u64,
    /// Records that found no room in the ring.
    pub lost_ring: u64,
    /// Calls that found no room in the map of calls that have begun.
    pub lost_inflight: u64,
    /// Events beyond the rate limit of their control group.
    pub lost_rate: u64,
    /// Events counted as repeats, see [`super::Probes::take_repeats`].
    pub aggregated: u64,
}

impl Count {
    /// All that was lost.
    pub const fn lost(&self) -> u64 {
        self.lost_ring + self.lost_inflight + self.lost_rate
    }

    /// Calls that have begun and not ended.
    pub const fn in_flight(&self) -> u64 {
        self.seen.saturating_sub(self.emitted + self.aggregated + self.lost())
    }
}

/// All kinds, since the programs were loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// By [`kind`].
    pub kinds: [Count; kind::COUNT],
    /// How often the kernel skipped a program since another one was under way on that CPU; None where the kernel doesn't
    /// count this (before 5.12). These events are in no other number. Always 0 where programs of tracepoints aren't
    /// preempted; where they are (7.2), busy threads that share a CPU lose many.
    pub missed: Option<u64>,
    /// Processes that should have come into the scope (by fork or exec) and found no room there.
    pub scope_lost: u64,
}

impl Counters {
    /// Execs.
    pub const fn exec(&self) -> &Count {
        &self.kinds[kind::EXEC as usize]
    }

    /// Continuations of arguments; a lost one is also marked in the exec's record.
    pub const fn exec_args(&self) -> &Count {
        &self.kinds[kind::EXEC_ARGS as usize]
    }

    /// Opens.
    pub const fn open(&self) -> &Count {
        &self.kinds[kind::OPEN as usize]
    }

    /// Path calls.
    pub const fn path(&self) -> &Count {
        &self.kinds[kind::PATH as usize]
    }

    /// Exits.
    pub const fn exit(&self) -> &Count {
        &self.kinds[kind::EXIT as usize]
    }

    /// Steps of requests to API servers.
    pub const fn api(&self) -> &Count {
        &self.kinds[kind::API as usize]
    }

    /// Pieces of the bodies of such requests.
    pub const fn api_body(&self) -> &Count {
        &self.kinds[kind::API_BODY as usize]
    }

    /// Control groups made.
    pub const fn cgroup_mkdir(&self) -> &Count {
        &self.kinds[kind::CGROUP_MKDIR as usize]
    }

    /// Control groups removed.
    pub const fn cgroup_rmdir(&self) -> &Count {
        &self.kinds[kind::CGROUP_RMDIR as usize]
    }

    /// Everything that is known to be lost.
    pub fn lost(&self) -> u64 {
        self.kinds.iter().map(Count::lost).sum::<u64>() + self.missed.unwrap_or(0) + self.scope_lost
    }
}
