//! `-o name`: each object once, in the order of appearance, as kubectl names it: `pod/web`. A process outside of any pod
//! stands for its node, `node/worker-1`; in local mode for itself, `process/4711`.

use std::{
    collections::HashSet,
    io::{self, Write as _},
};

use knark_specs::{alert::Match, event::Event};

use super::{Scene, escape::cell};

/// The renderer.
#[derive(Debug, Default)]
pub struct Name {
    local: bool,
    pods: HashSet<String>,
    nodes: HashSet<String>,
    processes: HashSet<(u32, u64)>,
}

impl super::Render for Name {
    fn begin(&mut self, scene: &Scene<'_>, _out: &mut Vec<u8>) {
        self.local = scene.local;
    }

    fn event(&mut self, event: &Event, _matches: &[Match], out: &mut Vec<u8>) -> io::Result<()> {
        if let Some(pod) = &event.kubernetes {
            if is_new(&mut self.pods, &pod.pod_uid) {
                writeln!(out, "pod/{}", cell(&pod.pod))?;
            }
        } else if self.local {
            let process = &event.process;
            if self.processes.insert((process.pid, process.start_boot_ns)) {
                writeln!(out, "process/{}", process.pid)?;
            }
        } else if is_new(&mut self.nodes, &event.node.name) {
            writeln!(out, "node/{}", cell(&event.node.name))?;
        }
        Ok(())
    }
}

fn is_new(known: &mut HashSet<String>, name: &str) -> bool {
    !known.contains(name) && known.insert(name.to_owned())
}
