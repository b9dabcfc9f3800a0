//! One node's part of a trace: its definitions, its clock and its counts.

use std::collections::BTreeMap;

use knark_specs::{
    assemble::Assembler,
    event::{self, Event, NodeSums},
    frame::{Hello, LIMITED_AT_MOST, Limited, Stage, Status},
};

/// What the plugin knows of a node.
#[expect(clippy::struct_excessive_bools, reason = "they are independent of one another")]
#[derive(Debug, Default)]
pub struct Node {
    /// Its name; empty in local mode until the tracer says it.
    pub name: String,
    /// There from the first Hello on.
    pub assembler: Option<Assembler>,
    /// Its clock minus this machine's.
    pub clock_offset_ns: i64,
    /// This machine's clock minus its `CLOCK_BOOTTIME`: by this events are ordered, so it must not change when the node's clock is set.
    base_ns: i64,
    /// Its clock has just been measured, by the status that comes next.
    is_measured: bool,
    /// The last counters that it sent.
    pub status: Status,
    /// Events that arrived.
    pub received: u64,
    /// Events that the renderer was given.
    pub shown: u64,
    /// Events that it was given in the count of another only.
    pub aggregated: u64,
    /// Events that arrived and that nobody wanted: a replay's filter, or beyond `--max-events`.
    pub discarded: u64,
    /// The first and the last time that it told, by its own clock.
    pub told: Option<(u64, u64)>,
    /// It said goodbye; its counters are final.
    pub said_bye: bool,
    /// Something that it sent could not be understood.
    pub damaged: bool,
    /// Its stream is over.
    pub gone: bool,
}

impl Node {
    /// Takes the tracer's introduction. One that reconnects introduces itself again, and its definitions go on.
    pub fn greet(&mut self, hello: &Hello) {
        if self.name.is_empty() {
            self.name.clone_from(&hello.hostname);
        }
        let node = event::Node { name: self.name.clone(), clock_offset_ns: self.clock_offset_ns };
        self.status.realtime_offset_ns = hello.realtime_offset_ns;
        if self.assembler.is_none() {
            self.base_ns = hello.realtime_offset_ns.saturating_sub(self.clock_offset_ns);
        }
        match &mut self.assembler {
            Some(assembler) => assembler.set_realtime_offset(hello.realtime_offset_ns),
            None => self.assembler = Some(Assembler::new(node, hello)),
        }
    }

    /// Takes newer counters, and the clock with them.
    pub fn count(&mut self, status: Status) {
        if let Some(assembler) = &mut self.assembler {
            assembler.set_realtime_offset(status.realtime_offset_ns);
        }
        if status.now_ns > 0 {
            self.tell(status.now_ns);
        }
        // Taken from one and the same look at the node's clock, they don't depend on what it was set to.
        if std::mem::take(&mut self.is_measured) {
            self.base_ns = status.realtime_offset_ns.saturating_sub(self.clock_offset_ns);
        }
        self.status = status;
    }

    /// Notes that it was this time there.
    pub fn tell(&mut self, boot_ns: u64) {
        let (first, last) = self.told.unwrap_or((boot_ns, boot_ns));
        self.told = Some((first.min(boot_ns), last.max(boot_ns)));
    }

    /// Counts an event that the renderer was given.
    pub fn show(&mut self, event: &Event) {
        self.shown += 1;
        self.aggregated = self.aggregated.saturating_add(event.events().saturating_sub(1));
    }

    /// Counts an event that nobody wanted.
    pub fn discard(&mut self, event: &Event) {
        self.discarded = self.discarded.saturating_add(event.events());
    }

    /// Takes a newly measured clock. The status that it was measured by comes next.
    pub fn set_clock(&mut self, offset_ns: i64) {
        self.clock_offset_ns = offset_ns;
        self.is_measured = true;
        if let Some(assembler) = &mut self.assembler {
            assembler.set_clock_offset(offset_ns);
        }
    }

    /// A time of its `CLOCK_BOOTTIME` on this machine's clock, in ns since the epoch.
    pub fn here(&self, boot_ns: u64) -> i64 {
        let boot_ns = i64::try_from(boot_ns).unwrap_or(i64::MAX);
        boot_ns.saturating_add(self.base_ns)
    }

    /// What became of its events. What the tracer had sent or held and what never arrived was lost on the way, so that
    /// seen = shown + aggregated + filtered + lost always holds.
    pub fn sums(&self) -> NodeSums {
        let mut lost: BTreeMap<String, u64> = BTreeMap::new();
        for (stage, n) in &self.status.lost {
            let sum = lost.entry(stage.name().to_owned()).or_default();
            *sum = sum.saturating_add(*n);
        }
        let filtered = self.status.filtered.saturating_add(self.discarded);
        let known = lost
            .values()
            .fold(self.shown.saturating_add(self.aggregated).saturating_add(filtered), |sum, n| sum.saturating_add(*n));
        let seen = self.status.seen.max(known);
        let missing = seen - known;
        if missing > 0 {
            *lost.entry(Stage::Stream.name().to_owned()).or_default() += missing;
        }
        NodeSums {
            node: self.name.clone(),
            seen,
            shown: self.shown,
            aggregated: self.aggregated,
            filtered,
            lost,
            limited: self.status.limited.iter().take(LIMITED_AT_MOST + 1).map(limited).collect(),
            incomplete: self.assembler.is_some() && !self.said_bye,
        }
    }
}

fn limited(told: &Limited) -> event::Limited {
    let Limited { namespace, pod, container, container_id, cgroup, lost } = told.clone();
    event::Limited { namespace, pod, container, container_id, cgroup, lost }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn streaming() -> Node {
        let hello = Hello {
            version: String::new(),
            kernel: String::new(),
            arch: String::new(),
            probes: Vec::new(),
            realtime_offset_ns: 0,
            hostname: String::new(),
            portable: Vec::new(),
        };
        let mut node = Node::default();
        node.greet(&hello);
        node
    }

    fn lost(stage: &str, n: u64) -> BTreeMap<String, u64> {
        [(stage.to_owned(), n)].into()
    }

    #[test]
    fn a_nodes_clock_that_is_set_moves_no_event() {
        const HOUR: i64 = 3_600_000_000_000;
        let status = |realtime_offset_ns| Status { realtime_offset_ns, ..Status::default() };
        let mut node = streaming();
        // Its clock is 5 ns ahead of this machine's.
        node.set_clock(5);
        node.count(status(1_000));
        assert_eq!(node.here(7), 7 + 1_000 - 5);
        for set in [6 * HOUR, -2 * HOUR] {
            // What it was set to is known before it is measured anew.
            node.count(status(1_000 + set));
            assert_eq!(node.here(7), 7 + 1_000 - 5);
            node.set_clock(5 + set);
            node.count(status(1_000 + set));
            assert_eq!((node.here(7), node.clock_offset_ns), (7 + 1_000 - 5, 5 + set));
        }
    }

    #[test]
    fn sums_add_up() {
        let status = Status { seen: 10, filtered: 1, sent: 7, lost: vec![(Stage::Ring, 2)], ..Status::default() };
        let node = Node { received: 7, shown: 4, discarded: 3, said_bye: true, status, ..streaming() };
        let want = NodeSums { seen: 10, shown: 4, filtered: 4, lost: lost("ring", 2), ..NodeSums::default() };
        assert_eq!(node.sums(), want);
    }

    #[test]
    fn hostile_sums_neither_overflow_nor_hide_anything() {
        let status = Status { seen: 9, lost: vec![(Stage::Ring, 2), (Stage::Ring, 3), (Stage::Held, 1)], ..Status::default() };
        let sums = Node { said_bye: true, status, ..streaming() }.sums();
        assert_eq!((sums.lost["ring"], sums.lost["held"], sums.lost["stream"]), (5, 1, 3));
        let status = Status { lost: vec![(Stage::Ring, u64::MAX), (Stage::Ring, 3), (Stage::Held, 1)], ..Status::default() };
        let summary = crate::pipeline::summary::of(vec![Node { status, ..streaming() }.sums()], std::time::Duration::ZERO);
        assert_eq!(summary.summary.lost, u64::MAX);
    }

    #[test]
    fn what_never_arrived_is_lost() {
        let status = Status { seen: 10, sent: 8, held: 2, ..Status::default() };
        let node = Node { received: 5, shown: 5, status, ..streaming() };
        let want = NodeSums { seen: 10, shown: 5, lost: lost("stream", 5), incomplete: true, ..NodeSums::default() };
        assert_eq!(node.sums(), want);
    }

    #[test]
    fn events_may_arrive_after_the_last_counters() {
        let status = Status { seen: 3, sent: 3, ..Status::default() };
        let node = Node { received: 9, shown: 9, status, ..streaming() };
        assert_eq!(node.sums(), NodeSums { seen: 9, shown: 9, incomplete: true, ..NodeSums::default() });
    }
}
