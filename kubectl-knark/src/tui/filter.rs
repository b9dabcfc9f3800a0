//! What the user types to see less: words that must be there, and fields that must hold them.

use knark_specs::{
    event::{Event, What},
    policy::Severity,
};

use super::history::Entry;
use crate::render::words;

/// Conditions that must all hold.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Filter {
    terms: Vec<Term>,
}

#[derive(Debug, Clone, PartialEq)]
struct Term {
    negated: bool,
    test: Test,
}

#[derive(Debug, Clone, PartialEq)]
enum Test {
    /// This text somewhere in what is shown.
    Anywhere(String),
    /// This text in a field; in lower case, as what it is compared to.
    Field(Field, String),
    /// A rule of this severity or worse.
    AtLeast(Severity),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Namespace,
    Pod,
    Container,
    Node,
    Process,
    Pid,
    Uid,
    Operation,
    User,
    Verb,
    Resource,
    Code,
    Rule,
}

/// The fields by name, as help shows them.
const FIELDS: [(&str, Field); 13] = [
    ("ns", Field::Namespace),
    ("pod", Field::Pod),
    ("container", Field::Container),
    ("node", Field::Node),
    ("comm", Field::Process),
    ("pid", Field::Pid),
    ("uid", Field::Uid),
    ("op", Field::Operation),
    ("user", Field::User),
    ("verb", Field::Verb),
    ("resource", Field::Resource),
    ("code", Field::Code),
    ("rule", Field::Rule),
];

impl Filter {
    /// Words, each anywhere in what is shown, or `field:text`, or with `!` before it what must not be. What is no field's
    /// name is a word, so that any text is a filter.
    pub fn parse(text: &str) -> Self {
        let words = text.to_lowercase();
        let terms = words.split_whitespace().filter_map(|word| {
            let (negated, word) = word.strip_prefix('!').map_or((false, word), |word| (true, word));
            let test = match word.split_once(':') {
                Some((_, "")) | None => Test::Anywhere(word.to_owned()),
                Some(("sev" | "severity", name)) => match severity(name) {
                    Some(severity) => Test::AtLeast(severity),
                    None => Test::Anywhere(name.to_owned()),
                },
                Some((name, value)) => match FIELDS.iter().find(|(known, _)| *known == name) {
                    Some((_, field)) => Test::Field(*field, value.to_owned()),
                    None => Test::Anywhere(word.to_owned()),
                },
            };
            // Half of a word is being typed yet.
            let is_begun = matches!(&test, Test::Anywhere(text) if text.is_empty() || text.strip_suffix(':').is_some_and(|text| ["sev", "severity"].contains(&text) || FIELDS.iter().any(|(name, _)| *name == text)));
            (!is_begun).then_some(Term { negated, test })
        });
        Self { terms: terms.collect() }
    }

    /// Whether everything passes.
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// Whether it passes. `shown` is what is shown of it, asked for only where that matters.
    pub fn admits(&self, entry: &Entry, shown: impl FnOnce() -> String) -> bool {
        let mut shown = Some(shown);
        let mut text = String::new();
        self.terms.iter().all(|term| {
            let holds = match &term.test {
                Test::Anywhere(word) => {
                    if let Some(shown) = shown.take() {
                        text = shown().to_lowercase();
                    }
                    text.contains(word.as_str())
                }
                Test::Field(field, value) => field.holds(entry, value),
                Test::AtLeast(severity) => entry.severity().is_some_and(|found| found >= *severity),
            };
            holds != term.negated
        })
    }
}

fn severity(beginning: &str) -> Option<Severity> {
    let all = [Severity::Info, Severity::Low, Severity::Medium, Severity::High, Severity::Critical];
    all.into_iter().find(|severity| severity.name().starts_with(beginning))
}

impl Field {
    fn holds(self, entry: &Entry, value: &str) -> bool {
        let event = &entry.event;
        let has = |text: &str| text.to_lowercase().contains(value);
        let pod = event.kubernetes.as_deref();
        let api = match &event.what {
            What::Api { api } => Some(&**api),
            _ => None,
        };
        match self {
            Self::Namespace => match api {
                Some(api) => has(&api.namespace),
                None => pod.is_some_and(|pod| has(&pod.namespace)),
            },
            Self::Pod => match api {
                Some(api) => api.resource == "pods" && has(&api.name),
                None => pod.is_some_and(|pod| has(&pod.pod)),
            },
            Self::Container => event.container.as_ref().is_some_and(|c| has(&c.name) || c.id.starts_with(value)),
            Self::Node => has(&event.node.name),
            Self::Process => has(&event.process.comm),
            Self::Pid => event.process.pid.to_string() == value,
            Self::Uid => event.process.uid.to_string() == value,
            Self::Operation => has(words::operation(event)),
            Self::User => match (api, &event.cause) {
                (Some(api), _) => [&api.user, &api.impersonator].into_iter().flatten().any(|user| has(&user.name)),
                (None, Some(cause)) => has(&cause.user) || cause.impersonator.as_deref().is_some_and(has),
                (None, None) => false,
            },
            Self::Verb => api.is_some_and(|api| has(&api.verb)),
            Self::Resource => api.is_some_and(|api| has(&words::resource(api))),
            Self::Code => code(event).is_some_and(|code| code.starts_with(value)),
            Self::Rule => entry.matches.iter().any(|m| has(&m.rule) || has(&m.policy)),
        }
    }
}

/// What it returned: an HTTP status, or a process's.
fn code(event: &Event) -> Option<String> {
    match &event.what {
        What::Api { api } => api.code.map(|code| code.to_string()),
        What::Exit { exit } => exit.code.map(|code| code.to_string()),
        What::Exec { .. } | What::File { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::tui::tests::{entry, matched};

    #[test]
    fn words_and_fields_select() {
        let exec = json!({"process": {"comm": "Cat", "pid": 17, "exe": "/bin/cat"}, "exec": {},
            "kubernetes": {"namespace": "prod", "pod": "web-1"}});
        let request = json!({"api": {"verb": "create", "resource": "pods", "subresource": "exec", "namespace": "prod",
            "name": "web-1", "code": 403, "user": {"name": "alice"}}});
        let (mut exec, request) = (entry(0, exec), entry(1, request));
        exec.matches = vec![matched("odd-shell", Severity::High)];
        for (filter, passes) in [
            ("", [true, true]),
            ("   ", [true, true]),
            ("NEEDLE", [true, true]),
            ("needle other", [false, false]),
            ("!needle", [false, false]),
            ("!", [true, true]),
            ("ns:prod", [true, true]),
            ("ns:", [true, true]),
            ("ns:other", [false, false]),
            ("pod:web-", [true, true]),
            ("comm:cat", [true, false]),
            ("pid:17", [true, false]),
            ("pid:1", [false, false]),
            ("op:exec", [true, false]),
            ("user:ALI verb:create", [false, true]),
            ("resource:pods/exec", [false, true]),
            ("code:4", [false, true]),
            ("code:40 !user:bob", [false, true]),
            ("sev:med", [true, false]),
            ("sev:critical", [false, false]),
            ("!sev:high", [false, true]),
            ("rule:shell", [true, false]),
            ("http://x", [false, false]),
        ] {
            let parsed = Filter::parse(filter);
            let got = [&exec, &request].map(|entry| parsed.admits(entry, || "a NEEDle".to_owned()));
            assert_eq!(got, passes, "{filter:?}");
        }
    }
}
