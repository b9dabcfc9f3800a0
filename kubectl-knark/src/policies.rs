//! Policies from wherever they come: files, folders, standard input, shipped packs, objects in the cluster.

mod load;
mod watch;

use knark_specs::{
    alert::Match,
    event::Event,
    foreign, packs,
    policy::{
        TracePolicy,
        compile::{Lists, check_texts, compile},
        document::{self, Located},
        matcher::{Policies, Surroundings},
    },
    problem::{Level, Problem},
    structure::suggest,
    yaml::Node,
};

pub use load::{PolicyFlags, Source, read};
pub use watch::{Before, follow, state};

use crate::{
    cluster::Cluster,
    exit::{self, UsageError},
    render::{self, problem},
};

/// Policies that were read together, and all that is wrong with them.
#[derive(Debug, Default)]
pub struct Set {
    /// Where they come from.
    pub sources: Vec<Source>,
    /// Those without an error, ready to match.
    pub policies: Policies,
    /// The policies as they are written, with the number of their source.
    pub written: Vec<(usize, TracePolicy)>,
    /// What is wrong, with the number of the source.
    pub problems: Vec<(usize, Problem)>,
}

impl Set {
    /// Reads and compiles.
    pub fn of(sources: Vec<Source>) -> Self {
        let mut written: Vec<(usize, TracePolicy, Node)> = Vec::new();
        let mut lists = Lists::new();
        let mut problems = Vec::new();
        let mut broken: Vec<(usize, Node)> = Vec::new();
        for (at, source) in sources.iter().enumerate() {
            let parsed = document::parse(&source.text);
            problems.extend(parsed.problems.into_iter().map(|problem| (at, problem)));
            for Located { value, node } in parsed.lists {
                let name = value.metadata.name;
                if lists.insert(name.clone(), value.spec.items).is_some() {
                    let span = node.find("metadata.name").span.clone();
                    let problem = Problem::error(span, "metadata.name", format!("there are two lists of the name {name:?}"));
                    problems.push((at, problem.help("name one of them otherwise")));
                }
            }
            broken.extend(parsed.broken.into_iter().map(|node| (at, node)));
            written.extend(parsed.policies.into_iter().map(|Located { value, node }| (at, value, node)));
            for Located { value, node } in parsed.other {
                if let Some(kind) = foreign::detect(&value) {
                    let foreign::Converted { policies, problems: found } = foreign::convert(&value, kind);
                    problems.extend(found.into_iter().map(|problem| (at, problem)));
                    written.extend(policies.into_iter().map(|policy| (at, policy, node.clone())));
                    continue;
                }
                let problem = Problem::error(node.span.clone(), "kind", "this kind of object is not known here");
                let name = value.get("kind").and_then(Node::text).unwrap_or_default();
                problems.push((at, problem.help(format!("a policy is of the kind TracePolicy, not {name:?}"))));
            }
        }
        for (at, node) in &broken {
            problems.extend(check_texts(node, &lists).into_iter().map(|problem| (*at, problem)));
        }
        let refs: Vec<_> = written.iter().map(|(_, policy, node)| (policy, node)).collect();
        let (policies, found) = compile(&refs, &lists);
        for ((at, _, _), found) in written.iter().zip(found) {
            problems.extend(found.into_iter().map(|problem| (*at, problem)));
        }
        problems.sort_by_key(|(at, problem)| (*at, problem.span.start));
        let written = written.into_iter().map(|(at, policy, _)| (at, policy)).collect();
        Self { sources, policies, written, problems }
    }

    /// Whether something can't be used.
    pub fn has_errors(&self) -> bool {
        self.problems.iter().any(|(_, problem)| problem.level == Level::Error)
    }

    /// All that is wrong, as a compiler shows it.
    pub fn complaints(&self) -> String {
        let colour = render::colours_stderr();
        let sources: Vec<_> = self.sources.iter().map(|source| problem::Source::new(&source.name, &source.text)).collect();
        self.problems.iter().map(|(at, found)| sources[*at].show(found, colour)).collect()
    }

    /// The same, for programs.
    pub fn findings(&self) -> Vec<problem::Finding> {
        let sources: Vec<_> = self.sources.iter().map(|source| problem::Source::new(&source.name, &source.text)).collect();
        self.problems.iter().map(|(at, found)| sources[*at].finding(found)).collect()
    }

    /// The rules that match an event.
    pub fn matches(&self, event: &Event, around: &dyn Surroundings) -> Vec<Match> {
        self.policies.matches(event, around, |_| {})
    }
}

/// Reads the policies that are asked for and tells of all that is wrong with them; an error if they can't be used. `None`
/// where none are asked for.
pub async fn required(flags: &PolicyFlags, cluster: Option<&Cluster>) -> anyhow::Result<Option<Set>> {
    if !flags.is_given() {
        return Ok(None);
    }
    if flags.from_cluster && cluster.is_none() {
        return Err(UsageError::because("--from-cluster needs a cluster, and there is none here"));
    }
    let set = Set::of(flags.read(cluster).await?);
    exit::say(&set.complaints());
    if set.has_errors() {
        return Err(UsageError::because("the policies can't be used: mend what is said above"));
    }
    if set.policies.rules().is_empty() {
        return Err(UsageError::because("the policies have no rules: there is nothing to watch for"));
    }
    Ok(Some(set))
}

/// A shipped pack as a source.
pub fn pack(name: &str) -> anyhow::Result<Source> {
    let Some(pack) = packs::get(name) else {
        let known: Vec<_> = packs::all().iter().map(|pack| pack.name).collect();
        let meant = suggest(name, &known).map(|meant| format!(" (did you mean {meant:?}?)")).unwrap_or_default();
        return Err(UsageError::because(format!("there is no pack {name:?}{meant}; there are {}", known.join(", "))));
    };
    Ok(Source { name: format!("pack {}", pack.name), text: pack.text.to_owned() })
}
