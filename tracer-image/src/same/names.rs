//! The numbers of watched files, and their paths.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;

use super::Paths;

/// So many that are watched no more are remembered, for the records that are still on their way.
const REMEMBERED: usize = 16_384;

/// The paths of watched files, by number.
#[derive(Debug, Default)]
pub struct Names {
    paths: FxHashMap<u32, Paths>,
    last: u32,
    gone: VecDeque<u32>,
}

impl Names {
    /// A number that no file has had, for one with these paths.
    pub fn add(&mut self, paths: Paths) -> u32 {
        // After four billion files the first ones' numbers come again.
        self.last = self.last.checked_add(1).unwrap_or(1);
        self.paths.insert(self.last, paths);
        self.last
    }

    /// The file isn't watched any more.
    pub fn leaves(&mut self, number: u32) {
        self.gone.push_back(number);
        if self.gone.len() > REMEMBERED
            && let Some(oldest) = self.gone.pop_front()
        {
            self.paths.remove(&oldest);
        }
    }

    /// The paths of the file of this number.
    pub fn paths(&self, number: u32) -> Option<Paths> {
        self.paths.get(&number).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_gone_is_remembered_for_a_while() {
        let mut names = Names::default();
        let paths = || Paths::from([Box::from(&b"/a"[..])]);
        let first = names.add(paths());
        assert_eq!(first, 1);
        names.leaves(first);
        assert_eq!(names.paths(first), Some(paths()));
        for _ in 0..REMEMBERED {
            let number = names.add(paths());
            names.leaves(number);
        }
        assert_eq!(names.paths(first), None);
        assert_eq!(names.paths.len(), REMEMBERED);
    }
}
