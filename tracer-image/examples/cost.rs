//! What the probes cost, in pairs of runs with and without them: `cost [ROUNDS [paths|writes]]`, as root; with `paths`, only what it
//! costs to tell wanted paths apart; with `writes`, only what it costs to watch writes.
//!
//! Of each run the fastest tenth counts, since other programs disturb the rest; of the pairs, the median. Between pairs it waits until the kernel has detached the probes, which takes seconds.
#![expect(unsafe_code, reason = "clocks and system calls that must not be wrapped")]
#![expect(clippy::unwrap_used, reason = "a tool for developers")]
#![expect(clippy::cast_precision_loss, reason = "figures for people")]

use std::{
    fs,
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use knark_specs::frame::{FileOp, Want, Wanted as Paths, WantedFile};
use knark_tracer::bpf::{Events, Options, Probes, Record, Scope, Wanted};

const CALLS: u32 = 200_000;
const EXECS: u32 = 500;
const MILLION: u64 = 1_000_000;

/// What each kind of run measures: ns per open with close, per getppid, per exec with wait.
#[derive(Clone, Copy)]
struct Costs {
    open: f64,
    getppid: f64,
    exec: f64,
}

fn main() {
    let rounds = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(5);
    match std::env::args().nth(2).as_deref() {
        Some("paths") => return paths(rounds),
        Some("writes") => return writes(rounds),
        _ => {}
    }
    let nobody = [b'?'; 16];
    let both = Events { exec: true, file: true, exit: false, api: false };
    let scope = |scope: Scope| Options { scope, events: both, exclude_tgids: Vec::new(), ..Options::default() };
    let cases = [
        ("no target matches, by control group", scope(Scope { cgroups: true, ..Scope::default() })),
        ("no target matches, by process", scope(Scope { tgids: true, ..Scope::default() })),
        ("no target matches, by name", scope(Scope { comms: vec![nobody], ..Scope::default() })),
        ("everything matches", scope(Scope::default())),
    ];
    let mut attached = Vec::new();
    for (name, options) in &cases {
        let mut pairs = Vec::new();
        for _ in 0..rounds {
            let before = measure();
            let begin = Instant::now();
            let probes = Probes::attach(options).unwrap();
            attached.push(begin.elapsed().as_secs_f64() * 1e3);
            let (with, seen) = draining(probes, measure);
            assert!(seen || !name.starts_with("every"));
            wait_until_detached();
            let after = measure();
            pairs.push((with, before, after));
        }
        let added = |of: fn(&Costs) -> f64| median(pairs.iter().map(|(w, b, a)| of(w) - f64::midpoint(of(b), of(a))));
        println!(
            "{name}: open {:+.0} ns, getppid {:+.1} ns, exec {:+.2} us (without: open and close {:.0} ns, getppid {:.0} ns, exec {:.1} us)",
            added(|c| c.open),
            added(|c| c.getppid),
            added(|c| c.exec) / 1e3,
            median(pairs.iter().map(|p| p.1.open)),
            median(pairs.iter().map(|p| p.1.getppid)),
            median(pairs.iter().map(|p| p.1.exec)) / 1e3,
        );
    }
    println!("load and attach: {:.0} ms", median(attached.into_iter()));
    million();
    paths(rounds);
}

/// What an open costs whose path isn't wanted, by how many paths are. They differ from it in their last component only, so
/// that the look-up goes as deep as it can.
fn paths(rounds: usize) {
    let folder = tempfile::tempdir().unwrap();
    let name = |name: &str| folder.path().join("some/folders/deep").join(name).into_os_string().into_encoded_bytes();
    fs::create_dir_all(folder.path().join("some/folders/deep/other")).unwrap();
    let file = std::ffi::CString::new(name("other/file")).unwrap();
    fs::write(folder.path().join("some/folders/deep/other/file"), "x").unwrap();
    let options = |files: Vec<WantedFile>| {
        let wanted = Some(Wanted::new(&Want { file: files, ..Want::default() }));
        let events = Events { exec: false, file: true, exit: false, api: false };
        Options { wanted, events, exclude_tgids: Vec::new(), ..Options::default() }
    };
    let wanted = |n: usize| {
        // one half of each kind
        let paths = (0..n).map(|i| name(&format!("{i}{}", if i % 2 == 0 { "/" } else { "" })).into()).collect();
        options(vec![WantedFile { ops: vec![FileOp::Open], paths: Paths::Paths(paths) }])
    };
    let all = |op| options(vec![WantedFile { ops: vec![op], paths: Paths::All }]);
    let cases = [
        ("all wanted", all(FileOp::Open)),
        ("another operation", all(FileOp::WriteOpen)),
        ("1 path", wanted(1)),
        ("100 paths", wanted(100)),
        ("1,000 paths", wanted(1_000)),
        ("10,000 paths", wanted(10_000)),
    ];
    let mut added = vec![Vec::new(); cases.len()];
    let mut alone = Vec::new();
    let measure = || {
        per(CALLS, || unsafe {
            libc::close(libc::open(file.as_ptr(), libc::O_RDONLY));
        })
    };
    for _ in 0..rounds {
        for ((_, options), added) in cases.iter().zip(&mut added) {
            let before = measure();
            let (with, _) = draining(Probes::attach(options).unwrap(), measure);
            wait_until_detached();
            let after = measure();
            added.push(with - f64::midpoint(before, after));
            alone.push(before);
        }
    }
    println!("open and close without probes: {:.0} ns", median(alone.into_iter()));
    for ((name, _), added) in cases.iter().zip(added) {
        println!("{name}: open {:+.0} ns", median(added.into_iter()));
    }
}

/// What a write costs that isn't the first through its open file, a read, and an open with a write and a close.
fn writes(rounds: usize) {
    let folder = tempfile::tempdir().unwrap();
    let path = std::ffi::CString::new(folder.path().join("file").into_os_string().into_encoded_bytes()).unwrap();
    fs::write(folder.path().join("file"), "x").unwrap();
    let fd = unsafe { libc::open(path.as_ptr(), libc::O_RDWR) };
    let wanted =
        Some(Wanted::new(&Want { file: vec![WantedFile { ops: vec![FileOp::Write], paths: Paths::All }], ..Want::default() }));
    let events = Events { exec: false, file: true, exit: false, api: false };
    let options = |scope| Options { scope, wanted: wanted.clone(), events, exclude_tgids: Vec::new(), ..Options::default() };
    let cases = [
        ("no target matches", options(Scope { cgroups: true, ..Scope::default() })),
        ("everything matches", options(Scope::default())),
    ];
    let write = |fd| unsafe {
        libc::pwrite(fd, c"x".as_ptr().cast(), 1, 0);
    };
    let measure = || {
        [
            per(CALLS, || write(fd)),
            per(CALLS, || {
                let mut byte = 0_u8;
                unsafe { libc::pread(fd, (&raw mut byte).cast(), 1, 0) };
            }),
            per(CALLS / 4, || unsafe {
                let new = libc::open(path.as_ptr(), libc::O_RDWR);
                write(new);
                libc::close(new);
            }),
        ]
    };
    for (name, options) in &cases {
        let (mut added, mut alone) = ([const { Vec::new() }; 3], [const { Vec::new() }; 3]);
        for _ in 0..rounds {
            let before = measure();
            let (with, _) = draining(Probes::attach(options).unwrap(), measure);
            wait_until_detached();
            let after = measure();
            for at in 0..added.len() {
                added[at].push(with[at] - f64::midpoint(before[at], after[at]));
                alone[at].push(before[at]);
            }
        }
        let [added, alone] = [added, alone].map(|figures| figures.map(|figures| median(figures.into_iter())));
        println!(
            "{name}: write {:+.0} ns, read {:+.0} ns, open, write and close {:+.0} ns (without: {:.0} ns, {:.0} ns, {:.0} ns)",
            added[0], added[1], added[2], alone[0], alone[1], alone[2]
        );
    }
}

fn measure() -> Costs {
    let path = c"/etc/hostname".as_ptr();
    Costs {
        open: per(CALLS, || unsafe {
            libc::close(libc::open(path, libc::O_RDONLY));
        }),
        getppid: per(CALLS * 5, || unsafe {
            libc::syscall(libc::SYS_getppid);
        }),
        exec: execs(),
    }
}

/// ns per call: of many short runs, the fastest tenth, which nothing disturbed.
fn per(calls: u32, mut call: impl FnMut()) -> f64 {
    const RUN: u32 = 200;
    let mut runs: Vec<f64> = (0..calls / RUN)
        .map(|_| {
            let begin = clock(libc::CLOCK_MONOTONIC);
            for _ in 0..RUN {
                call();
            }
            (clock(libc::CLOCK_MONOTONIC) - begin) as f64 / f64::from(RUN)
        })
        .collect();
    runs.sort_by(f64::total_cmp);
    runs[runs.len() / 10]
}

/// ns of CPU time of a child that executes `true`, and of starting it.
fn execs() -> f64 {
    let usage = || {
        let mut usage = unsafe { std::mem::zeroed::<libc::rusage>() };
        unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage) };
        let ns = |t: libc::timeval| t.tv_sec as f64 * 1e9 + t.tv_usec as f64 * 1e3;
        ns(usage.ru_utime) + ns(usage.ru_stime) + clock(libc::CLOCK_THREAD_CPUTIME_ID) as f64
    };
    let mut runs: Vec<f64> = (0..EXECS)
        .map(|_| {
            let begin = usage();
            Command::new("/bin/true").stdin(Stdio::null()).status().unwrap();
            usage() - begin
        })
        .collect();
    runs.sort_by(f64::total_cmp);
    runs[runs.len() / 10]
}

fn clock(which: libc::clockid_t) -> i64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    unsafe { libc::clock_gettime(which, &raw mut now) };
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}

/// Runs it while another thread drains the ring as the tracer does.
fn draining<T>(mut probes: Probes, run: impl FnOnce() -> T) -> (T, bool) {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let drainer = scope.spawn(|| {
            let mut n = 0;
            while !stop.load(Ordering::Relaxed) {
                probes.wait(Duration::from_millis(5)).unwrap();
                n += probes.drain(usize::MAX, |_, record| {
                    std::hint::black_box(record);
                });
            }
            drop(probes);
            n
        });
        let costs = run();
        stop.store(true, Ordering::Relaxed);
        (costs, drainer.join().unwrap() > 0)
    })
}

/// No process but this one is called so any more.
fn wait_until_detached() {
    let me = fs::read("/proc/self/comm").unwrap();
    loop {
        thread::sleep(Duration::from_millis(200));
        let others = fs::read_dir("/proc").unwrap().flatten().filter(|process| {
            let name = process.file_name();
            let pid = name.to_str().and_then(|name| name.parse::<u32>().ok());
            pid.is_some_and(|pid| pid != std::process::id()) && fs::read(process.path().join("comm")).is_ok_and(|c| c == me)
        });
        if others.count() == 0 {
            return;
        }
    }
}

/// A million matching opens at full speed, from one thread.
fn million() {
    let scope = Scope { tgids: true, ..Scope::default() };
    let events = Events { exec: false, file: true, exit: false, api: false };
    let mut probes = Probes::attach(&Options { scope, events, exclude_tgids: Vec::new(), ..Options::default() }).unwrap();
    let child = unsafe { libc::fork() };
    if child == 0 {
        unsafe { libc::raise(libc::SIGSTOP) };
        let path = c"/etc/hostname".as_ptr();
        for _ in 0..MILLION {
            unsafe { libc::close(libc::open(path, libc::O_RDONLY)) };
        }
        unsafe { libc::_exit(0) };
    }
    let mut status = 0;
    unsafe { libc::waitpid(child, &raw mut status, libc::WUNTRACED) };
    probes.set_tgid(child.cast_unsigned()).unwrap();
    let (begin, cpu) = (Instant::now(), clock(libc::CLOCK_PROCESS_CPUTIME_ID));
    unsafe { libc::kill(child, libc::SIGCONT) };
    let (mut got, mut bytes) = (0_u64, 0);
    loop {
        let ended = unsafe { libc::waitpid(child, &raw mut status, libc::WNOHANG) } == child;
        probes.drain(usize::MAX, |raw, record| {
            bytes += raw.len();
            got += u64::from(matches!(record, Record::Open(_)));
        });
        if ended {
            break;
        }
        probes.wait(Duration::from_millis(5)).unwrap();
    }
    let (took, cpu) = (begin.elapsed(), clock(libc::CLOCK_PROCESS_CPUTIME_ID) - cpu);
    probes.detach();
    let counters = probes.counters().unwrap();
    println!(
        "{MILLION} opens: {got} delivered, {} lost, {:.2} us each, reader {:.2} s of CPU, {} bytes a record",
        counters.lost(),
        took.as_secs_f64() * 1e6 / MILLION as f64,
        cpu as f64 / 1e9,
        bytes as u64 / got.max(1),
    );
}

fn median(of: impl Iterator<Item = f64>) -> f64 {
    let mut all: Vec<f64> = of.collect();
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}
