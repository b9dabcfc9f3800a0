//! Whether a trace stays as it is under a steady load, while containers come and go.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use knark_tests::program::{plugin, tracer};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::{
    await_detached, bpf_descriptors, cpu_seconds, family,
    groups::{Groups, remove_container},
    load_command, rss_mib,
};

/// Opens a second.
pub const RATE: u32 = 20_000;
/// A container comes and goes each.
const CONTAINER_EVERY: Duration = Duration::from_millis(200);
/// Opens of each container.
const CONTAINER_OPENS: u64 = 10;
/// So many come and go before: more than there are places for containers, and for processes, of which each has four at least.
const BEFORE: u64 = 4_500;
/// So often it is looked at how the trace does.
const LOOK_EVERY: Duration = Duration::from_mins(1);

/// Traces that load for so many minutes.
pub fn endure(minutes: u32) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let [steady, fleeting] = ["steady", "fleeting"].map(|name| folder.path().join(name));
    for file in [&steady, &fleeting] {
        fs::write(file, "")?;
    }
    let own = std::process::id().to_string();
    let mut command = plugin();
    command.env("KNARK_TRACER", tracer()).args(["trace", "--local", "--on", "exec,file", "-o", "json", "--pid", &own]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let stdout = child.stdout.take().context("a pipe")?;
    let (shown, texts) = (Arc::new([AtomicU64::new(0), AtomicU64::new(0)]), [&steady, &fleeting].map(|file| named(file)));
    let counts = Arc::clone(&shown);
    let reader = thread::spawn(move || {
        let mut last = String::new();
        for line in BufReader::with_capacity(1 << 20, stdout).lines().map_while(Result::ok) {
            for (count, text) in counts.iter().zip(&texts) {
                count.fetch_add(u64::from(line.contains(text)), Ordering::Relaxed);
            }
            last = line;
        }
        last
    });
    let [steady_shown, _] = &*shown;
    let begun = Instant::now();
    let mut before = 0;
    while steady_shown.load(Ordering::Relaxed) == 0 {
        ensure!(begun.elapsed() < Duration::from_mins(1), "no event");
        fs::File::open(&steady)?;
        before += 1;
        thread::sleep(Duration::from_millis(20));
    }
    let worker = family(child.id()).into_iter().find(|pid| bpf_descriptors(*pid) > 0).context("no process holds probes")?;

    // Every table is full from here on: what grows then is a leak.
    let groups = Groups::new()?;
    for number in 0..BEFORE {
        come_and_go(&groups, number, &fleeting)?;
    }
    println!("| minutes | containers so far | tracer, MiB | plugin, MiB | tracer, % of a CPU | plugin, % of a CPU |");
    println!("|---|---|---|---|---|---|");
    let made = u64::from(RATE) * 60 * u64::from(minutes);
    let mut load =
        load_command("paced", u32::try_from(made)?, steady.to_str().context("a path")?)?.stdout(Stdio::null()).spawn()?;
    let over = AtomicBool::new(false);
    let containers = AtomicU64::new(BEFORE);
    thread::scope(|scope| {
        let coming = scope.spawn(|| -> Result<()> {
            while !over.load(Ordering::Relaxed) {
                let begun = Instant::now();
                come_and_go(&groups, containers.load(Ordering::Relaxed), &fleeting)?;
                containers.fetch_add(1, Ordering::Relaxed);
                thread::sleep(CONTAINER_EVERY.saturating_sub(begun.elapsed()));
            }
            Ok(())
        });
        let mut cpu = [cpu_seconds(worker)?, cpu_seconds(child.id())?];
        for minute in 1..=minutes {
            thread::sleep(LOOK_EVERY);
            let now = [cpu_seconds(worker)?, cpu_seconds(child.id())?];
            let share = |at: usize| (now[at] - cpu[at]) * 100.0 / LOOK_EVERY.as_secs_f64();
            let count = containers.load(Ordering::Relaxed);
            let (tracer, plugin) = (rss_mib(worker)?, rss_mib(child.id())?);
            println!("| {minute} | {count} | {tracer:.1} | {plugin:.1} | {:.0} | {:.0} |", share(0), share(1));
            cpu = now;
        }
        ensure!(load.wait()?.success(), "the load failed");
        over.store(true, Ordering::Relaxed);
        coming.join().map_err(|_| anyhow::anyhow!("making containers failed"))?
    })?;
    kill_process(Pid::from_child(&child), Signal::INT)?;
    child.wait()?;
    await_detached()?;
    let last = reader.join().map_err(|_| anyhow::anyhow!("reading events failed"))?;
    let summary: Value = serde_json::from_str(&last).context("the last line is no summary")?;
    let (sums, node) = (&summary["summary"], &summary["summary"]["nodes"][0]);
    let number = |value: &Value| value.as_u64().unwrap_or(u64::MAX);
    let lost = number(&sums["lost"]);
    ensure!(number(&node["seen"]) == number(&node["shown"]) + number(&node["filtered"]) + lost, "the sums don't agree: {sums}");
    let [steady, fleeting] = [0, 1].map(|at: usize| shown[at].load(Ordering::Relaxed));
    let containers = containers.load(Ordering::Relaxed);
    let wanted = [made + before, containers * CONTAINER_OPENS];
    println!();
    println!("| opens made | shown | in containers that came and went | shown | lost of all events |");
    println!("|---|---|---|---|---|");
    println!("| {} | {steady} | {} | {fleeting} | {lost} |", wanted[0], wanted[1]);
    // Of those that showed that it has begun, the first came before the probes were there.
    let missing = (wanted[0] + wanted[1]).saturating_sub(steady + fleeting);
    ensure!(missing <= lost + before && steady <= wanted[0] && fleeting <= wanted[1], "{missing} of them are missing");
    Ok(())
}

/// As an open's path stands in JSON.
fn named(file: &Path) -> String {
    format!("\"path\":\"{}\"", file.display())
}

/// A control group as the kubelet names it, with processes of which one opens the file.
fn come_and_go(groups: &Groups, number: u64, file: &Path) -> Result<()> {
    let script = format!(
        "echo 0 > \"$0/cgroup.procs\" && i=0 && while [ $i -lt {CONTAINER_OPENS} ]; do : < \"$1\"; i=$((i + 1)); done; \
         /bin/true; /bin/true; /bin/true; /bin/true"
    );
    let container = groups.container(number)?;
    let ended = Command::new("/bin/sh").args(["-c", &script]).args([&container, file]).status()?;
    ensure!(ended.success(), "a container's process ended with {ended}");
    remove_container(&container)
}
