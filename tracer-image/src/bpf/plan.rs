//! Which probes there are, and what became of each.

/// What the names of probes in API servers begin with.
pub const API_SERVER: &str = "API server";

/// How much of the kernel a probe rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// Programs on the kernel's own functions: whatever comes to them is seen.
    Precise,
    /// Tracepoints: works wherever there is BTF.
    Portable,
}

impl Tier {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Tier::Precise => "precise",
            Tier::Portable => "portable",
        }
    }
}

/// Why a probe is not attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// The kernel or its architecture doesn't have it: nothing can be missed through it.
    Unsupported,
    /// It is there, and may not be used.
    Forbidden,
}

/// What became of a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeState {
    /// It fires.
    Attached,
    /// It doesn't, and why.
    Missing(Missing, String),
}

/// One probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeStatus {
    /// The name of the call or of the kernel's tracepoint.
    pub name: String,
    /// Its tier.
    pub tier: Tier,
    /// Of a probe of the portable tier that there is a better one for: why that isn't used.
    pub not_precise: Option<String>,
    /// What became of it.
    pub state: ProbeState,
}

impl ProbeStatus {
    /// Whether it fires.
    pub const fn attached(&self) -> bool {
        matches!(self.state, ProbeState::Attached)
    }

    /// The kind of events that it gives.
    pub fn serves(&self) -> &'static str {
        match self.name.as_str() {
            "sched_process_exec" => "exec",
            "sched_process_exit" => "exit",
            "sched_process_fork" | "cgroup_mkdir" | "cgroup_rmdir" => "scope",
            name if name.starts_with(API_SERVER) => "api",
            "mmap" | "mprotect" | "pkey_mprotect" => "map-exec",
            "write" | "pwrite64" | "writev" | "pwritev" | "pwritev2" | "sendfile64" | "splice" | "copy_file_range"
            | "fallocate" | "close" | "close_range" | "dup2" | "dup3" => "write",
            _ => "file",
        }
    }

    /// Why it doesn't.
    pub fn reason(&self) -> &str {
        match &self.state {
            ProbeState::Attached => "attached",
            ProbeState::Missing(_, reason) => reason,
        }
    }
}

/// The names of attached probes of the portable tier that there are better ones for, by the reason that these aren't used.
pub fn not_precise(probes: &[ProbeStatus]) -> Vec<(&str, Vec<&str>)> {
    let mut reasons: Vec<(&str, Vec<&str>)> = Vec::new();
    for probe in probes.iter().filter(|probe| probe.attached()) {
        let Some(why) = probe.not_precise.as_deref() else { continue };
        match reasons.iter_mut().find(|(known, _)| *known == why) {
            Some((_, names)) => names.push(&probe.name),
            None => reasons.push((why, vec![&probe.name])),
        }
    }
    reasons
}
