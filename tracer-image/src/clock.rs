//! The node's clocks.

use rustix::time::{ClockId, Timespec, clock_gettime};

/// Nanoseconds since boot, sleep included: the clock that the probes use.
pub fn boot_ns() -> u64 {
    u64::try_from(nanos(clock_gettime(ClockId::Boottime))).unwrap_or(0)
}

/// `CLOCK_REALTIME` minus `CLOCK_BOOTTIME`, ns.
pub fn realtime_offset_ns() -> i64 {
    nanos(clock_gettime(ClockId::Realtime)) - nanos(clock_gettime(ClockId::Boottime))
}

fn nanos(time: Timespec) -> i64 {
    time.tv_sec.saturating_mul(1_000_000_000).saturating_add(time.tv_nsec)
}
