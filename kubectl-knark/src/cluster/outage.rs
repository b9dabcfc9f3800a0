//! When a watch that fails is worth a word: it tries again by itself, and most failures are over by then.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use kube::runtime::watcher;

use super::error::ApiError;

/// A failure that lasts longer than this is told.
const PATIENCE: Duration = Duration::from_secs(15);

/// A failure so long after the one before has nothing to do with it: the watcher tries again more often.
const APART: Duration = Duration::from_mins(2);

/// What a watch went through.
#[derive(Debug, Default)]
pub struct Outage {
    /// The first failure and the last one.
    failed: Option<(Instant, Instant)>,
    told: bool,
}

impl Outage {
    /// Takes in that all is well. Lists don't count: whoever may list need not be allowed to watch.
    pub fn note(&mut self, event: &watcher::Event<Pod>) {
        if matches!(event, watcher::Event::Apply(_) | watcher::Event::Delete(_)) {
            *self = Self::default();
        }
    }

    /// Takes in a failure; whether to tell of it, which is once, at once where trying again doesn't help.
    pub fn is_news(&mut self, error: &ApiError, now: Instant) -> bool {
        let before = self.failed.filter(|(_, last)| now.duration_since(*last) < APART);
        let since = before.map_or(now, |(since, _)| since);
        self.failed = Some((since, now));
        let lasts = now.duration_since(since) >= PATIENCE;
        !self.told && (lasts || !error.is_transient()) && !std::mem::replace(&mut self.told, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lasts_is_told_once() {
        let lost = ApiError::Unreachable { doing: String::new(), server: String::new(), why: String::new() };
        let refused = ApiError::Unauthorized { doing: String::new(), server: String::new() };
        let (mut outage, now) = (Outage::default(), Instant::now());
        assert!(!outage.is_news(&lost, now));
        let now = now + APART;
        assert!(!outage.is_news(&lost, now));
        assert!(!outage.is_news(&lost, now + PATIENCE / 2));
        assert!(outage.is_news(&lost, now + PATIENCE));
        assert!(!outage.is_news(&refused, now + PATIENCE * 2));
        outage.note(&watcher::Event::InitDone);
        assert!(!outage.is_news(&refused, now + PATIENCE * 2));
        outage.note(&watcher::Event::Delete(Pod::default()));
        assert!(outage.is_news(&refused, now + PATIENCE * 2));
    }
}
