//! How fast the events of many nodes become one order of JSON lines, from a recording, without a kernel or a cluster.

use std::{
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use knark_specs::frame::{File, Item, Path, Status};
use knark_tests::recording::{Builder, CONTAINER, FILE, PROCESS, path};

use crate::{median, peak_mib};

const ROUNDS: usize = 5;
const EVENTS: u64 = 600_000;
/// Of a node in a row, as a tracer sends them.
const BATCH: u64 = 100;

/// As many events from ever more nodes.
pub fn growth() -> Result<()> {
    println!("| nodes | events a second to JSON | peak memory, MiB |");
    println!("|---|---|---|");
    for nodes in [1, 10, 100, 1_000] {
        let folder = tempfile::tempdir()?;
        let file = recording(nodes).file(&folder)?;
        let (mut rates, mut peaks) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let begun = Instant::now();
            let plugin = std::env::current_exe()?.with_file_name("kubectl-knark");
            let mut replay = Command::new(plugin).arg("replay").arg(&file).args(["-o", "json"]).stdout(Stdio::null()).spawn()?;
            let mut peak = 0.0;
            let status = loop {
                if let Some(status) = replay.try_wait()? {
                    break status;
                }
                peak = peak_mib(replay.id()).unwrap_or(peak);
                thread::sleep(Duration::from_millis(5));
            };
            ensure!(status.success(), "replaying ended with {status}");
            rates.push(EVENTS as f64 / begun.elapsed().as_secs_f64());
            peaks.push(peak);
        }
        println!("| {nodes} | {:.0} | {:.0} |", median(rates), median(peaks));
    }
    Ok(())
}

/// Opens of many files, of a pod on each node.
fn recording(nodes: u32) -> Builder {
    let mut builder = Builder::default();
    for node in 0..nodes {
        let items = [Item::Container(CONTAINER), Item::Process(PROCESS)];
        builder = builder.node(node, &format!("node-{node}")).items(node, &items);
    }
    let rounds = EVENTS / BATCH / u64::from(nodes);
    let mut sent = vec![0; nodes as usize];
    for round in 0..rounds {
        for node in 0..nodes {
            let number = |at: u64| round * BATCH + at;
            // Nodes' events lie between one another's.
            let time = |at: u64| 1_000_000 + number(at) * 10_000 + u64::from(node);
            let names: Vec<_> = (0..BATCH).map(|at| format!("/srv/data/{:06}", number(at) % 5_000)).collect();
            let items: Vec<_> = (0..BATCH)
                .zip(&names)
                .map(|(at, name)| {
                    let path: Path<'_> = Path { path: name.as_bytes(), ..path(b"") };
                    Item::File(File { time_ns: time(at), path, ..FILE })
                })
                .collect();
            sent[node as usize] += BATCH;
            let (sent, watermark_ns) = (sent[node as usize], time(BATCH - 1));
            builder = builder.items(node, &items).status(node, Status { seen: sent, sent, watermark_ns, ..Status::default() });
        }
    }
    for node in 0..nodes {
        let sent = sent[node as usize];
        builder = builder.bye(node, Status { seen: sent, sent, ..Status::default() });
    }
    builder
}
