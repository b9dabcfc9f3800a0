//! What the user typed as target, and what was meant by it. No cluster is asked here.

use std::collections::BTreeSet;

use clap_complete::ArgValueCompleter;
use kube::core::Selector;

use super::{
    complete,
    selector::{self, SelectorError},
};

/// What to trace, in kubectl's words.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct TargetFlags {
    /// POD, TYPE/NAME or node/NAME, several if need be; without any, every pod of the namespace
    ///
    /// TYPE is pod, deploy, rs, sts, ds, job, rc or svc, in its short or long form. A workload stands for the pods that its
    /// selector matches, those that start later included. node/NAME traces all processes of a node, inside and outside of pods.
    #[arg(value_name = "TARGET", add = ArgValueCompleter::new(complete::targets))]
    pub targets: Vec<String>,
    /// Trace the pods that this label selector matches, such as app=web
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    pub selector: Option<String>,
    /// Trace pods of all namespaces
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// Trace only containers of this name (repeatable)
    #[arg(short = 'c', long = "container", value_name = "NAME")]
    pub containers: Vec<String>,
    /// Trace only on this node (repeatable); without it, on the nodes where the targets run
    #[arg(long = "node", value_name = "NAME", add = ArgValueCompleter::new(complete::nodes))]
    pub nodes: Vec<String>,
    /// Trace only on nodes whose labels match, such as node-role.kubernetes.io/control-plane
    #[arg(long, value_name = "SELECTOR")]
    pub node_selector: Option<String>,
}

/// What was meant.
#[derive(Debug, Clone, PartialEq)]
pub enum Asked {
    /// Pods, by any of the rules.
    Pods {
        /// Which ones.
        rules: Vec<Rule>,
        /// Of every namespace.
        all_namespaces: bool,
        /// Where to look for them; `None`: where they run.
        nodes: Option<NodeChoice>,
    },
    /// All processes of these nodes.
    Nodes(Vec<String>),
}

/// A way to name pods.
#[derive(Debug, Clone, PartialEq)]
pub enum Rule {
    /// Every pod.
    All,
    /// The pod of this name.
    Pod(String),
    /// The pods of a workload or service.
    Workload(Kind, String),
    /// The pods with such labels.
    Labels(Selector),
}

/// Nodes, as `--node` and `--node-selector` choose them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NodeChoice {
    /// By name.
    pub names: BTreeSet<String>,
    /// By label.
    pub selector: Option<Selector>,
}

/// What has a selector for pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// deploy
    Deployment,
    /// rs
    ReplicaSet,
    /// sts
    StatefulSet,
    /// ds
    DaemonSet,
    /// job
    Job,
    /// rc
    ReplicationController,
    /// svc
    Service,
}

impl Kind {
    /// The resource as `kubectl auth can-i` wants it.
    pub fn resource(self) -> &'static str {
        match self {
            Self::Deployment => "deployments.apps",
            Self::ReplicaSet => "replicasets.apps",
            Self::StatefulSet => "statefulsets.apps",
            Self::DaemonSet => "daemonsets.apps",
            Self::Job => "jobs.batch",
            Self::ReplicationController => "replicationcontrollers",
            Self::Service => "services",
        }
    }
}

/// A target that can't be understood: wrong usage.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum TargetError {
    /// Neither POD nor TYPE/NAME.
    #[error("{0:?} is no target: name a pod, or TYPE/NAME such as deploy/web or node/worker-1")]
    Form(String),
    /// A type that has no pods.
    #[error(
        "{kind:?} in {target:?} is no type that can be traced: use pod, deploy, rs, sts, ds, job, rc, svc or node, or select pods by -l"
    )]
    Kind {
        /// As typed.
        kind: String,
        /// The whole argument.
        target: String,
    },
    /// kubectl forbids it too.
    #[error("{0:?} names one thing, and -l selects others: use one of them")]
    NameAndSelector(String),
    /// kubectl forbids it too.
    #[error("{0:?} can't be looked up by name in all namespaces: leave out -A and give -n NAMESPACE, or select pods by -l")]
    NameAndAll(String),
    /// Two kinds of trace.
    #[error(
        "{0:?} traces a whole node, the other targets trace pods: trace them one at a time (--node NAME limits pods to a node)"
    )]
    Mixed(String),
    /// A whole node has all namespaces and containers.
    #[error("{target:?} traces a whole node: {flag} has no meaning there")]
    NodeAnd {
        /// The node's target.
        target: String,
        /// The flag.
        flag: &'static str,
    },
    /// Not a selector.
    #[error(transparent)]
    Selector(#[from] SelectorError),
}

enum Named {
    Pods(Rule),
    Node(String),
}

impl TargetFlags {
    /// Understands `--node` and `--node-selector`.
    pub fn node_choice(&self) -> Result<Option<NodeChoice>, TargetError> {
        let choice = NodeChoice {
            names: self.nodes.iter().map(|name| name.strip_prefix("node/").unwrap_or(name).to_owned()).collect(),
            selector: self.node_selector.as_deref().map(selector::parse).transpose()?,
        };
        Ok((choice != NodeChoice::default()).then_some(choice))
    }

    /// Understands the flags.
    pub fn parse(&self) -> Result<Asked, TargetError> {
        let selector = self.selector.as_deref().map(selector::parse).transpose()?;
        let nodes = self.node_choice()?;

        let (mut rules, mut whole) = (Vec::new(), Vec::new());
        for target in &self.targets {
            match named(target)? {
                Named::Pods(rule) => rules.push((rule, target)),
                Named::Node(name) => whole.push((name, target)),
            }
        }
        if let Some((_, target)) = whole.first() {
            let target = (*target).clone();
            if !rules.is_empty() {
                return Err(TargetError::Mixed(target));
            }
            let flags = [
                ("-l", selector.is_some()),
                ("-c", !self.containers.is_empty()),
                ("--node", !self.nodes.is_empty()),
                ("--node-selector", self.node_selector.is_some()),
            ];
            if let Some((flag, _)) = flags.into_iter().find(|(_, given)| *given) {
                return Err(TargetError::NodeAnd { target, flag });
            }
            let names: BTreeSet<_> = whole.into_iter().map(|(name, _)| name).collect();
            return Ok(Asked::Nodes(names.into_iter().collect()));
        }
        if let Some((_, target)) = rules.first() {
            if selector.is_some() {
                return Err(TargetError::NameAndSelector((*target).clone()));
            }
            if self.all_namespaces {
                return Err(TargetError::NameAndAll((*target).clone()));
            }
        }
        let mut rules: Vec<_> = rules.into_iter().map(|(rule, _)| rule).collect();
        if rules.is_empty() {
            rules.push(selector.map_or(Rule::All, Rule::Labels));
        }
        Ok(Asked::Pods { rules, all_namespaces: self.all_namespaces, nodes })
    }
}

fn named(target: &str) -> Result<Named, TargetError> {
    let (kind, name) = match target.split_once('/') {
        None => ("pod", target),
        Some((kind, name)) => (kind, name),
    };
    let is_name = |name: &str| {
        name.chars().all(|c| c.is_ascii_alphanumeric() || "-.".contains(c))
            && name.starts_with(|c: char| c.is_ascii_alphanumeric())
    };
    if !is_name(name) {
        return Err(TargetError::Form(target.to_owned()));
    }
    let name = name.to_owned();
    let workload = |kind, name| Ok(Named::Pods(Rule::Workload(kind, name)));
    match kind.to_ascii_lowercase().as_str() {
        "pod" | "pods" | "po" => Ok(Named::Pods(Rule::Pod(name))),
        "node" | "nodes" | "no" => Ok(Named::Node(name)),
        "deployment" | "deployments" | "deploy" | "deployment.apps" | "deployments.apps" => workload(Kind::Deployment, name),
        "replicaset" | "replicasets" | "rs" | "replicaset.apps" | "replicasets.apps" => workload(Kind::ReplicaSet, name),
        "statefulset" | "statefulsets" | "sts" | "statefulset.apps" | "statefulsets.apps" => workload(Kind::StatefulSet, name),
        "daemonset" | "daemonsets" | "ds" | "daemonset.apps" | "daemonsets.apps" => workload(Kind::DaemonSet, name),
        "job" | "jobs" | "job.batch" | "jobs.batch" => workload(Kind::Job, name),
        "replicationcontroller" | "replicationcontrollers" | "rc" => workload(Kind::ReplicationController, name),
        "service" | "services" | "svc" => workload(Kind::Service, name),
        _ => Err(TargetError::Kind { kind: kind.to_owned(), target: target.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(targets: &[&str]) -> Result<Asked, TargetError> {
        TargetFlags { targets: targets.iter().map(|t| (*t).to_owned()).collect(), ..Default::default() }.parse()
    }

    fn rules(targets: &[&str]) -> Vec<Rule> {
        match parse(targets).unwrap() {
            Asked::Pods { rules, .. } => rules,
            Asked::Nodes(nodes) => panic!("nodes {nodes:?}"),
        }
    }

    #[test]
    fn names_are_kubectls() {
        assert_eq!(rules(&["web"]), [Rule::Pod("web".into())]);
        assert_eq!(rules(&["po/web", "pods/db"]), [Rule::Pod("web".into()), Rule::Pod("db".into())]);
        for (text, kind) in [
            ("deploy/x", Kind::Deployment),
            ("Deployment/x", Kind::Deployment),
            ("deployments.apps/x", Kind::Deployment),
            ("rs/x", Kind::ReplicaSet),
            ("sts/x", Kind::StatefulSet),
            ("ds/x", Kind::DaemonSet),
            ("job/x", Kind::Job),
            ("rc/x", Kind::ReplicationController),
            ("svc/x", Kind::Service),
        ] {
            assert_eq!(rules(&[text]), [Rule::Workload(kind, "x".into())], "{text}");
        }
        assert_eq!(parse(&["node/b", "no/a", "node/b"]).unwrap(), Asked::Nodes(vec!["a".into(), "b".into()]));
    }

    #[test]
    fn without_a_target_all_pods_are_meant() {
        assert_eq!(rules(&[]), [Rule::All]);
    }

    #[test]
    fn mistakes_are_named() {
        for (targets, mark) in [
            (&["deploy/"][..], "deploy/"),
            (&["a/b/c"], "a/b/c"),
            (&[""], "no target"),
            (&["-x"], "no target"),
            (&["../x"], ".."),
            (&["cronjob/x"], "cronjob"),
            (&["node/a", "web"], "whole node"),
        ] {
            let error = parse(targets).unwrap_err().to_string();
            assert!(error.contains(mark), "{targets:?}: {error}");
        }
        let with = |set: fn(&mut TargetFlags)| {
            let mut flags = TargetFlags { targets: vec!["web".into()], ..Default::default() };
            set(&mut flags);
            flags.parse().unwrap_err()
        };
        assert_eq!(with(|f| f.all_namespaces = true), TargetError::NameAndAll("web".into()));
        assert_eq!(with(|f| f.selector = Some("a=b".into())), TargetError::NameAndSelector("web".into()));
        assert!(matches!(with(|f| f.node_selector = Some("a b".into())), TargetError::Selector(_)));
        let node = TargetFlags { targets: vec!["node/a".into()], containers: vec!["c".into()], ..Default::default() };
        assert_eq!(node.parse(), Err(TargetError::NodeAnd { target: "node/a".into(), flag: "-c" }));
    }
}
