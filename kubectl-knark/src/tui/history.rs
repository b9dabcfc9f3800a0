//! Events in order of arrival, as many as fit: the oldest make room for the newest, and are counted.

use std::collections::VecDeque;

use knark_specs::{
    alert::Match,
    event::{Event, What},
    policy::Severity,
};

/// How many events are kept.
const EVENTS: usize = 50_000;
/// How much memory they take, in bytes. A process counts with each of its events, so the truth is less.
const BYTES: usize = 64 << 20;

/// An event and why it is worth showing.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its number, in order of arrival.
    pub number: u64,
    /// What happened.
    pub event: Event,
    /// The rules that it matches, the most severe first.
    pub matches: Vec<Match>,
}

impl Entry {
    /// That of the most severe rule.
    pub fn severity(&self) -> Option<Severity> {
        self.matches.iter().map(|matched| matched.severity).max()
    }

    /// Whether this is a request to the Kubernetes API, and not something that a process did on a node.
    pub fn is_request(&self) -> bool {
        matches!(self.event.what, What::Api { .. })
    }

    fn bytes(&self) -> usize {
        let text = |m: &Match| {
            let texts = m.tags.iter().chain(&m.references).map(|text| size_of::<String>() + text.len());
            size_of::<Match>() + m.policy.len() + m.rule.len() + m.message.len() + texts.sum::<usize>()
        };
        self.event.bytes() + self.matches.iter().map(text).sum::<usize>()
    }
}

/// The events that are kept.
#[derive(Debug, Default)]
pub struct History {
    entries: VecDeque<Entry>,
    bytes: usize,
    /// How many had to go.
    pub dropped: u64,
}

impl History {
    /// Adds the newest.
    pub fn push(&mut self, entry: Entry) {
        self.bytes += entry.bytes();
        self.entries.push_back(entry);
        while self.entries.len() > EVENTS || self.bytes > BYTES && self.entries.len() > 1 {
            let Some(oldest) = self.entries.pop_front() else { break };
            self.bytes -= oldest.bytes();
            self.dropped += 1;
        }
    }

    /// All, the oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    /// All, as their new owner's.
    pub fn into_entries(self) -> impl Iterator<Item = Entry> {
        self.entries.into_iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// The number of the oldest.
    pub fn first(&self) -> Option<u64> {
        self.entries.front().map(|entry| entry.number)
    }

    /// The one with this number, if it is still there.
    pub fn get(&self, number: u64) -> Option<&Entry> {
        let at = self.entries.binary_search_by_key(&number, |entry| entry.number).ok()?;
        self.entries.get(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::tests::event;

    #[test]
    fn the_oldest_make_room_and_are_counted() {
        let mut history = History::default();
        for number in 0..EVENTS as u64 + 3 {
            history.push(Entry { number, event: event(number), matches: Vec::new() });
        }
        assert_eq!((history.len(), history.dropped, history.first()), (EVENTS, 3, Some(3)));
        assert_eq!(history.get(7).map(|entry| entry.event.boot_ns), Some(7));
        assert!(history.get(2).is_none());
    }

    #[test]
    fn large_events_are_fewer() {
        let mut history = History::default();
        let mut large = event(0);
        large.time = "x".repeat(BYTES / 4);
        for number in 0..9 {
            history.push(Entry { number, event: large.clone(), matches: Vec::new() });
        }
        assert_eq!((history.len(), history.dropped), (3, 6));
        large.time = "x".repeat(BYTES + 1);
        history.push(Entry { number: 9, event: large, matches: Vec::new() });
        assert_eq!((history.len(), history.dropped, history.first()), (1, 9, Some(9)));
    }
}
