//! Any bytes as a file of policies, of this project or of the systems before it: every answer stands in the text, and what
//! is taken for a policy still is one when it is written anew.
#![no_main]

use knark_specs::{
    foreign,
    policy::{
        TracePolicy,
        compile::{Lists, check_texts, compile},
        document,
    },
    problem::Problem,
    yaml,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = yaml::decode(bytes) else { return };
    let parsed = document::parse(&text);
    let stands = |problems: &[Problem]| {
        for problem in problems {
            assert!(text.get(problem.span.clone()).is_some(), "{problem:?}");
            assert!(!problem.message.is_empty());
        }
    };
    stands(&parsed.problems);
    for node in &parsed.broken {
        stands(&check_texts(node, &Lists::new()));
    }
    let mut policies: Vec<(TracePolicy, yaml::Node)> =
        parsed.policies.iter().map(|policy| (policy.value.clone(), policy.node.clone())).collect();
    for object in &parsed.other {
        if let Some(kind) = foreign::detect(&object.value) {
            let converted = foreign::convert(&object.value, kind);
            stands(&converted.problems);
            policies.extend(converted.policies.into_iter().map(|policy| (policy, object.node.clone())));
        }
    }
    let lists: Lists =
        parsed.lists.iter().map(|list| (list.value.metadata.name.clone(), list.value.spec.items.clone())).collect();
    let refs: Vec<_> = policies.iter().map(|(policy, node)| (policy, node)).collect();
    let (_, problems) = compile(&refs, &lists);
    problems.iter().for_each(|problems| stands(problems));
    for policy in parsed.policies {
        let written = serde_json::to_string(&policy.value).unwrap_or_default();
        let again = document::parse(&written);
        assert_eq!(again.policies.first().map(|again| &again.value), Some(&policy.value), "{written}: {:?}", again.problems);
    }
});
