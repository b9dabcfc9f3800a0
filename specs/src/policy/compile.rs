//! From policies as they are written to policies that match, and all that is wrong on the way.

mod requests;

use std::collections::{BTreeMap, BTreeSet};

use requests::Mistake;

use super::{
    ApiMatch, ContainerSelector, ExecMatch, FileMatch, ModeProperty, NamespaceSelector, ProcessMatch, Rule as Written,
    TracePolicy,
    conditions::{Exec, FileOperation, Process, Request, Subject},
    facts::ApiField,
    matcher::{Except, Names, Policies, Policy, Rule, RuleId},
    pattern::{PathPattern, PatternError, PatternId, TextPattern},
};
use crate::{
    cel::Condition,
    frame::FileOp,
    problem::{Level, Problem},
    template::Template,
    yaml::{Node, Value},
};

/// Lists that policies share, by name.
pub type Lists = BTreeMap<String, Vec<String>>;

/// How many items of a list count.
const ITEMS_AT_MOST: usize = 20_000;
/// How much is told of one policy.
const PROBLEMS_AT_MOST: usize = 500;

/// Compiles policies together. The problems are by policy, in their order; a policy with an error has no rules in what
/// comes out.
pub fn compile(policies: &[(&TracePolicy, &Node)], shared: &Lists) -> (Policies, Vec<Vec<Problem>>) {
    let mut compiled = Policies::default();
    let mut problems = Vec::new();
    let mut names = BTreeSet::new();
    for (policy, node) in policies {
        let mut compiler = Compiler::new(&mut compiled, node, shared, &policy.spec.lists);
        if !names.insert(&policy.metadata.name) {
            compiler.error(
                "metadata.name",
                format!("there are two policies of the name {:?}", policy.metadata.name),
                "name one of them otherwise",
            );
        }
        compiler.policy(policy);
        problems.push(compiler.problems);
    }
    for (id, rule) in compiled.rules.iter().enumerate() {
        compiled.index.add(RuleId::try_from(id).unwrap_or(RuleId::MAX), rule);
    }
    // Each pattern was compiled by itself already; together they may still be too large.
    if let Err(error) = compiled.patterns.paths.finish().and_then(|()| compiled.patterns.texts.finish())
        && let (Some(all), Some((_, node))) = (problems.last_mut(), policies.last())
    {
        all.push(
            Problem::error(node.span.clone(), "spec.rules", error.to_string()).help("use fewer globs and regular expressions"),
        );
    }
    (compiled, problems)
}

/// What is wrong with the expressions, messages and paths of a policy that has structural mistakes as well, so that one run
/// tells of all.
pub fn check_texts(node: &Node, shared: &Lists) -> Vec<Problem> {
    let mut out = Policies::default();
    let own: Lists = match node.find("spec.lists").to_json() {
        serde_json::Value::Object(lists) => {
            lists.into_iter().filter_map(|(name, items)| Some((name, serde_json::from_value(items).ok()?))).collect()
        }
        _ => Lists::new(),
    };
    let mut compiler = Compiler::new(&mut out, node, shared, &own);
    for at in 0..node.find("spec.rules").items().len() {
        let field = format!("spec.rules[{at}]");
        let exceptions = node.find(&field).get("except").map_or(0, |except| except.items().len());
        let parts = std::iter::once(field.clone()).chain((0..exceptions).map(|at| format!("{field}.except[{at}]")));
        for part in parts {
            let texts = |name: &str| {
                let (group, name) = name.split_once('.')?;
                let items = node.find(&part).get(group)?.get(name)?.items();
                Some(items.iter().filter_map(Node::text).map(str::to_owned).collect::<Vec<_>>())
            };
            for name in ["file.paths", "exec.paths", "process.exes", "process.ancestors"] {
                if let Some(items) = texts(name) {
                    compiler.paths(&items, &format!("{part}.{name}"));
                }
            }
            for name in ["process.comms", "process.args", "file.xattrs"] {
                if let Some(items) = texts(name) {
                    compiler.texts(&items, &format!("{part}.{name}"));
                }
            }
            let api = node.find(&part).get("api").filter(|api| matches!(api.value, Value::Map(_)));
            if let Some(api) = api.and_then(|api| serde_json::from_value(api.without_nulls().to_json()).ok()) {
                compiler.api(&api, &format!("{part}.api"));
            }
            let text = |name| node.find(&part).get(name).and_then(Node::text);
            compiler.condition(text("where"), &format!("{part}.where"));
            compiler.message(text("message").unwrap_or_default(), &format!("{part}.message"));
        }
    }
    compiler.problems
}

struct Compiler<'c> {
    out: &'c mut Policies,
    node: &'c Node,
    shared: &'c Lists,
    own: &'c Lists,
    /// Both together.
    lists: Lists,
    /// The patterns of lists, by name and kind.
    expanded: BTreeMap<(String, &'static str), Vec<PatternId>>,
    used: BTreeSet<String>,
    problems: Vec<Problem>,
}

impl<'c> Compiler<'c> {
    fn new(out: &'c mut Policies, node: &'c Node, shared: &'c Lists, own: &'c Lists) -> Self {
        let lists = shared.iter().chain(own).map(|(name, items)| (name.clone(), items.clone())).collect();
        Self { out, node, shared, own, lists, expanded: BTreeMap::new(), used: BTreeSet::new(), problems: Vec::new() }
    }

    fn policy(&mut self, policy: &TracePolicy) {
        let spec = &policy.spec;
        let namespaces = spec.namespaces.as_ref().map(|selector| self.namespaces(selector));
        let labels = spec.namespaces.clone().filter(NamespaceSelector::needs_labels);
        let containers = spec.containers.as_ref().map(|selector| self.containers(selector));
        let number = self.out.list.len();
        let mut rules = Vec::new();
        let mut names = BTreeSet::new();
        for (at, rule) in spec.rules.iter().enumerate() {
            let field = format!("spec.rules[{at}]");
            if !names.insert(&rule.name) {
                self.error(
                    &format!("{field}.name"),
                    format!("there are two rules of the name {:?}", rule.name),
                    "name one of them otherwise",
                );
            }
            rules.extend(self.rule(number, rule, &field));
        }
        let asks = spec.rules.iter().any(|rule| rule.api.is_some());
        for (name, _) in
            [("pods", spec.pods.is_some()), ("containers", spec.containers.is_some())].iter().filter(|(_, is)| asks && *is)
        {
            self.warning(
                &format!("spec.{name}"),
                format!("`{name}` does not apply to rules on api: a request is in no pod"),
                "`namespaces` does apply: it is about the object's namespace; say the rest in the rule",
            );
        }
        for unused in self.own.keys().filter(|name| !self.used.contains(*name)).cloned().collect::<Vec<_>>() {
            self.warning(
                &format!("spec.lists.{unused}"),
                format!("no rule uses the list {unused:?}"),
                &format!("refer to it by `${unused}`, or remove it"),
            );
        }
        if self.problems.iter().all(|problem| problem.level != Level::Error) {
            self.out.list.push(Policy {
                name: policy.metadata.name.clone(),
                nodes: spec.nodes.clone(),
                namespaces,
                namespace_labels: labels,
                pods: spec.pods.clone(),
                containers,
            });
            self.out.rules.extend(rules);
        }
    }

    fn rule(&mut self, policy: usize, rule: &Written, field: &str) -> Option<Rule> {
        let subject = match (&rule.exec, &rule.file, &rule.api) {
            (Some(exec), None, None) => Subject::Exec(self.exec(exec, &format!("{field}.exec"))),
            (None, Some(file), None) => {
                let mut operation = self.file(file, &format!("{field}.file"));
                if operation.ops.is_empty() {
                    operation.ops = FileOp::USUAL.to_vec();
                }
                Subject::File(operation)
            }
            (None, None, Some(api)) => {
                if rule.process.is_some() {
                    let text = "the process of a request is the API server itself".to_owned();
                    self.warning(
                        &format!("{field}.process"),
                        text,
                        "say who made the request: api.users, or `where: api.user_agent ...`",
                    );
                }
                Subject::Api(self.api(api, &format!("{field}.api")))
            }
            _ => {
                self.error(
                    field,
                    "a rule has exactly one of exec, file and api".to_owned(),
                    "write one rule for each kind of event",
                );
                return None;
            }
        };
        let process = rule.process.as_ref().map(|process| self.process(process, &format!("{field}.process")));
        let condition = self.condition(rule.condition.as_deref(), &format!("{field}.where"));
        self.warn_of_absent(&subject, condition.as_ref(), field);
        let message = self.message(&rule.message, &format!("{field}.message"));
        let mut except = Vec::new();
        for (at, exception) in rule.except.iter().enumerate() {
            let field = format!("{field}.except[{at}]");
            let subject = match (&exception.exec, &exception.file) {
                (Some(exec), None) => Subject::Exec(self.exec(exec, &format!("{field}.exec"))),
                (None, Some(file)) => Subject::File(self.file(file, &format!("{field}.file"))),
                (None, None) => match &exception.api {
                    Some(api) => Subject::Api(self.api(api, &format!("{field}.api"))),
                    None => Subject::Any,
                },
                _ => Subject::Any,
            };
            let same = matches!((&rule.exec, &subject), (_, Subject::Any) | (Some(_), Subject::Exec(_)))
                || rule.file.is_some() && matches!(subject, Subject::File(_))
                || rule.api.is_some() && matches!(subject, Subject::Api(_));
            if !same {
                self.warning(
                    &field,
                    "the exception is about another kind of event than the rule, so it never holds".to_owned(),
                    "remove it",
                );
            }
            let process = exception.process.as_ref().map(|process| self.process(process, &format!("{field}.process")));
            let condition = self.condition(exception.condition.as_deref(), &format!("{field}.where"));
            except.push(Except { process, subject, condition });
        }
        Some(Rule {
            policy,
            name: rule.name.clone(),
            severity: rule.severity,
            description: rule.description.clone(),
            message,
            tags: rule.tags.clone(),
            references: rule.references.clone(),
            process,
            subject,
            condition,
            except,
        })
    }

    /// What an event of one kind lacks can't be asked of it.
    fn warn_of_absent(&mut self, subject: &Subject, condition: Option<&Condition>, field: &str) {
        let own = match subject {
            Subject::Exec(_) => "exec",
            Subject::File(_) => "file",
            Subject::Api(_) => "api",
            Subject::Any => return,
        };
        let references = condition.map(Condition::references).unwrap_or_default();
        let absent = references.iter().find(|name| {
            let part = name.split('.').next().unwrap_or_default();
            ["exec", "file", "exit", "api"].contains(&part) && part != own
        });
        if let Some(name) = absent {
            let text = format!("the rule is about {own}, and no such event has `{name}`");
            self.warning(&format!("{field}.where"), text, "remove it, or make it a rule about that kind of event");
        }
    }

    fn process(&mut self, process: &ProcessMatch, field: &str) -> Process {
        Process {
            exes: self.paths(&process.exes, &format!("{field}.exes")),
            comms: self.texts(&process.comms, &format!("{field}.comms")),
            args: self.texts(&process.args, &format!("{field}.args")),
            args_in_order: process
                .args_in_order
                .iter()
                .enumerate()
                .map(|(at, text)| self.texts(std::slice::from_ref(text), &format!("{field}.argsInOrder[{at}]")))
                .collect(),
            uids: process.uids.clone(),
            gids: process.gids.clone(),
            ancestors: self.paths(&process.ancestors, &format!("{field}.ancestors")),
        }
    }

    fn exec(&mut self, exec: &ExecMatch, field: &str) -> Exec {
        Exec { paths: self.paths(&exec.paths, &format!("{field}.paths")), from: exec.from.clone() }
    }

    fn file(&mut self, file: &FileMatch, field: &str) -> FileOperation {
        const MODES: &[FileOp] = &[FileOp::Chmod, FileOp::Create];
        const OPENS: &[FileOp] = &[FileOp::Open, FileOp::Create, FileOp::WriteOpen];
        const XATTRS: &[FileOp] = &[FileOp::Setxattr, FileOp::Removexattr];
        for (given, name, ops, what) in [
            (!file.becomes.is_empty(), "becomes", MODES, "give a mode"),
            (file.looser_than.is_some(), "looserThan", MODES, "give a mode"),
            (file.owner_other_than.is_some(), "ownerOtherThan", &[FileOp::Chown][..], "give an owner"),
            (!file.flags.is_empty(), "flags", OPENS, "have flags"),
            (!file.xattrs.is_empty(), "xattrs", XATTRS, "name an attribute"),
        ] {
            if given && !file.ops.is_empty() && !file.ops.iter().any(|op| ops.contains(op)) {
                let names: Vec<_> = ops.iter().map(|op| op.name()).collect();
                let text = format!("the rule can never match: only {} {what}", names.join(", "));
                self.warning(&format!("{field}.{name}"), text, &format!("add one of them to {field}.ops, or remove this"));
            }
        }
        for (at, flag) in file.flags.iter().enumerate() {
            if !crate::linux::OPEN_FLAGS.contains(&flag.as_str()) {
                self.error(
                    &format!("{field}.flags[{at}]"),
                    format!("open(2) has no flag {flag:?}"),
                    "flags are written as in C, such as O_TRUNC",
                );
            }
        }
        if let Some(limit) = file.looser_than
            && limit.0 == 0o7777
        {
            self.warning(
                &format!("{field}.looserThan"),
                "no mode is looser than 7777".to_owned(),
                "give the mode that is still allowed, such as \"0644\"",
            );
        }
        if file.becomes.contains(&ModeProperty::WorldWritable)
            && file.becomes.len() > 1
            && file.looser_than.is_some_and(|limit| limit.0 & 0o002 != 0)
        {
            self.warning(
                &format!("{field}.becomes"),
                "looserThan allows what becomes asks for".to_owned(),
                "leave one of them out",
            );
        }
        if file.same_file {
            self.same_file(file, field);
        }
        FileOperation {
            ops: file.ops.clone(),
            paths: self.paths(&file.paths, &format!("{field}.paths")),
            same_file: file.same_file,
            becomes: file.becomes.clone(),
            looser_than: file.looser_than,
            owner_other_than: file.owner_other_than,
            flags: file.flags.clone(),
            xattrs: self.texts(&file.xattrs, &format!("{field}.xattrs")),
            result: file.result,
        }
    }

    /// Files have to be found before their other names can be known.
    fn same_file(&mut self, file: &FileMatch, field: &str) {
        if file.paths.is_empty() {
            self.error(
                &format!("{field}.sameFile"),
                "`sameFile` needs `paths`: without them any file counts, under any name".to_owned(),
                "say which files, or remove it",
            );
        }
        for (at, path) in file.paths.iter().enumerate() {
            let list = path.strip_prefix('$').and_then(|name| self.lists.get(name));
            let items = list.map_or(std::slice::from_ref(path), Vec::as_slice);
            let wide = items.iter().find(|item| PathPattern::parse(item).is_ok_and(|pattern| pattern.folder().len() <= 1));
            if let Some(wide) = wide.cloned() {
                self.warning(
                    &format!("{field}.paths[{at}]"),
                    format!("{wide:?} may be anywhere, so all folders are looked through for files whose other names count"),
                    "begin with a folder: only so many files and folders are looked at (docs/policies.md)",
                );
            }
        }
    }

    fn api(&mut self, api: &ApiMatch, field: &str) -> Request {
        let texts = ApiField::ALL.map(|part| {
            let texts = match part {
                ApiField::Verb => &api.verbs,
                ApiField::Group => &api.groups,
                ApiField::Resource => &api.resources,
                ApiField::Subresource => &api.subresources,
                ApiField::Namespace => &api.namespaces,
                ApiField::Name => &api.names,
                ApiField::User => &api.users,
                ApiField::UserGroup => &api.user_groups,
            };
            let field = format!("{field}.{}", part.name());
            for (at, text) in texts.iter().enumerate() {
                self.request_text(part, text, api, &format!("{field}[{at}]"));
            }
            (part, self.texts(texts, &field))
        });
        for (at, range) in api.codes.iter().enumerate() {
            if let Some(Mistake { what, help }) = requests::of_codes(*range) {
                self.warning(&format!("{field}.codes[{at}]"), what, &help);
            }
        }
        // What is asked for and can't be read is an error already, and no freedom.
        Request { texts: texts.into_iter().filter(|(_, any)| !any.is_empty()).collect(), codes: api.codes.clone() }
    }

    /// Tells of a text that no request has, or of those in the list that it stands for.
    fn request_text(&mut self, part: ApiField, text: &str, api: &ApiMatch, field: &str) {
        let list = text.strip_prefix('$').and_then(|name| self.lists.get(name)).cloned();
        for text in list.as_deref().unwrap_or(&[text.to_owned()]).iter().take(ITEMS_AT_MOST) {
            let method = Some(()).filter(|()| part == ApiField::Verb).and_then(|()| requests::of_method(text, &api.resources));
            if let Some(Mistake { what, help }) = requests::of_text(part, text).or(method) {
                self.warning(field, what, &help);
            }
        }
    }

    fn namespaces(&mut self, selector: &NamespaceSelector) -> Names {
        Names {
            names: self.texts(&selector.names, "spec.namespaces.names"),
            exclude: self.texts(&selector.exclude, "spec.namespaces.exclude"),
        }
        .checked(self, "spec.namespaces")
    }

    fn containers(&mut self, selector: &ContainerSelector) -> Names {
        Names {
            names: self.texts(&selector.names, "spec.containers.names"),
            exclude: self.texts(&selector.exclude, "spec.containers.exclude"),
        }
        .checked(self, "spec.containers")
    }

    fn condition(&mut self, text: Option<&str>, field: &str) -> Option<Condition> {
        let text = text?;
        let (condition, problems) = Condition::parse(text, &self.lists);
        self.used.extend(self.lists.keys().filter(|name| text.contains(&format!("lists.{name}"))).cloned());
        self.embed(text, field, problems);
        condition
    }

    fn message(&mut self, text: &str, field: &str) -> Option<Template> {
        if text.is_empty() {
            return None;
        }
        let (message, problems) = Template::parse(text);
        self.embed(text, field, problems);
        message
    }

    /// Problems of a text within the policy: their places become the policy's where the text stands there as it is.
    fn embed(&mut self, text: &str, field: &str, problems: Vec<Problem>) {
        let node = self.node.find(field);
        let offset = node.text_offset(text);
        for problem in problems {
            let span = offset.map_or(node.span.clone(), |offset| problem.span.start + offset..problem.span.end + offset);
            self.tell(Problem { span, field: field.to_owned(), ..problem });
        }
    }

    fn paths(&mut self, items: &[String], field: &str) -> Vec<PatternId> {
        let compile = |compiler: &mut Self, text: &str, field: &str| {
            let pattern = compiler.pattern(PathPattern::parse(text), field)?;
            let absolute = text.starts_with(['/', '*', '{', '[', '?']) || text.starts_with("regex:") || text.contains(':');
            if !absolute {
                compiler.warning(field, format!("no path begins with {text:?}"), "paths are absolute: begin with `/` or `**/`");
            }
            Some(compiler.out.patterns.paths.add(&pattern))
        };
        self.each("path", items, field, compile)
    }

    fn texts(&mut self, items: &[String], field: &str) -> Vec<PatternId> {
        let compile = |compiler: &mut Self, text: &str, field: &str| {
            let pattern = compiler.pattern(TextPattern::parse(text), field)?;
            if text.contains('*') && matches!(pattern, TextPattern::Exact(_)) {
                compiler.warning(
                    field,
                    format!("{text:?} is taken as it stands"),
                    &format!("write `glob:{text}` if it is a pattern"),
                );
            }
            Some(compiler.out.patterns.texts.add(&pattern))
        };
        self.each("text", items, field, compile)
    }

    /// Each item, those of lists included; a list is expanded once for each kind of pattern.
    fn each(
        &mut self,
        kind: &'static str,
        items: &[String],
        field: &str,
        mut compile: impl FnMut(&mut Self, &str, &str) -> Option<PatternId>,
    ) -> Vec<PatternId> {
        let mut ids = Vec::new();
        for (at, item) in items.iter().enumerate() {
            let field = format!("{field}[{at}]");
            let Some(name) = item.strip_prefix('$') else {
                ids.extend(compile(self, item, &field));
                continue;
            };
            let Some(list) = self.own.get(name).or_else(|| self.shared.get(name)) else {
                let known: Vec<_> = self.own.keys().chain(self.shared.keys()).map(|name| format!("${name}")).collect();
                let help = if known.is_empty() {
                    "define it in spec.lists, or as a TraceList".to_owned()
                } else {
                    format!("there are {}", known.join(", "))
                };
                self.error(&field, format!("there is no list {name:?}"), &help);
                continue;
            };
            self.used.insert(name.to_owned());
            let key = (name.to_owned(), kind);
            if let Some(known) = self.expanded.get(&key) {
                ids.extend(known);
                continue;
            }
            if list.is_empty() {
                self.error(
                    &field,
                    format!("the list {name:?} is empty, and no condition is met by nothing"),
                    "fill it, or remove it here",
                );
            }
            let list: Vec<_> = list.iter().take(ITEMS_AT_MOST).filter_map(|item| compile(self, item, &field)).collect();
            ids.extend(&list);
            self.expanded.insert(key, list);
        }
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    fn pattern<T>(&mut self, parsed: Result<T, PatternError>, field: &str) -> Option<T> {
        let help = "`*` and `?` stop at `/`, `**` doesn't; `regex:` begins a regular expression";
        parsed.map_err(|error| self.error(field, error.to_string(), help)).ok()
    }

    fn error(&mut self, field: &str, message: String, help: &str) {
        self.tell(Problem::error(self.node.find(field).span.clone(), field, message).help(help));
    }

    fn warning(&mut self, field: &str, message: String, help: &str) {
        self.tell(Problem::warning(self.node.find(field).span.clone(), field, message).help(help));
    }

    /// An error is always told, or a policy with mistakes would pass for sound.
    fn tell(&mut self, problem: Problem) {
        let enough = self.problems.len() >= PROBLEMS_AT_MOST;
        if !enough || problem.level == Level::Error && self.problems.iter().all(|known| known.level != Level::Error) {
            self.problems.push(problem);
        }
    }
}

impl Names {
    fn checked(self, compiler: &mut Compiler<'_>, field: &str) -> Self {
        if !self.names.is_empty() && self.names.iter().all(|id| self.exclude.contains(id)) {
            compiler.warning(field, "the policy can never match: all names are excluded".to_owned(), "remove them from exclude");
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        frame::{SameFiles, SamePath, Wanted},
        policy::document,
    };

    /// The messages for one policy's rules, and how many rules came of them.
    fn compiled(rules: &str) -> (Vec<String>, usize) {
        let text = format!(
            "apiVersion: knark.dev/v1alpha1\nkind: TracePolicy\nmetadata: {{name: p}}\nspec: {{lists: {{none: [], some: [/a], kinds: [deployments.apps]}}, rules: [{rules}]}}"
        );
        let parsed = document::parse(&text);
        assert_eq!(parsed.problems, [], "{text}");
        let (policies, problems) = compile(&[(&parsed.policies[0].value, &parsed.policies[0].node)], &Lists::new());
        (problems.concat().into_iter().map(|problem| problem.message).collect(), policies.rules().len())
    }

    #[test]
    fn an_empty_list_is_no_condition() {
        let (messages, rules) = compiled("{name: r, file: {paths: [$none, $some]}, except: [{process: {exes: [$none]}}]}");
        assert!(messages[0].contains("is empty"), "{messages:?}");
        assert_eq!(rules, 0);
    }

    #[test]
    fn what_can_not_match_is_told() {
        for (rule, words) in [
            ("{name: r, file: {ops: [open], becomes: [setuid], paths: [$some, $none]}}", "can never match"),
            ("{name: r, file: {ops: [chmod], flags: [O_TRUNC]}}", "can never match"),
            ("{name: r, file: {flags: [O_TRUNK]}}", "no flag"),
            ("{name: r, file: {paths: [etc/passwd]}}", "no path begins with"),
            ("{name: r, file: {ops: [open], sameFile: true}}", "needs `paths`"),
            ("{name: r, file: {paths: [\"**/id_rsa\"], sameFile: true}}", "may be anywhere"),
            ("{name: r, exec: {}, except: [{file: {sameFile: true, paths: [/a]}}]}", "never holds"),
            ("{name: r, file: {paths: [$other]}}", "no list"),
            ("{name: r, exec: {}, except: [{file: {}}]}", "never holds"),
            ("{name: r, api: {resources: [pods/exec]}}", "can never match"),
            ("{name: r, api: {verbs: [delte]}}", "usual verbs"),
            ("{name: r, api: {verbs: [exec]}}", "it is a subresource"),
            ("{name: r, api: {resources: [$kinds]}}", "a resource has no group in it"),
            ("{name: r, api: {codes: [200, 600-700]}}", "HTTP statuses are 100 to 599"),
            ("{name: r, api: {verbs: [post], resources: [pods]}}", "no request about a resource"),
            ("{name: r, api: {}, where: 'file.path == \"/x\"'}", "no such event has `file.path`"),
            ("{name: r, exec: {}, where: 'api.code == 403'}", "no such event has `api.code`"),
        ] {
            let (messages, _) = compiled(rule);
            assert!(messages.iter().any(|message| message.contains(words)), "{rule}: {messages:?}");
        }
    }

    #[test]
    fn who_asks_for_causes_is_told_of_all_executions() {
        let want = |rule: &str| {
            let text =
                format!("apiVersion: knark.dev/v1alpha1\nkind: TracePolicy\nmetadata: {{name: p}}\nspec: {{rules: [{rule}]}}");
            let parsed = document::parse(&text);
            let (policies, problems) = compile(&[(&parsed.policies[0].value, &parsed.policies[0].node)], &Lists::new());
            assert_eq!(problems.concat(), [], "{rule}");
            (policies.want().exec == Wanted::All, policies.needs_execs(), policies.wants_execs(), policies.wants_api())
        };
        for (rule, all) in [
            ("{name: r, exec: {paths: [/bin/cat]}}", (false, true, true, false)),
            ("{name: r, exec: {paths: [/bin/cat]}, where: has(cause.user)}", (true, true, true, true)),
            ("{name: r, file: {paths: [/etc/]}, except: [{where: 'cause.user == \"ci\"'}]}", (true, true, false, true)),
            ("{name: r, file: {paths: [/etc/]}}", (false, false, false, false)),
        ] {
            assert_eq!(want(rule), all, "{rule}");
        }
    }

    #[test]
    fn files_to_watch_are_those_of_rules_that_ask() {
        let same = |rules: &str| {
            let text =
                format!("apiVersion: knark.dev/v1alpha1\nkind: TracePolicy\nmetadata: {{name: p}}\nspec: {{rules: [{rules}]}}");
            let parsed = document::parse(&text);
            let (policies, problems) = compile(&[(&parsed.policies[0].value, &parsed.policies[0].node)], &Lists::new());
            assert_eq!(problems.concat(), [], "{rules}");
            policies.same_files()
        };
        assert_eq!(same("{name: r, file: {ops: [open], paths: [/a]}}"), None);
        assert_eq!(same("{name: r, file: {ops: [open], paths: [/a]}, except: [{file: {paths: [/b], sameFile: true}}]}"), None);
        let files = same(
            "{name: r, file: {ops: [open], paths: [/a, /b/, \"/c/d*\"], sameFile: true}}, {name: s, file: {ops: [chmod], paths: [/e]}}",
        );
        let SameFiles { ops, paths } = files.unwrap();
        assert_eq!(ops, [FileOp::Open]);
        assert_eq!(paths[..2], [SamePath::Plain("/a".into()), SamePath::Plain("/b/".into())]);
        let SamePath::Regex { folder, regex } = &paths[2] else { panic!("{paths:?}") };
        assert_eq!(folder, "/c/");
        // As a tracer reads it.
        let mut patterns = crate::policy::pattern::Paths::default();
        patterns.add(&PathPattern::Regex { regex: regex.clone(), begin: folder.clone() });
        patterns.finish().unwrap();
        assert!(!patterns.find(b"/c/dd").is_empty() && patterns.find(b"/c/d/d").is_empty());
    }

    #[test]
    fn a_mistake_of_structure_hides_none_in_texts() {
        let text = "apiVersion: knark.dev/v1alpha1\nkind: TracePolicy\nmetadata: {name: p}\nspec:\n  rules:\n  - {name: r, api: {verbs: ['glob:['], \
                    names: [$nope], resources: [pods/exec]}, process: {args: ['regex:(']}, where: proces.pid == 1, severty: low}\n";
        let parsed = document::parse(text);
        assert_eq!(parsed.problems.len(), 1, "{:?}", parsed.problems);
        let found = check_texts(&parsed.broken[0], &Lists::new());
        let mut fields: Vec<_> = found.iter().map(|problem| problem.field.as_str()).collect();
        fields.sort_unstable();
        let want = ["api.names[0]", "api.resources[0]", "api.verbs[0]", "process.args[0]", "where"];
        assert_eq!(fields, want.map(|field| format!("spec.rules[0].{field}")), "{found:?}");
    }
}
