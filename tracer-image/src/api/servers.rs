//! The API servers of this node: which processes they are, and the probes in them.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustc_hash::FxHashMap;

use super::{
    binary,
    inspection::{self, Inspection},
};
use crate::{
    bpf::{ApiProbes, Probes},
    engine::describe,
    procfs::{self, Stat},
};

/// Names of programs that an API server runs in, besides those that say so in their name.
const PROGRAMS: [&str; 7] = ["k3s", "k3s-server", "rke2", "k0s", "kubelite", "hyperkube", "microshift"];
/// So many API servers are looked at, at most: as many as the programs' map has room for.
const MOST: usize = 16;

/// A survey looks into no further program after so long: whoever asked waits for it.
const SURVEY: Duration = Duration::from_secs(10);

/// A program that was refused isn't looked into again for so long.
const REMEMBERED: Duration = Duration::from_mins(10);

/// What is attached where.
#[derive(Debug, Default)]
pub struct Servers {
    /// Bodies are wanted as well.
    bodies: bool,
    /// By pid.
    running: FxHashMap<u32, Server>,
    /// By device and inode.
    executables: FxHashMap<(u64, u64), Executable>,
    /// Programs that were looked into for nothing: when, and why they are none.
    refused: FxHashMap<Program, (Instant, String)>,
    /// Processes that are no API servers or can't be traced, as they were when that was seen.
    others: FxHashMap<u32, Stat>,
}

#[derive(Debug)]
struct Server {
    stat: Stat,
    executable: (u64, u64),
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Its program is being looked into.
    Waiting,
    /// The probes report what it does.
    Watched,
}

/// A program as it was: device, inode, and the time of its last change, in seconds and ns.
type Program = (u64, u64, i64, i64);

#[derive(Debug)]
struct Executable {
    program: Program,
    build: Build,
    attached: Option<Attached>,
}

/// Probes in an executable.
#[derive(Debug)]
struct Attached {
    requests: ApiProbes,
    /// Where bodies are wanted: their probes, or why there are none.
    bodies: Option<Result<ApiProbes, String>>,
}

#[derive(Debug)]
enum Build {
    Pending(Inspection),
    Known(Result<Box<binary::Build>, String>),
}

impl Build {
    /// Takes what has been found out; whether it is news.
    fn finish(&mut self) -> bool {
        let finished = matches!(self, Self::Pending(inspection) if inspection.is_finished());
        if finished {
            let failed = || Self::Known(Err("looking into its program failed".into()));
            if let Self::Pending(inspection) = std::mem::replace(self, failed()) {
                *self = inspection.join().map_or_else(|_| failed(), |known| Self::Known(known.map(Box::new)));
            }
        }
        finished
    }

    /// What was found out, or why nothing could be; none while that takes its time.
    fn known(&self) -> Option<Result<&binary::Build, String>> {
        match self {
            Self::Known(known) => Some(known.as_deref().map_err(Clone::clone)),
            Self::Pending(_) => None,
        }
    }
}

/// What became of an API server.
#[derive(Debug, PartialEq, Eq)]
pub enum News {
    /// It is traced: the process, in words; and why its bodies can't be, where they are wanted.
    Traced(String, Option<String>),
    /// It can't be: the process, and why.
    Refused(String, String),
    /// It has ended; its pid.
    Gone(u32),
}

/// The API servers of this node without tracing them: each process in words, and its version or why it can't be traced.
pub fn survey() -> Vec<(String, Result<String, String>)> {
    let (begun, node) = (Instant::now(), node_network());
    let mut programs: FxHashMap<(u64, u64), Result<String, String>> = FxHashMap::default();
    let mut look = |pid: u32| {
        let failed = |e: io::Error| format!("opening its program: {e}");
        let program = File::open(exe(pid)).map_err(failed)?;
        let found = program.metadata().map_err(failed)?;
        let known = programs.entry((found.dev(), found.ino())).or_insert_with(|| {
            if begun.elapsed() > SURVEY {
                return Err("not looked into: others took too long".to_owned());
            }
            let build = inspection::begin(program).join().map_err(|_| "looking into its program failed".to_owned())??;
            Ok(version(&build))
        });
        known.clone()
    };
    let (mut own, mut others) = (Vec::new(), Vec::new());
    for pid in procfs::pids().into_iter().filter(|pid| is_named_so(*pid)) {
        let Some(stat) = procfs::stat(pid) else { continue };
        let name = name(pid, &stat);
        // Any pod can run what is called so, as often as it likes.
        match node.clone().and_then(|node| check_network(pid, &node)) {
            Ok(()) if own.len() < MOST => own.push((name, look(pid))),
            Err(why) if others.len() < MOST => others.push((name, Err(why))),
            _ => {}
        }
    }
    own.append(&mut others);
    own
}

impl Servers {
    /// None yet; whether bodies of requests are wanted of those that will come.
    pub fn new(bodies: bool) -> Self {
        Self { bodies, ..Self::default() }
    }

    /// Looks for API servers that have come or gone since the last look.
    pub fn look(&mut self, probes: &mut Probes) -> Vec<News> {
        let mut news = Vec::new();
        self.running.retain(|pid, server| {
            let lives = procfs::stat(*pid).is_some_and(|stat| stat.start_ns() == server.stat.start_ns());
            if !lives && server.state == State::Watched {
                probes.forget_api_server(*pid);
                news.push(News::Gone(*pid));
            }
            lives
        });
        self.finish();
        self.find();
        let waiting = self.running.iter().filter(|(_, server)| server.state == State::Waiting);
        let mut waiting: Vec<(u64, u32)> = waiting.map(|(pid, server)| (server.stat.start_ns(), *pid)).collect();
        // The eldest first: a node's own API server runs before its pods do.
        waiting.sort_unstable();
        for (_, pid) in waiting {
            news.extend(self.trace(pid, probes));
        }
        self.drop_unused(probes);
        news
    }

    /// Processes whose programs are being looked into or will be, in words.
    pub fn waiting(&self) -> impl Iterator<Item = String> {
        let waiting = self.running.iter().filter(|(_, server)| server.state == State::Waiting);
        waiting.map(|(pid, server)| name(*pid, &server.stat))
    }

    /// Notes processes that may be API servers, by what they are called in any way. Their programs decide.
    fn find(&mut self) {
        let mut pids = procfs::pids();
        pids.sort_unstable();
        self.others.retain(|pid, _| pids.binary_search(pid).is_ok());
        for pid in pids {
            let Some(stat) = procfs::stat(pid).filter(|_| !self.running.contains_key(&pid)) else { continue };
            if self.others.get(&pid) == Some(&stat) {
                continue;
            }
            let executable = is_named_so(pid).then(|| fs::metadata(exe(pid)).ok()).flatten();
            match executable {
                Some(found) if self.running.len() < MOST => {
                    let executable = (found.dev(), found.ino());
                    self.running.insert(pid, Server { stat, executable, state: State::Waiting });
                }
                // It is looked at again when there is room.
                Some(_) => {}
                None => {
                    self.others.insert(pid, stat);
                }
            }
        }
    }

    /// Takes what has been found out of programs, and remembers which are none.
    fn finish(&mut self) {
        self.refused.retain(|_, (when, _)| when.elapsed() < REMEMBERED);
        for executable in self.executables.values_mut() {
            if executable.build.finish()
                && let Some(Err(reason)) = executable.build.known()
            {
                self.refused.insert(executable.program, (Instant::now(), reason));
            }
        }
    }

    /// Begins to look into a process's program, unless another is being looked into: each takes much memory.
    fn inspect(&self, pid: u32) -> Option<Executable> {
        if self.executables.values().any(|executable| executable.build.known().is_none()) {
            return None;
        }
        let opened = File::open(exe(pid)).and_then(|program| Ok((program.metadata()?, program)));
        let (found, file) = match opened {
            Ok(opened) => opened,
            Err(e) => {
                let build = Build::Known(Err(format!("opening its program: {e}")));
                return Some(Executable { program: Program::default(), build, attached: None });
            }
        };
        let program = (found.dev(), found.ino(), found.ctime(), found.ctime_nsec());
        let build = match self.refused.get(&program) {
            Some((_, reason)) => Build::Known(Err(reason.clone())),
            None => Build::Pending(inspection::begin(file)),
        };
        Some(Executable { program, build, attached: None })
    }

    /// Traces a process, as soon as its program has been looked into.
    fn trace(&mut self, pid: u32, probes: &mut Probes) -> Option<News> {
        if let Err(reason) = node_network().and_then(|node| check_network(pid, &node)) {
            let name = name(pid, &self.running.get(&pid)?.stat);
            self.set_aside(pid);
            return Some(News::Refused(name, reason));
        }
        let id = self.running.get(&pid)?.executable;
        if !self.executables.contains_key(&id) {
            let begun = self.inspect(pid)?;
            self.executables.insert(id, begun);
        }
        let (server, executable) = (self.running.get_mut(&pid)?, self.executables.get_mut(&id)?);
        let build = executable.build.known()?;
        let bodies = self.bodies;
        let outcome = build.and_then(|build| {
            let attached = attach(pid, build, bodies, &mut executable.attached, probes)?;
            Ok((version(build), attached.bodies.as_ref().and_then(|bodies| bodies.as_ref().err().cloned())))
        });
        let name = name(pid, &server.stat);
        Some(match outcome {
            Ok((version, bodiless)) => {
                server.state = State::Watched;
                News::Traced(format!("{name}, {version}"), bodiless)
            }
            Err(reason) => {
                self.set_aside(pid);
                News::Refused(name, reason)
            }
        })
    }

    /// Stops looking at a process whose words make no sense.
    pub fn refuse(&mut self, pid: u32, probes: &mut Probes) {
        probes.forget_api_server(pid);
        self.set_aside(pid);
    }

    /// Has a process take no more room.
    fn set_aside(&mut self, pid: u32) {
        if let Some(server) = self.running.remove(&pid) {
            self.others.insert(pid, server.stat);
        }
    }

    fn drop_unused(&mut self, probes: &mut Probes) {
        let running = &self.running;
        let is_used = |id: &(u64, u64)| running.values().any(|server| server.executable == *id);
        // What is being looked into takes memory until that has ended.
        let unused = self.executables.extract_if(|id, executable| executable.build.known().is_some() && !is_used(id));
        for (_, executable) in unused {
            if let Some(Attached { requests, bodies }) = executable.attached {
                probes.detach_api(requests);
                if let Some(Ok(bodies)) = bodies {
                    probes.detach_api(bodies);
                }
            }
        }
    }
}

/// Whether a process is in this network, its node's own, as a cluster's API server is: any pod can run one in another.
fn check_network(pid: u32, node: &Path) -> Result<(), String> {
    if network(pid)? == node { Ok(()) } else { Err("it runs in a network of its own: not the cluster's".into()) }
}

/// The node's own network: of its first process, or, where that doesn't let itself be looked at, of the kernel's threads.
fn node_network() -> Result<PathBuf, String> {
    const KTHREADD: u32 = 2;
    let is_kernels = || fs::read_link(exe(KTHREADD)).is_err_and(|e| e.kind() == io::ErrorKind::NotFound);
    network(1).or_else(|error| if is_kernels() { network(KTHREADD) } else { Err(error) })
}

fn network(pid: u32) -> Result<PathBuf, String> {
    let link = format!("/proc/{pid}/ns/net");
    fs::read_link(&link).map_err(|e| format!("finding out which network it is in failed: {link}: {e}"))
}

fn name(pid: u32, stat: &Stat) -> String {
    format!("{pid} ({})", String::from_utf8_lossy(&procfs::exe(pid, stat.start_ns())))
}

/// Whether a process may be an API server, by what it is called in any way. Its program decides.
fn is_named_so(pid: u32) -> bool {
    let command = procfs::command(pid);
    command.iter().any(|name| {
        let name = name.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        let name = String::from_utf8_lossy(name);
        name.contains("apiserver") || PROGRAMS.contains(&name.as_ref())
    })
}

/// Has the probes report what a process does.
fn attach<'a>(
    pid: u32,
    build: &binary::Build,
    bodies: bool,
    attached: &'a mut Option<Attached>,
    probes: &mut Probes,
) -> Result<&'a Attached, String> {
    let mut layout = build.layout;
    let bias = load_bias(pid).ok_or("its memory map can't be read")?;
    for address in [&mut layout.default_info, &mut layout.audit_context] {
        *address = address.wrapping_add(bias);
    }
    probes.watch_api_server(pid, &layout).map_err(|e| describe(&e))?;
    if let Some(attached) = attached {
        return Ok(attached);
    }
    let new = probes.attach_api(&exe(pid), &build.sites).inspect_err(|_| probes.forget_api_server(pid));
    let requests = new.map_err(|e| describe(&e))?;
    Ok(attached.insert(Attached { requests, bodies: bodies.then(|| attach_bodies(pid, build, probes)) }))
}

/// Has them report what requests carry; why that can't be is said, and the requests are traced without.
fn attach_bodies(pid: u32, build: &binary::Build, probes: &mut Probes) -> Result<ApiProbes, String> {
    let sites = build.bodies.as_ref().map_err(Clone::clone)?;
    match probes.bodiless() {
        Some(why) => Err(describe(why)),
        None => probes.attach_api(&exe(pid), sites).map_err(|e| describe(&e)),
    }
}

fn version(build: &binary::Build) -> String {
    match build.version.as_str() {
        "" => build.go.clone(),
        version => format!("{version}, {}", build.go),
    }
}

fn exe(pid: u32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/exe"))
}

/// The difference between where a program lies in memory and the addresses in its file; 0 for one that can't be moved.
fn load_bias(pid: u32) -> Option<u64> {
    const EXEC: u16 = 2;
    let mut head = [0; 18];
    File::open(exe(pid)).ok()?.read_exact(&mut head).ok()?;
    if u16::from_le_bytes([head[16], head[17]]) == EXEC {
        return Some(0);
    }
    let program = fs::metadata(exe(pid)).ok()?;
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).ok()?;
    // 55d0c0000000-55d0c0100000 r--p 00000000 08:01 1234 /path
    maps.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let begin = fields.next()?.split('-').next()?;
        let (offset, inode) = (fields.nth(1)?, fields.nth(1)?);
        let first = offset.bytes().all(|digit| digit == b'0') && inode == program.ino().to_string();
        first.then(|| u64::from_str_radix(begin, 16).ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_in_a_network_of_its_own_is_not_the_clusters() {
        let (pid, own) = (std::process::id(), fs::read_link("/proc/self/ns/net").unwrap());
        assert_eq!(check_network(pid, &own), Ok(()));
        assert!(check_network(pid, Path::new("net:[1]")).unwrap_err().contains("not the cluster's"));
        assert!(check_network(0, &own).unwrap_err().contains("/proc/0/ns/net"));
    }

    #[test]
    fn what_is_refused_takes_no_room() {
        let pid = std::process::id();
        let mut servers = Servers::default();
        servers.running.insert(pid, Server { stat: procfs::stat(pid).unwrap(), executable: (0, 0), state: State::Waiting });
        assert!(servers.waiting().any(|name| name.starts_with(&format!("{pid} ("))));
        servers.set_aside(pid);
        assert!(servers.running.is_empty() && servers.others.contains_key(&pid));
    }

    #[test]
    fn one_program_is_looked_into_at_a_time_and_once() {
        let mut servers = Servers::default();
        let own = std::process::id();
        let found = fs::metadata(exe(own)).unwrap();
        let program = (found.dev(), found.ino(), found.ctime(), found.ctime_nsec());
        servers.refused.insert(program, (Instant::now(), "known".into()));
        let again = servers.inspect(own).unwrap();
        assert_eq!(again.build.known().unwrap(), Err("known".to_owned()));
        let (open, pending) = std::sync::mpsc::channel::<()>();
        let other = std::thread::spawn(move || {
            // It ends when the other side is dropped.
            let _ = pending.recv();
            Err("no API server".to_owned())
        });
        let program = Program::default();
        servers.executables.insert((0, 0), Executable { program, build: Build::Pending(other), attached: None });
        servers.finish();
        assert!(servers.inspect(own).is_none());
        drop(open);
        let begun = Instant::now();
        while servers.inspect(own).is_none() {
            assert!(begun.elapsed() < Duration::from_secs(10));
            servers.finish();
            std::thread::yield_now();
        }
        assert_eq!(servers.refused[&program].1, "no API server");
    }

    #[test]
    fn this_process_is_no_api_server_and_lies_somewhere() {
        let pid = std::process::id();
        assert!(!is_named_so(pid));
        assert!(load_bias(pid).is_some_and(|bias| bias % 4096 == 0));
    }
}
