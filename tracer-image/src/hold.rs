//! Records of pods whose verdict isn't known yet.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// All that is held takes this much memory at most.
const CAPACITY: usize = 8 << 20;
/// A verdict that hasn't come by then won't.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is held.
#[derive(Debug, Default)]
pub struct Hold {
    pods: HashMap<String, Held>,
    bytes: usize,
    events: u64,
    lost: u64,
}

#[derive(Debug)]
struct Held {
    since: Instant,
    /// Each with its length before it (u32, native), as records follow one another in the ring.
    records: Vec<u8>,
    events: u64,
}

/// The records of one pod, oldest first.
#[derive(Debug)]
pub struct Released {
    records: Vec<u8>,
}

impl Hold {
    /// Keeps a record that counts as so many events.
    pub fn push(&mut self, pod_uid: &str, record: &[u8], events: u64) {
        let Ok(length) = u32::try_from(record.len()) else { return };
        if self.bytes + record.len() > CAPACITY {
            self.lost += events;
            return;
        }
        let held = match self.pods.get_mut(pod_uid) {
            Some(held) => held,
            None => self.pods.entry(pod_uid.to_owned()).or_insert_with(|| Held {
                since: Instant::now(),
                records: Vec::new(),
                events: 0,
            }),
        };
        held.records.extend(length.to_ne_bytes());
        held.records.extend_from_slice(record);
        held.events += events;
        self.bytes += 4 + record.len();
        self.events += events;
    }

    /// Takes out what is held of the pods for which `ready` is true.
    pub fn release(&mut self, mut ready: impl FnMut(&str) -> bool) -> Vec<Released> {
        let uids: Vec<String> = self.pods.keys().filter(|uid| ready(uid)).cloned().collect();
        uids.iter().filter_map(|uid| self.take(uid)).map(|held| Released { records: held.records }).collect()
    }

    /// Gives up on verdicts that don't come, and counts what that loses.
    pub fn expire(&mut self, now: Instant) {
        let late: Vec<String> =
            self.pods.iter().filter(|(_, held)| now.duration_since(held.since) > PATIENCE).map(|(uid, _)| uid.clone()).collect();
        for uid in late {
            self.lost += self.take(&uid).map_or(0, |held| held.events);
        }
    }

    /// Gives up on all verdicts.
    pub fn abandon(&mut self) {
        self.lost += std::mem::take(&mut self.events);
        self.pods.clear();
        self.bytes = 0;
    }

    /// How many events are held.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// How many were lost for lack of room or of a verdict.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    fn take(&mut self, uid: &str) -> Option<Held> {
        let held = self.pods.remove(uid)?;
        self.events -= held.events;
        self.bytes -= held.records.len();
        Some(held)
    }
}

impl Released {
    /// The records, one after another.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.records.as_slice();
        std::iter::from_fn(move || {
            let (length, tail) = rest.split_first_chunk::<4>()?;
            let (record, tail) = tail.split_at_checked(u32::from_ne_bytes(*length) as usize)?;
            rest = tail;
            Some(record)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_comes_back_in_order() {
        let mut hold = Hold::default();
        for n in 0..3u8 {
            hold.push("a", &vec![n; usize::from(n)], 1);
            hold.push("b", &[9], 0);
        }
        assert_eq!(hold.events(), 3);
        let released = hold.release(|uid| uid == "a");
        let records: Vec<&[u8]> = released[0].iter().collect();
        assert_eq!(records, [&[][..], &[1], &[2, 2]]);
        assert_eq!((hold.events(), hold.lost()), (0, 0));
        assert!(hold.release(|_| true)[0].iter().all(|record| record == [9]));
        assert_eq!(hold.bytes, 0);
    }

    #[test]
    fn what_is_not_decided_in_time_or_finds_no_room_is_counted() {
        let mut hold = Hold::default();
        hold.push("a", &[1], 1);
        hold.push("a", &[1], 0);
        hold.expire(Instant::now());
        assert_eq!((hold.events(), hold.lost()), (1, 0));
        hold.expire(Instant::now() + PATIENCE * 2);
        assert_eq!((hold.events(), hold.lost()), (0, 1));
        for _ in 0..20 {
            hold.push("b", &vec![0; 1 << 20], 1);
        }
        assert_eq!(hold.events() + hold.lost(), 21);
        hold.abandon();
        assert_eq!((hold.events(), hold.lost(), hold.bytes), (0, 21, 0));
    }
}
