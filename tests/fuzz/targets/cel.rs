//! Any text as a condition: what passes the check never fails for its types, and its value is always the same.
#![no_main]

use std::{collections::BTreeMap, sync::LazyLock};

use knark_specs::{
    cases,
    cel::{Condition, EvalError},
    event::Event,
    problem::Level,
};
use libfuzzer_sys::fuzz_target;
use serde_json::json;

static EVENTS: LazyLock<Vec<Event>> = LazyLock::new(|| {
    [
        json!({"process": {"exe": "/bin/sh", "args": ["sh", "-c", "id"]}, "exec": {"filename": "./x"}, "kubernetes": {"pod": "web", "labels": {"app": "web"}}}),
        json!({"process": {"exe": "/usr/bin/chmod", "uid": 1000}, "file": {"op": "chmod", "path": "/etc/shadow", "mode": "0666"}}),
        json!({"process": {"exe": "/bin/true"}, "exit": {"code": 1}}),
    ]
    .iter()
    .filter_map(|partial| cases::event(partial.as_object()?).ok())
    .collect()
});

fuzz_target!(|text: &str| {
    assert_eq!(EVENTS.len(), 3);
    let lists = BTreeMap::from([("shells".to_owned(), vec!["/bin/sh".to_owned()])]);
    let (condition, problems) = Condition::parse(text, &lists);
    assert_eq!(condition.is_none(), problems.iter().any(|problem| problem.level == Level::Error));
    for problem in &problems {
        assert!(text.get(problem.span.clone()).is_some() && problem.message.len() < 6_000, "{problem:?}");
    }
    let Some(condition) = condition else { return };
    for event in EVENTS.iter() {
        let value = condition.eval(event);
        assert_ne!(value, Err(EvalError::NoResult));
        assert_eq!(value, condition.eval(event));
    }
});
