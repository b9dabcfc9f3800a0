//! What a plan means for the probes.

use std::{
    io::{self, Read as _},
    num::NonZeroU32,
};

use knark_specs::frame::{Aggregate, BODY_BYTES_AT_MOST, BTF_BYTES_AT_MOST, HostFilter, Plan, Target};
use rustc_hash::FxHashSet;

use super::EngineError;
use crate::{
    bpf::{self, Events, MapError, Options, Probes, Scope, Wanted},
    procfs,
};

/// What the probes are attached with.
pub fn options(plan: &Plan) -> Result<Options, EngineError> {
    let host = match &plan.target {
        Target::Host(filter) => filter.clone(),
        Target::Everything | Target::Pods { .. } => HostFilter::default(),
    };
    let comm = |name: &String| {
        let mut comm = [0; 16];
        let length = name.len().min(15);
        comm[..length].copy_from_slice(&name.as_bytes()[..length]);
        comm
    };
    let same = plan.same.as_ref().filter(|_| plan.file);
    let wanted = plan.want.as_ref().map(|want| Wanted::new(want).with_same(same));
    let mut options = Options {
        scope: Scope {
            cgroups: true,
            tgids: !host.pids.is_empty(),
            comms: host.comms.iter().map(comm).collect(),
            exes: host.exes.iter().map(|exe| exe.as_bytes().to_vec()).collect(),
        },
        // Execs are always needed: they tell what the processes of other events run.
        events: Events {
            exec: true,
            file: plan.file && wanted.as_ref().is_none_or(Wanted::files),
            exit: plan.exit,
            api: plan.api,
        },
        wanted,
        same: same.map(|same| same.ops.clone()).unwrap_or_default(),
        events_per_second: plan.events_per_second.and_then(NonZeroU32::new),
        aggregate: plan.aggregate.map(|by| match by {
            Aggregate::Exe => bpf::Aggregate::ByExe,
            Aggregate::Process => bpf::Aggregate::ByProcess,
        }),
        body_bytes: plan.bodies.map_or(0, |bodies| bodies.limit.clamp(1, BODY_BYTES_AT_MOST)),
        btf: plan.btf.as_ref().map(|packed| types(packed)).transpose()?,
        ..Options::default()
    };
    options.exclude_tgids.extend(&plan.exclude_pids);
    if plan.ring_bytes > 0 {
        options.ring_bytes = plan.ring_bytes;
    }
    Ok(options)
}

/// The kernel's types, as they were before they were compressed.
fn types(packed: &[u8]) -> Result<Vec<u8>, EngineError> {
    let failed = |e| EngineError::Io("reading the BTF that was given".into(), e);
    let (types, _) = knark_audit_log::decompressed(io::Cursor::new(packed.to_vec())).map_err(failed)?;
    let mut raw = Vec::new();
    types.take(BTF_BYTES_AT_MOST).read_to_end(&mut raw).map_err(failed)?;
    Ok(raw)
}

/// The processes that were asked for by pid, and the descendants that they have already.
pub fn add_processes(plan: &Plan, probes: &mut Probes) -> Result<(), MapError> {
    let Target::Host(filter) = &plan.target else { return Ok(()) };
    let mut inside: FxHashSet<u32> = filter.pids.iter().copied().collect();
    for pid in &inside {
        probes.set_tgid(*pid)?;
    }
    // One that is forked while we look has a parent that was in already, or is found in the next round.
    while !inside.is_empty() {
        let children = procfs::pids().into_iter().filter(|pid| !inside.contains(pid));
        let found: Vec<u32> = children.filter(|pid| procfs::stat(*pid).is_some_and(|stat| inside.contains(&stat.ppid))).collect();
        if found.is_empty() {
            break;
        }
        for pid in found {
            probes.set_tgid(pid)?;
            inside.insert(pid);
        }
    }
    Ok(())
}

/// A process or a cgroup that isn't there would be watched in vain.
pub fn check_host(plan: &Plan, hierarchy: &bpf::Hierarchy) -> Result<(), EngineError> {
    let Target::Host(filter) = &plan.target else { return Ok(()) };
    if let Some(pid) = filter.pids.iter().find(|pid| procfs::stat(**pid).is_none()) {
        return Err(EngineError::Io(format!("looking for process {pid}"), std::io::ErrorKind::NotFound.into()));
    }
    for cgroup in &filter.cgroups {
        hierarchy.id_of(cgroup.as_bytes()).map_err(|e| {
            let mount = hierarchy.mount.display();
            EngineError::Io(format!("looking for the cgroup {cgroup} in {mount} (paths are as in /proc/PID/cgroup)"), e)
        })?;
    }
    Ok(())
}
