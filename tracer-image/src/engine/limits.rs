//! Whose events the rate limit loses.

use std::collections::BTreeMap;

use knark_specs::frame::{LIMITED_AT_MOST, Limited};

use crate::{
    bpf::{MapError, Probes},
    containers::Containers,
};

/// So many containers that are gone are remembered by name.
const GONE: usize = 1024;

/// What is known of it.
#[derive(Debug, Default)]
pub struct Limits {
    /// So many events were lost in all when it was looked last.
    lost: u64,
    /// By container; control groups that are there no more.
    gone: BTreeMap<Limited, u64>,
    leaving: Vec<u64>,
    told: Vec<Limited>,
}

impl Limits {
    /// A control group was removed.
    pub fn leaves(&mut self, id: u64) {
        self.leaving.push(id);
    }

    /// Those that were removed since this was asked last.
    pub fn take_leaving(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.leaving)
    }

    /// Remembers what a control group lost that nothing in the kernel remembers any more.
    pub fn settle(&mut self, whose: Limited, lost: u64) {
        let whose = if self.gone.len() < GONE || self.gone.contains_key(&whose) { whose } else { Limited::default() };
        *self.gone.entry(whose).or_default() += lost;
    }

    /// Looks whose events are lost, if these have become more.
    pub fn look(&mut self, lost: u64, probes: &mut Probes, containers: &Containers) -> Result<(), MapError> {
        if lost == self.lost {
            return Ok(());
        }
        self.lost = lost;
        let mut all = self.gone.clone();
        for (id, lost) in probes.too_fast()? {
            *all.entry(containers.limited(id)).or_default() += lost;
        }
        self.told = most(all);
        Ok(())
    }

    /// Those that lost most, and one for all others.
    pub fn told(&self) -> &[Limited] {
        &self.told
    }
}

fn most(all: BTreeMap<Limited, u64>) -> Vec<Limited> {
    let mut all: Vec<Limited> = all.into_iter().map(|(whose, lost)| Limited { lost, ..whose }).collect();
    all.sort_by(|a, b| b.lost.cmp(&a.lost).then_with(|| a.cmp(b)));
    let others: u64 = all.iter().skip(LIMITED_AT_MOST).map(|limited| limited.lost).sum();
    all.truncate(LIMITED_AT_MOST);
    all.extend((others > 0).then(|| Limited { lost: others, ..Limited::default() }));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(name: &str) -> Limited {
        Limited { container: name.into(), ..Limited::default() }
    }

    #[test]
    fn those_that_lost_most_are_named_and_none_is_left_out_of_the_sum() {
        let all: BTreeMap<_, _> = (0..100).map(|number| (container(&number.to_string()), number + 1)).collect();
        let told = most(all);
        assert_eq!(told.len(), LIMITED_AT_MOST + 1);
        assert_eq!((&told[0].container[..], told[0].lost, told[LIMITED_AT_MOST].container.is_empty()), ("99", 100, true));
        assert_eq!(told.iter().map(|limited| limited.lost).sum::<u64>(), 5050);
    }

    #[test]
    fn those_that_are_gone_are_remembered_within_bounds() {
        let mut limits = Limits::default();
        for number in 0..2 * GONE {
            limits.settle(container(&number.to_string()), 1);
            limits.settle(container("0"), 1);
        }
        assert_eq!((limits.gone.len(), limits.gone[&container("0")]), (GONE + 1, 1 + 2 * GONE as u64));
        assert_eq!(limits.gone.values().sum::<u64>(), 4 * GONE as u64);
    }
}
