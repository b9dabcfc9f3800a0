//! The events of a recording, or of what `trace -o json` wrote, one after another as they arrived.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::Path,
    sync::Arc,
};

use anyhow::{Context as _, bail, ensure};
use knark_specs::{
    assemble::Assembler,
    event::{self, Event, Line},
    frame::Up,
    packet::{MAGIC, Recorded},
};

use super::{Recording, pods_in};

/// A line of JSON that is longer than this is no event.
const LINE_AT_MOST: u64 = 16 << 20;

/// Reads all events; `-` is standard input.
pub fn events(path: &Path, each: impl FnMut(Event)) -> anyhow::Result<()> {
    let from: Box<dyn Read> = if path.as_os_str() == "-" { Box::new(io::stdin()) } else { Box::new(File::open(path)?) };
    let mut from = BufReader::new(from);
    // A recording begins with what no text does.
    if from.fill_buf()?.first() == Some(&MAGIC[0]) { recorded(from, each) } else { lines(from, each) }
}

#[derive(Default)]
struct Node {
    name: String,
    clock_offset_ns: i64,
    assembler: Option<Assembler>,
}

fn recorded(from: impl Read, mut each: impl FnMut(Event)) -> anyhow::Result<()> {
    let mut recording = Recording::open(from)?;
    let mut nodes: BTreeMap<u32, Node> = BTreeMap::new();
    let mut pods = Vec::new();
    while let Some(packet) = recording.next()? {
        let (number, message) = match packet {
            Recorded::Node { number, name, clock_offset_ns } => {
                ensure!(nodes.len() < 100_000, "the recording is damaged: it has too many nodes");
                let node = nodes.entry(number).or_default();
                (node.name, node.clock_offset_ns) = (name, clock_offset_ns);
                if let Some(assembler) = &mut node.assembler {
                    assembler.set_clock_offset(clock_offset_ns);
                }
                continue;
            }
            Recorded::Up { node, message } => (node, message),
        };
        let Some(node) = nodes.get_mut(&number) else { bail!("the recording is damaged: node number {number} has no name") };
        match message {
            Up::Hello(hello) if node.assembler.is_none() => {
                let name = if node.name.is_empty() { hello.hostname.clone() } else { node.name.clone() };
                let mut assembler = Assembler::new(event::Node { name, clock_offset_ns: node.clock_offset_ns }, &hello);
                pods.iter().cloned().try_for_each(|pod| assembler.set_pod(pod))?;
                node.assembler = Some(assembler);
            }
            Up::Status(status) => {
                if let Some(assembler) = &mut node.assembler {
                    assembler.set_realtime_offset(status.realtime_offset_ns);
                }
            }
            Up::Batch(batch) => match pods_in(&batch) {
                Some(told) => {
                    let told: Vec<_> = told.into_iter().map(Arc::new).collect();
                    for assembler in nodes.values_mut().filter_map(|node| node.assembler.as_mut()) {
                        told.iter().cloned().try_for_each(|pod| assembler.set_pod(pod))?;
                    }
                    pods.extend(told);
                }
                None => match &mut node.assembler {
                    Some(assembler) => {
                        let fed = assembler.feed(&batch.items, |event| {
                            each(event);
                            true
                        });
                        fed.with_context(|| format!("batch {}", batch.seq))?;
                    }
                    None => bail!("the recording is damaged: events come before the tracer's Hello"),
                },
            },
            _ => {}
        }
    }
    Ok(())
}

fn lines(mut from: impl BufRead, mut each: impl FnMut(Event)) -> anyhow::Result<()> {
    for number in 1_u64.. {
        let mut line = Vec::new();
        if from.by_ref().take(LINE_AT_MOST).read_until(b'\n', &mut line)? == 0 {
            break;
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        match serde_json::from_slice::<Line>(&line) {
            Ok(Line::Event(event)) => each(*event),
            Ok(Line::Summary(_)) => {}
            Err(_) if is_audit(&line) => bail!(
                "it is an audit log of the API server: `kubectl knark trace --audit-log FILE -f POLICY` holds policies against it; with \
                 --record, it makes a recording of it"
            ),
            Err(error) => {
                let what = format!("line {number} is neither part of a recording nor an event as trace -o json writes it");
                return Err(error).context(what);
            }
        }
    }
    Ok(())
}

/// Whether a line is of an audit log.
fn is_audit(line: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Head {
        api_version: String,
    }
    serde_json::from_slice::<Head>(line).is_ok_and(|head| head.api_version.starts_with("audit.k8s.io/"))
}
