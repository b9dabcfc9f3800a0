//! How a process came into its container.

use crate::event::{Ancestor, Process};

/// A process that a runtime put into its container, and that nothing inside began.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outside<'e> {
    /// The runtime's process that stays as long as the container, or its pod, does.
    pub(super) shim: &'e Ancestor,
    /// The runtime's process that put it there, where it is left: a container's first process begins when the one that made the
    /// container has gone; what is run in a container later is put there by one that waits for it. It may be the container's
    /// main process as well, under the runtime's name.
    pub(super) runtime: Option<&'e Ancestor>,
}

/// Tells whether the process comes from outside: above it there are the runtime's own processes alone, up to the one shim. A
/// process that merely calls itself so has its container's processes, and the real shim, above it.
pub(super) fn from_outside(process: &Process) -> Option<Outside<'_>> {
    // What is not seen of a long row may be anything.
    let shim = process.ancestors.iter().position(is_shim).filter(|_| !process.ancestors_cut)?;
    let (below, above) = process.ancestors.split_at(shim);
    let (shim, above) = above.split_first()?;
    let outside = below.iter().all(is_runtime) && !above.iter().any(is_shim);
    outside.then_some(Outside { shim, runtime: below.last() })
}

/// The process that was put into the container and began this one, or one of those above it.
pub(super) fn root(process: &Process) -> Option<&Ancestor> {
    let shim = process.ancestors.iter().rposition(is_shim).filter(|_| !process.ancestors_cut)?;
    process.ancestors[..shim].last().filter(|root| !is_runtime(root))
}

fn is_shim(ancestor: &Ancestor) -> bool {
    let is = |name: &str| name.starts_with("containerd-shim") || name == "conmon" || name == "conmonrs";
    is(base(ancestor)) || is(&ancestor.comm)
}

fn is_runtime(ancestor: &Ancestor) -> bool {
    let is = |name: &str| {
        matches!(name, "runc" | "docker-runc" | "crun" | "krun" | "youki" | "kata-runtime")
            // Their processes on the way into a container.
            || ["runc:[", "youki:["].iter().any(|runtime| name.starts_with(runtime))
    };
    is(base(ancestor)) || is(&ancestor.comm)
}

fn base(ancestor: &Ancestor) -> &str {
    ancestor.exe.rsplit('/').next().unwrap_or_default()
}
