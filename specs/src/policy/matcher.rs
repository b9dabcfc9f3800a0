//! Which rules match an event.

use std::collections::{BTreeMap, HashMap};

use super::{
    LabelSelector, NamespaceSelector, Severity,
    conditions::{AnyOf, Process, Subject, describe},
    facts::{ApiField, Facts, Patterns},
    pattern::PatternId,
};
use crate::{
    alert::Match,
    cel::{Condition, EvalError},
    event::{Event, What},
    frame::FileOp,
    template::Template,
};

/// A rule's number in its [`Policies`].
pub type RuleId = u32;

/// Policies that are ready to be held against events.
#[derive(Debug, Default)]
pub struct Policies {
    pub(super) list: Vec<Policy>,
    pub(super) rules: Vec<Rule>,
    pub(super) patterns: Patterns,
    pub(super) index: Index,
}

/// A policy: where its rules look.
#[derive(Debug, Default)]
pub struct Policy {
    /// Its name.
    pub name: String,
    pub(super) nodes: Option<LabelSelector>,
    pub(super) namespaces: Option<Names>,
    pub(super) namespace_labels: Option<NamespaceSelector>,
    pub(super) pods: Option<LabelSelector>,
    pub(super) containers: Option<Names>,
}

/// Names to take and names to leave.
#[derive(Debug, Default)]
pub struct Names {
    pub(super) names: AnyOf,
    pub(super) exclude: AnyOf,
}

/// A rule, compiled.
#[derive(Debug)]
pub struct Rule {
    /// The policy's number.
    pub policy: usize,
    /// Its name.
    pub name: String,
    /// How bad a match is.
    pub severity: Severity,
    pub(super) description: String,
    pub(super) message: Option<Template>,
    pub(super) tags: Vec<String>,
    pub(super) references: Vec<String>,
    pub(super) process: Option<Process>,
    pub(super) subject: Subject,
    pub(super) condition: Option<Condition>,
    pub(super) except: Vec<Except>,
}

/// What a rule leaves out, compiled.
#[derive(Debug)]
pub struct Except {
    pub(super) process: Option<Process>,
    pub(super) subject: Subject,
    pub(super) condition: Option<Condition>,
}

/// Which rules an event can match at all.
#[derive(Debug, Default)]
pub struct Index {
    /// Rules by a path pattern of what they are about.
    subjects: HashMap<PatternId, Vec<RuleId>>,
    /// Rules that name no such path, by a pattern of the process's executable.
    exes: HashMap<PatternId, Vec<RuleId>>,
    /// Rules that name neither, by the kind of event.
    execs: Vec<RuleId>,
    files: BTreeMap<FileOp, Vec<RuleId>>,
    /// Rules about requests, by a pattern of the resource.
    resources: HashMap<PatternId, Vec<RuleId>>,
    /// Those that name no resource.
    requests: Vec<RuleId>,
}

/// What the plugin knows of the places where events happen. What isn't known, such as in a recording, excludes nothing.
pub trait Surroundings {
    /// A node's labels.
    fn node_labels(&self, node: &str) -> Option<&BTreeMap<String, String>>;
    /// A namespace's labels.
    fn namespace_labels(&self, namespace: &str) -> Option<&BTreeMap<String, String>>;
}

/// Nothing is known but what the events say.
#[derive(Debug, Clone, Copy)]
pub struct Unknown;

impl Surroundings for Unknown {
    fn node_labels(&self, _: &str) -> Option<&BTreeMap<String, String>> {
        None
    }

    fn namespace_labels(&self, _: &str) -> Option<&BTreeMap<String, String>> {
        None
    }
}

/// Why a rule does not match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Why {
    /// The first of its conditions that failed, such as `file.paths` or `spec.pods`.
    pub field: String,
    /// What the event has instead.
    pub reason: String,
}

/// An expression of a rule could not be evaluated, which is worth knowing: the rule does not match, or its exception takes
/// nothing out.
#[derive(Debug)]
pub struct Failure<'p> {
    /// The rule.
    pub rule: &'p Rule,
    /// The exception's number; `None`: the rule's own `where`.
    pub exception: Option<usize>,
    /// Why.
    pub error: EvalError,
}

impl Index {
    pub(super) fn add(&mut self, id: RuleId, rule: &Rule) {
        let paths = match &rule.subject {
            Subject::Exec(exec) => &exec.paths,
            Subject::File(operation) => &operation.paths,
            Subject::Api(request) => {
                for resource in request.resources() {
                    self.resources.entry(*resource).or_default().push(id);
                }
                if request.resources().is_empty() {
                    self.requests.push(id);
                }
                return;
            }
            Subject::Any => return,
        };
        let exes = rule.process.as_ref().map_or(&[][..], |process| &process.exes);
        match &rule.subject {
            _ if !paths.is_empty() => paths.iter().for_each(|pattern| self.subjects.entry(*pattern).or_default().push(id)),
            _ if !exes.is_empty() => exes.iter().for_each(|pattern| self.exes.entry(*pattern).or_default().push(id)),
            Subject::File(operation) => {
                let ops = if operation.ops.is_empty() { FileOp::USUAL } else { &operation.ops };
                for op in ops {
                    self.files.entry(*op).or_default().push(id);
                }
            }
            Subject::Exec(_) | Subject::Api(_) | Subject::Any => self.execs.push(id),
        }
    }

    fn candidates(&self, facts: &Facts<'_>) -> Vec<RuleId> {
        let mut rules = match &facts.event.what {
            What::Exec { .. } => self.execs.clone(),
            What::File { file } => self.files.get(&file.op).cloned().unwrap_or_default(),
            What::Api { .. } => {
                let resources = facts.api(ApiField::Resource).iter().filter_map(|pattern| self.resources.get(pattern));
                let mut rules: Vec<_> = self.requests.iter().chain(resources.flatten()).copied().collect();
                rules.sort_unstable();
                rules.dedup();
                return rules;
            }
            What::Exit { .. } => return Vec::new(),
        };
        if !self.subjects.is_empty() {
            let subject = facts.subject().iter().chain(facts.same());
            rules.extend(subject.filter_map(|pattern| self.subjects.get(pattern)).flatten());
        }
        if !self.exes.is_empty() {
            rules.extend(facts.exe().iter().filter_map(|pattern| self.exes.get(pattern)).flatten());
        }
        rules.sort_unstable();
        rules.dedup();
        rules
    }
}

impl Policies {
    /// The policies.
    pub fn policies(&self) -> &[Policy] {
        &self.list
    }

    /// All rules, by their numbers.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Whether any policy is about processes outside of pods too.
    pub fn covers_hosts(&self) -> bool {
        self.list.iter().any(Policy::covers_hosts)
    }

    /// Whether any policy is about a pod of this namespace and with these labels, whatever its node.
    pub fn covers_pod(&self, namespace: &str, labels: &BTreeMap<String, String>) -> bool {
        let mut found = Vec::new();
        self.patterns.texts.find_into(namespace.as_bytes(), &mut found);
        found.sort_unstable();
        self.list.iter().any(|policy| {
            policy.namespaces.as_ref().is_none_or(|names| names.take(&found))
                && policy.pods.as_ref().is_none_or(|selector| selector.matches(labels))
        })
    }

    /// Whether any policy is about a node with these labels.
    pub fn covers_node(&self, labels: &BTreeMap<String, String>) -> bool {
        self.list.iter().any(|policy| policy.nodes.as_ref().is_none_or(|selector| selector.matches(labels)))
    }

    /// Whether any policy selects nodes by their labels.
    pub fn needs_node_labels(&self) -> bool {
        self.list.iter().any(|policy| policy.nodes.is_some())
    }

    /// Whether any policy selects namespaces by their labels.
    pub fn needs_namespace_labels(&self) -> bool {
        self.list.iter().any(|policy| policy.namespace_labels.is_some())
    }

    /// The rules that match an event, the most severe first; `failed` is told of expressions that can't be evaluated.
    pub fn matches<'p>(&'p self, event: &Event, around: &dyn Surroundings, mut failed: impl FnMut(Failure<'p>)) -> Vec<Match> {
        let facts = Facts::of(event, &self.patterns);
        let mut found = Vec::new();
        for id in self.index.candidates(&facts) {
            let rule = &self.rules[id as usize];
            let unusable = |exception, error| failed(Failure { rule, exception: Some(exception), error });
            match self.check(rule, &facts, around, unusable) {
                Ok(None) => found.push(rule),
                Ok(Some(_)) => {}
                Err(error) => failed(Failure { rule, exception: None, error }),
            }
        }
        found.sort_by_key(|rule| std::cmp::Reverse(rule.severity));
        found.into_iter().map(|rule| self.describe(rule, event)).collect()
    }

    /// Why a rule does not match an event; `None` if it does.
    pub fn explain(&self, rule: &Rule, event: &Event, around: &dyn Surroundings) -> Option<Why> {
        let facts = Facts::of(event, &self.patterns);
        match self.check(rule, &facts, around, |_, _| {}) {
            Ok(None) => None,
            Ok(Some(miss)) => Some(Why { field: miss.field(), reason: miss.reason(&facts) }),
            Err(error) => Some(Why { field: "where".to_owned(), reason: error.to_string() }),
        }
    }

    fn describe(&self, rule: &Rule, event: &Event) -> Match {
        let message = rule.message.as_ref().map_or_else(|| rule.description.clone(), |message| message.render(event));
        Match {
            policy: self.list[rule.policy].name.clone(),
            rule: rule.name.clone(),
            severity: rule.severity,
            message,
            tags: rule.tags.clone(),
            references: rule.references.clone(),
        }
    }

    /// What an event lacks to match a rule. `unusable` is told of exceptions that can't be evaluated, by their numbers.
    fn check(
        &self,
        rule: &Rule,
        facts: &Facts<'_>,
        around: &dyn Surroundings,
        mut unusable: impl FnMut(usize, EvalError),
    ) -> Result<Option<Miss>, EvalError> {
        let structured = rule.subject.check(facts).and_then(|()| rule.process.as_ref().map_or(Ok(()), |p| p.check(facts)));
        if let Err(field) = structured {
            return Ok(Some(Miss::Field(field)));
        }
        if let Err(field) = self.list[rule.policy].check(facts, around) {
            return Ok(Some(Miss::Scope(field)));
        }
        if let Some(condition) = &rule.condition
            && !condition.eval(facts.event)?
        {
            return Ok(Some(Miss::Condition));
        }
        for (at, except) in rule.except.iter().enumerate() {
            // What can't be told takes nothing out: a process could choose its arguments so that it can't.
            match except.holds(facts) {
                Ok(true) => return Ok(Some(Miss::Except(at))),
                Ok(false) => {}
                Err(error) => unusable(at, error),
            }
        }
        Ok(None)
    }
}

/// The first condition that an event does not satisfy.
enum Miss {
    Field(&'static str),
    Scope(&'static str),
    Condition,
    Except(usize),
}

impl Miss {
    fn field(&self) -> String {
        match self {
            Self::Field(field) => (*field).to_owned(),
            Self::Scope(field) => format!("spec.{field}"),
            Self::Condition => "where".to_owned(),
            Self::Except(at) => format!("except[{at}]"),
        }
    }

    fn reason(&self, facts: &Facts<'_>) -> String {
        match self {
            Self::Field(field) => describe(field, facts),
            Self::Scope(_) if facts.event.kubernetes.is_none() => "the process is in no pod".to_owned(),
            Self::Scope("nodes") => format!("the node is {:?}", facts.event.node.name),
            Self::Scope("containers") => {
                format!("the container is {:?}", facts.event.container.as_ref().map_or("", |container| &container.name))
            }
            Self::Scope("pods") => {
                format!(
                    "the pod's labels are {:?}",
                    facts.event.kubernetes.as_ref().and_then(|pod| pod.labels.clone()).unwrap_or_default()
                )
            }
            Self::Scope(_) => format!("the namespace is {:?}", facts.event.kubernetes.as_ref().map_or("", |pod| &pod.namespace)),
            Self::Condition => "the expression is false".to_owned(),
            Self::Except(_) => "the exception holds".to_owned(),
        }
    }
}

impl Except {
    fn holds(&self, facts: &Facts<'_>) -> Result<bool, EvalError> {
        let structured = self.subject.check(facts).and_then(|()| self.process.as_ref().map_or(Ok(()), |p| p.check(facts)));
        Ok(structured.is_ok() && self.condition.as_ref().map_or(Ok(true), |condition| condition.eval(facts.event))?)
    }
}

impl Policy {
    fn covers_hosts(&self) -> bool {
        self.namespaces.is_none() && self.pods.is_none() && self.containers.is_none()
    }

    fn check(&self, facts: &Facts<'_>, around: &dyn Surroundings) -> Result<(), &'static str> {
        let known = |labels: Option<&BTreeMap<String, String>>, matches: &dyn Fn(&BTreeMap<String, String>) -> bool| {
            labels.is_none_or(matches)
        };
        if let Some(nodes) = &self.nodes
            && !known(around.node_labels(&facts.event.node.name), &|labels| nodes.matches(labels))
        {
            return Err("nodes");
        }
        let pod = facts.event.kubernetes.as_deref();
        // A request is where its object is, not where the API server runs.
        let (request, namespace) = match &facts.event.what {
            What::Api { api } => (true, Some(&api.namespace).filter(|name| !name.is_empty())),
            _ => (false, pod.map(|pod| &pod.namespace)),
        };
        if let Some(namespaces) = &self.namespaces
            && (pod.is_none() && !request || !namespaces.take(facts.namespace()))
        {
            return Err("namespaces");
        }
        if let Some(selector) = &self.namespace_labels
            && (request || pod.is_some())
            && !namespace.is_some_and(|name| known(around.namespace_labels(name), &|labels| selector.matches_labels(labels)))
        {
            return Err("namespaces");
        }
        if request {
            return Ok(());
        }
        if let Some(pods) = &self.pods
            && pod.is_none_or(|pod| !known(pod.labels.as_ref(), &|labels| pods.matches(labels)))
        {
            return Err("pods");
        }
        if let Some(containers) = &self.containers
            && (pod.is_none() || !containers.take(facts.container()))
        {
            return Err("containers");
        }
        Ok(())
    }
}

impl Names {
    fn take(&self, found: &[PatternId]) -> bool {
        let has = |wanted: &[PatternId]| wanted.iter().any(|id| found.binary_search(id).is_ok());
        (self.names.is_empty() || has(&self.names)) && !has(&self.exclude)
    }
}
