//! What waits to be sent: numbered batches, kept until the plugin has them, so that a broken connection costs nothing.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use knark_specs::{
    frame::{Batch, Status, Up},
    packet,
};

use crate::clock;

/// Batches that aren't acknowledged take this much memory at most; then the kernel's ring fills, and what it loses is counted.
const CAPACITY: usize = 24 << 20;

/// Shared by the engine, which fills it, and the connection, which empties it.
#[derive(Debug, Default)]
pub struct Outbox {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    batches: VecDeque<(u64, Arc<[u8]>)>,
    bytes: usize,
    last_seq: u64,
    hello: Option<Arc<[u8]>>,
    last: Option<Arc<[u8]>>,
    status: Status,
    status_due: bool,
    pong: u64,
    /// How often the other side said something.
    heard: u64,
    connection: u64,
}

/// What a connection's writer does next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Write this.
    Packet(Arc<[u8]>),
    /// Write this; nothing follows it.
    Last(Arc<[u8]>),
    /// Nothing to write for now: flush.
    Idle,
    /// Another connection took over.
    Replaced,
}

/// A connection's place in the stream.
#[derive(Debug)]
pub struct Cursor {
    connection: u64,
    after: u64,
    greeted: bool,
}

impl Outbox {
    /// Whether another batch may be pushed.
    pub fn has_room(&self) -> bool {
        self.lock().bytes < CAPACITY
    }

    /// Whether all that was pushed has been acknowledged.
    pub fn is_empty(&self) -> bool {
        self.lock().batches.is_empty()
    }

    /// Adds a batch's items and gives its number.
    pub fn push(&self, items: Vec<u8>) -> u64 {
        let seq = self.lock().last_seq + 1;
        let packet: Arc<[u8]> = packet::encode(&Up::Batch(Batch { seq, items })).into();
        let mut state = self.lock();
        state.last_seq = seq;
        state.bytes += packet.len();
        state.batches.push_back((seq, packet));
        self.changed.notify_all();
        seq
    }

    /// Says hello on this and all later connections.
    pub fn hello(&self, hello: &Up) {
        self.lock().hello = Some(packet::encode(hello).into());
        self.changed.notify_all();
    }

    /// Replaces the status, and sends it when there is time.
    pub fn status(&self, status: Status) {
        let mut state = self.lock();
        state.status = status;
        state.status_due = true;
        self.changed.notify_all();
    }

    /// Answers a ping at once.
    pub fn pong(&self, ping: u64) {
        let mut state = self.lock();
        state.pong = ping;
        state.heard += 1;
        state.status_due = true;
        self.changed.notify_all();
    }

    /// Says this when all batches have been sent, and nothing more.
    pub fn last(&self, message: &Up) {
        self.lock().last = Some(packet::encode(message).into());
        self.changed.notify_all();
    }

    /// Waits until `done`, as long as the other side acknowledges or pings: a slow reader may take its time, a dead one not.
    pub fn linger(&self, patience: Duration, done: impl Fn() -> bool) {
        let (mut heard, mut until) = (self.lock().heard, Instant::now() + patience);
        while !done() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
            let now = self.lock().heard;
            if now != std::mem::replace(&mut heard, now) {
                until = Instant::now() + patience;
            }
        }
    }

    /// Forgets what arrived.
    pub fn ack(&self, seq: u64) {
        let mut state = self.lock();
        state.heard += 1;
        while state.batches.front().is_some_and(|(first, _)| *first <= seq) {
            if let Some((_, packet)) = state.batches.pop_front() {
                state.bytes -= packet.len();
            }
        }
    }

    /// Takes over from any earlier connection, from behind the batch `after`.
    pub fn take_over(&self, after: u64) -> Cursor {
        self.ack(after);
        let mut state = self.lock();
        state.connection += 1;
        self.changed.notify_all();
        Cursor { connection: state.connection, after, greeted: false }
    }

    /// What the connection has to write next; waits for something at most `patience`.
    pub fn next(&self, cursor: &mut Cursor, patience: Duration) -> Next {
        let until = Instant::now() + patience;
        let mut state = self.lock();
        loop {
            if state.connection != cursor.connection {
                return Next::Replaced;
            }
            if !cursor.greeted
                && let Some(hello) = &state.hello
            {
                cursor.greeted = true;
                return Next::Packet(Arc::clone(hello));
            }
            let first = state.batches.front().map_or(0, |(seq, _)| *seq);
            let skip = usize::try_from((cursor.after + 1).saturating_sub(first)).unwrap_or(usize::MAX);
            if cursor.greeted
                && let Some((seq, packet)) = state.batches.get(skip)
            {
                cursor.after = *seq;
                return Next::Packet(Arc::clone(packet));
            }
            // Also before the hello: a machine may take long to load the programs, and whoever pings is to know that it is at work.
            if state.status_due {
                state.status_due = false;
                let pong = std::mem::take(&mut state.pong);
                let status = Status {
                    pong,
                    now_ns: clock::boot_ns(),
                    // The engine may not have told of any yet.
                    realtime_offset_ns: clock::realtime_offset_ns(),
                    last_seq: state.last_seq,
                    ..state.status.clone()
                };
                return Next::Packet(packet::encode(&Up::Status(status)).into());
            }
            if let Some(last) = &state.last {
                return Next::Last(Arc::clone(last));
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Next::Idle;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(outbox: &Outbox, cursor: &mut Cursor) -> Vec<Up> {
        let mut decoder = packet::Decoder::default();
        while let Next::Packet(packet) | Next::Last(packet) = outbox.next(cursor, Duration::ZERO) {
            decoder.push(&packet);
            if matches!(outbox.lock().last, Some(ref last) if *last == packet) {
                break;
            }
        }
        std::iter::from_fn(|| decoder.next().unwrap()).collect()
    }

    fn seqs(messages: &[Up]) -> Vec<u64> {
        messages.iter().filter_map(|m| if let Up::Batch(b) = m { Some(b.seq) } else { None }).collect()
    }

    #[test]
    fn a_new_connection_goes_on_where_the_old_one_stopped() {
        let outbox = Outbox::default();
        outbox.hello(&Up::Refuse { message: "stands for a hello".into() });
        for n in 0..5 {
            outbox.push(vec![n; 10]);
        }
        let mut first = outbox.take_over(0);
        assert_eq!(seqs(&drain(&outbox, &mut first)), [1, 2, 3, 4, 5]);
        outbox.ack(2);
        let mut second = outbox.take_over(3);
        assert_eq!(outbox.next(&mut first, Duration::ZERO), Next::Replaced);
        outbox.push(vec![9]);
        assert_eq!(seqs(&drain(&outbox, &mut second)), [4, 5, 6]);
    }

    #[test]
    fn memory_is_bounded_until_acknowledged() {
        let outbox = Outbox::default();
        let mut last = 0;
        let mut noise = 1u32;
        while outbox.has_room() {
            // Noise, since compression would make anything else small.
            let items = std::iter::repeat_with(|| {
                noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (noise >> 24) as u8
            });
            last = outbox.push(items.take(1 << 20).collect());
        }
        assert!((20..40).contains(&last), "{last} MiB");
        assert!(!outbox.is_empty());
        outbox.ack(last);
        assert!(outbox.has_room() && outbox.is_empty());
        assert_eq!(outbox.lock().bytes, 0);
    }

    #[test]
    fn who_pings_is_waited_for() {
        let outbox = Outbox::default();
        outbox.push(vec![1]);
        let patience = Duration::from_millis(100);
        let began = Instant::now();
        outbox.linger(patience, || {
            if began.elapsed() < patience * 3 {
                outbox.pong(1);
            }
            false
        });
        assert!(began.elapsed() >= patience * 4, "{:?}", began.elapsed());
    }

    #[test]
    fn the_last_word_comes_last() {
        let outbox = Outbox::default();
        outbox.hello(&Up::Refuse { message: "stands for a hello".into() });
        outbox.last(&Up::Refuse { message: "bye".into() });
        outbox.push(vec![1]);
        let mut cursor = outbox.take_over(0);
        let messages = drain(&outbox, &mut cursor);
        assert_eq!(seqs(&messages), [1]);
        assert!(matches!(messages.last(), Some(Up::Refuse { message }) if message == "bye"));
    }
}
