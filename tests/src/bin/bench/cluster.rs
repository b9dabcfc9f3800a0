//! How much longer a trace takes to be ready than a bare pod does, on nodes that have the images.

use std::{
    io::{BufRead as _, BufReader},
    process::Stdio,
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use knark_tests::cluster::{Namespace, nodes};

use crate::{ROUNDS, median};

/// Paired runs on the test cluster, which has to be up and to have the tracer's image.
pub fn readiness() -> Result<()> {
    let namespace = Namespace::new();
    let node = nodes().into_iter().next().context("the cluster has no nodes")?;
    let (mut bare, mut ready, mut whole) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let name = format!("bare-{round}");
        let began = Instant::now();
        namespace.run(&name, &node, &["/bin/sleep", "600"]);
        bare.push(began.elapsed().as_secs_f64());
        namespace.kubectl(&["delete", "pod", &name, "--wait"]);

        let began = Instant::now();
        let mut trace = namespace.trace(&[&format!("node/{node}"), "--for", "1ms"]).stdout(Stdio::piped()).spawn()?;
        // The table's header comes when all nodes stream.
        let mut header = String::new();
        BufReader::new(trace.stdout.take().context("stdout")?).read_line(&mut header)?;
        ready.push(began.elapsed().as_secs_f64());
        let ended = trace.wait()?;
        ensure!(ended.success() && !header.is_empty(), "the trace failed: {ended}");
        whole.push(began.elapsed().as_secs_f64());
    }
    println!("| on a node that has the image, from the command, in s | median of {ROUNDS} |");
    println!("|---|---|");
    println!("| a bare pod Ready (kubectl apply, kubectl wait) | {:.2} |", median(bare.clone()));
    println!("| `trace`: all probes attached, streaming | {:.2} |", median(ready.clone()));
    let above = ready.iter().zip(&bare).map(|(ready, bare)| ready - bare).collect();
    println!("| the difference, by round | {:.2} |", median(above));
    println!("| `trace --for 1ms`, everything removed again | {:.2} |", median(whole));
    Ok(())
}
