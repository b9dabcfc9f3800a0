//! Kubernetes audit logs (audit.k8s.io/v1), as the API server writes them to files and posts them to webhooks: the requests that they
//! tell of, as the items that probes in the API server give.

mod files;
mod record;
mod split;

use std::{
    collections::{HashSet, VecDeque, hash_map::RandomState},
    hash::BuildHasher as _,
};

pub use files::{COMPRESSED, Series, series, uncompressed};
pub use record::{NoRecord, Record, parse};
pub use split::{Damage, Piece, Splitter};

use crate::frame::{Item, Process, ProcessSource};

/// So many of the last items are known again when they come once more.
const REMEMBERED: usize = 1 << 16;

/// The process that all items of an audit log are about. Nothing is known of it but what it is.
pub fn process() -> Item<'static> {
    Item::Process(Process {
        slot: 0,
        pid: 0,
        ppid: 0,
        start_ns: 0,
        uid: 0,
        gid: 0,
        comm: b"kube-apiserver",
        exe: b"",
        args: b"",
        args_cut_from: 0,
        cwd: b"",
        upper_layer: None,
        memfd: false,
        source: ProcessSource::Unknown,
        ancestors: Vec::new(),
        container: 0,
        ancestors_cut: false,
        ns_pid: None,
        ns_uid: None,
        ns_gid: None,
    })
}

/// Knows what was there before, by all that an item says: an id alone won't do, since a client may choose its request's.
#[derive(Debug, Default)]
pub struct Seen {
    /// Keyed at random, so that nobody can make two items that look the same.
    keys: RandomState,
    hashes: HashSet<u64>,
    order: VecDeque<u64>,
}

impl Seen {
    /// Whether these bytes are new; from now on they aren't.
    pub fn is_new(&mut self, item: &[u8]) -> bool {
        let hash = self.keys.hash_one(item);
        if !self.hashes.insert(hash) {
            return false;
        }
        self.order.push_back(hash);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.hashes.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
mod tests;
