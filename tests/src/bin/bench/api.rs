//! What tracing costs an API server, and whether it takes harm.

use std::{
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use http::Method;
use knark_tests::{
    api_server::ApiServer,
    load::{self, connect},
    soak::{Compared, Session, Shown, attach_and_detach, compare},
};
use tokio::runtime::Runtime;

use crate::{await_detached, cpu_seconds, median, rss_mib};

const ROUNDS: usize = 15;
/// Of one run.
const GETS: usize = 2_000;
const CREATES: usize = 1_000;
const CONNECTIONS: usize = 4;
const FULL_LOAD: usize = 1_500;
/// Each trace of a soak shows so many.
const SESSION: usize = 10_000;

#[derive(Debug, Clone, Copy)]
struct Run {
    /// Of a GET over one connection: the median, in us.
    latency: f64,
    /// The same of a dry run that would make an object of 4 KiB.
    create: f64,
    /// What the API server used of a CPU for a GET at full load, in us.
    cpu: f64,
    /// GETs a second at full load.
    rate: f64,
}

/// Latency and CPU of small GETs in paired runs, with a trace that has these flags and without.
pub fn cost(flags: &[&str]) -> Result<()> {
    let server = ApiServer::auditing("None");
    let runtime = Runtime::new()?;
    runtime.block_on(async { load::prepare(&connect(&server.url())?).await })?;
    // The API server on the first CPU, and all else, tracers as well, on the second.
    pin(0, server.pid())?;
    pin(1, std::process::id())?;
    run(&server, &runtime)?;
    let mut rounds = Vec::new();
    let mut lost = 0;
    for round in 0..ROUNDS {
        let mut traced = || {
            let session = Session::start(&server, flags)?;
            runtime.block_on(async { until_shown(&server, &session).await })?;
            let run = run(&server, &runtime)?;
            lost += session.end()?.summary["lost"].as_u64().context("the trace has no sums")?;
            await_detached()?;
            Ok::<Run, anyhow::Error>(run)
        };
        // By turns, since the machine's speed drifts.
        rounds.push(if round % 2 == 0 {
            let alone = run(&server, &runtime)?;
            (alone, traced()?)
        } else {
            let traced = traced()?;
            (run(&server, &runtime)?, traced)
        });
    }
    println!("| median of {ROUNDS} paired runs; {lost} requests lost | alone | traced | added | ratio |");
    println!("|---|---|---|---|---|");
    row("us per small GET, one connection", &rounds, |run| run.latency);
    row("us per object of 4 KiB that would be made (dry run), one connection", &rounds, |run| run.create);
    row(&format!("us of the API server's CPU per small GET, {CONNECTIONS} connections"), &rounds, |run| run.cpu);
    row(&format!("small GETs a second, {CONNECTIONS} connections"), &rounds, |run| run.rate);
    Ok(())
}

fn row(figure: &str, rounds: &[(Run, Run)], of: impl Fn(Run) -> f64) {
    let each = |combine: fn(f64, f64) -> f64| median(rounds.iter().map(|(alone, with)| combine(of(*alone), of(*with))).collect());
    let (alone, with) = (each(|alone, _| alone), each(|_, with| with));
    println!(
        "| {figure} | {alone:.1} | {with:.1} | {:.1} | {:.3} |",
        each(|alone, with| with - alone),
        each(|alone, with| with / alone)
    );
}

fn run(server: &ApiServer, runtime: &Runtime) -> Result<Run> {
    let us = |took: Vec<Duration>| median(took.iter().map(|took| took.as_secs_f64() * 1e6).collect());
    let latency = us(runtime.block_on(async { load::small_gets(&connect(&server.url())?, GETS).await })?);
    let create = us(runtime.block_on(async { load::dry_creates(&connect(&server.url())?, CREATES).await })?);
    let (before, begun) = (cpu_seconds(server.pid())?, Instant::now());
    runtime.block_on(async {
        let mut tasks = Vec::new();
        for _ in 0..CONNECTIONS {
            let client = connect(&server.url())?;
            tasks.push(tokio::spawn(async move { load::small_gets(&client, FULL_LOAD).await }));
        }
        for task in tasks {
            task.await??;
        }
        Ok::<(), anyhow::Error>(())
    })?;
    let made = (CONNECTIONS * FULL_LOAD) as f64;
    let cpu = (cpu_seconds(server.pid())? - before) * 1e6 / made;
    Ok(Run { latency, create, cpu, rate: made / begun.elapsed().as_secs_f64() })
}

/// Asks until a trace shows it.
pub async fn until_shown(server: &ApiServer, session: &Session) -> Result<()> {
    let client = connect(&server.url())?;
    let begun = Instant::now();
    while session.shown() == 0 {
        ensure!(begun.elapsed() < Duration::from_mins(1), "no request is shown");
        load::small_gets(&client, 10).await?;
    }
    Ok(())
}

/// So many requests of all kinds to an API server, without a trace and then, to another, while traces come and go.
pub fn soak(requests: u64) -> Result<()> {
    println!("| {requests} requests of all kinds | requests a second | RSS before, MiB | after | goroutines before | after |");
    println!("|---|---|---|---|---|---|");
    let runtime = Runtime::new()?;
    let server = ApiServer::start();
    soaked("not traced", &server, &runtime, requests)?;
    drop(server);
    let server = ApiServer::start();
    let over = AtomicBool::new(false);
    let sessions: Vec<Shown> = thread::scope(|scope| {
        let tracing = scope.spawn(|| attach_and_detach(&server, SESSION, |_| over.load(Ordering::Relaxed)));
        let soaked = soaked("traced", &server, &runtime, requests);
        over.store(true, Ordering::Relaxed);
        soaked?;
        tracing.join().map_err(|_| anyhow::anyhow!("tracing failed"))?
    })?;
    let compared = compare(&server, &sessions)?;
    let sum = |of: fn(&Compared) -> u64| compared.iter().map(of).sum::<u64>();
    println!();
    println!(
        "| traces that came and went | requests while they traced, by the audit log | not shown | shown twice | told as lost |"
    );
    println!("|---|---|---|---|---|");
    let (made, missing, twice) = (sum(|one| one.made), sum(|one| one.missing), sum(|one| one.twice));
    println!("| {} | {made} | {missing} | {twice} | {} |", compared.len(), sum(|one| one.lost));
    ensure!(compared.iter().all(|one| one.missing <= one.lost) && twice == 0, "{compared:#?}");
    Ok(())
}

fn soaked(what: &str, server: &ApiServer, runtime: &Runtime, requests: u64) -> Result<()> {
    let url = server.url();
    runtime.block_on(async { load::prepare(&connect(&url)?).await })?;
    let (rss, goroutines) = (rss_mib(server.pid())?, goroutines(server, runtime)?);
    let begun = Instant::now();
    let made = runtime.block_on(load::mixed(&url, requests, 8))?;
    let rate = made as f64 / begun.elapsed().as_secs_f64();
    // Connections are given up a moment after their clients.
    let until = Instant::now() + Duration::from_secs(30);
    let mut after = self::goroutines(server, runtime)?;
    while after > goroutines && Instant::now() < until {
        thread::sleep(Duration::from_millis(500));
        after = self::goroutines(server, runtime)?.min(after);
    }
    println!("| {what}, {made} in all | {rate:.0} | {rss:.0} | {:.0} | {goroutines} | {after} |", rss_mib(server.pid())?);
    Ok(())
}

fn goroutines(server: &ApiServer, runtime: &Runtime) -> Result<u64> {
    let metrics = runtime.block_on(async {
        let client = connect(&server.url())?;
        load::ask(&client, Method::GET, "/metrics", String::new()).await
    })?;
    let line = metrics.lines().find_map(|line| line.strip_prefix("go_goroutines ")).context("no go_goroutines")?;
    Ok(line.trim().parse()?)
}

/// Has all threads of a process run on this CPU.
pub fn pin(cpu: u8, pid: u32) -> Result<()> {
    let pinned = Command::new("taskset").args(["-a", "-p", "-c", &cpu.to_string(), &pid.to_string()]).output()?;
    ensure!(pinned.status.success(), "taskset: {}", String::from_utf8_lossy(&pinned.stderr));
    Ok(())
}
