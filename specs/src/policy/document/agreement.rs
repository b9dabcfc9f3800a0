//! Generated documents: what the structural stage lets through is what the types take, and neither panics nor hangs.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use proptest::{prelude::*, strategy::ValueTree as _};
use serde_json::{Map, Value as Json};

use super::{generated::policy, parse};
use crate::policy::{Operator, TracePolicy};

/// What the types take, and what is asked of them beyond, said anew.
fn is_policy(json: &Json) -> bool {
    let json = &given(json);
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

/// Without what has no value, as the API server keeps it.
fn given(json: &Json) -> Json {
    match json {
        Json::Array(items) => items.iter().map(given).collect(),
        Json::Object(fields) => {
            let fields = fields.iter().filter(|(_, value)| !value.is_null());
            Json::Object(fields.map(|(name, value)| (name.clone(), given(value))).collect())
        }
        other => other.clone(),
    }
}

/// What types can't tell any more: null among the items of a list, empty objects, and modes without their zero.
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
            prop_assert_eq!(&policy.value, &serde_json::from_value::<TracePolicy>(given(&json)).unwrap());
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
