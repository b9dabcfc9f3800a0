//! Loading, attaching, filtering and draining.

use std::{
    io,
    num::NonZeroU32,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::Path,
    time::Duration,
};

use aya::{
    Ebpf,
    maps::{HashMap, Map, MapData, MapError as LoaderMapError, PerCpuArray, RingBuf},
};
use knark_abi::{ApiLayout, control, kind, scope, verdict};
use knark_specs::frame::FileOp;
use rustix::event::epoll;

use super::{
    ApiProbes, AttachError, Count, Counters, Hierarchy, MapError, ProbeStatus, Record, Wanted, WatchedFiles, api, cgroups, info,
    link, load, parse, storm,
};
use crate::api::binary::Site;

/// What to attach.
#[derive(Clone, Debug)]
pub struct Options {
    /// Size of the ring buffer; rounded up to a power of two of pages.
    pub ring_bytes: u32,
    /// Which processes.
    pub scope: Scope,
    /// Which events.
    pub events: Events,
    /// Of each body of a request to an API server, and of its response, so many bytes, at most
    /// [`knark_abi::API_BODY_BYTES`]; 0: none.
    pub body_bytes: u32,
    /// Of the events of files, those that are wanted, as far as the kernel can tell; None: all.
    pub wanted: Option<Wanted>,
    /// What is wanted of watched files ([`Probes::take_watched`]) whatever the path; empty: none are watched.
    pub same: Vec<FileOp>,
    /// Processes that are never reported: knark's own. At most [`knark_abi::EXCLUDED`].
    pub exclude_tgids: Vec<u32>,
    /// BTF of the kernel, for one that has none of its own.
    pub btf: Option<Vec<u8>>,
    /// Whether the precise tier is used where this kernel allows it.
    pub precise: bool,
    /// So many file events each control group can make per second, and as many at once after a quiet one; what it makes beyond them
    /// is lost. None: any number.
    pub events_per_second: Option<NonZeroU32>,
    /// Whether file events that are repeats of others are counted instead of reported, and what they have in common.
    pub aggregate: Option<Aggregate>,
}

/// What file events have in common that are repeats of one another, besides what is done to which file, how, in which control group
/// and with which rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aggregate {
    /// The program: processes that run the same one are as good as each other.
    ByExe,
    /// The process, while it runs one program, and the thread's name.
    ByProcess,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            ring_bytes: 8 << 20,
            scope: Scope::default(),
            events: Events { exec: true, file: true, exit: false, api: false },
            body_bytes: 0,
            wanted: None,
            same: Vec::new(),
            exclude_tgids: vec![std::process::id()],
            btf: None,
            precise: true,
            events_per_second: None,
            aggregate: None,
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
#[expect(clippy::struct_excessive_bools, reason = "kinds are chosen independently of one another")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Events {
    /// Execs.
    pub exec: bool,
    /// Opens and path calls.
    pub file: bool,
    /// Exits.
    pub exit: bool,
    /// Requests to the API servers that [`Probes::watch_api_server`] names.
    pub api: bool,
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
pub struct Probes {
    /// Closed first: a call that has been seen to begin is then seen to end.
    enters: Vec<OwnedFd>,
    exits: Vec<OwnedFd>,
    ring: RingBuf<MapData>,
    epoll: OwnedFd,
    ebpf: Ebpf,
    statuses: Vec<ProbeStatus>,
    hierarchy: Option<Hierarchy>,
    options: Options,
    malformed: u64,
    windows: storm::Windows,
    stopped: bool,
    /// Of the programs, by the time that they were stopped.
    missed: Option<u64>,
    /// Why there are no programs for bodies, where these are wanted.
    bodiless: Option<AttachError>,
    watched: Option<WatchedFiles>,
}

impl Probes {
    /// Loads the programs and attaches them. A probe that this kernel lacks is no error, see [`Self::attached`].
    pub fn attach(options: &Options) -> Result<Probes, AttachError> {
        let failed = |what: &str, e: io::Error| AttachError::Failed { what: what.into(), source: e.into() };
        let hierarchy = match cgroups::hierarchy() {
            Ok(hierarchy) => Some(hierarchy),
            Err(e) if options.scope.cgroups => return Err(failed("looking for the control groups", e)),
            Err(_) => None,
        };
        let load::Loaded { mut ebpf, enters, exits, probes: statuses, bodiless } = load::load(options, hierarchy.as_ref())?;
        let ring = ebpf
            .take_map("RING")
            .ok_or(LoaderMapError::InvalidMapType { map_type: 0 })
            .and_then(RingBuf::try_from)
            .map_err(|e| AttachError::Failed { what: "mapping the ring buffer".into(), source: e.into() })?;
        let watches = options.events.file && !options.same.is_empty();
        let watched = watches.then(|| WatchedFiles::of(&mut ebpf)).transpose()?;
        let epoll = watch(ring.as_fd()).map_err(|e| failed("watching the ring buffer", e))?;
        let mut probes = Probes {
            enters,
            exits,
            ring,
            epoll,
            ebpf,
            statuses,
            hierarchy,
            options: options.clone(),
            malformed: 0,
            windows: storm::Windows::default(),
            stopped: false,
            missed: None,
            bodiless,
            watched,
        };
        probes.find_exes();
        Ok(probes)
    }

    /// The kernel's set of watched files, once; None where none are to be watched.
    pub fn take_watched(&mut self) -> Option<WatchedFiles> {
        self.watched.take()
    }

    /// Every probe, and what became of it.
    pub fn attached(&self) -> &[ProbeStatus] {
        &self.statuses
    }

    /// The hierarchy that ids of control groups are those of; None where no control groups are mounted.
    pub fn hierarchy(&self) -> Option<&Hierarchy> {
        self.hierarchy.as_ref()
    }

    /// Sets a control group's verdict, by its kernfs id ([`cgroups::id_of`]). It goes for that group only; groups made in
    /// it from now on inherit it.
    pub fn set_cgroup(&mut self, id: u64, verdict: Verdict) -> Result<(), MapError> {
        Self::in_scope(self.options.scope.cgroups, "the control group")?;
        set(self.ebpf.map_mut("CGROUPS"), id, verdict as u8, "the map of control groups")
    }

    /// Takes a control group's verdict away: its events are no longer reported.
    pub fn remove_cgroup(&mut self, id: u64) -> Result<(), MapError> {
        Self::in_scope(self.options.scope.cgroups, "the control group")?;
        unset(self.ebpf.map_mut("CGROUPS"), id, "the map of control groups")
    }

    /// Adds a process; its children are in from now on.
    pub fn set_tgid(&mut self, tgid: u32) -> Result<(), MapError> {
        Self::in_scope(self.options.scope.tgids, "the process")?;
        self.meets(tgid, scope::TGID)
    }

    /// Takes a process out again (not its children).
    pub fn remove_tgid(&mut self, tgid: u32) -> Result<(), MapError> {
        Self::in_scope(self.options.scope.tgids, "the process")?;
        unset(self.ebpf.map_mut("TGIDS"), tgid, PROCESSES)
    }

    /// Attaches the probes for requests to an API server's executable, for all processes that run it.
    pub fn attach_api(&mut self, executable: &Path, sites: &[Site]) -> Result<ApiProbes, AttachError> {
        api::attach(&mut self.ebpf, executable, sites)
    }

    /// Why bodies of requests can't be had on this kernel, where they are wanted.
    pub fn bodiless(&self) -> Option<&AttachError> {
        self.bodiless.as_ref()
    }

    /// Takes them away.
    pub fn detach_api(&mut self, probes: ApiProbes) {
        api::detach(&mut self.ebpf, probes);
    }

    /// Has them report what this process does, in whose memory things lie so.
    pub fn watch_api_server(&mut self, pid: u32, layout: &ApiLayout) -> Result<(), MapError> {
        api::watch(&mut self.ebpf, pid, layout)
    }

    /// Has them report nothing more of it.
    pub fn forget_api_server(&mut self, pid: u32) {
        api::forget(&mut self.ebpf, pid);
    }

    /// Hands out at most `max` records, oldest first, and says how many were taken from the ring. A record that can't be
    /// understood is left out and counted in [`Self::malformed`]. The bytes are the record's, for [`Record::parse`] at
    /// another time.
    pub fn drain(&mut self, max: usize, mut each: impl FnMut(&[u8], Record<'_>)) -> usize {
        let mut taken = 0;
        while taken < max
            && let Some(bytes) = self.ring.next()
        {
            taken += 1;
            match parse::record(&bytes) {
                Some(record) => each(&bytes, record),
                None => self.malformed += 1,
            }
        }
        taken
    }

    /// Hands out what was counted as repeats in windows that are over: a record for each event that had any, whose
    /// [`Head::repeats`](super::Head) says how many. Of the last window, once the probes are detached. `told_ns` is now, in ns since boot, and
    /// becomes the records' time. At most `max` at once: true if there are more.
    pub fn take_repeats(&mut self, max: usize, told_ns: u64, mut each: impl FnMut(&[u8], Record<'_>)) -> Result<bool, MapError> {
        if self.options.aggregate.is_none() {
            return Ok(false);
        }
        let before = if self.stopped { Some(u64::MAX) } else { self.windows.over(told_ns) };
        let Some(before) = before else { return Ok(false) };
        let more = storm::take(&mut self.ebpf, before, max, told_ns, |bytes, count| match parse::record(bytes) {
            Some(record) => each(bytes, record),
            None => self.malformed += count,
        })?;
        if !more {
            self.windows.taken();
        }
        Ok(more)
    }

    /// The control groups that were faster than the rate limit allows, by id, and how many of their events are lost for it. Those for
    /// which there was no room have the id 0.
    pub fn too_fast(&mut self) -> Result<Vec<(u64, u64)>, MapError> {
        if self.options.events_per_second.is_none() { Ok(Vec::new()) } else { storm::too_fast(&mut self.ebpf) }
    }

    /// Has a control group use up the rate limit of another one, its container's, in place of its own; so do groups that are made in it
    /// from now on. None: its own again, as when it is gone. Does nothing where no rate is limited.
    pub fn share_rate(&mut self, id: u64, with: Option<u64>) -> Result<(), MapError> {
        if self.options.events_per_second.is_none() { Ok(()) } else { storm::share(&mut self.ebpf, id, with) }
    }

    /// Forgets how fast a control group was that is gone, and says how many of its events are lost, if any.
    pub fn forget_rate(&mut self, id: u64) -> Result<Option<u64>, MapError> {
        if self.options.events_per_second.is_none() { Ok(None) } else { storm::forget(&mut self.ebpf, id) }
    }

    /// Records that [`Self::drain`] could not understand: a defect if it isn't 0.
    pub fn malformed(&self) -> u64 {
        self.malformed
    }

    /// Sleeps until the programs ask for attention (new control groups do; true), or the time is over (false). Ordinary
    /// records come quietly, since waking up costs more than all else: drain after either.
    pub fn wait(&self, timeout: Duration) -> io::Result<bool> {
        let mut events = [std::mem::MaybeUninit::uninit(); 1];
        let timeout = rustix::event::Timespec::try_from(timeout).ok();
        match epoll::wait(&self.epoll, &mut events, timeout.as_ref()) {
            Ok((events, _)) => Ok(!events.is_empty()),
            Err(rustix::io::Errno::INTR) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    /// A descriptor that becomes readable when the programs ask for attention, for a caller's own epoll.
    pub fn attention(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    /// What was seen, emitted and lost.
    pub fn counters(&self) -> io::Result<Counters> {
        let counts = self.ebpf.map("COUNTS").ok_or(io::ErrorKind::NotFound)?;
        let counts: PerCpuArray<_, [u64; 6]> = PerCpuArray::try_from(counts).map_err(io::Error::other)?;
        let mut all = Counters { missed: self.missed.or_else(|| info::missed(&self.ebpf)), ..Counters::default() };
        for (index, count) in (0..).zip(&mut all.kinds) {
            for [seen, emitted, lost_ring, lost_inflight, lost_rate, aggregated] in
                counts.get(&index, 0).map_err(io::Error::other)?.iter()
            {
                count.seen += seen;
                count.emitted += emitted;
                count.lost_ring += lost_ring;
                count.lost_inflight += lost_inflight;
                count.lost_rate += lost_rate;
                count.aggregated += aggregated;
            }
        }
        let processes = &mut all.kinds[kind::SCOPE as usize];
        all.scope_lost = processes.lost_inflight;
        *processes = Count::default();
        Ok(all)
    }

    /// Ends it: no new event is seen from now on, and what has been is in the ring, to be drained, and in the counters;
    /// calls that have begun come when they end. The kernel takes some seconds to detach the tracepoints of system calls,
    /// which a process of its own waits for.
    pub fn detach(&mut self) {
        if self.stopped {
            return;
        }
        self.stopped = true;
        self.missed = info::missed(&self.ebpf);
        // if this fails, events go on until the tracepoints are detached
        let _ = load::control(&mut self.ebpf, control::STOP);
        // If it can't be waited for programs that are under way, what they still hand over and nobody takes is missing in the sum,
        // and lost.
        let _ = link::settle();
        for (_, program) in self.ebpf.programs_mut() {
            // one that was never loaded has nothing to unload
            let _ = match program {
                aya::programs::Program::RawTracePoint(program) => program.unload(),
                aya::programs::Program::UProbe(program) => program.unload(),
                _ => Ok(()),
            };
        }
        let mut links = std::mem::take(&mut self.enters);
        links.append(&mut self.exits);
        link::close_behind(links);
    }

    fn in_scope(is: bool, what: &'static str) -> Result<(), MapError> {
        if is { Ok(()) } else { Err(MapError::NotInScope(what)) }
    }

    /// Adds a condition to those that a process meets.
    fn meets(&mut self, tgid: u32, condition: u32) -> Result<(), MapError> {
        let met: u8 =
            load::map(&mut self.ebpf, "TGIDS").and_then(|map: HashMap<&mut MapData, u32, u8>| map.get(&tgid, 0)).unwrap_or(0);
        let condition = u8::try_from(condition).unwrap_or(0);
        set(self.ebpf.map_mut("TGIDS"), tgid, met | condition, PROCESSES)
    }

    /// The processes that already run one of the wanted exes. Those that come from now on are found by the programs.
    fn find_exes(&mut self) {
        use std::os::unix::ffi::OsStrExt as _;
        if self.options.scope.exes.is_empty() {
            return;
        }
        let Ok(processes) = std::fs::read_dir("/proc") else { return };
        for process in processes.flatten() {
            let Some(tgid) = process.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let Ok(exe) = std::fs::read_link(process.path().join("exe")) else { continue };
            let exe = exe.as_os_str().as_bytes();
            let exe = exe.strip_suffix(b" (deleted)").unwrap_or(exe);
            if self.options.scope.exes.iter().any(|wanted| wanted == exe) {
                // a full map is the worst that can happen, and it is counted for each that comes after
                let _ = self.meets(tgid, scope::EXE);
            }
        }
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        self.detach();
    }
}

const PROCESSES: &str = "the map of processes";

fn watch(ring: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    // Edge-triggered: what lies in the ring without a wake-up is no reason to return.
    let what = epoll::EventFlags::IN | epoll::EventFlags::ET;
    epoll::add(&epoll, ring, epoll::EventData::new_u64(0), what)?;
    Ok(epoll)
}

fn set<K: aya::Pod>(map: Option<&mut Map>, key: K, value: u8, what: &'static str) -> Result<(), MapError> {
    let mut map: HashMap<_, K, u8> = typed(map, what)?;
    map.insert(key, value, 0).map_err(|e| refused(e, what))
}

fn unset<K: aya::Pod>(map: Option<&mut Map>, key: K, what: &'static str) -> Result<(), MapError> {
    let mut map: HashMap<_, K, u8> = typed(map, what)?;
    match map.remove(&key) {
        Err(LoaderMapError::KeyNotFound) | Ok(()) => Ok(()),
        Err(LoaderMapError::SyscallError(e)) if e.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        Err(e) => Err(refused(e, what)),
    }
}

fn typed<'a, K: aya::Pod>(map: Option<&'a mut Map>, what: &'static str) -> Result<HashMap<&'a mut MapData, K, u8>, MapError> {
    let none = LoaderMapError::InvalidMapType { map_type: 0 };
    map.ok_or(none).and_then(HashMap::try_from).map_err(|e| refused(e, what))
}

pub(super) fn refused(e: LoaderMapError, what: &'static str) -> MapError {
    match e {
        LoaderMapError::SyscallError(e) if e.io_error.raw_os_error() == Some(libc::E2BIG) => MapError::Full { what },
        LoaderMapError::SyscallError(e) => MapError::Kernel { what, source: e.io_error },
        e => MapError::Kernel { what, source: io::Error::other(e) },
    }
}
