//! What a request costs inside of the kernel, by the kernel's own statistics, and in user space.

use std::{collections::BTreeMap, fs};

use anyhow::{Context as _, Result};
use aya::programs::loaded_programs;
use knark_tests::{
    api_server::ApiServer,
    load::{self, connect},
    soak::Session,
};
use tokio::runtime::Runtime;

use crate::{
    api::{pin, until_shown},
    await_detached, bpf_descriptors, cpu_seconds, family,
};

const GETS: usize = 10_000;
const STATISTICS: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// What a program has done: how often, and how long it took, in ns.
#[derive(Debug, Clone, Copy, Default)]
struct Ran {
    times: f64,
    ns: f64,
}

/// What small GETs run of a tracer's programs, and what the tracer and the plugin take for them.
pub fn cost(flags: &[&str]) -> Result<()> {
    let server = ApiServer::auditing("None");
    let runtime = Runtime::new()?;
    runtime.block_on(async { load::prepare(&connect(&server.url())?).await })?;
    pin(0, server.pid())?;
    pin(1, std::process::id())?;
    let session = Session::start(&server, flags)?;
    runtime.block_on(until_shown(&server, &session))?;
    let own = family(std::process::id());
    let tracer = own.iter().copied().find(|pid| *pid != std::process::id() && bpf_descriptors(*pid) > 0);
    let tracer = tracer.context("no process holds probes")?;
    let plugin = session.pid();
    let before = fs::read_to_string(STATISTICS).context("reading whether the kernel keeps statistics of programs")?;
    fs::write(STATISTICS, "1").context("having the kernel keep statistics of programs")?;
    let measured = runtime.block_on(async {
        let client = connect(&server.url())?;
        load::small_gets(&client, 100).await?;
        let (ran, cpu) = (ran(tracer)?, [cpu_seconds(tracer)?, cpu_seconds(plugin)?]);
        load::small_gets(&client, GETS).await?;
        Ok::<_, anyhow::Error>((ran, cpu, self::ran(tracer)?, [cpu_seconds(tracer)?, cpu_seconds(plugin)?]))
    });
    fs::write(STATISTICS, before.trim()).context("having the kernel keep statistics of programs no more")?;
    let (before, cpu_before, after, cpu) = measured?;
    session.end()?;
    await_detached()?;
    println!("| program | times per small GET | ns each |");
    println!("|---|---|---|");
    let (gets, mut sum) = (GETS as f64, Ran::default());
    for (name, ran) in after {
        let before = before.get(&name).copied().unwrap_or_default();
        let (times, ns) = (ran.times - before.times, ran.ns - before.ns);
        if times > 0.0 {
            println!("| {name} | {:.2} | {:.0} |", times / gets, ns / times);
        }
        sum = Ran { times: sum.times + times, ns: sum.ns + ns };
    }
    println!("| all | {:.2} | {:.0} for a GET |", sum.times / gets, sum.ns / gets);
    let us = |at: usize| (cpu[at] - cpu_before[at]) * 1e6 / gets;
    println!();
    println!("CPU per small GET: the tracer {:.1} us, the plugin {:.1} us", us(0), us(1));
    Ok(())
}

/// By name, what the programs that this process holds have done.
fn ran(pid: u32) -> Result<BTreeMap<String, Ran>> {
    let names: BTreeMap<String, String> = loaded_programs()
        .filter_map(Result::ok)
        .filter_map(|program| Some((program.id().to_string(), program.name_as_str()?.to_owned())))
        .collect();
    let mut all: BTreeMap<String, Ran> = BTreeMap::new();
    for descriptor in fs::read_dir(format!("/proc/{pid}/fdinfo"))?.flatten() {
        // One that was closed meanwhile is none of a program.
        let text = fs::read_to_string(descriptor.path()).unwrap_or_default();
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
        if let (Some(id), Some(ns), Some(times)) = (field("prog_id"), field("run_time_ns"), field("run_cnt")) {
            let name = names.get(id).cloned().unwrap_or_else(|| id.to_owned());
            all.insert(name, Ran { times: times.parse()?, ns: ns.parse()? });
        }
    }
    Ok(all)
}
