//! `knark-tracer doctor`: what this node can do, as JSON for the plugin's `doctor`.

use std::{fs, io::Write as _};

use knark_specs::frame::{FileOp, Want, WantedFile};
use serde::Serialize;

use crate::{
    api::servers,
    bpf::{
        AttachError, CgroupVersion, Events, Options, ProbeState, ProbeStatus, Probes, Tier, Wanted,
        features::{self, Features, Lockdown, Tracefs},
        not_precise,
    },
    cgroup_path::kubepods_root,
    procfs,
};

/// What the plugin reads; fields are added, never renamed.
#[derive(Debug, Serialize)]
struct Report {
    version: &'static str,
    kernel: String,
    arch: String,
    btf: bool,
    jit: Option<bool>,
    lockdown: &'static str,
    lsm: Vec<String>,
    tracefs: &'static str,
    cgroup: Cgroup,
    runtime: &'static str,
    events: Vec<Event>,
    problems: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Cgroup {
    version: &'static str,
    driver: &'static str,
}

#[derive(Debug, Serialize)]
struct Event {
    kind: &'static str,
    tier: &'static str,
    available: bool,
    missing: Vec<String>,
    /// Of what is seen in the portable tier alone: the calls, and why.
    portable: Vec<String>,
}

/// Looks, tries to attach, and prints; with `api`, this node's API servers are looked into as well, which takes memory.
pub fn run(api: bool) -> anyhow::Result<()> {
    let mut report = report(features::look(), &Probes::attach(&trial(api)));
    if api {
        report.events.push(requests());
    }
    writeln!(std::io::stdout(), "{}", serde_json::to_string(&report)?)?;
    Ok(())
}

/// Everything, for nobody, with little memory: shows that it can be done, and is gone at once.
fn trial(api: bool) -> Options {
    let mut options =
        Options { ring_bytes: 64 << 10, events: Events { exec: true, file: true, exit: true, api }, ..Options::default() };
    let all = WantedFile { ops: FileOp::ALL.to_vec(), ..WantedFile::default() };
    options.wanted = Some(Wanted::new(&Want { file: vec![all], ..Want::default() }));
    options.scope.cgroups = true;
    options
}

fn report(features: Features, trial: &Result<Probes, AttachError>) -> Report {
    let mut problems = Vec::new();
    // The kernel hides its tracepoints as well then: one cause is one problem.
    let locked_down = matches!(trial, Err(AttachError::LockedDown));
    let probes = match trial {
        Ok(probes) => probes.attached().to_vec(),
        Err(error @ AttachError::LockedDown) => {
            problems.push(error.to_string());
            Vec::new()
        }
        Err(error) => {
            problems.push(format!("attaching the probes: {}", crate::engine::describe(error)));
            features.probes
        }
    };
    if let Err(why) = &features.btf {
        problems.push(format!("no usable BTF: {why}"));
    }
    if let Err(why) = &features.cgroups {
        problems.push(format!("cgroups: {why}"));
    }
    if let Err(why) = &features.tracefs
        && !locked_down
    {
        problems.push(format!("tracefs: {why}: mount it on the node with `mount -t tracefs tracefs /sys/kernel/tracing`"));
    }
    Report {
        version: env!("CARGO_PKG_VERSION"),
        kernel: features.release,
        arch: features.machine,
        btf: features.btf.is_ok(),
        jit: features.jit,
        lockdown: match features.lockdown {
            _ if locked_down => "confidentiality",
            Lockdown::None => "none",
            Lockdown::Integrity => "integrity",
            Lockdown::Confidentiality => "confidentiality",
            Lockdown::Unknown => "unknown",
        },
        lsm: features.security_modules.unwrap_or_default(),
        tracefs: match features.tracefs {
            Ok(Tracefs::Mounted) => "mounted",
            Ok(Tracefs::Private) => "private",
            Err(_) => "missing",
        },
        cgroup: Cgroup {
            version: match features.cgroups.as_ref().map(|hierarchy| hierarchy.version) {
                Ok(CgroupVersion::V1) => "v1",
                Ok(CgroupVersion::V2) => "v2",
                Ok(CgroupVersion::Hybrid) => "hybrid",
                Err(_) => "unknown",
            },
            driver: driver(),
        },
        runtime: runtime(),
        events: ["exec", "file", "write", "map-exec", "exit"]
            .into_iter()
            .map(|kind| event(kind, &probes, trial.is_ok()))
            .collect(),
        problems,
    }
}

fn event(kind: &'static str, probes: &[ProbeStatus], attachable: bool) -> Event {
    let serving = || probes.iter().filter(|probe| probe.serves() == kind);
    let missing = serving().filter_map(|probe| match &probe.state {
        ProbeState::Attached => None,
        ProbeState::Missing(_, reason) => Some(format!("{}: {reason}", probe.name)),
    });
    let attached: Vec<_> = serving().filter(|probe| probe.attached()).cloned().collect();
    let is = |tier| attached.iter().any(|probe| probe.tier == tier);
    Event {
        kind,
        tier: match (is(Tier::Precise), is(Tier::Portable)) {
            (true, true) => "mixed",
            (true, false) => Tier::Precise.name(),
            (false, _) => Tier::Portable.name(),
        },
        available: attachable && !attached.is_empty(),
        missing: missing.collect(),
        portable: not_precise(&attached).into_iter().map(|(why, calls)| format!("{}: {why}", calls.join(", "))).collect(),
    }
}

/// Requests to this node's API servers.
fn requests() -> Event {
    let servers = servers::survey();
    let available = servers.iter().any(|(_, found)| found.is_ok());
    let missing = servers.into_iter().filter_map(|(name, found)| Some(format!("API server {name}: {}", found.err()?)));
    Event { kind: "api", tier: "portable", available, missing: missing.collect(), portable: Vec::new() }
}

/// The kubelet's cgroup driver, by how the folders of pods are named.
fn driver() -> &'static str {
    let mut root = None;
    for pid in procfs::pids() {
        let cgroups = fs::read(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        root = cgroups.split(|b| *b == b'\n').find_map(|line| Some(kubepods_root(line)?.ends_with(b".slice")));
        if root.is_some() {
            break;
        }
    }
    match root {
        Some(true) => "systemd",
        Some(false) => "cgroupfs",
        None => "unknown",
    }
}

/// The container runtime, by what runs here.
fn runtime() -> &'static str {
    let names: Vec<Vec<u8>> = procfs::pids().into_iter().filter_map(|pid| fs::read(format!("/proc/{pid}/comm")).ok()).collect();
    let runs = |name: &[u8]| names.iter().any(|comm| comm.trim_ascii_end() == name);
    if runs(b"crio") {
        "cri-o"
    } else if runs(b"dockerd") {
        "docker"
    } else if runs(b"containerd") {
        "containerd"
    } else {
        "none"
    }
}
