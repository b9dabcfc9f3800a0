//! What it means when the kernel refuses to load or to attach.

use std::io;

use aya::{EbpfError, maps::MapError as LoaderMapError, programs::ProgramError};

use super::{AttachError, Missing, ProbeState};

/// What a tracepoint's refusal means.
pub(super) fn refused(e: &io::Error) -> ProbeState {
    let why = match e.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => "forbidden: perf_event_open is not permitted (CAP_PERFMON or CAP_SYS_ADMIN)".into(),
        _ => format!("can't be attached: {e}"),
    };
    ProbeState::Missing(Missing::Forbidden, why)
}

/// What the rights are that loading takes.
const RIGHTS: &str = "Run as root, or with CAP_BPF and CAP_PERFMON (CAP_SYS_ADMIN before 5.8); before 5.11 the limit on locked \
                      memory (ulimit -l) has to be raised as well, or CAP_SYS_RESOURCE to be had";

/// Why the maps could not be made.
pub(super) fn loading(what: &str, e: EbpfError) -> AttachError {
    if let EbpfError::MapError(LoaderMapError::CreateError { io_error, .. }) = &e
        && let Some(forbidden) = forbidden(what, io_error)
    {
        return forbidden;
    }
    AttachError::Failed { what: what.to_owned(), source: e.into() }
}

fn forbidden(what: &str, e: &io::Error) -> Option<AttachError> {
    let code = e.raw_os_error().filter(|code| matches!(*code, libc::EPERM | libc::EACCES))?;
    let (what, source) = (what.to_owned(), io::Error::from_raw_os_error(code));
    Some(AttachError::Forbidden { what, hint: RIGHTS.into(), source })
}

/// Why a program was not loaded.
pub(super) fn verdict(program: &str, e: ProgramError) -> AttachError {
    match e {
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();
            // EACCES is what the verifier says, too; then it has a log
            if io_error.raw_os_error() == Some(libc::EPERM)
                && let Some(forbidden) = forbidden(&format!("loading the program {program}"), &io_error)
            {
                return forbidden;
            }
            if locked_down(&log) {
                return AttachError::LockedDown;
            }
            let lines: Vec<&str> = log.lines().filter(|line| !line.is_empty()).collect();
            let reason = lines[lines.len().saturating_sub(12)..].join("\n");
            AttachError::Verifier { program: program.to_owned(), reason, source: io_error }
        }
        e => AttachError::Failed { what: format!("loading the program {program}"), source: e.into() },
    }
}

/// Whether it was the helpers that read the kernel's memory which the verifier refused. All kernels that have a ring
/// buffer have them, so only lockdown takes them away; it can't be asked for where securityfs isn't mounted.
fn locked_down(log: &str) -> bool {
    ["unknown func ", "program of this type cannot use helper "].iter().any(|no| log.contains(&format!("{no}bpf_probe_read")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_lockdown_by_the_helper_that_is_refused() {
        assert!(locked_down("1542: (85) call bpf_probe_read#4\nunknown func bpf_probe_read#4\n"));
        assert!(locked_down("program of this type cannot use helper bpf_probe_read_kernel#113\nverification time 1 usec\n"));
        assert!(!locked_down("1: (85) call bpf_probe_read#4\nunknown func bpf_loop#181\n"));
    }
}
