//! The precise tier: programs on the kernel's own functions, each for some system calls.

use std::{
    ffi::CString,
    io,
    os::fd::{AsRawFd as _, OwnedFd},
    thread,
};

use aya::{
    Btf as LoaderBtf, Ebpf,
    maps::Array,
    programs::{Program, ProgramError},
};
use knark_abi::{CONTROL, Op};
use rustc_hash::FxHashMap;
use rustix::fs::{self, AtFlags, FileType, MemfdFlags, Mode, OFlags, RenameFlags, XattrFlags};

use super::{
    Missing,
    btf::Btf,
    calls::{self, WATCHED},
    groups::{GROUPS, Group, Probe, Tracepoints, When},
    link, load,
};

/// A program, and the function that it goes to here.
type Found = (&'static Probe, &'static str);

/// Why a call isn't seen by the precise tier.
pub(super) type Refusal = (Missing, String);

/// What the precise tier can do on this kernel, before anything is loaded.
pub(super) struct Plan {
    /// Of each group: the programs and their functions.
    groups: Vec<(&'static Group, Result<Vec<Found>, Refusal>)>,
    /// Operations whose functions are given copied names, as bits.
    pub(super) copied_names: u64,
    /// Operations to whose tracepoints programs add, likewise.
    pub(super) joined: u64,
}

/// Who sees a call.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// Programs on the kernel's functions.
    Alone,
    /// These, and its tracepoints.
    Together,
}

/// What came of it: the calls that are seen by this tier; of the others, why.
#[derive(Default)]
pub(super) struct Attached {
    /// Links of programs where functions begin: to be closed before the others.
    pub(super) enters: Vec<OwnedFd>,
    /// Links where they end.
    pub(super) exits: Vec<OwnedFd>,
    /// By operation; of those that need their tracepoints all the same, only refusals.
    calls: FxHashMap<u8, Result<Seen, Refusal>>,
}

impl Attached {
    /// Whether this tier sees the call; or why not, if that is known.
    pub(super) fn sees(&self, op: Op) -> Result<Seen, Option<&str>> {
        match self.calls.get(&(op as u8)) {
            Some(Ok(seen)) => Ok(*seen),
            Some(Err((_, reason))) => Err(Some(reason)),
            None => Err(None),
        }
    }
}

/// Whether a program belongs to this tier.
pub(super) fn owns(program: &str) -> bool {
    GROUPS.iter().flat_map(|group| group.probes).any(|probe| probe.program == program)
}

/// Looks which functions this kernel has, for the calls that are `asked` for.
pub(super) fn plan(btf: &Btf, asked: impl Fn(&calls::Watched) -> bool) -> Plan {
    let names: Vec<&'static str> =
        GROUPS.iter().flat_map(|group| group.probes).flat_map(|probe| probe.functions).copied().collect();
    let known = btf.functions(&names);
    let mut plan = Plan { groups: Vec::new(), copied_names: 0, joined: 0 };
    for group in GROUPS.iter().filter(|group| WATCHED.iter().any(|call| group.calls.contains(&call.op) && asked(call))) {
        let found = find(group, &known);
        let takes_copies = |probes: &Vec<Found>| {
            probes.first().and_then(|(_, function)| known.get(function)).is_some_and(|types| types.contains(&&b"filename"[..]))
        };
        if found.as_ref().is_ok_and(takes_copies) {
            plan.copied_names |= 1 << group.op as u8;
        }
        if group.tracepoints == Tracepoints::Joined && found.is_ok() {
            plan.joined |= group.calls.iter().fold(0, |ops, op| ops | 1 << *op as u8);
        }
        plan.groups.push((group, found));
    }
    plan
}

fn find(group: &'static Group, known: &FxHashMap<&'static str, Vec<&[u8]>>) -> Result<Vec<Found>, Refusal> {
    let mut found = Vec::new();
    for probe in group.probes {
        match probe.functions.iter().find_map(|name| known.get_key_value(name)) {
            Some((function, parameters)) if parameters.len() == probe.parameters => found.push((probe, *function)),
            Some(_) if probe.optional => {}
            Some((function, _)) => {
                return Err((Missing::Unsupported, format!("the function {function} of this kernel has other parameters")));
            }
            None if probe.optional => {}
            None => {
                let names = probe.functions.join(" or ");
                return Err((Missing::Unsupported, format!("this kernel has no function {names}")));
            }
        }
    }
    Ok(found)
}

/// Loads and attaches. What this kernel refuses is left to the other tier.
pub(super) fn attach(ebpf: &mut Ebpf, plan: Plan) -> Attached {
    let mut attached = Attached::default();
    let types = LoaderBtf::from_sys_fs().map_err(|e| (Missing::Unsupported, format!("the kernel's types can't be read: {e}")));
    let mut refused = types.as_ref().err().cloned();
    for (group, probes) in plan.groups {
        let outcome = match (&refused, probes, &types) {
            (Some(refusal), _, _) => Err(refusal.clone()),
            (None, Err(refusal), _) => Err(refusal),
            (None, Ok(probes), Ok(types)) => {
                load(ebpf, &probes, types).and_then(|()| attach_all(ebpf, group, &probes, &mut attached))
            }
            (None, Ok(_), Err(refusal)) => Err(refusal.clone()),
        };
        // What is forbidden for one is forbidden for all, and trying takes time.
        if let Err(refusal @ (Missing::Forbidden, _)) = &outcome {
            refused = Some(refusal.clone());
        }
        let seen = match group.tracepoints {
            Tracepoints::Needless => Some(Seen::Alone),
            Tracepoints::Joined => Some(Seen::Together),
            Tracepoints::Apart => None,
        };
        for op in group.calls {
            match (&outcome, seen) {
                (Ok(()), Some(seen)) => drop(attached.calls.insert(*op as u8, Ok(seen))),
                (Ok(()), None) => {}
                (Err(refusal), _) => drop(attached.calls.insert(*op as u8, Err(refusal.clone()))),
            }
        }
    }
    attached
}

/// Hands a group's programs to the kernel's verifier, all at once.
fn load(ebpf: &mut Ebpf, probes: &[Found], types: &LoaderBtf) -> Result<(), Refusal> {
    thread::scope(|scope| {
        let mut threads = Vec::new();
        for (name, program) in ebpf.programs_mut() {
            let Some((_, function)) = probes.iter().find(|(probe, _)| probe.program == name) else { continue };
            threads.push(scope.spawn(move || match program {
                Program::FEntry(program) => program.load(function, types),
                Program::FExit(program) => program.load(function, types),
                _ => Err(ProgramError::UnexpectedProgramType),
            }));
        }
        let outcomes: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap_or(Err(ProgramError::NotLoaded))).collect();
        outcomes.into_iter().try_for_each(|outcome| outcome.map_err(|e| refusal(&e)))
    })
}

fn attach_all(ebpf: &mut Ebpf, group: &Group, probes: &[Found], attached: &mut Attached) -> Result<(), Refusal> {
    let (mut enters, mut exits) = (Vec::new(), Vec::new());
    for when in [When::End, When::Begin] {
        for (probe, _) in probes.iter().filter(|(probe, _)| probe.when == when) {
            let fd = match ebpf.program(probe.program) {
                Some(Program::FEntry(program)) => program.fd(),
                Some(Program::FExit(program)) => program.fd(),
                _ => Err(ProgramError::UnexpectedProgramType),
            };
            let fd = fd.map_err(|e| refusal(&e))?;
            let link = link::function(std::os::fd::AsFd::as_fd(fd)).map_err(|e| refused(&e))?;
            if when == When::End { exits.push(link) } else { enters.push(link) }
        }
    }
    let of_calls = group.tried.iter().map(|op| (*op as u8, calls::call_name(*op)));
    let of_functions = probes.iter().filter_map(|(probe, function)| Some((probe.tried?, *function)));
    if let Some(name) = unseen(ebpf, &of_calls.chain(of_functions).collect::<Vec<_>>()) {
        return Err((Missing::Unsupported, format!("on this kernel {name} doesn't come by the function that it should come by")));
    }
    attached.enters.append(&mut enters);
    attached.exits.append(&mut exits);
    Ok(())
}

/// The name of the first of these operations or functions that isn't seen although it is done.
fn unseen(ebpf: &mut Ebpf, tried: &[(u8, &'static str)]) -> Option<&'static str> {
    /// Where the kernel preempts programs, it may skip one.
    const TIMES: u32 = 3;
    let mut unseen = None;
    for _ in 0..TIMES {
        exercise();
        let noted = load::map::<Array<_, [u32; CONTROL]>>(ebpf, ".bss").and_then(|map| map.get(&0, 0)).unwrap_or([0; CONTROL]);
        unseen = tried.iter().find(|(by, _)| noted.get(1 + usize::from(*by)) != Some(&1)).map(|(_, name)| *name);
        if unseen.is_none() {
            break;
        }
    }
    unseen
}

/// Does everything that the functions are for, without doing anything: to names that can't be, and to memory of its own.
fn exercise() {
    let none = "/proc/self/no such folder/x";
    let at = fs::CWD;
    // What comes of it is of no interest: it has passed by, or it has not.
    let _ = fs::unlinkat(at, none, AtFlags::empty());
    let _ = fs::unlinkat(at, none, AtFlags::REMOVEDIR);
    let _ = fs::renameat_with(at, none, at, none, RenameFlags::NOREPLACE);
    let _ = fs::linkat(at, none, at, none, AtFlags::empty());
    let _ = fs::symlinkat("x", at, none);
    let _ = fs::mkdirat(at, none, Mode::empty());
    let _ = fs::mknodat(at, none, FileType::Fifo, Mode::empty(), 0);
    let _ = fs::chownat(at, none, None, None, AtFlags::empty());
    let _ = fs::open(none, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    if let Ok(memory) = fs::memfd_create("knark", MemfdFlags::CLOEXEC) {
        let _ = fs::fchmod(&memory, Mode::RUSR | Mode::WUSR);
        let _ = fs::fchown(&memory, None, None);
        let _ = fs::ftruncate(&memory, 0);
        let _ = rustix::io::write(&memory, b"x");
        map_and_protect(&memory);
        let _ = fs::fsetxattr(&memory, "user.knark", b"", XattrFlags::empty());
        let _ = fs::fremovexattr(&memory, "user.knark");
        if let Ok(path) = CString::new(format!("/proc/self/fd/{}", memory.as_raw_fd())) {
            #[expect(unsafe_code, reason = "nothing safe has it but by opening the file")]
            // SAFETY: the path outlives the call.
            unsafe {
                libc::truncate(path.as_ptr(), 0)
            };
        }
    }
}

/// Maps a page of it, has it protected as it is already, and takes it away.
fn map_and_protect(memory: &OwnedFd) {
    const PAGE: usize = 4096;
    #[expect(unsafe_code, reason = "it maps memory")]
    // SAFETY: the kernel chooses where the page lies, nobody else knows of it, and nothing is read there.
    unsafe {
        let (read, private) = (libc::PROT_READ, libc::MAP_PRIVATE);
        let page = libc::mmap(std::ptr::null_mut(), PAGE, read, private, memory.as_raw_fd(), 0);
        if page != libc::MAP_FAILED {
            libc::mprotect(page, PAGE, read);
            libc::munmap(page, PAGE);
        }
    }
}

fn refusal(e: &ProgramError) -> Refusal {
    match e {
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();
            let said = log.lines().rfind(|line| !line.is_empty() && !line.starts_with("processed ")).unwrap_or_default();
            let (missing, why) = refused(io_error);
            (missing, if said.is_empty() { why } else { format!("{why}: {said}") })
        }
        ProgramError::SyscallError(e) => refused(&e.io_error),
        e => (Missing::Unsupported, e.to_string()),
    }
}

fn refused(e: &io::Error) -> Refusal {
    match e.raw_os_error() {
        Some(libc::EPERM) => (Missing::Forbidden, "programs on the kernel's functions are forbidden here".to_owned()),
        _ => (Missing::Unsupported, format!("no program can be attached to the kernel's functions: {e}")),
    }
}
