//! What this kernel can do, for `doctor`. Nothing is loaded or attached.

use std::{
    fs::{self, File},
    io::{self, Read as _},
};

use rustix::fs::{Mode, OFlags};

use super::{
    Hierarchy, Missing, ProbeState, ProbeStatus, Tier,
    btf::{self, Btf},
    calls::WATCHED,
    cgroups, offsets,
    tracefs::{Events, detached},
};

/// What was found out.
#[derive(Debug)]
pub struct Features {
    /// As `uname -r` says.
    pub release: String,
    /// As `uname -m` says.
    pub machine: String,
    /// Whether the kernel's types are there, with all that the programs need; or why not.
    pub btf: Result<(), String>,
    /// How far lockdown goes.
    pub lockdown: Lockdown,
    /// The active security modules; None if they can't be read.
    pub security_modules: Option<Vec<String>>,
    /// Whether programs are compiled; None if that can't be read.
    pub jit: Option<bool>,
    /// How control groups are mounted; or why that is not known.
    pub cgroups: Result<Hierarchy, String>,
    /// Where the numbers of tracepoints come from; or why they can't be had.
    pub tracefs: Result<Tracefs, String>,
    /// Every probe; [`ProbeState::Attached`] says that it can be attached, given the rights.
    pub probes: Vec<ProbeStatus>,
}

/// `/sys/kernel/security/lockdown`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lockdown {
    /// Off, or not in this kernel.
    None,
    /// Programs may read, but kprobes, fentry and the like are often refused.
    Integrity,
    /// No program may read kernel memory: nothing works.
    Confidentiality,
    /// It can't be read.
    Unknown,
}

/// How the numbers of tracepoints can be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tracefs {
    /// It is mounted.
    Mounted,
    /// It isn't; a private mount does.
    Private,
}

/// Looks at everything.
pub fn look() -> Features {
    let uname = rustix::system::uname();
    let btf =
        Btf::file(btf::KERNEL.as_ref()).map_err(|e| format!("{}: {e}", btf::KERNEL)).and_then(|b| b.map_err(|e| e.to_string()));
    let events = Events::open();
    let probes = probes(btf.as_ref().ok(), events.as_ref().ok());
    Features {
        release: uname.release().to_string_lossy().into_owned(),
        machine: uname.machine().to_string_lossy().into_owned(),
        btf: btf.and_then(|btf| offsets::of(&btf).map(drop).map_err(|e| e.to_string())),
        lockdown: security("lockdown").map_or_else(|e| no_lockdown(&e), |text| lockdown(&text)),
        security_modules: security("lsm").ok().map(|text| text.trim().split(',').map(str::to_owned).collect()),
        jit: fs::read_to_string("/proc/sys/net/core/bpf_jit_enable").ok().map(|text| text.trim() != "0"),
        cgroups: cgroups::hierarchy().map_err(|e| e.to_string()),
        tracefs: events.map(|e| if e.mounted { Tracefs::Mounted } else { Tracefs::Private }).map_err(|e| e.to_string()),
        probes,
    }
}

fn probes(btf: Option<&Btf>, events: Option<&Events>) -> Vec<ProbeStatus> {
    let status = |name: &str, state| ProbeStatus { name: name.to_owned(), tier: Tier::Portable, not_precise: None, state };
    let missing = |why, reason: &str| ProbeState::Missing(why, reason.to_owned());
    let internal = super::load::TRACEPOINTS.iter().map(|name| {
        status(
            name,
            match btf.map(|btf| btf.tracepoint(name)) {
                Some(Some(_)) => ProbeState::Attached,
                Some(None) => missing(Missing::Unsupported, super::load::UNSUPPORTED),
                None => missing(Missing::Unsupported, "the kernel's types can't be read"),
            },
        )
    });
    let calls = WATCHED.iter().map(|call| {
        let state = match (call.nr, events.map(|events| events.id(&format!("sys_exit_{}", call.name)))) {
            (None, _) => missing(Missing::Unsupported, super::load::NO_SUCH_CALL),
            (_, Some(Ok(Some(_)))) => ProbeState::Attached,
            (_, Some(Ok(None))) => missing(Missing::Unsupported, super::load::UNSUPPORTED),
            (_, Some(Err(e))) => missing(Missing::Forbidden, &e.to_string()),
            (_, None) => missing(Missing::Forbidden, "tracefs can't be read"),
        };
        status(call.name, state)
    });
    internal.chain(calls).collect()
}

/// A file of securityfs, mounted or not.
fn security(name: &str) -> io::Result<String> {
    let mut text = String::new();
    let file = File::open(format!("/sys/kernel/security/{name}")).or_else(|_| {
        let root = detached("securityfs")?;
        Ok::<_, io::Error>(rustix::fs::openat(root, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?.into())
    })?;
    file.take(4096).read_to_string(&mut text)?;
    Ok(text)
}

/// `none [integrity] confidentiality`
fn lockdown(text: &str) -> Lockdown {
    match text.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map(|(chosen, _)| chosen) {
        Some("none") => Lockdown::None,
        Some("integrity") => Lockdown::Integrity,
        Some("confidentiality") => Lockdown::Confidentiality,
        _ => Lockdown::Unknown,
    }
}

fn no_lockdown(e: &io::Error) -> Lockdown {
    if e.kind() == io::ErrorKind::NotFound { Lockdown::None } else { Lockdown::Unknown }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_lockdown_says() {
        assert_eq!(lockdown("none [integrity] confidentiality\n"), Lockdown::Integrity);
        assert_eq!(lockdown("[none] integrity confidentiality\n"), Lockdown::None);
        assert_eq!(lockdown("none integrity [confidentiality]\n"), Lockdown::Confidentiality);
        assert_eq!(lockdown("nonsense"), Lockdown::Unknown);
    }

    #[test]
    fn looks_without_failing() {
        let found = look();
        assert!(!found.release.is_empty() && found.probes.iter().any(|probe| probe.name == "openat"));
    }
}
