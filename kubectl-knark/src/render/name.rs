//! `-o name`: each object once, in the order of appearance, as kubectl takes it: `pod/web`. A process outside of any pod
//! stands for its node, `node/worker-1`; in local mode for itself, `process/4711`. A request stands for the object that it names,
//! `deployments.apps/web`.

use std::{
    collections::HashSet,
    hash::BuildHasher as _,
    io::{self, Write as _},
};

use knark_specs::{
    alert::Match,
    event::{Api, Event, What},
};

use super::{Scene, escape::cell};

/// The renderer.
#[derive(Debug, Default)]
pub struct Name {
    local: bool,
    pods: HashSet<String>,
    nodes: HashSet<String>,
    processes: HashSet<(u32, u64)>,
    /// Hashes of their groups, resources, namespaces and names, of which clients choose as many and as long ones as they like.
    objects: HashSet<u64>,
}

impl super::Render for Name {
    fn begin(&mut self, scene: &Scene<'_>, _out: &mut Vec<u8>) {
        self.local = scene.local;
    }

    fn event(&mut self, event: &Event, _matches: &[Match], out: &mut Vec<u8>) -> io::Result<()> {
        if let What::Api { api } = &event.what {
            self.object(api, out)?;
        } else if let Some(pod) = &event.kubernetes {
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

impl Name {
    fn object(&mut self, api: &Api, out: &mut Vec<u8>) -> io::Result<()> {
        let Api { group, resource, namespace, name, .. } = api;
        // No object is called so; it may have been asked for, to have whoever reads these names say something else to kubectl.
        let is_none = |name: &str| name.is_empty() || name.contains(|c: char| c.is_whitespace() || c.is_control());
        if is_none(resource) || is_none(name) {
            return Ok(());
        }
        if self.objects.insert(self.objects.hasher().hash_one([group, resource, namespace, name])) {
            let dot = if group.is_empty() { "" } else { "." };
            writeln!(out, "{}{dot}{}/{}", cell(resource), cell(group), cell(name))?;
        }
        Ok(())
    }
}

fn is_new(known: &mut HashSet<String>, name: &str) -> bool {
    !known.contains(name) && known.insert(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{pipeline::tests::event, render::Render as _};

    #[test]
    fn requests_name_their_objects() {
        let mut names = Name::default();
        let mut out = Vec::new();
        for [group, resource, namespace, name] in [
            ["apps", "deployments", "prod", "web"],
            ["", "secrets", "prod", "web"],
            ["", "secrets", "prod", "web"],
            ["", "secrets", "dev", "web"],
            ["", "secrets", "prod", ""],
            ["", "", "", ""],
            ["", "nodes", "", "a\u{1b}[2J"],
            ["", "pods", "prod", "web -nkube-system"],
            ["", "nodes", "", "b"],
        ] {
            let [group, resource, namespace, name] = [group, resource, namespace, name].map(str::to_owned);
            let api = Box::new(Api { group, resource, namespace, name, ..Api::default() });
            names.event(&Event { what: What::Api { api }, ..event(1) }, &[], &mut out).unwrap();
        }
        let out = String::from_utf8(out).unwrap();
        assert_eq!(out, "deployments.apps/web\nsecrets/web\nsecrets/web\nnodes/b\n");
    }
}
