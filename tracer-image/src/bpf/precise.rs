//! The precise tier: programs on the kernel's own functions, each for some system calls.

use std::{io, os::fd::OwnedFd, thread};

use aya::{
    Btf as LoaderBtf, Ebpf,
    maps::Array,
    programs::{Program, ProgramError},
};
use knark_abi::{CONTROL, Op};
use rustc_hash::FxHashMap;
use rustix::fs::{self, AtFlags, FileType, MemfdFlags, Mode, OFlags, RenameFlags};

use super::{
    Missing,
    btf::Btf,
    calls::{self, WATCHED},
    link, load,
};

/// A program, and the kernel's function that it goes to.
struct Probe {
    program: &'static str,
    /// By the names that it has had.
    functions: &'static [&'static str],
    /// How many parameters it must have.
    parameters: usize,
    when: When,
    /// Whether it does without: a kernel that lacks this function lacks the call, too.
    optional: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    /// Where it ends: attached first, so that what is seen to begin is seen to end.
    End,
    /// Where it begins.
    Begin,
}

/// Programs that together see all that some system calls do, by whichever way.
struct Group {
    /// The calls, which need no tracepoints then.
    calls: &'static [Op],
    /// Whether these do need them: the programs see what no such call makes.
    beside: bool,
    /// The one whose arguments the function takes that is given names.
    op: Op,
    /// What [`exercise`] must be seen to do: a compiler may have put a function into its callers, so that nothing comes by it.
    tried: &'static [Op],
    probes: &'static [Probe],
}

const fn end(program: &'static str, functions: &'static [&'static str], parameters: usize) -> Probe {
    Probe { program, functions, parameters, when: When::End, optional: false }
}

const fn begin(program: &'static str, functions: &'static [&'static str], parameters: usize) -> Probe {
    Probe { program, functions, parameters, when: When::Begin, optional: false }
}

/// On the function of a system call, which is given its registers.
const fn call(program: &'static str, functions: &'static [&'static str], when: When) -> Probe {
    Probe { program, functions, parameters: 1, when, optional: true }
}

/// The function of a system call.
#[cfg(target_arch = "x86_64")]
macro_rules! system_call {
    ($name:literal) => {
        &[concat!("__x64_sys_", $name)]
    };
}
#[cfg(target_arch = "aarch64")]
macro_rules! system_call {
    ($name:literal) => {
        &[concat!("__arm64_sys_", $name)]
    };
}

/// The first probe of a group is on the function that is given names.
static GROUPS: [Group; 9] = [
    Group {
        calls: &[Op::Chmod, Op::Fchmod, Op::Fchmodat, Op::Fchmodat2],
        beside: false,
        op: Op::Fchmodat,
        tried: &[Op::Fchmod],
        probes: &[
            call("call_chmod_enter", system_call!("chmod"), When::Begin),
            call("call_chmod_exit", system_call!("chmod"), When::End),
            call("call_fchmodat_enter", system_call!("fchmodat"), When::Begin),
            call("call_fchmodat_exit", system_call!("fchmodat"), When::End),
            call("call_fchmodat2_enter", system_call!("fchmodat2"), When::Begin),
            call("call_fchmodat2_exit", system_call!("fchmodat2"), When::End),
            begin("chmod_enter", &["chmod_common"], 2),
            end("chmod_exit", &["chmod_common"], 2),
        ],
    },
    Group {
        calls: &[Op::Chown, Op::Lchown, Op::Fchown, Op::Fchownat],
        beside: false,
        op: Op::Fchownat,
        tried: &[Op::Fchown, Op::Fchownat],
        probes: &[
            begin("fchownat_enter", &["do_fchownat"], 5),
            end("fchownat_exit", &["do_fchownat"], 5),
            begin("chown_enter", &["chown_common"], 3),
            end("chown_exit", &["chown_common"], 3),
        ],
    },
    Group {
        calls: &[Op::Unlink, Op::Unlinkat, Op::Rmdir],
        beside: false,
        op: Op::Unlinkat,
        tried: &[Op::Unlinkat, Op::Rmdir],
        probes: &[
            begin("unlinkat_enter", &["do_unlinkat", "filename_unlinkat"], 2),
            end("unlinkat_exit", &["do_unlinkat", "filename_unlinkat"], 2),
            begin("rmdir_enter", &["do_rmdir", "filename_rmdir"], 2),
            end("rmdir_exit", &["do_rmdir", "filename_rmdir"], 2),
            begin("unlink_found", &["security_path_unlink"], 2),
            begin("rmdir_found", &["security_path_rmdir"], 2),
        ],
    },
    Group {
        calls: &[Op::Rename, Op::Renameat, Op::Renameat2],
        beside: false,
        op: Op::Renameat2,
        tried: &[Op::Renameat2],
        probes: &[
            begin("renameat2_enter", &["do_renameat2", "filename_renameat2"], 5),
            end("renameat2_exit", &["do_renameat2", "filename_renameat2"], 5),
            begin("rename_found", &["security_path_rename"], 5),
        ],
    },
    Group {
        calls: &[Op::Link, Op::Linkat],
        beside: false,
        op: Op::Linkat,
        tried: &[Op::Linkat],
        probes: &[
            begin("linkat_enter", &["do_linkat", "filename_linkat"], 5),
            end("linkat_exit", &["do_linkat", "filename_linkat"], 5),
            begin("link_found", &["security_path_link"], 3),
        ],
    },
    Group {
        calls: &[Op::Symlink, Op::Symlinkat],
        beside: false,
        op: Op::Symlinkat,
        tried: &[Op::Symlinkat],
        probes: &[
            begin("symlinkat_enter", &["do_symlinkat", "filename_symlinkat"], 3),
            end("symlinkat_exit", &["do_symlinkat", "filename_symlinkat"], 3),
            begin("symlink_found", &["security_path_symlink"], 3),
        ],
    },
    Group {
        calls: &[Op::Mkdir, Op::Mkdirat],
        beside: false,
        op: Op::Mkdirat,
        tried: &[Op::Mkdirat],
        probes: &[
            begin("mkdirat_enter", &["do_mkdirat", "filename_mkdirat"], 3),
            end("mkdirat_exit", &["do_mkdirat", "filename_mkdirat"], 3),
            begin("mkdir_found", &["security_path_mkdir"], 3),
        ],
    },
    Group {
        calls: &[Op::Mknod, Op::Mknodat],
        beside: false,
        op: Op::Mknodat,
        tried: &[Op::Mknodat],
        probes: &[
            begin("mknodat_enter", &["do_mknodat", "filename_mknodat"], 4),
            end("mknodat_exit", &["do_mknodat", "filename_mknodat"], 4),
            begin("mknod_found", &["security_path_mknod"], 4),
        ],
    },
    Group {
        calls: &[Op::Open, Op::Openat, Op::Openat2, Op::Creat],
        beside: true,
        op: Op::Openat,
        tried: &[Op::Openat],
        probes: &[end("file_open_exit", &["do_filp_open", "do_file_open"], 3)],
    },
];

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
}

/// What came of it: the calls that need no tracepoints; of the others, why.
#[derive(Default)]
pub(super) struct Attached {
    /// Links of programs where functions begin: to be closed before the others.
    pub(super) enters: Vec<OwnedFd>,
    /// Links where they end.
    pub(super) exits: Vec<OwnedFd>,
    /// By operation; of those that need their tracepoints all the same, only refusals.
    calls: FxHashMap<u8, Result<(), Refusal>>,
}

impl Attached {
    /// Whether this tier sees the call; or why not, if that is known.
    pub(super) fn sees(&self, op: Op) -> Result<(), Option<&str>> {
        match self.calls.get(&(op as u8)) {
            Some(Ok(())) => Ok(()),
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
    let mut plan = Plan { groups: Vec::new(), copied_names: 0 };
    for group in GROUPS.iter().filter(|group| WATCHED.iter().any(|call| group.calls.contains(&call.op) && asked(call))) {
        let found = find(group, &known);
        let takes_copies = |probes: &Vec<Found>| {
            probes.first().and_then(|(_, function)| known.get(function)).is_some_and(|types| types.contains(&&b"filename"[..]))
        };
        if found.as_ref().is_ok_and(takes_copies) {
            plan.copied_names |= 1 << group.op as u8;
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
        for op in group.calls.iter().filter(|_| !group.beside || outcome.is_err()) {
            attached.calls.insert(*op as u8, outcome.clone());
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
    if let Some(op) = unseen(ebpf, group.tried) {
        let name = calls::call_name(op);
        return Err((Missing::Unsupported, format!("on this kernel {name} doesn't come by the function that it should come by")));
    }
    attached.enters.append(&mut enters);
    attached.exits.append(&mut exits);
    Ok(())
}

/// The first of these operations that isn't seen although it is done.
fn unseen(ebpf: &mut Ebpf, tried: &[Op]) -> Option<Op> {
    /// Where the kernel preempts programs, it may skip one.
    const TIMES: u32 = 3;
    let mut unseen = None;
    for _ in 0..TIMES {
        exercise();
        let noted = load::map::<Array<_, [u32; CONTROL]>>(ebpf, ".bss").and_then(|map| map.get(&0, 0)).unwrap_or([0; CONTROL]);
        unseen = tried.iter().find(|op| noted.get(1 + **op as usize) != Some(&1)).copied();
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
