//! What tracing costs, measured from outside: the plugin in local mode beside bpftrace, in paired runs.
//!
//! `bench` as root, with release builds of kubectl-knark and knark-tracer beside it; bpftrace, taskset and a mounted debugfs
//! are needed. `bench cluster` measures the way through the test cluster instead,
//! `bench rules` the matching of policies, `bench nodes` the order of many nodes' events, `bench containers` their number, `bench api [FLAG...]`
//! what an API server pays for a trace with these flags, `bench programs [FLAG...]` where that goes, `bench soak [REQUESTS]` whether it takes harm, and
//! `bench endure [MINUTES]` whether a trace of files stays as it was.
//! The load runs on the first CPU, the tracers on the second. Each figure is the median of paired runs: without a tracer,
//! with knark, with bpftrace, and again.
#![expect(clippy::cast_precision_loss, reason = "sizes and counts here are far below what an f64 holds exactly")]

mod api;
mod cluster;
mod containers;
mod endure;
mod groups;
mod nodes;
mod programs;
mod rules;

use std::{
    fs,
    hint::black_box,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

const ROUNDS: usize = 9;
const OPENS: u32 = 200_000;
const MILLION: u32 = 1_000_000;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        [] => everything(),
        ["cluster"] => cluster::readiness(),
        ["rules"] => rules::growth(),
        ["nodes"] => nodes::growth(),
        ["api", flags @ ..] => api::cost(flags),
        ["programs", flags @ ..] => programs::cost(flags),
        ["soak"] => api::soak(200_000),
        ["soak", requests] => api::soak(requests.parse()?),
        ["containers"] => containers::growth(),
        ["endure"] => endure::endure(30),
        ["endure", minutes] => endure::endure(minutes.parse()?),
        ["load", kind, count, path] => load(kind, count.parse()?, path),
        _ => bail!(
            "usage: bench [cluster|rules|nodes|containers|api [FLAG...]|programs [FLAG...]|soak [REQUESTS]|endure [MINUTES]]"
        ),
    }
}

fn everything() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let deep = folder.path().join("a/b");
    fs::create_dir_all(&deep)?;
    let file = deep.join("file");
    fs::write(&file, "x")?;
    let file = file.to_str().context("a path that isn't UTF-8")?;

    println!("| figure | alone | knark | bpftrace | knark added | bpftrace added |");
    println!("|---|---|---|---|---|---|");
    let elsewhere = ["trace", "--local", "--comm", "no-such-name"];
    let here = ["trace", "--local", "--comm", "bench-load", "-o", "json"];
    let other = r#"tracepoint:syscalls:sys_enter_openat { if (str(args->filename) == "/no/such/file") { printf("%s\n", str(args->filename)); } }"#;
    let same = r#"tracepoint:syscalls:sys_enter_openat /comm == "bench-load"/ { printf("%s %d\n", str(args->filename), pid); }"#;
    let execs = "tracepoint:syscalls:sys_enter_execve { join(args->argv); }";
    compare("ns per open+close, nothing matches", "open", OPENS, file, &elsewhere, other)?;
    compare("ns per getppid", "getppid", 2_000_000, file, &elsewhere, other)?;
    compare("ns per open+close, all match, bursts of 100", "burst", 20_000, file, &here, same)?;
    compare("ns per fork+exec+wait, all match", "exec", 1_000, file, &["trace", "--local", "--on", "exec", "-o", "json"], execs)?;
    million(file, &here)?;
    first_event(file)?;
    Ok(())
}

/// Medians of paired runs of one load: alone, under knark, under bpftrace.
fn compare(figure: &str, kind: &str, count: u32, file: &str, knark: &[&str], program: &str) -> Result<()> {
    let mut runs: [Vec<f64>; 3] = Default::default();
    for _ in 0..ROUNDS {
        runs[0].push(run_load(kind, count, file)?);
        let tracer = Tracer::knark(knark)?;
        runs[1].push(run_load(kind, count, file)?);
        tracer.end()?;
        let tracer = Tracer::bpftrace(program)?;
        runs[2].push(run_load(kind, count, file)?);
        tracer.end()?;
    }
    // Each round's difference to its own run alone, since the machine's speed drifts.
    let added = |with: usize| median(runs[with].iter().zip(&runs[0]).map(|(with, alone)| with - alone).collect());
    let (knark, bpftrace) = (added(1), added(2));
    let [alone, with, beside] = runs.map(median);
    println!("| {figure} | {alone:.0} | {with:.0} | {beside:.0} | {knark:.0} | {bpftrace:.0} |");
    Ok(())
}

/// A million opens as fast as one core makes them: how many arrive, at what cost.
fn million(file: &str, arguments: &[&str]) -> Result<()> {
    let (mut each, mut shares, mut cpu, mut memory, mut wire) = (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..5 {
        let recording = tempfile::tempdir()?;
        let record = recording.path().join("bench.knark");
        let mut arguments = arguments.to_vec();
        arguments.extend(["--record", record.to_str().context("path")?]);
        let tracer = Tracer::knark(&arguments)?;
        each.push(run_load("open", MILLION, file)?);
        let worker = tracer.worker()?;
        // What is still in buffers is drained while nothing else happens.
        settle(worker)?;
        cpu.push(cpu_seconds(worker)?);
        memory.push(peak_mib(worker)?);
        let summary = tracer.end()?;
        let sums = &summary["summary"];
        let (shown, lost) = (sums["shown"].as_f64().unwrap_or(0.0), sums["lost"].as_f64().unwrap_or(0.0));
        if shown + lost < f64::from(MILLION) {
            bail!("{shown} shown and {lost} lost are fewer than {MILLION} made");
        }
        shares.push(100.0 * shown / (shown + lost));
        wire.push(fs::metadata(&record)?.len() as f64 / shown);
    }
    println!();
    println!("| 1,000,000 matching opens at full speed | median of 5 |");
    println!("|---|---|");
    println!("| ns each, open and close themselves included | {:.0} |", median(each));
    println!("| delivered | {:.1} % |", median(shares));
    println!("| tracer's CPU seconds | {:.2} |", median(cpu));
    println!("| tracer's peak memory, MiB | {:.1} |", median(memory));
    println!("| bytes per event on the wire | {:.1} |", median(wire));
    Ok(())
}

/// From the command to the first event on stdout.
fn first_event(file: &str) -> Result<()> {
    let mut load = load_command("trickle", u32::MAX, file)?.spawn()?;
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let began = Instant::now();
        let mut tracer = knark(&["trace", "--local", "--comm", "bench-load", "-o", "json", "--max-events", "1"])?;
        let mut line = String::new();
        BufReader::new(tracer.stdout.take().context("stdout")?).read_line(&mut line)?;
        times.push(began.elapsed().as_secs_f64() * 1e3);
        tracer.wait()?;
    }
    load.kill()?;
    load.wait()?;
    println!("| `--local`, command to first event, ms | {:.0} |", median(times));
    Ok(())
}

struct Tracer {
    child: Child,
    reader: thread::JoinHandle<Option<String>>,
}

impl Tracer {
    fn knark(arguments: &[&str]) -> Result<Self> {
        let mut arguments = arguments.to_vec();
        if !arguments.contains(&"-o") {
            arguments.extend(["-o", "json"]);
        }
        // An event of another process shows that the probes are there; the load is called otherwise.
        let child = knark(&arguments)?;
        let tracer = Self::read(child)?;
        tracer.wait_for_probes("knark")?;
        Ok(tracer)
    }

    fn bpftrace(program: &str) -> Result<Self> {
        let child = Command::new("taskset")
            .args(["-c", "1", "bpftrace", "-e", program])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let tracer = Self::read(child)?;
        tracer.wait_for_probes("bpftrace")?;
        Ok(tracer)
    }

    /// Keeps reading, so that nothing waits for us; keeps the last line.
    fn read(mut child: Child) -> Result<Self> {
        let stdout = child.stdout.take().context("stdout")?;
        let reader = thread::spawn(move || {
            let mut last = None;
            for line in BufReader::with_capacity(1 << 20, stdout).split(b'\n').map_while(Result::ok) {
                if !line.is_empty() {
                    last = Some(line);
                }
            }
            last.map(|line| String::from_utf8_lossy(&line).into_owned())
        });
        Ok(Self { child, reader })
    }

    /// Waits until programs appear in the kernel, and until their number stands still.
    fn wait_for_probes(&self, who: &str) -> Result<()> {
        let until = Instant::now() + Duration::from_secs(15);
        let mut stable = 0;
        while stable < 4 {
            if Instant::now() > until {
                bail!("{who} attached nothing");
            }
            let pids = family(self.child.id());
            let attached = pids.iter().any(|pid| bpf_descriptors(*pid) > 0);
            stable = if attached { stable + 1 } else { 0 };
            thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// The process that holds the probes.
    fn worker(&self) -> Result<u32> {
        family(self.child.id()).into_iter().find(|pid| bpf_descriptors(*pid) > 0).context("no process holds probes")
    }

    fn end(mut self) -> Result<Value> {
        for pid in family(self.child.id()) {
            if fs::read_to_string(format!("/proc/{pid}/comm"))
                .is_ok_and(|comm| matches!(comm.trim(), "kubectl-knark" | "bpftrace"))
            {
                Command::new("kill").args(["-INT", &pid.to_string()]).status()?;
            }
        }
        self.child.wait()?;
        await_detached()?;
        let last = self.reader.join().ok().flatten().unwrap_or_default();
        Ok(serde_json::from_str(&last).unwrap_or(Value::Null))
    }
}

/// Waits until no tracer is there: the kernel takes its time to detach, and what is measured next shall not pay for it.
fn await_detached() -> Result<()> {
    let until = Instant::now() + Duration::from_mins(1);
    while detaching() {
        if Instant::now() > until {
            bail!("a tracer is still detaching");
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Whether a tracer that was told to end is still there.
fn detaching() -> bool {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut stats = processes.filter_map(|process| fs::read_to_string(process.path().join("stat")).ok());
    stats.any(|stat| (stat.contains("(knark-tracer)") || stat.contains("(bpftrace)")) && !stat.contains(") Z "))
}

fn knark(arguments: &[&str]) -> Result<Child> {
    let own = std::env::current_exe()?;
    let plugin = own.with_file_name("kubectl-knark");
    let mut command = Command::new("taskset");
    command.args(["-c", "1"]).arg(plugin).args(arguments);
    Ok(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?)
}

fn run_load(kind: &str, count: u32, file: &str) -> Result<f64> {
    let output = load_command(kind, count, file)?.output()?;
    let text = String::from_utf8(output.stdout)?;
    text.trim().parse().with_context(|| format!("the load {kind} said {text:?}"))
}

fn load_command(kind: &str, count: u32, file: &str) -> Result<Command> {
    let mut command = Command::new("taskset");
    command.args(["-c", "0"]).arg(std::env::current_exe()?).args(["load", kind, &count.to_string(), file]);
    Ok(command)
}

/// The load itself, in a process of its own; prints nanoseconds for one turn.
fn load(kind: &str, count: u32, path: &str) -> Result<()> {
    fs::write("/proc/self/comm", "bench-load")?;
    let path = Path::new(path);
    let mut busy = Duration::ZERO;
    match kind {
        "open" => busy = timed(count, || drop(fs::File::open(path))),
        "getppid" => {
            busy = timed(count, || {
                black_box(std::os::unix::process::parent_id());
            });
        }
        "burst" => {
            for _ in 0..count / 100 {
                busy += timed(100, || drop(fs::File::open(path)));
                thread::sleep(Duration::from_millis(10));
            }
        }
        "spread" => {
            let groups = fs::read_to_string(path)?;
            let each = count / u32::try_from(groups.lines().count())?;
            for group in groups.lines() {
                fs::write(Path::new(group).join("cgroup.procs"), "0")?;
                busy += timed(each, || drop(fs::File::open(path)));
            }
        }
        "paced" => {
            let (begun, each) = (Instant::now(), count.min(endure::RATE / 100));
            for burst in 1..=count / each {
                busy += timed(each, || drop(fs::File::open(path)));
                thread::sleep((begun + Duration::from_millis(10) * burst).saturating_duration_since(Instant::now()));
            }
        }
        "exec" => busy = timed(count, || drop(Command::new("/bin/true").status())),
        "trickle" => loop {
            drop(fs::File::open(path));
            thread::sleep(Duration::from_millis(1));
        },
        other => bail!("no load {other}"),
    }
    println!("{:.1}", busy.as_secs_f64() * 1e9 / f64::from(count));
    Ok(())
}

fn timed(count: u32, mut turn: impl FnMut()) -> Duration {
    let began = Instant::now();
    for _ in 0..count {
        turn();
    }
    began.elapsed()
}

/// A process and its descendants.
fn family(pid: u32) -> Vec<u32> {
    let mut pids = vec![pid];
    let mut at = 0;
    while let Some(parent) = pids.get(at).copied() {
        // A child belongs to the thread that made it.
        for thread in fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten().flatten() {
            let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            pids.extend(children.split_ascii_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        }
        at += 1;
    }
    pids
}

fn bpf_descriptors(pid: u32) -> usize {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return 0 };
    entries
        .flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .filter(|link: &PathBuf| {
            link.ends_with("anon_inode:[perf_event]")
                || ["perf_event", "bpf"].iter().any(|what| link.to_string_lossy().contains(what))
        })
        .count()
}

fn settle(pid: u32) -> Result<()> {
    let mut before = cpu_seconds(pid)?;
    loop {
        thread::sleep(Duration::from_millis(500));
        let now = cpu_seconds(pid)?;
        if now - before < 0.03 {
            return Ok(());
        }
        before = now;
    }
}

fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit(')').next().context("stat")?.split_ascii_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
    Ok((ticks(11) + ticks(12)) / 100.0)
}

fn rss_mib(pid: u32) -> Result<f64> {
    memory_mib(pid, "VmRSS:")
}

fn peak_mib(pid: u32) -> Result<f64> {
    memory_mib(pid, "VmHWM:")
}

fn memory_mib(pid: u32, which: &str) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(which)).context("a process without memory")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib / 1024.0)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
