//! Loading, attaching, filtering and draining.

use std::{io, path::PathBuf, time::Duration};

use knark_abi::verdict;

use super::{AttachError, Counters, MapError, ProbeStatus, Record};

/// What to attach.
#[derive(Clone, Debug)]
pub struct Options {
    /// Size of the ring buffer; rounded up to a power of two of pages.
    pub ring_bytes: u32,
    /// Which processes.
    pub scope: Scope,
    /// Which events.
    pub events: Events,
    /// Processes that are never reported: knark's own. At most [`knark_abi::EXCLUDED`].
    pub exclude_tgids: Vec<u32>,
    /// The kernel's BTF, where it isn't at the usual place.
    pub btf: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            ring_bytes: 8 << 20,
            scope: Scope::default(),
            events: Events { exec: true, file: true, exit: false },
            exclude_tgids: vec![std::process::id()],
            btf: None,
        }
    }
}

/// Which processes; all conditions that are given must hold. None: all processes.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// Those in control groups that [`Probes::set_cgroup`] names. Without this, control groups aren't watched either.
    pub cgroups: bool,
    /// Those that [`Probes::set_tgid`] names, and the children that they get from then on.
    pub tgids: bool,
    /// Those whose thread has one of these names, zero padded.
    pub comms: Vec<[u8; 16]>,
    /// Those that run one of these programs (by the path that the process itself sees), and children that they fork.
    pub exes: Vec<Vec<u8>>,
}

/// Which events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Events {
    /// Execs.
    pub exec: bool,
    /// Opens and path calls.
    pub file: bool,
    /// Exits.
    pub exit: bool,
}

/// What is done with the events of a control group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Verdict {
    /// Nothing of it is reported.
    Ignore = verdict::IGNORE,
    /// Reported.
    Trace = verdict::TRACE,
    /// Reported; whether anyone wants it is not known yet.
    Hold = verdict::HOLD,
}

/// Probes that are attached; dropping them detaches them.
pub struct Probes {}

impl Probes {
    /// Loads the programs and attaches them. A probe that this kernel lacks is no error, see [`Self::attached`].
    pub fn attach(_options: &Options) -> Result<Probes, AttachError> {
        todo!()
    }

    /// Every probe, and what became of it.
    pub fn attached(&self) -> &[ProbeStatus] {
        todo!()
    }

    /// Sets a control group's verdict, by its kernfs id ([`super::cgroups::id_of`]). It goes for that group only;
    /// groups made in it from now on inherit it.
    pub fn set_cgroup(&mut self, _id: u64, _verdict: Verdict) -> Result<(), MapError> {
        todo!()
    }

    /// Takes a control group's verdict away: its events are no longer reported.
    pub fn remove_cgroup(&mut self, _id: u64) -> Result<(), MapError> {
        todo!()
    }

    /// Adds a process; its children are in from now on.
    pub fn set_tgid(&mut self, _tgid: u32) -> Result<(), MapError> {
        todo!()
    }

    /// Takes a process out again (not its children).
    pub fn remove_tgid(&mut self, _tgid: u32) -> Result<(), MapError> {
        todo!()
    }

    /// Hands out at most `max` records, oldest first, and says how many there were. A record that can't be understood
    /// is left out and counted in [`Self::malformed`].
    pub fn drain(&mut self, _max: usize, _each: impl FnMut(Record<'_>)) -> usize {
        todo!()
    }

    /// Records that [`Self::drain`] could not understand: a defect if it isn't 0.
    pub fn malformed(&self) -> u64 {
        todo!()
    }

    /// Waits until there are records and the programs asked for attention (control groups do), or until the time is
    /// over: ordinary records come quietly, so drain after either.
    pub fn wait(&self, _timeout: Duration) -> io::Result<()> {
        todo!()
    }

    /// The ring buffer's descriptor, for a caller's own epoll.
    pub fn ring_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        todo!()
    }

    /// What was seen, emitted and lost.
    pub fn counters(&self) -> io::Result<Counters> {
        todo!()
    }
}
