//! Several nodes' events in one order, by time, as far as waiting a bounded while can tell it.

use std::{
    collections::{BTreeSet, VecDeque},
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
    /// The first event of each queue that has any: its time, and the queue's number. However many nodes there are, the next event is
    /// found at once.
    heads: BTreeSet<(i64, usize)>,
    /// The watermarks of the queues that older events may still come to than those which are there.
    awaited: BTreeSet<(i64, usize)>,
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

impl Queue {
    /// Whether what waits in other queues may have to wait for this one.
    fn is_awaited(&self) -> bool {
        self.live && (self.unordered || self.events.is_empty())
    }

    fn head_ns(&self) -> Option<i64> {
        self.events.front().map(|first| first.time_ns)
    }
}

impl Merge {
    /// No nodes yet. A recording has no present, so events need not wait in time: with `live` unset, only what was recorded
    /// decides.
    pub fn new(live: bool) -> Self {
        let (queues, heads, awaited) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
        Self { queues, heads, awaited, bytes: 0, delay: live.then_some(DELAY) }
    }

    /// From now on this node's events matter to the order of others'.
    pub fn begin(&mut self, node: usize) {
        if self.queues.len() <= node {
            self.queues.resize_with(node + 1, Queue::default);
        }
        self.change(node, |queue| queue.live = true);
    }

    /// This node tells of some events later than of others: of requests that have begun, once it is clear that they will take
    /// long.
    pub fn sort(&mut self, node: usize) {
        self.begin(node);
        self.change(node, |queue| queue.unordered = true);
    }

    /// This node has no more to say.
    pub fn end(&mut self, node: usize) {
        self.change(node, |queue| queue.live = false);
    }

    /// All of this node's events up to then have been pushed.
    pub fn advance(&mut self, node: usize, watermark_ns: i64) {
        self.change(node, |queue| queue.watermark_ns = queue.watermark_ns.max(watermark_ns));
    }

    /// Adds a node's next event, which arrived at `now`.
    pub fn push(&mut self, node: usize, time_ns: i64, event: Event, now: Instant) {
        if self.queues.get(node).is_none_or(|queue| !queue.live) {
            self.begin(node);
        }
        self.bytes += event.bytes();
        let waiting = Waiting { time_ns, since: now, event };
        let queue = &mut self.queues[node];
        match queue.events.back() {
            None => self.change(node, |queue| queue.events.push_back(waiting)),
            Some(last) if queue.unordered && last.time_ns > time_ns => self.change(node, |queue| {
                let at = queue.events.partition_point(|waiting| waiting.time_ns <= time_ns);
                queue.events.insert(at, waiting);
            }),
            Some(_) => queue.events.push_back(waiting),
        }
    }

    /// The next event whose turn has come, and its node.
    pub fn pop(&mut self, now: Instant) -> Option<(usize, Event)> {
        let (time_ns, node) = *self.heads.first()?;
        let since = self.queues[node].events.front()?.since;
        let overdue = self.bytes > CAPACITY || self.delay.is_some_and(|delay| now.duration_since(since) >= delay);
        let is_first = self.awaited.first().is_none_or(|(watermark_ns, _)| *watermark_ns >= time_ns);
        if !overdue && !is_first {
            return None;
        }
        let mut first = None;
        self.change(node, |queue| first = queue.events.pop_front());
        let Waiting { event, .. } = first?;
        self.bytes -= event.bytes();
        Some((node, event))
    }

    /// Changes a queue that is there, and what is known of all of them.
    fn change(&mut self, node: usize, change: impl FnOnce(&mut Queue)) {
        let Some(queue) = self.queues.get_mut(node) else { return };
        let known = |queue: &Queue| (queue.head_ns(), queue.is_awaited().then_some(queue.watermark_ns));
        let before = known(queue);
        change(queue);
        let after = known(queue);
        for (set, before, after) in [(&mut self.heads, before.0, after.0), (&mut self.awaited, before.1, after.1)] {
            if before != after {
                before.map(|ns| set.remove(&(ns, node)));
                after.map(|ns| set.insert((ns, node)));
            }
        }
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
    fn many_nodes_are_one_order() {
        let (mut merge, now) = (Merge::new(false), Instant::now());
        let nodes = 100;
        (0..nodes).for_each(|node| merge.begin(node));
        let mut seen = Vec::new();
        for round in 0..50 {
            for node in 0..nodes {
                // Whoever is asked has something for this round, by turns, at a time of its own.
                if (node + round) % 3 > 0 {
                    let time = round * 1_000 + node * 37 % 1_000;
                    push(&mut merge, node, time as u64, now);
                }
                merge.advance(node, i64::try_from(round * 1_000 + 999).unwrap());
            }
            let popped = popped(&mut merge, now);
            assert!(popped.iter().all(|time| time / 1_000 <= round as u64), "{round}: {popped:?}");
            seen.extend(popped);
        }
        (0..nodes).for_each(|node| merge.end(node));
        seen.extend(popped(&mut merge, now));
        let pushed = (0..50).flat_map(|round| (0..nodes).filter(move |node| (node + round) % 3 > 0)).count();
        assert!(seen.len() == pushed && seen.is_sorted(), "{} of {pushed}", seen.len());
        assert!(merge.heads.is_empty() && merge.awaited.is_empty() && merge.bytes == 0);
    }

    /// What `pop` is to give, found by looking at everything.
    fn next(merge: &Merge, now: Instant) -> Option<usize> {
        let heads = merge.queues.iter().enumerate().filter_map(|(node, queue)| Some((queue.head_ns()?, node)));
        let (time_ns, node) = heads.min()?;
        let waited = now.duration_since(merge.queues[node].events[0].since);
        let is_awaited = |queue: &Queue| queue.live && (queue.unordered || queue.events.is_empty());
        let is_first = merge.queues.iter().all(|queue| !is_awaited(queue) || queue.watermark_ns >= time_ns);
        (is_first || waited >= DELAY).then_some(node)
    }

    #[test]
    fn whatever_happens_the_next_is_what_a_look_at_everything_finds() {
        let mut random = 1_u64;
        let mut any = |below: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % below
        };
        let (mut given, mut kept) = (0, 0);
        for _ in 0..200 {
            let (mut merge, start) = (Merge::new(true), Instant::now());
            let mut now = start;
            for _ in 0..300 {
                let (node, time) = (usize::try_from(any(5)).unwrap(), any(1_000));
                let ns = i64::try_from(time).unwrap();
                match any(12) {
                    0 => merge.begin(node),
                    1 => merge.sort(node),
                    2 => merge.end(node),
                    3..6 => merge.advance(node, ns),
                    6 => now += DELAY / 8,
                    _ => push(&mut merge, node, time, now),
                }
                let want = next(&merge, now).map(|node| (node, merge.queues[node].events[0].event.boot_ns));
                if any(2) == 0 {
                    assert_eq!(merge.pop(now).map(|(node, event)| (node, event.boot_ns)), want);
                    *if want.is_some() { &mut given } else { &mut kept } += 1;
                }
            }
        }
        assert!(given > 1_000 && kept > 1_000, "{given} {kept}");
    }

    #[test]
    #[ignore = "prints how long merging takes; run it with --release --nocapture"]
    fn how_long_it_takes() {
        let template = event(0);
        for nodes in [1, 10, 100, 1_000] {
            let (mut merge, now) = (Merge::new(true), Instant::now());
            (0..nodes).for_each(|node| merge.begin(node));
            let (mut popped, each, begun) = (0, 1_000_000 / nodes, Instant::now());
            for round in 0..each {
                for node in 0..nodes {
                    let time = i64::try_from(round * 1_000_000 + node * 7_919 % 1_000_000).unwrap();
                    merge.push(node, time, template.clone(), now);
                    merge.advance(node, time);
                }
                popped += std::iter::from_fn(|| merge.pop(now)).count();
            }
            let took = begun.elapsed();
            println!("{nodes} nodes: {popped} events merged, {} ns each", took.as_nanos() / (each * nodes) as u128);
        }
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
