//! From options to programs that are loaded and attached.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    thread,
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{
        Array, HashMap, MapError as LoaderMapError,
        lpm_trie::{Key, LpmTrie},
    },
    programs::{Program, ProgramError},
};
use knark_abi::{CONTROL, Config, ExeKey, WANTED_BYTES, control, feature, scope};
use knark_specs::frame::FileOp;

use super::{
    Aggregate, AttachError, CgroupVersion, Effects, Hierarchy, Missing, Options, ProbeState, ProbeStatus, Tier, Wanted, api,
    btf::Btf,
    calls::{self, WATCHED},
    cgroups, link, offsets, precise,
    refusal::{loading, refused, verdict},
    storm,
    tracefs::Events,
    wanted, watched,
};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/knark"));

/// What attaching yields.
pub(super) struct Loaded {
    pub(super) ebpf: Ebpf,
    /// Tracepoints where calls begin: to be closed before the others.
    pub(super) enters: Vec<OwnedFd>,
    /// Where they end.
    pub(super) exits: Vec<OwnedFd>,
    pub(super) probes: Vec<ProbeStatus>,
    /// Why bodies of requests can't be had, where they are wanted: all else can.
    pub(super) bodiless: Option<AttachError>,
}

/// One of the kernel's own tracepoints, and its program.
struct Internal {
    program: &'static str,
    tracepoint: &'static str,
    wanted: bool,
    /// Without it, attaching fails.
    needed: bool,
}

/// Loads and attaches what the options ask for.
pub(super) fn load(options: &Options, hierarchy: Option<&Hierarchy>) -> Result<Loaded, AttachError> {
    // The loader reads the kernel's types too, needlessly; meanwhile, read our own way.
    let (btf, mut setup) = thread::scope(|scope| {
        let loader = scope.spawn(EbpfLoader::new);
        let btf = Btf::kernel();
        (btf, loader.join().unwrap_or_else(|_| EbpfLoader::new()))
    });
    setup.btf(None);
    let btf = match (btf, &options.btf) {
        (Err(e), Some(given)) if e.kind() == io::ErrorKind::NotFound => {
            Btf::parse(given.clone()).map_err(AttachError::GivenBtf)?
        }
        (btf, _) => btf.map_err(AttachError::NoBtf)??,
    };
    let offsets = offsets::of(&btf)?;
    let wanted = options.wanted.as_ref().map(Wanted::kernel);
    let mut config = config(options, &btf, hierarchy, wanted.as_ref())?;
    let calls = calls::table();
    let numbers = calls::numbers();
    let asked = |call: &calls::Watched| {
        options.events.file && options.wanted.as_ref().map_or(call.is_usual(), |wanted| wanted.asks_for(call.effects()))
    };
    let named = |op| options.events.file && options.wanted.as_ref().is_some_and(|wanted| wanted.file(op, None));
    let precise = (options.events.file && options.precise).then(|| precise::plan(&btf, asked));
    (config.copied_names, config.joined) = precise.as_ref().map_or((0, 0), |plan| (plan.copied_names, plan.joined));
    let by_tgid = config.scope & (scope::TGID | scope::EXE) != 0;
    setup
        .override_global("CONFIG", bytes_of(&config), true)
        .override_global("OFFSETS", bytes_of(&offsets), true)
        .override_global("CALL_TABLE", bytes_of(&*calls), true)
        .override_global("NUMBERS", bytes_of(&numbers), true)
        .map_max_entries("RING", ring_size(options.ring_bytes))
        .map_max_entries("WANTED", wanted.as_ref().map_or(1, |wanted| u32::try_from(wanted.paths.len()).unwrap_or(1).max(1)));
    // kernel memory for what is not used
    for (map, used) in [
        ("CGROUPS", options.scope.cgroups),
        ("TGIDS", by_tgid),
        ("INFLIGHT", options.events.file),
        ("INFLIGHT_LONG", options.events.file),
        ("MOUNTS", config.joined != 0),
        ("EXITED", options.events.exit),
        ("API_SERVERS", options.events.api),
        ("API_RESPONSES", options.body_bytes > 0),
        ("FILES", named(FileOp::Write)),
        ("WRITERS", named(FileOp::Write)),
        ("MAPPINGS", named(FileOp::MapExec)),
        ("REPEATS", options.aggregate.is_some()),
        ("RATE_OF", options.events_per_second.is_some()),
        ("RATES", options.events_per_second.is_some()),
        ("WATCHED", config.same != 0),
    ] {
        if !used {
            setup.map_max_entries(map, 1);
        }
    }
    let mut ebpf = setup.load(OBJECT).map_err(|e| loading("loading the eBPF maps", e))?;
    fill(&mut ebpf, options, wanted.as_ref())?;
    storm::prepare(&mut ebpf).map_err(filling)?;
    let switch = |ebpf: &mut Ebpf, state| control(ebpf, state).map_err(switching);
    switch(&mut ebpf, control::TRY)?;

    let internal = [
        Internal {
            program: "process_exec",
            tracepoint: "sched_process_exec",
            wanted: options.events.exec || config.scope & scope::EXE != 0,
            needed: true,
        },
        Internal { program: "process_fork", tracepoint: "sched_process_fork", wanted: by_tgid, needed: true },
        Internal {
            program: "process_exit",
            tracepoint: "sched_process_exit",
            wanted: options.events.exit || options.events.file || by_tgid,
            needed: options.events.exit,
        },
        Internal { program: "cgroup_mkdir", tracepoint: "cgroup_mkdir", wanted: options.scope.cgroups, needed: true },
        Internal { program: "cgroup_rmdir", tracepoint: "cgroup_rmdir", wanted: options.scope.cgroups, needed: false },
    ];
    let bodiless = verify(&mut ebpf, &internal, options, asked)?;
    let mut loaded = Loaded { ebpf, enters: Vec::new(), exits: Vec::new(), probes: Vec::new(), bodiless };
    for tracepoint in internal.iter().filter(|one| one.wanted) {
        attach_internal(&mut loaded, tracepoint)?;
    }
    if options.events.file {
        let precise = precise.map(|plan| precise::attach(&mut loaded.ebpf, plan)).unwrap_or_default();
        attach_calls(&mut loaded, asked, precise)?;
    }
    switch(&mut loaded.ebpf, control::RUN)?;
    Ok(loaded)
}

fn config(
    options: &Options,
    btf: &Btf,
    hierarchy: Option<&Hierarchy>,
    files: Option<&wanted::Kernel>,
) -> Result<Config, AttachError> {
    let mut config = Config { regs_size: btf.size_of("pt_regs")?, thread_size: THREAD_SIZE, ..Config::default() };
    let wanted = &options.scope;
    for (bit, set) in [
        (scope::CGROUP, wanted.cgroups),
        (scope::TGID, wanted.tgids),
        (scope::COMM, !wanted.comms.is_empty()),
        (scope::EXE, !wanted.exes.is_empty()),
    ] {
        config.scope |= if set { bit } else { 0 };
    }
    if options.exclude_tgids.len() > config.exclude.len() {
        return Err(AttachError::Option(format!("at most {} processes can be left out", config.exclude.len())));
    }
    for (place, tgid) in config.exclude.iter_mut().zip(&options.exclude_tgids) {
        *place = *tgid;
    }
    // the kernel lists the helpers that it has among its types
    if btf.enumerator("bpf_func_id", "BPF_FUNC_task_pt_regs").is_ok() {
        config.features |= feature::TASK_REGS;
    }
    if options.events.exit {
        config.features |= feature::EXIT;
    }
    if let Some(files) = files {
        config.features |= feature::WANTED;
        (config.anywhere, config.somewhere) = (files.anywhere, files.somewhere);
    }
    config.features |= match options.aggregate {
        None => 0,
        Some(Aggregate::ByExe) => feature::AGGREGATE,
        Some(Aggregate::ByProcess) => feature::AGGREGATE | feature::BY_PROCESS,
    };
    config.event_ns = options.events_per_second.map_or(0, |rate| NANOS / u64::from(rate.get()).min(NANOS));
    config.body_bytes = options.body_bytes;
    config.same = Effects::default().with(&options.same).bits();
    config.compat = offsets::compat();
    if let Some(hierarchy) = hierarchy {
        config.hierarchy = hierarchy.id;
        if hierarchy.version == CgroupVersion::V1
            && let Some(name) = hierarchy.controller.and_then(cgroups::enumerator)
        {
            config.features |= feature::CGROUP_V1;
            config.cgroup_subsys = btf.enumerator("cgroup_subsys_id", name)?;
        }
    }
    Ok(config)
}

/// Nanoseconds of a second.
const NANOS: u64 = 1_000_000_000;

/// Size of a kernel stack on the kernels (before 5.15) where the programs have to know it.
const THREAD_SIZE: u32 = 16 << 10;

/// A power of two of pages, at least one.
fn ring_size(bytes: u32) -> u32 {
    let page = u32::try_from(rustix::param::page_size()).unwrap_or(4096);
    bytes.clamp(page, 1 << 30).next_power_of_two()
}

fn filling(e: LoaderMapError) -> AttachError {
    AttachError::Failed { what: "filling the filter".into(), source: e.into() }
}

fn fill(ebpf: &mut Ebpf, options: &Options, wanted: Option<&wanted::Kernel>) -> Result<(), AttachError> {
    let failed = filling;
    let mut comms: HashMap<_, [u8; 16], u8> = map(ebpf, "COMMS").map_err(failed)?;
    for comm in &options.scope.comms {
        comms.insert(comm, 1, 0).map_err(failed)?;
    }
    let mut exes: HashMap<_, ExeKey, u8> = map(ebpf, "EXES").map_err(failed)?;
    for exe in &options.scope.exes {
        let mut key: ExeKey = [0; 256];
        match key.get_mut(..exe.len()) {
            Some(start) if exe.len() < 256 => start.copy_from_slice(exe),
            _ => return Err(AttachError::Option("the path of a program to trace has at most 255 bytes".into())),
        }
        exes.insert(key, 1, 0).map_err(failed)?;
    }
    let mut paths: LpmTrie<_, [u8; WANTED_BYTES], u32> = map(ebpf, "WANTED").map_err(failed)?;
    for (path, bits, effects) in wanted.iter().flat_map(|wanted| &wanted.paths) {
        paths.insert(&Key::new(*bits, *path), effects, 0).map_err(failed)?;
    }
    Ok(())
}

fn switching(e: LoaderMapError) -> AttachError {
    AttachError::Failed { what: "telling the programs to begin".into(), source: e.into() }
}

/// Tells the programs what is wanted of them ([`knark_abi::control`]), and forgets which functions were called.
pub(super) fn control(ebpf: &mut Ebpf, state: u32) -> Result<(), LoaderMapError> {
    let mut all = [0; CONTROL];
    all[0] = state;
    map::<Array<_, [u32; CONTROL]>>(ebpf, ".bss")?.set(0, all, 0)
}

/// A map by its name.
pub(super) fn map<'a, T>(ebpf: &'a mut Ebpf, name: &str) -> Result<T, LoaderMapError>
where
    T: TryFrom<&'a mut aya::maps::Map, Error = LoaderMapError>,
{
    T::try_from(ebpf.map_mut(name).ok_or(LoaderMapError::InvalidMapType { map_type: 0 })?)
}

/// Hands the programs to the kernel's verifier, which takes most of the time that loading takes: at once, on as many
/// CPUs as there are. Why it refused one for bodies of requests is no failure, but given.
fn verify(
    ebpf: &mut Ebpf,
    internal: &[Internal],
    options: &Options,
    asked: impl Fn(&calls::Watched) -> bool,
) -> Result<Option<AttachError>, AttachError> {
    let of_calls = |name: &str| {
        let mut programs = WATCHED.iter().filter(|call| asked(call)).map(calls::Watched::programs);
        programs.any(|(begin, end)| [begin, end].contains(&Some(name)))
    };
    let outcomes: Vec<(String, Result<(), ProgramError>)> = thread::scope(|scope| {
        let mut threads = Vec::new();
        for (name, program) in ebpf.programs_mut() {
            let name = name.to_owned();
            let internal = internal.iter().find(|probe| probe.program == name);
            let is_wanted = match name.as_str() {
                name if precise::owns(name) => false,
                watched::PROGRAM => options.events.file && !options.same.is_empty(),
                name if api::PROGRAMS.contains(&name) => options.events.api,
                name if api::BODY_PROGRAMS.contains(&name) => options.events.api && options.body_bytes > 0,
                name => of_calls(name),
            };
            if !internal.map_or(is_wanted, |probe| probe.wanted) {
                continue;
            }
            let is_run_by_hand = name == watched::PROGRAM;
            threads.push((
                name,
                scope.spawn(move || match (program, internal) {
                    (Program::RawTracePoint(program), Some(_)) => program.load(),
                    (Program::TracePoint(program), None) => program.load(),
                    (Program::RawTracePoint(program), None) if is_run_by_hand => program.load(),
                    (Program::UProbe(program), None) => program.load(),
                    _ => Err(ProgramError::UnexpectedProgramType),
                }),
            ));
        }
        let ended = |(name, thread): (String, thread::ScopedJoinHandle<'_, _>)| {
            (name, thread.join().unwrap_or(Err(ProgramError::NotLoaded)))
        };
        threads.into_iter().map(ended).collect()
    });
    let mut bodiless = None;
    for (name, outcome) in outcomes {
        match outcome.map_err(|e| verdict(&name, e)) {
            Err(e) if api::BODY_PROGRAMS.contains(&name.as_str()) => bodiless = Some(e),
            outcome => outcome?,
        }
    }
    Ok(bodiless)
}

fn attach_internal(loaded: &mut Loaded, probe: &Internal) -> Result<(), AttachError> {
    let outcome = match loaded.ebpf.program_mut(probe.program) {
        Some(Program::RawTracePoint(program)) => program.attach(probe.tracepoint).map(drop),
        _ => Err(ProgramError::UnexpectedProgramType),
    };
    let missing = |why, reason| ProbeState::Missing(why, reason);
    let state = match outcome {
        Ok(()) => ProbeState::Attached,
        Err(ProgramError::SyscallError(e)) if e.io_error.kind() == io::ErrorKind::NotFound => {
            missing(Missing::Unsupported, UNSUPPORTED.into())
        }
        Err(ProgramError::SyscallError(e)) => missing(Missing::Forbidden, format!("forbidden: {e}")),
        Err(e) => missing(Missing::Forbidden, e.to_string()),
    };
    loaded.probes.push(ProbeStatus { name: probe.tracepoint.to_owned(), tier: Tier::Portable, not_precise: None, state });
    match loaded.probes.last() {
        Some(last) if probe.needed && !last.attached() => Err(AttachError::Missing(last.clone())),
        _ => Ok(()),
    }
}

/// The ends of all calls first: a call whose beginning is seen is then seen to end. A call that can do nothing of what is
/// wanted is left alone, and so is one that the precise tier sees.
fn attach_calls(
    loaded: &mut Loaded,
    asked: impl Fn(&calls::Watched) -> bool,
    mut precise: precise::Attached,
) -> Result<(), AttachError> {
    loaded.enters.append(&mut precise.enters);
    loaded.exits.append(&mut precise.exits);
    let events = Events::open()
        .map_err(|source| AttachError::Tracefs { what: "looking for the system calls' tracepoints".into(), source })?;
    for call in WATCHED.iter().filter(|call| asked(call)) {
        let name = call.name.to_owned();
        let (tier, not_precise) = match precise.sees(call.op) {
            Ok(precise::Seen::Together) => (Tier::Precise, None),
            Ok(precise::Seen::Alone) => {
                let state = match call.nr.map(|_| events.id(&format!("sys_exit_{name}"))) {
                    None => ProbeState::Missing(Missing::Unsupported, NO_SUCH_CALL.into()),
                    Some(Ok(None)) => ProbeState::Missing(Missing::Unsupported, UNSUPPORTED.into()),
                    Some(_) => ProbeState::Attached,
                };
                loaded.probes.push(ProbeStatus { name, tier: Tier::Precise, not_precise: None, state });
                continue;
            }
            Err(reason) => (Tier::Portable, reason.map(str::to_owned)),
        };
        let state = match call.programs() {
            (None, None) => ProbeState::Missing(Missing::Forbidden, NO_FILE.into()),
            (begin, end) => {
                let attach = |which, program: Option<&str>| {
                    program.map(|name| attach(&events, which, call, of_tracepoint(&loaded.ebpf, name)?)).transpose()
                };
                // The end first, see above.
                match attach("sys_exit", end).and_then(|end| Ok((end, attach("sys_enter", begin)?))) {
                    Ok((end, begin)) => {
                        loaded.exits.extend(end);
                        loaded.enters.extend(begin);
                        ProbeState::Attached
                    }
                    Err(state) => state,
                }
            }
        };
        loaded.probes.push(ProbeStatus { name, tier, not_precise, state });
    }
    match loaded.probes.iter().find(|p| p.name == "openat" && !p.attached()) {
        Some(missing) => Err(AttachError::Missing(missing.clone())),
        None => Ok(()),
    }
}

pub(super) const UNSUPPORTED: &str = "not supported by this kernel";
/// A program for tracepoints.
fn of_tracepoint<'a>(ebpf: &'a Ebpf, name: &str) -> Result<std::os::fd::BorrowedFd<'a>, ProbeState> {
    let fd = match ebpf.program(name) {
        Some(Program::TracePoint(program)) => program.fd(),
        _ => Err(ProgramError::UnexpectedProgramType),
    };
    fd.map(|fd| fd.as_fd()).map_err(|e| ProbeState::Missing(Missing::Forbidden, e.to_string()))
}

pub(super) const NO_FILE: &str = "its tracepoint tells no file";
pub(super) const NO_SUCH_CALL: &str = "this architecture has no such call";

/// The kernel's own tracepoints that are used.
pub(super) const TRACEPOINTS: [&str; 5] =
    ["sched_process_exec", "sched_process_fork", "sched_process_exit", "cgroup_mkdir", "cgroup_rmdir"];

fn attach(
    events: &Events,
    which: &str,
    call: &calls::Watched,
    program: std::os::fd::BorrowedFd<'_>,
) -> Result<OwnedFd, ProbeState> {
    let unsupported = |why: &str| ProbeState::Missing(Missing::Unsupported, why.to_owned());
    if call.nr.is_none() {
        return Err(unsupported(NO_SUCH_CALL));
    }
    match events.id(&format!("{which}_{name}", name = call.name)) {
        Ok(Some(id)) => link::tracepoint(id, program).map_err(|e| refused(&e)),
        Ok(None) => Err(unsupported(UNSUPPORTED)),
        Err(e) => Err(refused(&e)),
    }
}

/// The bytes of a value that has no padding.
#[expect(unsafe_code, reason = "the loader takes bytes for constants")]
pub(super) fn bytes_of<T>(value: &T) -> &[u8] {
    // SAFETY: the types that this is called with are `repr(C)` integers without padding, as knark-abi asserts.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast(), size_of::<T>()) }
}
