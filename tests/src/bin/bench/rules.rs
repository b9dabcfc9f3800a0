//! How matching costs grow with the number of rules: on one core, in user space, without a kernel.

use std::{collections::BTreeMap, fmt::Write as _, hint::black_box, time::Instant};

use anyhow::{Context as _, Result, ensure};
use knark_specs::{
    cases,
    event::Event,
    policy::{
        compile::compile,
        document,
        matcher::{Policies, Unknown},
    },
};
use serde_json::json;

use crate::{ROUNDS, median};

const EVENTS: u32 = 200_000;

/// Rules over as many files; every tenth is a glob, and every hundredth has an expression.
pub fn growth() -> Result<()> {
    let miss = event("/usr/lib/x86_64-linux-gnu/libc.so.6")?;
    let hit = event("/etc/app7/secret")?;
    println!("| rules | us to read and compile | ns per event that no rule matches | ns per event that one rule matches |");
    println!("|---|---|---|---|");
    for rules in [1, 10, 100, 1_000] {
        let began = Instant::now();
        let policies = policies(rules.max(8))?;
        let read = began.elapsed().as_micros();
        let (mut misses, mut hits) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            misses.push(cost(&policies, &miss, 0)?);
            hits.push(cost(&policies, &hit, 1)?);
        }
        println!("| {} | {read} | {:.0} | {:.0} |", rules.max(8), median(misses), median(hits));
    }
    Ok(())
}

fn policies(count: usize) -> Result<Policies> {
    let mut text = "apiVersion: knark.dev/v1alpha1\nkind: TracePolicy\nmetadata: {name: p}\nspec:\n  rules:\n".to_owned();
    for number in 0..count {
        let file = if number % 10 == 9 { "*.key" } else { "secret" };
        let _ = writeln!(text, "  - name: r{number}\n    file: {{ops: [open], paths: [\"/etc/app{number}/{file}\"]}}");
        if number % 100 == 50 {
            text.push_str("    where: process.uid == 0 && process.exe != '/usr/bin/kubelet'\n");
        }
    }
    let parsed = document::parse(&text);
    let policy = parsed.policies.first().context("the policy has a mistake")?;
    let (policies, problems) = compile(&[(&policy.value, &policy.node)], &BTreeMap::new());
    ensure!(problems.concat().is_empty(), "{problems:?}");
    Ok(policies)
}

fn event(path: &str) -> Result<Event> {
    let partial = json!({ "process": { "exe": "/usr/bin/cat", "uid": 0 }, "file": { "op": "open", "path": path } });
    Ok(cases::event(partial.as_object().context("an object")?)?)
}

fn cost(policies: &Policies, event: &Event, matches: usize) -> Result<f64> {
    ensure!(policies.matches(event, &Unknown, |_| {}).len() == matches, "{} does not match {matches} times", event.process.exe);
    let began = Instant::now();
    for _ in 0..EVENTS {
        black_box(policies.matches(black_box(event), &Unknown, |_| {}));
    }
    Ok(began.elapsed().as_secs_f64() * 1e9 / f64::from(EVENTS))
}
