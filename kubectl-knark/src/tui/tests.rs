//! Events for the tests of the parts.

use knark_specs::{alert::Match, cases, policy::Severity};
use serde_json::Value;

use super::history::Entry;

/// An event of which only this much matters.
pub fn entry(number: u64, event: Value) -> Entry {
    let Value::Object(mut event) = event else { panic!("an event is an object") };
    let (top, partial): (Vec<_>, Vec<_>) = std::mem::take(&mut event).into_iter().partition(|(name, _)| name == "time");
    let mut event = cases::event(&partial.into_iter().collect()).unwrap();
    for (_, time) in top {
        event.time = time.as_str().unwrap().to_owned();
    }
    Entry { number, event, matches: Vec::new() }
}

/// A rule of the policy `p`.
pub fn matched(rule: &str, severity: Severity) -> Match {
    Match {
        policy: "p".into(),
        rule: rule.into(),
        severity,
        message: format!("message of {rule}"),
        tags: vec!["t1".into(), "t2".into()],
        references: vec![format!("https://example.org/{rule}")],
    }
}
