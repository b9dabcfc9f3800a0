//! Work in a traced process, and what the probes say of it.

use std::{
    ffi::{CStr, CString},
    fs::File,
    io::{self, Read as _, Write as _},
    os::{
        fd::{FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
    sync::{LazyLock, Mutex, PoisonError},
};

use knark_tracer::bpf::{Events, Op, Options, ProbeStatus, Probes, Record, Scope, Tier};

pub const ALL: Events = Events { exec: true, file: true, exit: true, api: false };

/// Works at full speed run one after the other: they would take each other's time, and that of who reads what they do.
pub static FULL_SPEED: Mutex<()> = Mutex::new(());

/// What happened: the records, and what the work said.
pub struct Story {
    pub tgid: u32,
    pub status: i32,
    /// How often the kernel skipped a program meanwhile: from 7.2 on it preempts them, and counts what it skips.
    pub skipped: u64,
    records: Vec<Vec<u8>>,
    said: Vec<(String, Vec<u8>)>,
}

impl Story {
    pub fn records(&self) -> impl Iterator<Item = Record<'_>> {
        self.records.iter().map(|bytes| Record::parse(bytes).unwrap())
    }

    /// The records of one [`Work::case`].
    pub fn case(&self, name: &str) -> Vec<Record<'_>> {
        let mut inside = false;
        let mut records = Vec::new();
        for record in self.records() {
            match marker(&record) {
                Some(marker) => inside = marker == name.as_bytes(),
                None if inside => records.push(record),
                None => {}
            }
        }
        records
    }

    pub fn said(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.said.iter().map(|(name, what)| (name.as_str(), what.as_slice()))
    }

    pub fn word(&self, name: &str) -> &[u8] {
        &self.said.iter().find(|(said, _)| said == name).unwrap_or_else(|| panic!("the work never said {name}")).1
    }
}

/// Cases are set apart by a call that does nothing and is in the records.
fn marker<'a>(record: &Record<'a>) -> Option<&'a [u8]> {
    match record {
        Record::Path(call) if call.op == Op::Truncate => call.path.name.strip_prefix(b"/proc/no such file/"),
        _ => None,
    }
}

/// The work's side.
pub struct Work {
    pipe: File,
}

impl Work {
    /// What follows belongs to this case.
    pub fn case(&self, name: &str) {
        let marker = c(format!("/proc/no such file/{name}"));
        unsafe { libc::truncate(marker.as_ptr(), 0) };
    }

    /// Tells the test something.
    pub fn say(&mut self, name: &str, what: impl AsRef<[u8]>) {
        let what = what.as_ref();
        let mut line = Vec::new();
        for part in [name.as_bytes(), what] {
            line.extend_from_slice(&u32::try_from(part.len()).unwrap().to_ne_bytes());
            line.extend_from_slice(part);
        }
        self.pipe.write_all(&line).unwrap();
    }
}

pub fn c(text: impl AsRef<Path>) -> CString {
    CString::new(text.as_ref().as_os_str().as_bytes()).unwrap()
}

/// A system call's result as the kernel gave it.
pub fn result(of: libc::c_long) -> i64 {
    if of == -1 { -i64::from(io::Error::last_os_error().raw_os_error().unwrap()) } else { of }
}

pub fn ok(of: libc::c_int, what: &str) {
    assert!(of >= 0, "{what}: {}", io::Error::last_os_error());
}

/// Runs the work in a process that these probes watch.
pub fn run(probes: &mut Probes, work: impl FnOnce(&mut Work)) -> Story {
    run_as(probes, |probes, tgid| probes.set_tgid(tgid).unwrap(), work)
}

/// Runs the work in a process; `admit` brings it into the scope before it begins.
pub fn run_as(probes: &mut Probes, admit: impl FnOnce(&mut Probes, u32), work: impl FnOnce(&mut Work)) -> Story {
    let (ours, theirs) = pipe();
    let (gate, opener) = pipe();
    let child = unsafe { libc::fork() };
    if child == 0 {
        drop((ours, opener));
        let _ = File::from(gate).read(&mut [0]);
        let mut work_side = Work { pipe: File::from(theirs) };
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(&mut work_side)));
        unsafe { libc::_exit(if done.is_ok() { 0 } else { 101 }) };
    }
    let tgid = u32::try_from(child).unwrap();
    admit(probes, tgid);
    drop((theirs, gate, opener));
    let mut ours = File::from(ours);
    let mut records = Vec::new();
    let mut said = Vec::new();
    // the pipe ends with the last process that the work has made
    let mut chunk = [0; 4096];
    while let Ok(n @ 1..) = ours.read(&mut chunk) {
        said.extend_from_slice(&chunk[..n]);
    }
    let mut status = 0;
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    probes.drain(usize::MAX, |bytes, _| records.push(bytes.to_vec()));
    assert_eq!(probes.malformed(), 0);
    Story { tgid, status, skipped: 0, records, said: words(&said) }
}

fn words(mut rest: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut words = Vec::new();
    let next = |rest: &mut &[u8]| {
        let (len, more) = rest.split_first_chunk::<4>()?;
        let (part, more) = more.split_at(u32::from_ne_bytes(*len) as usize);
        *rest = more;
        Some(part.to_vec())
    };
    while let Some(name) = next(&mut rest) {
        words.push((String::from_utf8(name).unwrap(), next(&mut rest).unwrap()));
    }
    words
}

pub fn pipe() -> (OwnedFd, OwnedFd) {
    let mut fds = [0; 2];
    ok(unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) }, "pipe2");
    unsafe { (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])) }
}

static SHARED: LazyLock<Mutex<Probes>> = LazyLock::new(|| {
    let scope = Scope { tgids: true, ..Scope::default() };
    Mutex::new(attach(&Options { scope, events: ALL, ..Options::default() }))
});

/// Attaches, in the tier that the tests are for: the better one if `KNARK_TEST_TIER` doesn't say `portable`.
pub fn attach(options: &Options) -> Probes {
    let options = Options { precise: std::env::var("KNARK_TEST_TIER").as_deref() != Ok("portable"), ..options.clone() };
    Probes::attach(&options).unwrap_or_else(|e| {
        let source = std::error::Error::source(&e).map(ToString::to_string);
        panic!("{e} ({source:?}); these tests take root")
    })
}

/// What became of the probes that tests share.
pub fn statuses() -> Vec<ProbeStatus> {
    SHARED.lock().unwrap_or_else(PoisonError::into_inner).attached().to_vec()
}

/// Whether the probes that tests share see this call in the precise tier.
pub fn precise(call: &str) -> bool {
    statuses().iter().any(|probe| probe.name == call && probe.tier == Tier::Precise)
}

/// Runs the work with the probes that tests share.
pub fn trace(work: impl FnOnce(&mut Work)) -> Story {
    let mut probes = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    let before = probes.counters().unwrap();
    let mut story = run(&mut probes, work);
    let after = probes.counters().unwrap();
    // whatever was done: each event that was seen is there
    for (kind, (before, after)) in before.kinds.iter().zip(&after.kinds).enumerate() {
        assert_eq!(after.lost(), before.lost(), "events of kind {kind} were lost");
        assert_eq!(after.in_flight(), 0, "calls of kind {kind} that never ended");
    }
    let emitted = |c: &knark_tracer::bpf::Counters| c.kinds.iter().map(|k| k.emitted).sum::<u64>();
    assert_eq!(emitted(&after) - emitted(&before), story.records.len() as u64);
    story.skipped = after.missed.unwrap_or(0) - before.missed.unwrap_or(0);
    story
}

/// A folder in memory that nobody else sees: in a mount namespace of the calling process.
pub fn private_folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    ok(unsafe { libc::unshare(libc::CLONE_NEWNS) }, "unshare");
    let root = c"/";
    ok(
        unsafe {
            libc::mount(std::ptr::null(), root.as_ptr(), std::ptr::null(), libc::MS_REC | libc::MS_PRIVATE, std::ptr::null())
        },
        "making mounts private",
    );
    mount(c"tmpfs", folder.path(), "tmpfs", 0, "");
    folder
}

pub fn mount(source: &CStr, at: &Path, kind: &str, flags: libc::c_ulong, options: &str) {
    std::fs::create_dir_all(at).unwrap();
    let (target, kind, options) = (c(at), c(kind), c(options));
    let done = unsafe { libc::mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, options.as_ptr().cast()) };
    ok(done, &format!("mounting {}", at.display()));
}

/// A descriptor of what the path names.
pub fn open(path: impl AsRef<Path>, flags: libc::c_int) -> i32 {
    let path = c(path);
    unsafe { libc::open(path.as_ptr(), flags, 0o600) }
}

/// What the kernel says a descriptor is.
pub fn readlink(fd: i32) -> Vec<u8> {
    std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap().as_os_str().as_bytes().to_vec()
}

pub fn close(fd: i32) {
    unsafe { libc::close(fd) };
}

/// Text for messages.
pub fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
