//! Policies over the events that arrive: which are worth showing, and why.

use std::{collections::BTreeMap, fmt::Write as _, sync::Arc};

use knark_specs::{
    alert::Match,
    event::{Event, What},
    policy::{
        Severity,
        begun::Begun,
        matcher::{Policies, Surroundings},
    },
};
use tokio::sync::watch;

use crate::{alert_to::Receivers, cluster::OwnRequests};

/// Labels of nodes and namespaces by name, as they were when the trace began.
#[derive(Debug, Clone, Default)]
pub struct Labels {
    /// Of nodes.
    pub nodes: BTreeMap<String, BTreeMap<String, String>>,
    /// Of namespaces.
    pub namespaces: BTreeMap<String, BTreeMap<String, String>>,
}

impl Surroundings for Labels {
    fn node_labels(&self, node: &str) -> Option<&BTreeMap<String, String>> {
        self.nodes.get(node)
    }

    fn namespace_labels(&self, namespace: &str) -> Option<&BTreeMap<String, String>> {
        self.namespaces.get(namespace)
    }
}

/// The policies of a trace, and what came of them.
#[derive(Debug)]
pub struct Alerts {
    policies: watch::Receiver<Arc<Policies>>,
    labels: Labels,
    own: OwnRequests,
    begun: Begun,
    /// Matches so far.
    matches: BTreeMap<Severity, u64>,
    /// Rules of which an expression could not be evaluated: how often, by policy and rule.
    failures: BTreeMap<(String, String), u64>,
    /// Who is told of matches, besides the output.
    receivers: Option<Receivers>,
}

impl Alerts {
    /// Policies that may change while the trace runs. No rule matches its own requests.
    pub fn new(policies: watch::Receiver<Arc<Policies>>, labels: Labels, own: OwnRequests) -> Self {
        Self {
            policies,
            labels,
            own,
            begun: Begun::default(),
            matches: BTreeMap::new(),
            failures: BTreeMap::new(),
            receivers: None,
        }
    }

    /// The same, and these receivers are told.
    pub fn telling(self, receivers: Option<Receivers>) -> Self {
        Self { receivers, ..self }
    }

    /// Who is told of matches, besides the output.
    pub fn receivers(&mut self) -> Option<&mut Receivers> {
        self.receivers.as_mut()
    }

    /// Whether what isn't live is to wait for receivers.
    pub fn lack_room(&self) -> bool {
        self.receivers.as_ref().is_some_and(Receivers::lack_room)
    }

    /// Waits until they have room.
    pub async fn room(&self) {
        if let Some(receivers) = &self.receivers {
            receivers.room().await;
        }
    }

    /// Takes the receivers out: no more matches come.
    pub fn take_receivers(&mut self) -> Option<Receivers> {
        self.receivers.take()
    }

    /// The rules that an event matches, and that its request hasn't matched before. `warn` is told of a rule that can't be evaluated, the first time.
    pub fn of(&mut self, event: &Event, mut warn: impl FnMut(&str)) -> Vec<Match> {
        if matches!(&event.what, What::Api { api } if self.own.include(api)) {
            return Vec::new();
        }
        let policies = Arc::clone(&self.policies.borrow());
        let mut failures = Vec::new();
        let mut matches = policies.matches(event, &self.labels, |failure| failures.push(failure));
        self.begun.take_known(event, &mut matches);
        for failure in failures {
            let policy = policies.policies().get(failure.rule.policy).map_or("", |policy| &policy.name);
            let count = self.failures.entry((policy.to_owned(), failure.rule.name.clone())).or_default();
            *count = count.saturating_add(1);
            if *count == 1 {
                let what = match failure.exception {
                    None => "`where` can't be evaluated, so the rule does not match".to_owned(),
                    Some(at) => format!("except[{at}].where can't be evaluated, so it takes nothing out"),
                };
                warn(&format!("rule {policy}/{}: {what}: {}", failure.rule.name, failure.error));
            }
        }
        for matched in &matches {
            *self.matches.entry(matched.severity).or_default() += 1;
        }
        matches
    }

    /// Matches so far, by severity.
    pub fn matches(&self) -> &BTreeMap<Severity, u64> {
        &self.matches
    }

    /// Whether any rule matched.
    pub fn any(&self) -> bool {
        !self.matches.is_empty()
    }

    /// What came of it, for a person: a line, and one for each rule that could not be evaluated.
    pub fn summary(&self) -> String {
        let all: u64 = self.matches.values().sum();
        let mut text = format!("{all} match{}", if all == 1 { "" } else { "es" });
        let by_severity: Vec<_> = self.matches.iter().rev().map(|(severity, n)| format!("{n} {}", severity.name())).collect();
        if !by_severity.is_empty() {
            let _ = write!(text, ": {}", by_severity.join(", "));
        }
        text.push('\n');
        for ((policy, rule), n) in &self.failures {
            let _ = writeln!(
                text,
                "warning: an expression of rule {policy}/{rule} could not be evaluated for {n} event{}",
                if *n == 1 { "" } else { "s" }
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use knark_specs::{cases, policy::matcher::Policies};
    use serde_json::json;

    use super::*;
    use crate::policies::{Set, Source};

    fn alerts(rule: &str) -> Alerts {
        let text = format!("apiVersion: knark.dev/v1alpha1\nkind: TracePolicy\nmetadata: {{name: p}}\nspec: {{rules: [{rule}]}}");
        let set = Set::of(vec![Source { name: "p".into(), text }]);
        assert_eq!(set.problems, []);
        let policies: Arc<Policies> = Arc::new(set.policies);
        Alerts::new(watch::channel(policies).1, Labels::default(), OwnRequests::default())
    }

    #[test]
    fn what_the_trace_asks_for_itself_is_no_news() {
        let mut alerts = alerts("{name: r, api: {subresources: [exec]}}");
        let uri = "/api/v1/namespaces/kube-system/pods/knark-1/exec?command=knark-tracer";
        let request = alerts.own.mark(http::Request::get(uri).body(()).unwrap());
        let mut event = |audit_id: &str, path: &str| {
            let (path, query) = path.split_once('?').unwrap();
            let api = json!({ "request_id": audit_id, "stage": "started", "subresource": "exec", "path": path, "query": query,
                "audit_id": audit_id });
            alerts.of(&cases::event(json!({ "api": api }).as_object().unwrap()).unwrap(), |_| {}).len()
        };
        let own = request.headers()["audit-id"].to_str().unwrap();
        assert_eq!((event(own, uri), event("another", uri)), (0, 1));
    }

    #[test]
    fn a_request_matches_a_rule_once() {
        let request = |stage: &str, code: Option<u16>| {
            let api = json!({ "request_id": "1", "stage": stage, "code": code, "resource": "pods", "subresource": "exec" });
            cases::event(json!({ "api": api }).as_object().unwrap()).unwrap()
        };
        let (started, complete) = (request("started", None), request("complete", Some(101)));
        for (rule, counts) in [
            ("{name: r, api: {subresources: [exec]}}", [1, 0]),
            ("{name: r, api: {subresources: [exec], codes: [101]}}", [0, 1]),
            ("{name: r, api: {}, where: 'api.stage == \"complete\"'}", [0, 1]),
            ("{name: r, api: {}}, {name: s, api: {codes: [101]}}", [1, 1]),
        ] {
            let mut alerts = alerts(rule);
            assert_eq!([&started, &complete].map(|event| alerts.of(event, |_| {}).len()), counts, "{rule}");
            assert_eq!(alerts.matches().values().sum::<u64>(), u64::try_from(counts[0] + counts[1]).unwrap(), "{rule}");
        }
    }

    #[test]
    fn expressions_that_fail_are_told_once_and_counted() {
        let event = json!({ "process": { "exe": "/bin/x", "args": ["x"] }, "exec": {} });
        let event = cases::event(event.as_object().unwrap()).unwrap();
        for (rule, matches, words) in [
            ("{name: r, exec: {}, where: 'process.args[1] == \"a\"'}", 0, "the rule does not match"),
            ("{name: r, exec: {}, except: [{where: 'process.args[1] == \"a\"'}]}", 1, "except[0].where"),
        ] {
            let mut alerts = alerts(rule);
            let mut told = Vec::new();
            for _ in 0..3 {
                assert_eq!(alerts.of(&event, |text| told.push(text.to_owned())).len(), matches, "{rule}");
            }
            assert_eq!(told.len(), 1, "{told:?}");
            assert!(told[0].contains(words), "{told:?}");
            assert!(alerts.summary().contains("3 events"), "{}", alerts.summary());
        }
    }
}
