//! Generated documents: what the structural stage lets through is what the types take, and neither panics nor hangs.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use proptest::{collection::vec, option, prelude::*, sample::select, strategy::Union};
use serde_json::{Map, Value as Json, json};

use super::parse;
use crate::policy::{Operator, TracePolicy};

/// One of the good values, seldom one of the bad ones.
fn value(good: Json, bad: Json) -> BoxedStrategy<Json> {
    let all = |values: Json| select(values.as_array().unwrap().clone());
    Union::new_weighted(vec![(60, all(good).boxed()), (1, all(bad).boxed())]).boxed()
}

/// An object of some of these fields, each with its probability.
fn object<const N: usize>(fields: [(&'static str, f64, BoxedStrategy<Json>); N]) -> BoxedStrategy<Json> {
    let fields = fields.map(|(name, probability, value)| {
        option::weighted(probability, value).prop_map(move |value| Some((name.to_owned(), value?)))
    });
    let stray = option::weighted(0.01, Just(Some(("stray".to_owned(), json!(1))))).prop_map(Option::flatten);
    (Vec::from(fields), stray)
        .prop_map(|(fields, stray)| Json::Object(fields.into_iter().chain([stray]).flatten().collect::<Map<_, _>>()))
        .boxed()
}

fn list(item: BoxedStrategy<Json>) -> BoxedStrategy<Json> {
    let not_a_list = select(vec![json!("x"), json!({}), json!(3), json!(null)]);
    Union::new_weighted(vec![(60, vec(item, 0..4).prop_map(Json::Array).boxed()), (1, not_a_list.boxed())]).boxed()
}

fn text() -> BoxedStrategy<Json> {
    value(json!(["/etc/passwd", "", "glob:a*", "ü\n\t\"", "$list", "0", "true", "~"]), json!([7, true, null, [], {}]))
}

fn ids() -> BoxedStrategy<Json> {
    let good = json!([0, 4_294_967_295_u32, "7", "1000-65533", "9-3", "9999999999", "0007"]);
    list(value(good, json!(["a", "-1", "1-", "+5", "1-2-3", "", "12345678901", -1, 4_294_967_296_u64, 1.5, true, null])))
}

fn process() -> BoxedStrategy<Json> {
    object([("exes", 0.5, list(text())), ("argsInOrder", 0.3, list(text())), ("uids", 0.5, ids()), ("gids", 0.3, ids())])
}

fn exec() -> BoxedStrategy<Json> {
    object([
        ("paths", 0.5, list(text())),
        ("from", 0.5, list(value(json!(["upper-layer", "memfd", "deleted"]), json!(["upperLayer", 1])))),
    ])
}

fn file() -> BoxedStrategy<Json> {
    let number = || value(json!([0, 1000]), json!(["0", -1, 4_294_967_296_u64, null]));
    object([
        ("ops", 0.5, list(value(json!(["open", "write-open", "chmod"]), json!(["chmood", "", 1])))),
        ("paths", 0.5, list(text())),
        ("becomes", 0.2, list(value(json!(["setuid", "world-writable"]), json!(["worldWritable"])))),
        ("looserThan", 0.3, value(json!(["0600", "04755"]), json!(["600", "0999", 600, "00644 ", "007777", ""]))),
        ("ownerOtherThan", 0.3, object([("uid", 0.9, number()), ("gid", 0.5, number())])),
        ("result", 0.3, value(json!(["any", "success", "failure"]), json!(["ok", true]))),
    ])
}

fn api() -> BoxedStrategy<Json> {
    object([("verbs", 0.5, list(text())), ("userGroups", 0.3, list(text())), ("codes", 0.5, ids())])
}

fn condition() -> BoxedStrategy<Json> {
    value(json!(["true", "process.pid == 1"]), json!(["", true, "x".repeat(4097)]))
}

fn selector() -> BoxedStrategy<Json> {
    let requirement = (select(vec![true, false]), 0_u8..40).prop_flat_map(|(takes_values, dice)| {
        let operators = if takes_values { json!(["In", "NotIn"]) } else { json!(["Exists", "DoesNotExist"]) };
        let values = match (takes_values, dice) {
            (true, 1..) | (false, 0) => json!(["a"]),
            _ => json!([]),
        };
        object([
            ("key", 0.99, Just(json!("app")).boxed()),
            ("operator", 0.99, value(operators, json!(["in", "Gt", 1]))),
            ("values", 0.97, Just(values).boxed()),
        ])
    });
    object([
        ("matchLabels", 0.5, value(json!([{}, {"a.b/c": "d", "e": ""}]), json!([{"a": 1}, [], "a=b"]))),
        ("matchExpressions", 0.5, list(requirement.boxed())),
    ])
}

fn rule() -> BoxedStrategy<Json> {
    let names = json!(["a", "b", "c", "d1", "e.f-g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q"]);
    let exception = object([("process", 0.6, process()), ("file", 0.4, file()), ("where", 0.6, condition())]);
    let rest = object([
        ("name", 0.99, value(names, json!(["", "A", "a..b", "-a", 7, "x".repeat(129)]))),
        ("severity", 0.5, value(json!(["info", "low", "critical"]), json!(["Low", "urgent", 3]))),
        ("message", 0.5, value(json!(["", "{{process.exe}}", "ü".repeat(2048)]), json!(["ü".repeat(2049), 1]))),
        ("tags", 0.3, list(text())),
        ("process", 0.5, process()),
        ("where", 0.3, condition()),
        ("except", 0.3, list(exception)),
    ]);
    let one = prop_oneof![exec().prop_map(|v| ("exec", v)), file().prop_map(|v| ("file", v)), api().prop_map(|v| ("api", v))];
    let subjects = prop_oneof![40 => vec(one.clone(), 1), 1 => vec(one, 0..3)];
    (rest, subjects)
        .prop_map(|(mut rule, subjects)| {
            for (name, value) in subjects {
                rule[name] = value;
            }
            rule
        })
        .boxed()
}

fn policy() -> BoxedStrategy<Json> {
    object([
        ("apiVersion", 0.999, Just(json!("knark.dev/v1alpha1")).boxed()),
        ("kind", 0.999, Just(json!("TracePolicy")).boxed()),
        ("metadata", 0.99, object([("name", 0.99, value(json!(["a", "b.c-d"]), json!(["", "A", "a.", 7, "x".repeat(254)])))])),
        (
            "spec",
            0.99,
            object([
                ("description", 0.3, text()),
                ("nodes", 0.3, selector()),
                ("pods", 0.3, selector()),
                ("lists", 0.3, value(json!([{}, {"shells": ["/bin/sh"], "none": []}]), json!([{"x": "y"}, []]))),
                ("rules", 0.99, list(rule())),
            ]),
        ),
    ])
}

/// What the types take, and what is asked of them beyond, said anew.
fn is_policy(json: &Json) -> bool {
    let Ok(policy) = serde_json::from_value::<TracePolicy>(json.clone()) else { return false };
    let is_name = |name: &str, most: usize| {
        let is_word = |word: &str| {
            let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
            word.starts_with(is_plain) && word.ends_with(is_plain) && word.chars().all(|c| is_plain(c) || c == '-')
        };
        name.len() <= most && name.split('.').all(is_word)
    };
    let is_condition = |text: &Option<String>| text.as_ref().is_none_or(|text| (1..=4096).contains(&text.chars().count()));
    let selectors = [&policy.spec.nodes, &policy.spec.pods].into_iter().flatten();
    let requirements_hold = selectors
        .flat_map(|selector| &selector.match_expressions)
        .all(|requirement| matches!(requirement.operator, Operator::In | Operator::NotIn) != requirement.values.is_empty());
    let rules = &policy.spec.rules;
    let names: HashSet<&str> = rules.iter().map(|rule| rule.name.as_str()).collect();
    requirements_hold
        && !says_nothing(json)
        // The type reads over what the API server keeps there, but not all is the API server's.
        && json.pointer("/metadata/stray").is_none()
        && is_name(&policy.metadata.name, 253)
        && !rules.is_empty()
        && names.len() == rules.len()
        && rules.iter().all(|rule| {
            let subjects = [rule.exec.is_some(), rule.file.is_some(), rule.api.is_some()];
            is_name(&rule.name, 128)
                && subjects.iter().filter(|is_there| **is_there).count() == 1
                && rule.message.chars().count() <= 2048
                && is_condition(&rule.condition)
                && rule.except.iter().all(|exception| is_condition(&exception.condition))
        })
}

/// What types can't tell any more: null where nothing is meant, empty objects, and modes without their zero.
fn says_nothing(json: &Json) -> bool {
    match json {
        Json::Null => true,
        Json::Array(items) => items.iter().any(says_nothing),
        Json::Object(fields) => fields.iter().any(|(name, value)| {
            let is_empty = |value: &Json| value.as_object().is_some_and(Map::is_empty);
            says_nothing(value)
                || matches!(name.as_str(), "process" | "ownerOtherThan") && is_empty(value)
                || name == "except" && value.as_array().is_some_and(|items| items.iter().any(is_empty))
                || name == "looserThan"
                    && value.as_str().is_none_or(|mode| !mode.starts_with('0') || !(4..=5).contains(&mode.len()))
        }),
        _ => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_structural_stage_and_the_types_agree(json in policy()) {
        let text = serde_json::to_string_pretty(&json).unwrap();
        let parsed = parse(&text);
        prop_assert_eq!(!parsed.has_errors(), is_policy(&json), "{}: {:?}", text, parsed.problems);
        prop_assert_eq!(parsed.policies.len(), usize::from(!parsed.has_errors()));
        // What was read is what was written, and its YAML is the same.
        let yaml = parse(&serde_yaml::to_string(&json).unwrap());
        prop_assert_eq!(yaml.problems.len(), parsed.problems.len(), "{:?}", yaml.problems);
        if let Some(policy) = parsed.policies.first() {
            prop_assert_eq!(&policy.value, &serde_json::from_value::<TracePolicy>(json).unwrap());
        }
    }
}

/// Both sides of the agreement must be met often.
#[test]
fn generated_documents_are_good_and_bad() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let good = (0..300).filter(|_| is_policy(&policy().new_tree(&mut runner).unwrap().current())).count();
    assert!((50..250).contains(&good), "{good}");
}

/// Bytes of valid documents changed, cut, doubled, for a few seconds.
#[test]
fn damaged_documents_never_panic() {
    const PIECES: [&str; 24] = [
        "\n",
        " ",
        "\t",
        ":",
        "- ",
        "? ",
        "&a ",
        "*a",
        "<<: ",
        "{",
        "}",
        "[",
        "]",
        "\"",
        "'",
        "|\n",
        "#",
        "---\n",
        "...\n",
        "!!int ",
        "%TAG ! x\n",
        "\u{feff}",
        "ü",
        "\r",
    ];
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("cases/objects/good");
    let mut seeds: Vec<Vec<u8>> =
        std::fs::read_dir(folder).unwrap().map(|entry| std::fs::read(entry.unwrap().path()).unwrap()).collect();
    seeds.sort();
    let begun = Instant::now();
    // xorshift64
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below.max(1) as u64).unwrap()
    };
    let mut runs = 0;
    while runs < 20_000 && begun.elapsed() < Duration::from_secs(5) {
        let mut bytes = seeds[random(seeds.len())].clone();
        for _ in 0..=random(6) {
            let at = random(bytes.len());
            match random(5) {
                0 => bytes.truncate(at),
                1 if at < bytes.len() => bytes[at] = u8::try_from(random(256)).unwrap(),
                2 => drop(bytes.splice(at..at, PIECES[random(PIECES.len())].bytes())),
                3 => drop(bytes.drain(at..(at + random(20)).min(bytes.len()))),
                _ => {
                    let part = bytes[at..(at + random(200)).min(bytes.len())].to_vec();
                    let to = random(bytes.len());
                    drop(bytes.splice(to..to, part));
                }
            }
        }
        let text = String::from_utf8_lossy(&bytes);
        assert!(crate::yaml::decode(&bytes).is_err() || std::str::from_utf8(&bytes).is_ok(), "{text:?}");
        for problem in parse(&text).problems {
            let _ = &text[problem.span];
        }
        runs += 1;
    }
    assert!(runs > 500, "{runs}");
}
