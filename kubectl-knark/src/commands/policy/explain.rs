//! `kubectl knark policy explain`: what becomes of a policy, in words.

use std::{collections::BTreeSet, fmt::Write as _, path::PathBuf};

use knark_specs::{
    frame::{FileOp, SameFiles, SamePath, Want, Wanted},
    policy::{LabelSelector, Rule, TracePolicySpec},
};

use crate::{
    cluster::ConnectionFlags,
    commands::print,
    exit::{self, Exit, UsageError},
    policies::{PolicyFlags, Set},
    render::escape,
};

/// Say which probes and filters a policy compiles to, and what it would miss
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  kubectl knark policy explain policy.yaml
  kubectl knark policy explain --pack credentials")]
pub struct Args {
    /// Files or folders of policies; - is standard input
    #[arg(value_name = "FILE")]
    paths: Vec<PathBuf>,
    #[command(flatten)]
    policies: PolicyFlags,
    #[command(flatten)]
    connection: ConnectionFlags,
}

/// How many places are named before the rest is counted.
const NAMED: usize = 12;

/// Explains.
pub async fn run(args: Args) -> anyhow::Result<Exit> {
    let mut flags = args.policies;
    flags.files.splice(0..0, args.paths);
    if !flags.is_given() {
        return Err(UsageError::because("nothing to explain: name files or folders, --pack or --from-cluster"));
    }
    let cluster = if flags.from_cluster { Some(args.connection.connect().await?) } else { None };
    let set = Set::of(flags.read(cluster.as_ref()).await?);
    exit::say(&set.complaints());
    if set.has_errors() {
        return Ok(Exit::Usage);
    }
    let mut text = String::new();
    for (_, policy) in &set.written {
        let _ = writeln!(text, "{}", policy.metadata.name);
        scope(&policy.spec, &mut text);
        for rule in &policy.spec.rules {
            let _ = writeln!(text, "  rule {} ({})", rule.name, rule.severity.name());
            describe(rule, &mut text);
        }
        text.push('\n');
    }
    kernel(&set.policies.want(), &mut text);
    watched(set.policies.same_files().as_ref(), &mut text);
    missed(&set, &mut text);
    print(&escape::lines(&text))
}

fn scope(spec: &TracePolicySpec, text: &mut String) {
    let labels = |selector: &LabelSelector| {
        let exact = selector.match_labels.iter().map(|(key, value)| format!("{key}={value}"));
        let more = selector.match_expressions.iter().map(|one| format!("{} {:?} {:?}", one.key, one.operator, one.values));
        exact.chain(more).collect::<Vec<_>>().join(", ")
    };
    match &spec.nodes {
        Some(nodes) => drop(writeln!(text, "  on nodes with {}", labels(nodes))),
        None => text.push_str("  on all nodes\n"),
    }
    let in_pods = spec.namespaces.is_some() || spec.pods.is_some() || spec.containers.is_some();
    text.push_str(if in_pods { "  in pods only, by these selectors:\n" } else { "  in pods and outside of them\n" });
    if let Some(namespaces) = &spec.namespaces {
        let _ = writeln!(text, "    namespaces: {:?}, without {:?}", namespaces.names, namespaces.exclude);
    }
    if let Some(pods) = &spec.pods {
        let _ = writeln!(text, "    pods with {}", labels(pods));
    }
    if let Some(containers) = &spec.containers {
        let _ = writeln!(text, "    containers: {:?}, without {:?}", containers.names, containers.exclude);
    }
}

fn describe(rule: &Rule, text: &mut String) {
    let mut later = Vec::new();
    if let Some(exec) = &rule.exec {
        text.push_str("    probe: sched_process_exec\n");
        later.extend((!exec.paths.is_empty()).then_some("exec.paths"));
        later.extend((!exec.from.is_empty()).then_some("exec.from"));
    }
    if let Some(file) = &rule.file {
        let ops = if file.ops.is_empty() { FileOp::USUAL } else { &file.ops };
        let names: Vec<_> = ops.iter().map(|op| op.name()).collect();
        let _ = writeln!(text, "    probes: the system calls that do {}", names.join(", "));
        for (given, name) in [
            (!file.becomes.is_empty(), "file.becomes"),
            (file.looser_than.is_some(), "file.looserThan"),
            (file.owner_other_than.is_some(), "file.ownerOtherThan"),
            (!file.flags.is_empty(), "file.flags"),
            (!file.xattrs.is_empty(), "file.xattrs"),
            (file.result != knark_specs::policy::ResultMatch::Any, "file.result"),
        ] {
            later.extend(given.then_some(name));
        }
        if file.paths.iter().any(|path| path.contains(['*', '?', '[', '{']) || path.starts_with("regex:")) {
            later.push("the patterns of file.paths");
        }
        if file.same_file {
            text.push_str("    the files that have these paths are watched under their other names, too\n");
        }
    }
    if rule.api.is_some() {
        text.push_str("    probes: uprobes in the API server, which tell of every request\n");
        later.push("all of api");
    }
    later.extend(rule.process.is_some().then_some("process"));
    later.extend(rule.condition.is_some().then_some("where"));
    later.extend((!rule.except.is_empty()).then_some("except"));
    if !later.is_empty() {
        let _ = writeln!(text, "    left for user space: {}", later.join(", "));
    }
}

fn kernel(want: &Want, text: &mut String) {
    text.push_str("What leaves the kernel, for all policies together\n");
    let places = |paths: &Wanted| match paths {
        Wanted::All => "on any path".to_owned(),
        Wanted::Paths(paths) => {
            let names: Vec<_> = paths.iter().take(NAMED).map(|path| String::from_utf8_lossy(path).into_owned()).collect();
            let rest = paths.len().saturating_sub(NAMED);
            let more = if rest > 0 { format!(" and {rest} more") } else { String::new() };
            format!("on {}{more}", names.join(", "))
        }
    };
    match &want.exec {
        Wanted::Paths(paths) if paths.is_empty() => {}
        exec => drop(writeln!(
            text,
            "  exec, all of them, for what they say of processes; the tracer passes on those {}",
            places(exec)
        )),
    }
    for file in &want.file {
        let names: Vec<_> = file.ops.iter().map(|op| op.name()).collect();
        let _ = writeln!(text, "  {} {}", names.join(", "), places(&file.paths));
    }
}

/// Which files are looked up, so that they are known under whatever name.
fn watched(files: Option<&SameFiles>, text: &mut String) {
    let Some(files) = files else { return };
    let place = |path: &SamePath| match path {
        SamePath::Plain(path) if path.ends_with('/') => format!("all below {path}"),
        SamePath::Plain(path) => path.clone(),
        SamePath::Regex { folder, .. } if folder.is_empty() => "what globs match below /".to_owned(),
        SamePath::Regex { folder, .. } => format!("what globs match below {folder}"),
    };
    let places: BTreeSet<String> = files.paths.iter().map(place).collect();
    let names: Vec<_> = files.ops.iter().map(|op| op.name()).collect();
    let rest = places.len().saturating_sub(NAMED);
    let more = if rest > 0 { format!(" and {rest} more") } else { String::new() };
    let some = places.into_iter().take(NAMED).collect::<Vec<_>>().join(", ");
    let _ = writeln!(text, "  {} on these files under whatever name (sameFile): {some}{more}", names.join(", "));
    text.push_str("  what makes, moves and removes names there, for the tracer itself: the files are then looked up anew\n");
}

fn missed(set: &Set, text: &mut String) {
    let ops: BTreeSet<_> = set.policies.want().file.iter().flat_map(|file| file.ops.clone()).collect();
    let mut notes = Vec::new();
    let by_path = |op: &FileOp| !FileOp::NAMED.contains(op) && !matches!(op, FileOp::Open | FileOp::Create | FileOp::WriteOpen);
    if ops.iter().any(by_path) {
        notes.push("portable tier: calls that take a path show their argument, not what symbolic links in it lead to; modes and owners before the call are not known, so `becomes` counts the new mode alone");
    }
    if !ops.is_empty() {
        notes.push("portable tier: what io_uring and 32-bit system calls do is not seen; opens are of this tier everywhere (docs/coverage.md)");
    }
    if set.policies.same_files().is_some() {
        notes.push("sameFile: in the portable tier only opens and calls on descriptors tell which file it is; a file that has just taken a watched path is known under other names once it has been looked up");
    }
    if ops.iter().any(|op| FileOp::NAMED.contains(op)) {
        notes.push("write and map-exec are told once for each open file or mapped file and process; portable tier: what becomes writable or executable by mprotect is not seen");
    }
    if set.policies.wants_api() {
        notes.push("api: only requests to API servers that run on a traced node are seen, not those of a managed control plane");
    }
    if !notes.is_empty() {
        text.push_str("\nWhat is missed\n");
        for note in notes {
            let _ = writeln!(text, "  {note}");
        }
    }
}
