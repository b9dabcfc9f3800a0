//! What the number of containers costs a tracer.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result, ensure};

use crate::{Tracer, cpu_seconds, groups::Groups, median, peak_mib, run_load, settle};

const ROUNDS: usize = 3;
/// Opens in all containers together.
const OPENS: u32 = 200_000;

/// As many opens in ever more containers, none of them known by its runtime.
pub fn growth() -> Result<()> {
    println!("| containers | us of the tracer's CPU per open | its peak memory, MiB | delivered, % |");
    println!("|---|---|---|---|");
    for count in [1, 10, 100, 500] {
        let (mut cpu, mut memory, mut delivered) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let folder = tempfile::tempdir()?;
            let groups = Groups::new()?;
            let containers: Vec<PathBuf> = (0..count).map(|number| groups.container(number)).collect::<Result<_>>()?;
            let list = folder.path().join("groups");
            fs::write(&list, containers.iter().filter_map(|group| group.to_str()).collect::<Vec<_>>().join("\n"))?;
            let tracer = Tracer::knark(&["trace", "--local", "--on", "file", "--comm", "bench-load"])?;
            let worker = tracer.worker()?;
            let before = cpu_seconds(worker)?;
            run_load("spread", OPENS, list.to_str().context("a path")?)?;
            settle(worker)?;
            cpu.push((cpu_seconds(worker)? - before) * 1e6 / f64::from(OPENS));
            memory.push(peak_mib(worker)?);
            let summary = tracer.end()?;
            let sums = &summary["summary"];
            let (shown, lost) = (sums["shown"].as_f64().unwrap_or(0.0), sums["lost"].as_f64().unwrap_or(0.0));
            ensure!(shown + lost >= f64::from(OPENS), "{shown} shown and {lost} lost are fewer than {OPENS} made");
            delivered.push(100.0 * shown / (shown + lost));
        }
        println!("| {count} | {:.2} | {:.1} | {:.1} |", median(cpu), median(memory), median(delivered));
    }
    Ok(())
}
