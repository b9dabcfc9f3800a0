//! What /proc says of a process that was there before the probes.

use std::{
    fs,
    io::Read as _,
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
};

/// More arguments aren't read.
const MAX_ARGS: u64 = 64 << 10;
/// Longest first argument that is read, in bytes.
const MAX_NAME: u64 = 4 << 10;
/// More ancestors aren't followed.
pub const MAX_ANCESTORS: usize = 16;

/// A process, as /proc shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProcProcess {
    /// The executable's path.
    pub exe: Vec<u8>,
    /// Arguments, each ended by a NUL.
    pub args: Vec<u8>,
    /// Working directory.
    pub cwd: Vec<u8>,
    /// Main thread's name.
    pub comm: Vec<u8>,
}

/// The identity that /proc/PID/stat tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    /// Main thread's name.
    pub comm: Vec<u8>,
    /// Parent.
    pub ppid: u32,
    /// Start in clock ticks since boot.
    start_ticks: u64,
}

impl Stat {
    /// Start, `CLOCK_BOOTTIME`, ns; rounded down to a clock tick.
    pub fn start_ns(&self) -> u64 {
        self.start_ticks.saturating_mul(tick_ns())
    }

    fn started_at(&self, start_ns: u64) -> bool {
        start_ns.abs_diff(self.start_ns()) <= 2 * tick_ns()
    }
}

/// Describes the process that has this pid and started at this time; `None` when it has gone.
pub fn process(pid: u32, start_ns: u64) -> Option<ProcProcess> {
    let (exe, cwd) = (link(pid, "exe"), link(pid, "cwd"));
    let mut args = Vec::new();
    if let Ok(file) = fs::File::open(format!("/proc/{pid}/cmdline")) {
        let _ = file.take(MAX_ARGS).read_to_end(&mut args);
    }
    // Read last: if the pid was given to another process meanwhile, its start differs.
    let stat = stat(pid).filter(|stat| stat.started_at(start_ns))?;
    Some(ProcProcess { exe, args, cwd, comm: stat.comm })
}

/// Reads /proc/PID/stat.
pub fn stat(pid: u32) -> Option<Stat> {
    parse_stat(&fs::read(format!("/proc/{pid}/stat")).ok()?)
}

/// The executable of the process that has this pid and started at this time; empty when it has gone or has none.
pub fn exe(pid: u32, start_ns: u64) -> Vec<u8> {
    let exe = link(pid, "exe");
    if stat(pid).is_some_and(|stat| stat.started_at(start_ns)) { exe } else { Vec::new() }
}

/// What a process is called: its main thread's name, its executable's path, and its first argument.
pub fn command(pid: u32) -> Vec<Vec<u8>> {
    let mut first = Vec::new();
    if let Ok(file) = fs::File::open(format!("/proc/{pid}/cmdline")) {
        let _ = file.take(MAX_NAME).read_to_end(&mut first);
    }
    first.truncate(first.iter().position(|byte| *byte == 0).unwrap_or(first.len()));
    let comm = stat(pid).map(|stat| stat.comm).unwrap_or_default();
    vec![comm, link(pid, "exe"), first]
}

/// This process, its parent and so on, nearest first, up to [`MAX_ANCESTORS`]: pid and identity.
pub fn ancestors(mut pid: u32) -> Vec<(u32, Stat)> {
    let mut chain = Vec::new();
    while pid != 0 && chain.len() < MAX_ANCESTORS {
        let Some(stat) = stat(pid) else { break };
        let next = stat.ppid;
        chain.push((pid, stat));
        pid = next;
    }
    chain
}

/// All processes.
pub fn pids() -> Vec<u32> {
    let Ok(proc) = fs::read_dir("/proc") else { return Vec::new() };
    proc.flatten().filter_map(|entry| std::str::from_utf8(entry.file_name().as_bytes()).ok()?.parse().ok()).collect()
}

fn link(pid: u32, name: &str) -> Vec<u8> {
    let target = fs::read_link(format!("/proc/{pid}/{name}")).map(|path| path.into_os_string().into_vec()).unwrap_or_default();
    match target.strip_suffix(b" (deleted)") {
        Some(name) => name.to_vec(),
        None => target,
    }
}

fn tick_ns() -> u64 {
    1_000_000_000 / rustix::param::clock_ticks_per_second().max(1)
}

/// pid (comm) state ppid pgrp ... with starttime as field 22; comm may hold anything, blanks and brackets included (proc(5)).
fn parse_stat(text: &[u8]) -> Option<Stat> {
    let (open, close) = (text.iter().position(|b| *b == b'(')?, text.iter().rposition(|b| *b == b')')?);
    let comm = text.get(open + 1..close)?.to_vec();
    let mut fields = std::str::from_utf8(text.get(close + 1..)?).ok()?.split_ascii_whitespace();
    let ppid = fields.nth(1)?.parse().ok()?;
    let start_ticks = fields.nth(17)?.parse().ok()?;
    Some(Stat { comm, ppid, start_ticks })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_survives_hostile_names() {
        let text = b"42 (a) b (c) S 7 42 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 12345 1 1 1\n";
        let stat = parse_stat(text).unwrap();
        assert_eq!((stat.comm.as_slice(), stat.ppid, stat.start_ticks), (&b"a) b (c"[..], 7, 12345));
        assert_eq!(parse_stat(b"42 (cut"), None);
        assert_eq!(parse_stat(b""), None);
    }

    #[test]
    fn this_process() {
        let stat = stat(std::process::id()).unwrap();
        let found = process(std::process::id(), stat.start_ns()).unwrap();
        assert_eq!(found.exe, std::env::current_exe().unwrap().into_os_string().into_vec());
        assert!(found.args.ends_with(b"\0"));
        assert_eq!(process(std::process::id(), stat.start_ns() + 5_000_000_000), None);
        assert_eq!(ancestors(std::process::id()).first().map(|(pid, ..)| *pid), Some(std::process::id()));
    }
}
