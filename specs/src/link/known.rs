//! What processes come from, as far as is known, in a memory that is bounded.

use std::{
    collections::{HashMap, VecDeque, hash_map},
    sync::Arc,
};

use super::{Cause, MOST, ProcessId};

/// Processes and their causes. Where there are too many, those are forgotten first that nothing came of for the longest.
#[derive(Debug, Default)]
pub(super) struct Known {
    nodes: HashMap<String, HashMap<ProcessId, Entry>>,
    /// The same, the oldest first.
    order: VecDeque<(String, ProcessId)>,
}

#[derive(Debug)]
struct Entry {
    cause: Arc<Cause>,
    /// It was asked for since it was last about to be forgotten.
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

    pub(super) fn remember(&mut self, node: &str, process: ProcessId, cause: Arc<Cause>) {
        match self.nodes.entry(node.to_owned()).or_default().entry(process) {
            hash_map::Entry::Occupied(mut known) => known.get_mut().cause = cause,
            hash_map::Entry::Vacant(vacant) => {
                vacant.insert(Entry { cause, used: false });
                self.order.push_back((node.to_owned(), process));
            }
        }
        while self.order.len() > MOST
            && let Some((node, oldest)) = self.order.pop_front()
        {
            let Some(known) = self.nodes.get_mut(&node) else { continue };
            if known.get_mut(&oldest).is_some_and(|entry| std::mem::take(&mut entry.used)) {
                self.order.push_back((node, oldest));
            } else {
                known.remove(&oldest);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        assert_eq!(self.nodes.values().map(HashMap::len).sum::<usize>(), self.order.len());
        self.order.len()
    }
}
