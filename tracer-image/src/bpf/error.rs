//! Why probes can't be had, in words that name the remedy.

use std::io;

use super::{btf::KERNEL, plan::ProbeStatus};

/// Attaching failed; nothing is left attached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The kernel doesn't describe its types.
    #[error("this kernel has no BTF ({KERNEL}): it must be built with CONFIG_DEBUG_INFO_BTF, or its BTF be given by --btf FILE")]
    NoBtf(#[source] io::Error),
    /// What describes its types instead is of no use.
    #[error("the BTF that --btf gave can't be used: {0}")]
    GivenBtf(#[source] super::btf::Error),
    /// The BTF can't be read, or lacks something.
    #[error("the kernel's BTF can't be used: {0}")]
    Btf(#[from] super::btf::Error),
    /// A lack of rights.
    #[error("{what}: not permitted. {hint}")]
    Forbidden {
        /// What was attempted.
        what: String,
        /// What to do.
        hint: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Lockdown is set to confidentiality.
    #[error(
        "this kernel is locked down to confidentiality, so that no program may read its memory: nothing can be traced here \
         unless it is booted without lockdown=confidentiality (lockdown=integrity will do)"
    )]
    LockedDown,
    /// The verifier refused a program: a defect of knark on this kernel.
    #[error("the kernel's verifier refused the program {program}: {reason}; please report this, with the kernel's release")]
    Verifier {
        /// Its name.
        program: String,
        /// The end of the verifier's log.
        reason: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The file system with the tracepoints can't be had.
    #[error("tracefs can't be read ({what}): mount it with `mount -t tracefs tracefs /sys/kernel/tracing`")]
    Tracefs {
        /// What was attempted.
        what: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Something else that was needed.
    #[error("{what}")]
    Failed {
        /// What was attempted.
        what: String,
        /// What came of it.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A probe that everything hangs on isn't there.
    #[error("{name} can't be attached: {reason}", name = .0.name, reason = .0.reason())]
    Missing(ProbeStatus),
    /// An option that can't be met.
    #[error("{0}")]
    Option(String),
}

/// A filter map couldn't be changed.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// No room.
    #[error("{what} is full")]
    Full {
        /// Which map.
        what: &'static str,
    },
    /// The probes were attached without this condition in their scope.
    #[error("{0} is not part of the scope that the probes were attached with")]
    NotInScope(&'static str),
    /// The kernel refused.
    #[error("{what}")]
    Kernel {
        /// Which map.
        what: &'static str,
        /// What it said.
        #[source]
        source: io::Error,
    },
}
