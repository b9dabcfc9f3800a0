//! The API servers of this node: which processes they are, and the probes in them.

use std::{
    fs::{self, File},
    io::Read as _,
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
};

use rustc_hash::FxHashMap;

use super::binary::{self, Build, MAX_PROGRAM, Misfit};
use crate::{
    bpf::{ApiProbes, Probes},
    procfs,
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
    /// Whether a look has been taken already.
    looked: bool,
}

#[derive(Debug)]
struct Server {
    start_ns: u64,
    executable: (u64, u64),
    /// The probes report what it does.
    watched: bool,
}

#[derive(Debug)]
struct Executable {
    build: Result<Build, String>,
    probes: Option<ApiProbes>,
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
        let late = std::mem::replace(&mut self.looked, true);
        let mut news = Vec::new();
        self.running.retain(|pid, server| {
            let lives = procfs::stat(*pid).is_some_and(|stat| stat.start_ns() == server.start_ns);
            if !lives {
                if server.watched {
                    probes.forget_api_server(*pid);
                    news.push(News::Gone(*pid));
                }
            }
            lives
        });
        for pid in procfs::pids() {
            if self.running.contains_key(&pid) || self.running.len() >= MOST || !is_named_so(pid) {
                continue;
            }
            let Some(stat) = procfs::stat(pid) else { continue };
            let path = PathBuf::from(format!("/proc/{pid}/exe"));
            let Ok(found) = fs::metadata(&path) else { continue };
            let executable = (found.dev(), found.ino());
            let outcome = self.trace(pid, executable, &path, probes);
            let server = Server { start_ns: stat.start_ns(), executable, watched: outcome.is_ok() };
            self.running.insert(pid, server);
            let name = format!("{pid} ({})", String::from_utf8_lossy(&procfs::exe(pid, stat.start_ns())));
            news.push(match outcome {
                Ok(version) if late => News::Traced(format!("{name}, {version}; what it did before this moment was not seen")),
                Ok(version) => News::Traced(format!("{name}, {version}")),
                Err(reason) => News::Refused(name, reason),
            });
        }
        self.drop_unused(probes);
        news
    }

    /// Stops looking at a process whose words make no sense.
    pub fn refuse(&mut self, pid: u32, probes: &mut Probes) {
        probes.forget_api_server(pid);
        if let Some(server) = self.running.get_mut(&pid) {
            server.watched = false;
        }
    }

    fn trace(&mut self, pid: u32, id: (u64, u64), path: &PathBuf, probes: &mut Probes) -> Result<String, String> {
        let executable = self.executables.entry(id).or_insert_with(|| Executable { build: build(path), probes: None });
        let build = executable.build.as_ref().map_err(Clone::clone)?;
        let mut layout = build.layout;
        layout.default_info = layout.default_info.wrapping_add(load_bias(pid, path).ok_or("its memory map can't be read")?);
        probes.watch_api_server(pid, &layout).map_err(|e| crate::engine::describe(&e))?;
        if executable.probes.is_none() {
            let attached = probes.attach_api(path, &build.sites).map_err(|e| crate::engine::describe(&e));
            executable.probes = Some(attached.inspect_err(|_| probes.forget_api_server(pid))?);
        }
        Ok(match build.version.as_str() {
            "" => build.go.clone(),
            version => format!("{version}, {}", build.go),
        })
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

fn build(path: &PathBuf) -> Result<Build, String> {
    let read = || -> std::io::Result<Vec<u8>> {
        let file = File::open(path)?;
        let size = file.metadata()?.len();
        if size > MAX_PROGRAM {
            let text = format!("it has {} MiB, more than the {} MiB that are looked into", size >> 20, MAX_PROGRAM >> 20);
            return Err(std::io::Error::other(text));
        }
        let mut program = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
        file.take(MAX_PROGRAM).read_to_end(&mut program)?;
        Ok(program)
    };
    let program = read().map_err(|e| format!("reading its program: {e}"))?;
    // Any container may hold a program of that name.
    let inspected = std::panic::catch_unwind(|| binary::inspect(&program)).unwrap_or(Err(Misfit::NotGo));
    inspected.map_err(|misfit| misfit.to_string())
}

/// The difference between where a program lies in memory and the addresses in its file; 0 for one that can't be moved.
fn load_bias(pid: u32, program: &PathBuf) -> Option<u64> {
    const EXEC: u16 = 2;
    let mut head = [0; 18];
    File::open(program).ok()?.read_exact(&mut head).ok()?;
    if u16::from_le_bytes([head[16], head[17]]) == EXEC {
        return Some(0);
    }
    let exe = fs::metadata(program).ok()?;
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).ok()?;
    // 55d0c0000000-55d0c0100000 r--p 00000000 08:01 1234 /path
    maps.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let begin = fields.next()?.split('-').next()?;
        let (offset, inode) = (fields.nth(1)?, fields.nth(1)?);
        let first = offset.bytes().all(|digit| digit == b'0') && inode == exe.ino().to_string();
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
        let path = PathBuf::from("/proc/self/exe");
        assert!(load_bias(pid, &path).is_some_and(|bias| bias % 4096 == 0));
        let why = build(&path).unwrap_err();
        assert!(why.starts_with("it "), "{why}");
    }
}
