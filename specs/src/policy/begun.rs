//! A rule matches a request once: what it matched when it began, its end doesn't match again.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::{
    alert::Match,
    event::{Api, ApiStage, Event, What},
};

/// Requests that are remembered; beyond, the oldest is forgotten, and its end may match anew.
const MOST: usize = 4_096;

/// The rules that requests under way matched when they began. Whoever holds policies against a row of events has one of these,
/// and shows it all matches, in the events' order.
#[derive(Debug, Default)]
pub struct Begun {
    requests: HashMap<String, Request>,
    /// Their ids, the oldest first.
    order: BTreeMap<u64, String>,
    /// Requests so far.
    number: u64,
}

#[derive(Debug, Default)]
struct Request {
    number: u64,
    /// What was asked for: a client may choose its requests' ids, and give one to several.
    asked: Asked,
    /// By policy and rule: policies that are read again number their rules anew.
    rules: BTreeSet<(String, String)>,
}

/// Verb, path, query, and who asked.
#[derive(Debug, Default, PartialEq, Eq)]
struct Asked([String; 4]);

impl Asked {
    fn by(api: &Api) -> Self {
        let user = api.user.as_ref().map(|user| user.name.clone()).unwrap_or_default();
        Self([api.verb.clone(), api.path.clone(), api.query.clone(), user])
    }
}

impl Begun {
    /// Takes from an event's matches those of rules that its request has matched before; gives them.
    pub fn take_known(&mut self, event: &Event, matches: &mut Vec<Match>) -> Vec<Match> {
        let What::Api { api } = &event.what else { return Vec::new() };
        match api.stage {
            ApiStage::Started => {
                self.remember(api, matches);
                Vec::new()
            }
            ApiStage::Complete => {
                let is_its_end = |request: &Request| request.asked == Asked::by(api);
                if !self.requests.get(&api.request_id).is_some_and(is_its_end) {
                    return Vec::new();
                }
                let Some(request) = self.requests.remove(&api.request_id) else { return Vec::new() };
                self.order.remove(&request.number);
                let is_known = |found: &mut Match| request.rules.contains(&(found.policy.clone(), found.rule.clone()));
                matches.extract_if(.., is_known).collect()
            }
        }
    }

    fn remember(&mut self, api: &Api, matches: &[Match]) {
        let id = &api.request_id;
        if matches.is_empty() || id.is_empty() {
            return;
        }
        self.number += 1;
        let rules = matches.iter().map(|found| (found.policy.clone(), found.rule.clone())).collect();
        let new = Request { number: self.number, asked: Asked::by(api), rules };
        if let Some(before) = self.requests.insert(id.clone(), new) {
            self.order.remove(&before.number);
        }
        self.order.insert(self.number, id.clone());
        if self.requests.len() > MOST
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.requests.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{cases, policy::Severity};

    fn event(id: &str, stage: &str) -> Event {
        let partial = json!({ "api": { "request_id": id, "stage": stage, "resource": "pods", "subresource": "exec" } });
        cases::event(partial.as_object().unwrap()).unwrap()
    }

    fn found(policy: &str, rule: &str) -> Match {
        let message = String::new();
        Match {
            policy: policy.into(),
            rule: rule.into(),
            severity: Severity::High,
            message,
            tags: Vec::new(),
            references: Vec::new(),
        }
    }

    /// The rules that are left.
    fn left(begun: &mut Begun, id: &str, stage: &str, rules: &[(&str, &str)]) -> Vec<String> {
        let mut matches: Vec<_> = rules.iter().map(|(policy, rule)| found(policy, rule)).collect();
        let known = begun.take_known(&event(id, stage), &mut matches);
        assert_eq!(known.len() + matches.len(), rules.len());
        matches.iter().map(|found| format!("{}/{}", found.policy, found.rule)).collect()
    }

    #[test]
    fn what_a_request_matched_when_it_began_its_end_does_not_match_again() {
        let mut begun = Begun::default();
        assert_eq!(left(&mut begun, "1", "started", &[("p", "a"), ("p", "b")]), ["p/a", "p/b"]);
        // Another request's end, and another policy's rule of the same name.
        assert_eq!(left(&mut begun, "2", "complete", &[("p", "a")]), ["p/a"]);
        assert_eq!(left(&mut begun, "1", "complete", &[("p", "b"), ("q", "a"), ("p", "c")]), ["q/a", "p/c"]);
        // It has ended; an id that comes again is another request's.
        assert_eq!(left(&mut begun, "1", "complete", &[("p", "a")]), ["p/a"]);
        assert!(begun.requests.is_empty() && begun.order.is_empty());
    }

    #[test]
    fn a_request_that_takes_anothers_id_hides_nothing() {
        let mut begun = Begun::default();
        left(&mut begun, "1", "started", &[("p", "a")]);
        let mut other = event("1", "complete");
        if let What::Api { api } = &mut other.what {
            api.path = "/api/v1/secrets".into();
        }
        let mut matches = vec![found("p", "a")];
        assert!(begun.take_known(&other, &mut matches).is_empty() && matches.len() == 1);
        assert_eq!(left(&mut begun, "1", "complete", &[("p", "a")]), [""; 0]);
    }

    #[test]
    fn a_rule_that_did_not_match_the_beginning_matches_the_end() {
        let mut begun = Begun::default();
        assert_eq!(left(&mut begun, "1", "started", &[]), [""; 0]);
        assert_eq!(left(&mut begun, "1", "complete", &[("p", "a")]), ["p/a"]);
        // What has no id can't be told from others.
        left(&mut begun, "", "started", &[("p", "a")]);
        assert_eq!(left(&mut begun, "", "complete", &[("p", "a")]), ["p/a"]);
    }

    #[test]
    fn memory_is_bounded_and_the_oldest_is_forgotten() {
        let mut begun = Begun::default();
        for number in 0..=MOST {
            left(&mut begun, &number.to_string(), "started", &[("p", "a")]);
        }
        assert_eq!((begun.requests.len(), begun.order.len()), (MOST, MOST));
        assert_eq!(left(&mut begun, "0", "complete", &[("p", "a")]), ["p/a"]);
        assert_eq!(left(&mut begun, "1", "complete", &[("p", "a")]), [""; 0]);
    }
}
