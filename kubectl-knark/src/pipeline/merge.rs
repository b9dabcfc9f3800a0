//! Several nodes' events in one order, by time, as far as waiting a bounded while can tell it.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use knark_specs::event::Event;

/// No event waits longer than this for those of slower nodes.
const DELAY: Duration = Duration::from_millis(900);
/// Nor do more events wait than take this much memory, in bytes.
const CAPACITY: usize = 64 << 20;

/// The queues of all nodes. Each node's own order is kept, unless it is known to be another than that of time; between nodes, the event that is older by this machine's clock
/// comes first.
#[derive(Debug)]
pub struct Merge {
    queues: Vec<Queue>,
    /// How much memory the waiting events take. A process counts with each of its events, so the truth is less.
    bytes: usize,
    delay: Option<Duration>,
}

/// An event, its node, and its time by this machine's clock.
#[derive(Debug)]
struct Waiting {
    time_ns: i64,
    since: Instant,
    event: Event,
}

#[derive(Debug, Default)]
struct Queue {
    events: VecDeque<Waiting>,
    /// Up to this time, this node's events are all here.
    watermark_ns: i64,
    /// Whether more may come.
    live: bool,
    /// Whether older events may come after younger ones, as long as the watermark hasn't passed them.
    unordered: bool,
}

impl Merge {
    /// No nodes yet. A recording has no present, so events need not wait in time: with `live` unset, only what was recorded
    /// decides.
    pub fn new(live: bool) -> Self {
        Self { queues: Vec::new(), bytes: 0, delay: live.then_some(DELAY) }
    }

    /// From now on this node's events matter to the order of others'.
    pub fn begin(&mut self, node: usize) {
        if self.queues.len() <= node {
            self.queues.resize_with(node + 1, Queue::default);
        }
        self.queues[node].live = true;
    }

    /// This node tells of some events later than of others: of requests that have begun, once it is clear that they will take
    /// long.
    pub fn sort(&mut self, node: usize) {
        self.begin(node);
        self.queues[node].unordered = true;
    }

    /// This node has no more to say.
    pub fn end(&mut self, node: usize) {
        if let Some(queue) = self.queues.get_mut(node) {
            queue.live = false;
        }
    }

    /// All of this node's events up to then have been pushed.
    pub fn advance(&mut self, node: usize, watermark_ns: i64) {
        if let Some(queue) = self.queues.get_mut(node) {
            queue.watermark_ns = queue.watermark_ns.max(watermark_ns);
        }
    }

    /// Adds a node's next event, which arrived at `now`.
    pub fn push(&mut self, node: usize, time_ns: i64, event: Event, now: Instant) {
        self.begin(node);
        self.bytes += event.bytes();
        let queue = &mut self.queues[node];
        let at = match queue.events.back() {
            Some(last) if queue.unordered && last.time_ns > time_ns => {
                queue.events.partition_point(|waiting| waiting.time_ns <= time_ns)
            }
            _ => queue.events.len(),
        };
        queue.events.insert(at, Waiting { time_ns, since: now, event });
    }

    /// The next event whose turn has come, and its node.
    pub fn pop(&mut self, now: Instant) -> Option<(usize, Event)> {
        let heads = self.queues.iter().enumerate().filter_map(|(node, queue)| Some((queue.events.front()?, node)));
        let (first, node) = heads.min_by_key(|(head, node)| (head.time_ns, *node))?;
        let overdue = self.bytes > CAPACITY || self.delay.is_some_and(|delay| now.duration_since(first.since) >= delay);
        let time_ns = first.time_ns;
        let is_first = || {
            let awaited = self.queues.iter().enumerate().filter(|(other, queue)| {
                queue.live && if *other == node { queue.unordered } else { queue.unordered || queue.events.is_empty() }
            });
            awaited.into_iter().all(|(_, queue)| queue.watermark_ns >= time_ns)
        };
        if !overdue && !is_first() {
            return None;
        }
        let Waiting { event, .. } = self.queues[node].events.pop_front()?;
        self.bytes -= event.bytes();
        Some((node, event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::tests::event;

    fn popped(merge: &mut Merge, now: Instant) -> Vec<u64> {
        std::iter::from_fn(|| merge.pop(now)).map(|(_, event)| event.boot_ns).collect()
    }

    fn push(merge: &mut Merge, node: usize, time: u64, now: Instant) {
        merge.push(node, i64::try_from(time).unwrap(), event(time), now);
    }

    #[test]
    fn a_single_node_never_waits() {
        let (mut merge, now) = (Merge::new(true), Instant::now());
        merge.begin(0);
        for time in [1, 3, 2] {
            push(&mut merge, 0, time, now);
        }
        assert_eq!(popped(&mut merge, now), [1, 3, 2]);
    }

    #[test]
    fn what_is_told_late_has_its_place() {
        let (mut merge, now) = (Merge::new(true), Instant::now());
        merge.sort(0);
        for time in [10, 30, 20] {
            push(&mut merge, 0, time, now);
        }
        assert_eq!(popped(&mut merge, now), [] as [u64; 0]);
        merge.advance(0, 15);
        assert_eq!(popped(&mut merge, now), [10]);
        push(&mut merge, 0, 18, now);
        merge.advance(0, 30);
        assert_eq!(popped(&mut merge, now), [18, 20, 30]);
        push(&mut merge, 0, 40, now);
        assert_eq!(popped(&mut merge, now + DELAY), [40]);
    }

    #[test]
    fn nodes_wait_for_each_others_watermarks() {
        let (mut merge, now) = (Merge::new(true), Instant::now());
        merge.begin(0);
        merge.begin(1);
        push(&mut merge, 0, 10, now);
        push(&mut merge, 0, 20, now);
        assert_eq!(popped(&mut merge, now), [] as [u64; 0]);
        merge.advance(1, 12);
        assert_eq!(popped(&mut merge, now), [10]);
        push(&mut merge, 1, 15, now);
        assert_eq!(popped(&mut merge, now), [15]);
        merge.end(1);
        assert_eq!(popped(&mut merge, now), [20]);
    }

    #[test]
    fn nobody_waits_for_long() {
        let (mut merge, now) = (Merge::new(true), Instant::now());
        merge.begin(1);
        push(&mut merge, 0, 10, now);
        assert_eq!(popped(&mut merge, now + DELAY / 2), [] as [u64; 0]);
        assert_eq!(popped(&mut merge, now + DELAY), [10]);
    }

    #[test]
    fn memory_is_bounded() {
        let (mut merge, now) = (Merge::new(false), Instant::now());
        merge.begin(1);
        let room = CAPACITY / event(0).bytes();
        for time in 0..room as u64 + 3 {
            push(&mut merge, 0, time, now);
        }
        assert_eq!(popped(&mut merge, now + DELAY * 9), [0, 1, 2]);
    }
}
