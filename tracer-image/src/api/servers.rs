//! The API servers of this node: which processes they are, and the probes in them.

use std::{
    collections::hash_map::Entry,
    fs::{self, File},
    io::Read as _,
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
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

/// What is attached where.
#[derive(Debug, Default)]
pub struct Servers {
    /// By pid.
    running: FxHashMap<u32, Server>,
    /// By device and inode.
    executables: FxHashMap<(u64, u64), Executable>,
    /// Processes that are called otherwise, as they were when that was seen.
    others: FxHashMap<u32, Stat>,
}

#[derive(Debug)]
struct Server {
    start_ns: u64,
    executable: (u64, u64),
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Its program is being looked into.
    Waiting,
    /// The probes report what it does.
    Watched,
    /// They don't, and it was said why.
    Refused,
}

#[derive(Debug)]
struct Executable {
    build: Build,
    probes: Option<ApiProbes>,
}

#[derive(Debug)]
enum Build {
    Pending(Inspection),
    Known(Result<binary::Build, String>),
}

impl Build {
    /// What was found out, or why nothing could be; none while that takes its time.
    fn known(&mut self) -> Option<Result<&binary::Build, String>> {
        if let Self::Pending(inspection) = self {
            if !inspection.is_finished() {
                return None;
            }
            let failed = || Self::Known(Err("looking into its program failed".into()));
            if let Self::Pending(finished) = std::mem::replace(self, failed()) {
                *self = finished.join().map_or_else(|_| failed(), Self::Known);
            }
        }
        match self {
            Self::Known(known) => Some(known.as_ref().map_err(Clone::clone)),
            Self::Pending(_) => None,
        }
    }
}

/// What became of an API server.
#[derive(Debug, PartialEq, Eq)]
pub enum News {
    /// It is traced: the process, in words.
    Traced(String),
    /// It can't be: the process, and why.
    Refused(String, String),
    /// It has ended; its pid.
    Gone(u32),
}

impl Servers {
    /// Looks for API servers that have come or gone since the last look.
    pub fn look(&mut self, probes: &mut Probes) -> Vec<News> {
        let mut news = Vec::new();
        self.running.retain(|pid, server| {
            let lives = procfs::stat(*pid).is_some_and(|stat| stat.start_ns() == server.start_ns);
            if !lives && server.state == State::Watched {
                probes.forget_api_server(*pid);
                news.push(News::Gone(*pid));
            }
            lives
        });
        self.find();
        let waiting: Vec<u32> =
            self.running.iter().filter(|(_, server)| server.state == State::Waiting).map(|(pid, _)| *pid).collect();
        for pid in waiting {
            news.extend(self.trace(pid, probes));
        }
        self.drop_unused(probes);
        news
    }

    /// Whether programs are being looked into.
    pub fn is_waiting(&self) -> bool {
        self.running.values().any(|server| server.state == State::Waiting)
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
                    self.running.insert(pid, Server { start_ns: stat.start_ns(), executable, state: State::Waiting });
                }
                _ => {
                    self.others.insert(pid, stat);
                }
            }
        }
    }

    /// Traces a process, as soon as its program has been looked into.
    fn trace(&mut self, pid: u32, probes: &mut Probes) -> Option<News> {
        let server = self.running.get_mut(&pid)?;
        let executable = match self.executables.entry(server.executable) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let build = match File::open(exe(pid)) {
                    Ok(program) => Build::Pending(inspection::begin(program)),
                    Err(e) => Build::Known(Err(format!("opening its program: {e}"))),
                };
                new.insert(Executable { build, probes: None })
            }
        };
        let build = executable.build.known()?;
        let outcome = build.and_then(|build| attach(pid, build, &mut executable.probes, probes));
        server.state = if outcome.is_ok() { State::Watched } else { State::Refused };
        let name = format!("{pid} ({})", String::from_utf8_lossy(&procfs::exe(pid, server.start_ns)));
        Some(match outcome {
            Ok(version) => News::Traced(format!("{name}, {version}")),
            Err(reason) => News::Refused(name, reason),
        })
    }

    /// Stops looking at a process whose words make no sense.
    pub fn refuse(&mut self, pid: u32, probes: &mut Probes) {
        probes.forget_api_server(pid);
        if let Some(server) = self.running.get_mut(&pid) {
            server.state = State::Refused;
        }
    }

    fn drop_unused(&mut self, probes: &mut Probes) {
        let running = &self.running;
        let unused = self.executables.extract_if(|id, _| !running.values().any(|server| server.executable == *id));
        for (_, executable) in unused {
            if let Some(attached) = executable.probes {
                probes.detach_api(attached);
            }
        }
    }
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

/// Has the probes report what a process does; in words, what it is.
fn attach(pid: u32, build: &binary::Build, attached: &mut Option<ApiProbes>, probes: &mut Probes) -> Result<String, String> {
    let mut layout = build.layout;
    let bias = load_bias(pid).ok_or("its memory map can't be read")?;
    layout.default_info = layout.default_info.wrapping_add(bias);
    probes.watch_api_server(pid, &layout).map_err(|e| describe(&e))?;
    if attached.is_none() {
        let new = probes.attach_api(&exe(pid), &build.sites).inspect_err(|_| probes.forget_api_server(pid));
        *attached = Some(new.map_err(|e| describe(&e))?);
    }
    Ok(match build.version.as_str() {
        "" => build.go.clone(),
        version => format!("{version}, {}", build.go),
    })
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
    fn this_process_is_no_api_server_and_lies_somewhere() {
        let pid = std::process::id();
        assert!(!is_named_so(pid));
        assert!(load_bias(pid).is_some_and(|bias| bias % 4096 == 0));
    }
}
