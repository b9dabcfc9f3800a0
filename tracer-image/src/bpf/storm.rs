//! Repeats that the programs count, and the rates that they limit.

use std::{
    io,
    thread::{self, JoinHandle},
};

use aya::{
    Ebpf, Pod,
    maps::{HashMap, MapData, MapError as LoaderMapError},
};
use knark_abi::{Header, OTHERS, Rate, RepeatKey, Repeated, Repeats, WINDOW_NS, mark};

use super::{MapError, link, load, probes::refused};

const REPEATS: &str = "the map of repeats";
const RATES: &str = "the map of rates";
const SHARED: &str = "the map of shared rates";

#[derive(Clone, Copy)]
#[repr(transparent)]
struct Key(RepeatKey);
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Value(Repeated);
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Pace(Rate);

macro_rules! pod {
    ($($type:ty),*) => {
        $(
            #[expect(unsafe_code, reason = "the loader's maps have keys and values that are bytes")]
            // SAFETY: `repr(C)`, made of integers, without padding, as knark-abi asserts; and so any bytes are one.
            unsafe impl Pod for $type {}
        )*
    };
}
pod!(Key, Value, Pace);

/// Which windows are over.
#[derive(Debug, Default)]
pub(super) struct Windows {
    /// All before this one are, once that thread has ended.
    ending: Option<(u64, JoinHandle<io::Result<()>>)>,
    /// All before this one are.
    over: u64,
    /// What was counted in those has been taken.
    is_taken: bool,
}

impl Windows {
    /// The first window that isn't known to be over, if what was counted in those before is to be taken. A program that looked at the
    /// clock within a window may count in it for a while; a thread of its own waits for the last of them, which takes the kernel some
    /// milliseconds.
    pub(super) fn over(&mut self, now_ns: u64) -> Option<u64> {
        let now = now_ns / WINDOW_NS;
        match self.ending.take() {
            // Where the kernel can't wait, it is asked again: until then counting goes on, and at the latest the end comes.
            Some((before, thread)) if thread.is_finished() => {
                if matches!(thread.join(), Ok(Ok(()))) {
                    (self.over, self.is_taken) = (before, false);
                }
            }
            Some(waiting) => self.ending = Some(waiting),
            None if self.is_taken && now > self.over || self.over == 0 => {
                self.ending = thread::Builder::new().name("windows".into()).spawn(link::settle).ok().map(|thread| (now, thread));
            }
            None => {}
        }
        (!self.is_taken && self.over > 0).then_some(self.over)
    }

    /// All has been taken of what was counted in windows that are over.
    pub(super) fn taken(&mut self) {
        self.is_taken = true;
    }
}

/// The rate that control groups share for which there is no room.
pub(super) fn prepare(ebpf: &mut Ebpf) -> Result<(), LoaderMapError> {
    let mut rates: HashMap<_, u64, Pace> = load::map(ebpf, "RATES")?;
    rates.insert(OTHERS, Pace(Rate::default()), 0)
}

/// Takes what was counted in windows before this one, as bytes of records and how often, up to so many; true if there are more.
/// Nothing must count there any more.
pub(super) fn take(
    ebpf: &mut Ebpf,
    before: u64,
    max: usize,
    told_ns: u64,
    mut each: impl FnMut(&[u8], u64),
) -> Result<bool, MapError> {
    let refused = |e| refused(e, REPEATS);
    let mut map: HashMap<&mut MapData, Key, Value> = load::map(ebpf, "REPEATS").map_err(refused)?;
    let over = |key: &Result<Key, _>| key.as_ref().map_or(true, |key: &Key| key.0.window < before);
    let keys: Vec<Key> = map.keys().filter(over).take(max + 1).collect::<Result<_, _>>().map_err(refused)?;
    for key in keys.iter().take(max) {
        let Value(mut repeated) = map.get(key, 0).map_err(refused)?;
        map.remove(key).map_err(refused)?;
        // CPUs that count at once may put them down in another order.
        repeated.repeats.last_ns = repeated.repeats.last_ns.max(repeated.repeats.first_ns);
        if repeated.repeats.count > 0 {
            each(&record(&key.0, &repeated, told_ns), repeated.repeats.count);
        }
    }
    Ok(keys.len() > max)
}

/// The record that the programs would have made, and how often. Empty if it can't be one.
fn record(key: &RepeatKey, Repeated { head, repeats }: &Repeated, told_ns: u64) -> Vec<u8> {
    let said = (head.len as usize).checked_sub(size_of::<Header>());
    let said = said.and_then(|said| load::bytes_of(&key.said).get(..said)).unwrap_or_default();
    let marks = head.marks | mark::REPEATS;
    let len = u32::try_from(size_of::<Header>() + said.len() + size_of::<Repeats>()).unwrap_or(0);
    let head = Header { len, marks, boot_ns: told_ns, ..*head };
    [load::bytes_of(&head), said, load::bytes_of(repeats)].concat()
}

/// Control groups by id, and how many of their events came too fast.
pub(super) fn too_fast(ebpf: &mut Ebpf) -> Result<Vec<(u64, u64)>, MapError> {
    let refused = |e| refused(e, RATES);
    let map: HashMap<&mut MapData, u64, Pace> = load::map(ebpf, "RATES").map_err(refused)?;
    let lost = map.iter().map(|entry| entry.map(|(id, Pace(rate))| (id, rate.lost)));
    lost.filter(|entry| entry.as_ref().map_or(true, |(_, lost)| *lost > 0)).collect::<Result<_, _>>().map_err(refused)
}

/// Has a control group use up the rate of another one, or its own.
pub(super) fn share(ebpf: &mut Ebpf, id: u64, with: Option<u64>) -> Result<(), MapError> {
    let refused = |e| refused(e, SHARED);
    let mut map: HashMap<&mut MapData, u64, u64> = load::map(ebpf, "RATE_OF").map_err(refused)?;
    match with {
        Some(with) => map.insert(id, with, 0).map_err(refused),
        None => match map.remove(&id) {
            Err(LoaderMapError::KeyNotFound) | Ok(()) => Ok(()),
            Err(LoaderMapError::SyscallError(e)) if e.io_error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(refused(e)),
        },
    }
}

/// Forgets a control group, and says how many of its events came too fast, if any.
pub(super) fn forget(ebpf: &mut Ebpf, id: u64) -> Result<Option<u64>, MapError> {
    let refused = |e| refused(e, RATES);
    let mut map: HashMap<&mut MapData, u64, Pace> = load::map(ebpf, "RATES").map_err(refused)?;
    match map.get(&id, 0) {
        Ok(Pace(rate)) => {
            map.remove(&id).map_err(refused)?;
            Ok(Some(rate.lost).filter(|lost| *lost > 0))
        }
        Err(LoaderMapError::KeyNotFound) => Ok(None),
        Err(e) => Err(refused(e)),
    }
}
