//! `kubectl knark policy test`: policies against events, offline.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    path::PathBuf,
};

use anyhow::Context as _;
use knark_specs::{
    cases::{self, CaseFile},
    event::Event,
    policy::{
        begun::Begun,
        matcher::{Surroundings, Unknown},
    },
    yaml::Node,
};

use crate::{
    commands::print,
    exit::{self, Exit, UsageError},
    policies::{Set, Source, pack, read},
    record::events,
    render::{escape, problem},
};

/// Hold policies against events of a recording, or run cases
///
/// A file of cases names its policies and says which rules match which events; `specs/cases` has examples. With --events, the
/// files are policies, and each match is shown.
///
/// Exit status 0: all cases came out as they say, or the events were read; 1: not so; 2: a policy can't be used.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  # Cases
  kubectl knark policy test cases/

  # What would a policy have said?
  kubectl knark policy test policy.yaml --events incident.knark

  # Why not?
  kubectl knark policy test policy.yaml --events incident.knark --explain --rule shadow-read")]
pub struct Args {
    /// Files or folders of cases; with --events, of policies
    #[arg(value_name = "FILE")]
    paths: Vec<PathBuf>,
    /// A recording that trace --record made, or what trace -o json wrote; - is standard input
    #[arg(long, value_name = "FILE")]
    events: Option<PathBuf>,
    /// Say of each rule that doesn't match an event which of its conditions failed first
    #[arg(long)]
    explain: bool,
    /// Only these rules (repeatable)
    #[arg(long = "rule", value_name = "NAME")]
    rules: Vec<String>,
    /// With --events: shipped policies (repeatable)
    #[arg(long = "pack", value_name = "NAME", value_delimiter = ',')]
    packs: Vec<String>,
}

/// Tests.
pub fn run(args: &Args) -> anyhow::Result<Exit> {
    let mut sources = Vec::new();
    for path in &args.paths {
        sources.extend(read(path)?);
    }
    match &args.events {
        Some(events) => against_events(args, sources, events),
        None if !args.packs.is_empty() => {
            Err(UsageError::because("--pack needs --events: a file of cases names its pack itself"))
        }
        None if sources.is_empty() => Err(UsageError::because("nothing to test: name files of cases, or policies and --events")),
        None => run_cases(args, &sources),
    }
}

/// What one event shows: its matches, and why other rules have none.
fn report(args: &Args, set: &Set, event: &Event, around: &dyn Surroundings) -> (Vec<String>, String) {
    let mut text = String::new();
    let mut matched = Vec::new();
    let wanted = |name: &String| args.rules.is_empty() || args.rules.contains(name);
    for rule in set.policies.rules().iter().filter(|rule| wanted(&rule.name)) {
        let policy = set.policies.policies().get(rule.policy).map_or("", |policy| policy.name.as_str());
        match set.policies.explain(rule, event, around) {
            None => matched.push(rule.name.clone()),
            Some(why) if args.explain => {
                let _ = writeln!(text, "  no   {policy}/{}: {}: {}", rule.name, why.field, why.reason);
            }
            Some(_) => {}
        }
    }
    matched.sort_unstable();
    (matched, text)
}

fn against_events(args: &Args, mut sources: Vec<Source>, from: &std::path::Path) -> anyhow::Result<Exit> {
    for name in &args.packs {
        sources.push(pack(name)?);
    }
    let set = Set::of(sources);
    exit::say(&set.complaints());
    if set.has_errors() {
        return Ok(Exit::Usage);
    }
    check_rules(args, &set.policies.rules().iter().map(|rule| rule.name.clone()).collect())?;
    let (mut seen, mut matches, mut begun) = (0_u64, 0_u64, Begun::default());
    let wanted = |rule: &String| args.rules.is_empty() || args.rules.contains(rule);
    let doing = || format!("reading the events {}", from.display());
    let mut written = Ok(Exit::Done);
    events(from, |event| {
        seen += 1;
        let mut text = String::new();
        let mut all = set.matches(&event, &Unknown);
        let known = begun.take_known(&event, &mut all);
        for found in all.iter().filter(|found| wanted(&found.rule)) {
            matches += 1;
            let _ = writeln!(text, "  {:<8} {}/{}: {}", found.severity.name(), found.policy, found.rule, found.message);
        }
        if args.explain {
            for found in known.iter().filter(|found| wanted(&found.rule)) {
                let _ = writeln!(text, "  no   {}/{}: the request matched it when it began", found.policy, found.rule);
            }
            text.push_str(&report(args, &set, &event, &Unknown).1);
        }
        if !text.is_empty() && written.is_ok() {
            let subject = format!("{} {} {}\n", event.time, event.process.comm, subject(&event));
            written = print(&escape::lines(&(subject + &text)));
        }
    })
    .with_context(doing)?;
    written?;
    exit::say(&format!("{matches} matches in {seen} events\n"));
    Ok(Exit::Done)
}

/// What an event is about, in a few words.
fn subject(event: &Event) -> String {
    match &event.what {
        knark_specs::event::What::File { file } => format!("{} {}", file.op.name(), file.path.path),
        what => format!("{} {}", what.name(), event.process.exe),
    }
}

/// The labels that a case gives; there are no others.
struct Given<'c> {
    nodes: &'c BTreeMap<String, String>,
    namespaces: &'c BTreeMap<String, String>,
}

impl Surroundings for Given<'_> {
    fn node_labels(&self, _: &str) -> Option<&BTreeMap<String, String>> {
        Some(self.nodes)
    }

    fn namespace_labels(&self, _: &str) -> Option<&BTreeMap<String, String>> {
        Some(self.namespaces)
    }
}

fn run_cases(args: &Args, sources: &[Source]) -> anyhow::Result<Exit> {
    let (mut passed, mut failed, mut broken) = (0, 0, false);
    let loaded: Vec<_> = sources.iter().map(|source| (source, load(source))).collect();
    let sets = loaded.iter().filter_map(|(_, loaded)| loaded.as_ref().ok());
    check_rules(args, &sets.flat_map(|(_, set)| set.policies.rules()).map(|rule| rule.name.clone()).collect())?;
    for (source, loaded) in loaded {
        let (file, set) = match loaded {
            Ok(loaded) => loaded,
            Err(complaints) => {
                exit::say(&complaints);
                broken = true;
                continue;
            }
        };
        exit::say(&set.complaints());
        broken |= set.has_errors();
        for case in &file.cases {
            let event = cases::event(&case.event)?;
            let around = Given { nodes: &case.node_labels, namespaces: &case.namespace_labels };
            let (matched, explained) = report(args, &set, &event, &around);
            let mut wanted = case.matches.clone();
            wanted.retain(|name| args.rules.is_empty() || args.rules.contains(name));
            wanted.sort_unstable();
            if matched == wanted {
                passed += 1;
                print(&escape::lines(&format!("ok     {}: {}\n{explained}", source.name, case.name)))?;
                continue;
            }
            failed += 1;
            let mut text = format!("FAILED {}: {}\n", source.name, case.name);
            for name in matched.iter().filter(|name| !wanted.contains(name)) {
                let _ = writeln!(text, "  {name} matches, and should not");
            }
            for name in wanted.iter().filter(|name| !matched.contains(name)) {
                let rule = set.policies.rules().iter().find(|rule| rule.name == *name);
                let why = rule.and_then(|rule| set.policies.explain(rule, &event, &around));
                let why = why.map_or_else(|| "there is no such rule".to_owned(), |why| format!("{}: {}", why.field, why.reason));
                let _ = writeln!(text, "  {name} should match, and does not: {why}");
            }
            print(&escape::lines(&(text + &explained)))?;
        }
    }
    exit::say(&format!("{passed} cases passed, {failed} failed\n"));
    Ok(if broken {
        Exit::Usage
    } else if failed > 0 {
        Exit::Failed
    } else {
        Exit::Done
    })
}

/// Refuses names of rules that no policy has: a typing mistake must not pass for success.
fn check_rules(args: &Args, known: &BTreeSet<String>) -> anyhow::Result<()> {
    match args.rules.iter().find(|name| !known.contains(*name)) {
        None => Ok(()),
        Some(name) => Err(UsageError::because(format!("no policy has a rule {name:?}"))),
    }
}

/// A file of cases, and the policies that it is about; or what is wrong with it, for a person.
fn load(source: &Source) -> Result<(CaseFile, Set), String> {
    let shown = problem::Source::new(&source.name, &source.text);
    let colour = crate::render::colours_stderr();
    let text = knark_specs::yaml::read(&source.text);
    let complain =
        |problems: &[knark_specs::problem::Problem]| problems.iter().map(|found| shown.show(found, colour)).collect::<String>();
    let [node] = text.documents.as_slice() else {
        return Err(complain(&text.problems) + &format!("{}: a file of cases is one document with `cases`\n", source.name));
    };
    if !text.problems.is_empty() {
        return Err(complain(&text.problems));
    }
    if node.get("apiVersion").is_some() {
        return Err(format!("{}: this is a policy: give --events, or name a file of cases\n", source.name));
    }
    let file = CaseFile::read(node).map_err(|problems| complain(&problems))?;
    let policies = match (&file.pack, &file.policy_file) {
        (Some(name), _) => pack(name).map(|pack| vec![pack]).map_err(|error| format!("{}: {error}\n", source.name))?,
        (None, Some(path)) => {
            let folder = std::path::Path::new(&source.name).parent().unwrap_or(std::path::Path::new(""));
            read(&folder.join(path)).map_err(|error| format!("{}: {error:#}\n", source.name))?
        }
        (None, None) => vec![Source { name: source.name.clone(), text: inline(node) }],
    };
    Ok((file, Set::of(policies)))
}

/// The policies and lists that stand in a file of cases, as a text of their own.
fn inline(node: &Node) -> String {
    let objects = ["policies", "lists"].into_iter().filter_map(|field| node.get(field)).flat_map(Node::items);
    let texts: Vec<_> = objects.map(|object| object.to_json().to_string()).collect();
    texts.join("\n---\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_shipped_cases_come_out_as_they_say() {
        let folder = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../specs/cases"));
        let args = Args { paths: Vec::new(), events: None, explain: false, rules: Vec::new(), packs: Vec::new() };
        let sources = read(folder).unwrap();
        assert!(sources.len() >= 6, "{}", sources.len());
        assert_eq!(run_cases(&args, &sources).unwrap(), Exit::Done);
    }
}
