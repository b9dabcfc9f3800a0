//! What processes come from, as far as is known, in a memory that is bounded.

use std::{
    collections::{HashMap, VecDeque, hash_map},
    sync::Arc,
};

use super::{Cause, MOST, ProcessId};

/// Processes and their causes. Where there are too many, those are forgotten first that are known by the ones above them too, and
/// of these those that nothing came of for the longest.
#[derive(Debug, Default)]
pub(super) struct Known {
    nodes: HashMap<String, HashMap<ProcessId, Entry>>,
    /// Those that a request led to, the oldest first.
    roots: VecDeque<(String, ProcessId)>,
    /// Those that they began, likewise.
    below: VecDeque<(String, ProcessId)>,
}

/// How a process came to its cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    /// The request led to it.
    Request,
    /// What the request led to began it.
    Parent,
}

#[derive(Debug)]
struct Entry {
    cause: Arc<Cause>,
    /// It is new, or was asked for since it was last about to be forgotten.
    used: bool,
}

impl Known {
    /// What the first of these processes that is known comes from.
    pub(super) fn first(&mut self, node: &str, mut processes: impl Iterator<Item = ProcessId>) -> Option<Arc<Cause>> {
        let known = self.nodes.get_mut(node).filter(|known| !known.is_empty())?;
        let process = processes.find(|process| known.contains_key(process))?;
        let entry = known.get_mut(&process)?;
        entry.used = true;
        Some(Arc::clone(&entry.cause))
    }

    pub(super) fn remember(&mut self, node: &str, process: ProcessId, by: By, cause: Arc<Cause>) {
        match self.nodes.entry(node.to_owned()).or_default().entry(process) {
            hash_map::Entry::Occupied(mut known) => known.get_mut().cause = cause,
            hash_map::Entry::Vacant(vacant) => {
                // Nothing can have come of it yet.
                vacant.insert(Entry { cause, used: true });
                let order = if by == By::Request { &mut self.roots } else { &mut self.below };
                order.push_back((node.to_owned(), process));
            }
        }
        while self.roots.len() + self.below.len() > MOST {
            // One busy session is not to push out those of others.
            let order = if self.below.is_empty() { &mut self.roots } else { &mut self.below };
            let Some((node, oldest)) = order.pop_front() else { return };
            let Some(known) = self.nodes.get_mut(&node) else { continue };
            if known.get_mut(&oldest).is_some_and(|entry| std::mem::take(&mut entry.used)) {
                order.push_back((node, oldest));
            } else {
                known.remove(&oldest);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        let len = self.roots.len() + self.below.len();
        assert_eq!(self.nodes.values().map(HashMap::len).sum::<usize>(), len);
        len
    }
}
