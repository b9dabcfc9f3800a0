//! Probes in API servers: programs that are attached to places of an executable, and the processes that they look at.

use std::path::Path;

use aya::{
    Ebpf,
    maps::HashMap,
    programs::{
        Program, ProgramError,
        uprobe::{UProbeLinkId, UProbeScope},
    },
};
use knark_abi::ApiLayout;

use super::{AttachError, MapError, load};
use crate::api::binary::Site;

/// The programs, by what they are called.
pub(super) const PROGRAMS: [&str; 9] = [
    "api_begin",
    "api_user",
    "api_attributes",
    "api_denied",
    "api_end_http1",
    "api_end_http2",
    "api_end_bundled",
    "api_closed",
    "api_aborted",
];

/// Those for bodies, which are loaded where bodies are wanted.
pub(super) const BODY_PROGRAMS: [&str; 2] = ["api_request_body", "api_response_body"];

/// Probes in one executable; they stay until [`detach`].
#[derive(Debug, Default)]
pub struct ApiProbes(Vec<(String, UProbeLinkId)>);

/// Attaches the programs to their places in the executable that the path leads to.
pub(super) fn attach(ebpf: &mut Ebpf, executable: &Path, sites: &[Site]) -> Result<ApiProbes, AttachError> {
    let mut probes = ApiProbes::default();
    for site in sites {
        let attached = match ebpf.program_mut(&site.program) {
            Some(Program::UProbe(program)) => program.attach(site.offset, executable, UProbeScope::AllProcesses),
            _ => Err(ProgramError::UnexpectedProgramType),
        };
        match attached {
            Ok(link) => probes.0.push((site.program.to_string(), link)),
            Err(e) => {
                detach(ebpf, probes);
                let what = format!("attaching {} to {} at {:#x}", site.program, executable.display(), site.offset);
                return Err(AttachError::Failed { what, source: e.into() });
            }
        }
    }
    Ok(probes)
}

/// Takes them away.
pub(super) fn detach(ebpf: &mut Ebpf, probes: ApiProbes) {
    for (name, link) in probes.0 {
        if let Some(Program::UProbe(program)) = ebpf.program_mut(&name) {
            // A link that is gone already is what is wanted.
            let _ = program.detach(link);
        }
    }
}

/// Has the programs look at this process.
pub(super) fn watch(ebpf: &mut Ebpf, pid: u32, layout: &ApiLayout) -> Result<(), MapError> {
    let mut value = [0; size_of::<ApiLayout>()];
    value.copy_from_slice(load::bytes_of(layout));
    servers(ebpf)?.insert(pid, value, 0).map_err(|e| super::probes::refused(e, SERVERS))
}

/// Has them look at it no more.
pub(super) fn forget(ebpf: &mut Ebpf, pid: u32) {
    if let Ok(mut servers) = servers(ebpf) {
        // It may never have been there.
        let _ = servers.remove(&pid);
    }
}

const SERVERS: &str = "the map of API servers";

type Servers<'a> = HashMap<&'a mut aya::maps::MapData, u32, [u8; size_of::<ApiLayout>()]>;

fn servers(ebpf: &mut Ebpf) -> Result<Servers<'_>, MapError> {
    load::map(ebpf, "API_SERVERS").map_err(|e| super::probes::refused(e, SERVERS))
}
