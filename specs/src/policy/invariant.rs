//! What must hold of a policy and no JSON Schema says; the CRD's validation rules say the same to the API server.

use std::collections::HashMap;

use crate::{
    problem::Problem,
    yaml::{Entry, Node, Value},
};

use super::IdRange;

/// What a rule looks at: exactly one of these.
const SUBJECTS: [&str; 3] = ["exec", "file", "api"];

/// Everything that is wrong with a TracePolicy beyond its schema.
pub(super) fn check(policy: &Node) -> Vec<Problem> {
    let mut problems = Vec::new();
    let Some(spec) = policy.get("spec") else { return problems };
    for name in ["nodes", "namespaces", "pods"] {
        let requirements = spec.get(name).and_then(|selector| selector.get("matchExpressions")).map_or(&[][..], Node::items);
        for (at, requirement) in requirements.iter().enumerate() {
            problems.extend(check_requirement(requirement, &format!("spec.{name}.matchExpressions[{at}]")));
        }
    }
    let mut names: HashMap<&str, usize> = HashMap::new();
    for (at, rule) in spec.get("rules").map_or(&[][..], Node::items).iter().enumerate() {
        let field = format!("spec.rules[{at}]");
        problems.extend(check_subject(rule, &field));
        if let Some(name) = rule.get("name")
            && let Some(text) = name.text()
            && let Some(first) = names.insert(text, at)
        {
            let problem = Problem::error(name.span.clone(), format!("{field}.name"), format!("rule `{text}` stands here twice"));
            problems
                .push(problem.label("again").help(format!("the first is `spec.rules[{first}]`; give one of them another name")));
        }
        let exceptions = rule.get("except").map_or(&[][..], Node::items).iter().enumerate();
        let exceptions = exceptions.map(|(at, exception)| (exception, format!("{field}.except[{at}]")));
        for (part, field) in std::iter::once((rule, field.clone())).chain(exceptions) {
            check_ranges(part, &field, &mut problems);
        }
    }
    problems
}

fn check_subject(rule: &Node, field: &str) -> Option<Problem> {
    let Value::Map(entries) = &rule.value else { return None };
    let given: Vec<&Entry> = entries.iter().filter(|entry| SUBJECTS.contains(&entry.key.as_str())).collect();
    let help = "a rule looks at exactly one of `exec`, `file` and `api`";
    match given.as_slice() {
        [_] => None,
        [] => {
            let span =
                rule.entry("name").or_else(|| entries.first()).map_or_else(|| rule.span.clone(), |entry| entry.key_span.clone());
            Some(
                Problem::error(span, field, "the rule doesn't say what it looks at")
                    .help(format!("{help}; `exec: {{}}` is every execution")),
            )
        }
        [first, .., last] => {
            let message = format!("the rule looks at `{}` and at `{}`", first.key, last.key);
            Some(
                Problem::error(last.key_span.clone(), format!("{field}.{}", last.key), message)
                    .help(format!("{help}; make it two rules")),
            )
        }
    }
}

fn check_requirement(requirement: &Node, field: &str) -> Option<Problem> {
    let operator = requirement.get("operator").and_then(Node::text)?;
    let values = requirement.entry("values");
    let has_values = values.is_some_and(|values| !values.value.items().is_empty());
    let place = values.or_else(|| requirement.entry("operator")).map(|entry| entry.key_span.clone()).unwrap_or_default();
    match operator {
        "In" | "NotIn" if !has_values => {
            let problem = Problem::error(place, format!("{field}.values"), format!("`{operator}` needs values to compare with"));
            Some(problem.help("give `values`, or use `Exists` or `DoesNotExist`"))
        }
        "Exists" | "DoesNotExist" if has_values => {
            let problem = Problem::error(place, format!("{field}.values"), format!("`{operator}` takes no values"));
            Some(problem.help("leave `values` out, or use `In` or `NotIn`"))
        }
        _ => None,
    }
}

/// The API server can't afford to look into each range, so this is a warning.
fn check_ranges(rule: &Node, field: &str, problems: &mut Vec<Problem>) {
    for (part, name) in [("process", "uids"), ("process", "gids"), ("api", "codes")] {
        let ranges = rule.get(part).and_then(|part| part.get(name)).map_or(&[][..], Node::items);
        for (at, node) in ranges.iter().enumerate() {
            let range = node.text().and_then(|text| text.parse::<IdRange>().ok());
            if let Some(IdRange { first, last }) = range.filter(|range| range.first > range.last) {
                let field = format!("{field}.{part}.{name}[{at}]");
                let problem = Problem::warning(node.span.clone(), field, "no number is in this range");
                problems.push(problem.help(format!("did you mean `{last}-{first}`?")));
            }
        }
    }
}
