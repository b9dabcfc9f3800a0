//! Any file of cases: what matches is the same each time, and is what the explanation of each rule says.
#![no_main]

use std::collections::BTreeSet;

use knark_specs::{
    cases::CaseFile,
    packs,
    policy::{
        TraceList, TracePolicy,
        compile::{Lists, compile},
        document,
        matcher::Unknown,
    },
    yaml,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = yaml::decode(bytes) else { return };
    for node in yaml::read(&text).documents {
        let Ok(file) = CaseFile::read(&node) else { continue };
        let pack = file.pack.as_deref().and_then(packs::get).map(|pack| document::parse(pack.text));
        let (policies, lists): (Vec<TracePolicy>, Vec<TraceList>) = match pack {
            Some(pack) => (
                pack.policies.into_iter().map(|policy| policy.value).collect(),
                pack.lists.into_iter().map(|list| list.value).collect(),
            ),
            None => (file.policies.clone(), file.lists.clone()),
        };
        let shared: Lists = lists.iter().map(|list| (list.metadata.name.clone(), list.spec.items.clone())).collect();
        let refs: Vec<_> = policies.iter().map(|policy| (policy, &node)).collect();
        let (compiled, _) = compile(&refs, &shared);
        for case in file.cases(&policies, &lists).flatten() {
            let mut failed = 0;
            let found = compiled.matches(&case.event, &Unknown, |_| failed += 1);
            assert_eq!(found, compiled.matches(&case.event, &Unknown, |_| {}));
            let matched: BTreeSet<_> = found.iter().map(|found| (found.policy.clone(), found.rule.clone())).collect();
            for rule in compiled.rules() {
                let name = (compiled.policies()[rule.policy].name.as_str().into(), rule.name.as_str().into());
                let explained = compiled.explain(rule, &case.event, &Unknown).is_none();
                assert_eq!(matched.contains(&name), explained, "{name:?} {:?}", case.event);
            }
        }
    }
});
