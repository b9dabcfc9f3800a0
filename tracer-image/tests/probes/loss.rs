//! What is seen is what was made, and what is lost is said to be, exactly.

use std::{
    sync::{
        LazyLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use knark_tracer::bpf::{Counters, Events, Options, Probes, Record, Scope};

use crate::harness::{ALL, FULL_SPEED, attach, close, open, run_as};

/// Emulated machines are slow and take fewer.
static OPENS: LazyLock<u64> = LazyLock::new(|| std::env::var("KNARK_TEST_OPENS").map_or(200_000, |n| n.parse().unwrap()));
static CALLS: LazyLock<u64> = LazyLock::new(|| *OPENS / 4);
const EXECS: u64 = 100;
const THREADS: u64 = 4;

struct Outcome {
    counters: Counters,
    opens: u64,
    calls: u64,
    execs: u64,
    exits: u64,
}

/// Makes a known number of everything at full speed.
fn flood(ring_bytes: u32) -> Outcome {
    let _alone = FULL_SPEED.lock().unwrap_or_else(PoisonError::into_inner);
    let scope = Scope { tgids: true, ..Scope::default() };
    let mut probes = attach(&Options { ring_bytes, scope, events: ALL, ..Options::default() });
    let mut out = Outcome { counters: Counters::default(), opens: 0, calls: 0, execs: 0, exits: 0 };
    let mut count = |record: &Record<'_>| match record {
        Record::Open(_) => out.opens += 1,
        Record::Path(_) => out.calls += 1,
        Record::Exec(_) => out.execs += 1,
        Record::Exit(_) => out.exits += 1,
        _ => {}
    };
    let child = {
        let child = unsafe { libc::fork() };
        if child == 0 {
            // admitted by then
            unsafe { libc::raise(libc::SIGSTOP) };
            work();
            unsafe { libc::_exit(0) };
        }
        let mut status = 0;
        unsafe { libc::waitpid(child, &raw mut status, libc::WUNTRACED) };
        probes.set_tgid(child as u32).unwrap();
        unsafe { libc::kill(child, libc::SIGCONT) };
        child
    };
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
            ended.store(true, Ordering::Release);
        });
        loop {
            let last = ended.load(Ordering::Acquire);
            probes.drain(usize::MAX, |_, record| count(&record));
            if last {
                break;
            }
            probes.wait(Duration::from_millis(2)).unwrap();
        }
    });
    probes.detach();
    out.counters = probes.counters().unwrap();
    assert_eq!(probes.malformed(), 0);
    out
}

fn work() {
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for _ in 0..*OPENS / THREADS {
                    close(open("/proc/sys/kernel/hostname", 0));
                }
                for _ in 0..*CALLS / THREADS {
                    unsafe { libc::unlink(c"/nowhere/nothing".as_ptr()) };
                }
            });
        }
    });
    for _ in 0..EXECS {
        let child = unsafe { libc::fork() };
        if child == 0 {
            let args = [c"true".as_ptr(), std::ptr::null()];
            unsafe {
                libc::execv(c"/proc/self/exe/../nothing".as_ptr(), args.as_ptr());
                libc::execv(c"/bin/true".as_ptr(), args.as_ptr());
                libc::_exit(1);
            }
        }
        unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
    }
}

fn adds_up(out: &Outcome) {
    let counters = &out.counters;
    println!("{counters:?}");
    assert_eq!(counters.scope_lost, 0);
    let missed = counters.missed.unwrap_or(0);
    if missed == 0 {
        // `true` itself opens files: the loader's
        assert!(counters.open().seen >= *OPENS);
        assert_eq!(counters.path().seen, *CALLS);
    } else {
        // 7.2 preempts programs, and skips all others on that CPU until the thread goes on. It counts them.
        println!("this kernel skipped programs {missed} times");
        assert!(counters.open().seen + counters.path().seen + missed >= *OPENS + *CALLS);
    }
    assert_eq!(counters.exec().seen, EXECS);
    assert_eq!(counters.exit().seen, EXECS + 1);
    for (kind, got) in
        [(counters.open(), out.opens), (counters.path(), out.calls), (counters.exec(), out.execs), (counters.exit(), out.exits)]
    {
        assert_eq!(kind.seen, kind.emitted + kind.lost());
        assert_eq!(kind.emitted, got);
    }
}

#[test]
fn nothing_is_lost_with_the_usual_ring() {
    let out = flood(Options::default().ring_bytes);
    adds_up(&out);
    assert_eq!(out.counters.open().lost_ring + out.counters.path().lost_ring, 0);
    if out.counters.missed.unwrap_or(0) == 0 {
        assert_eq!(out.counters.lost(), 0);
        // each `true` opens the same files
        assert_eq!((out.counters.open().seen - *OPENS) % EXECS, 0);
    }
}

#[test]
fn every_loss_is_counted_with_a_ring_that_is_too_small() {
    let out = flood(16 << 10);
    adds_up(&out);
    assert!(out.counters.open().lost_ring > 0);
}

#[test]
fn a_ring_smaller_than_a_record_loses_it_and_says_so() {
    let mut probes = attach(&Options {
        ring_bytes: 4096,
        scope: Scope { tgids: true, ..Scope::default() },
        events: Events { exec: true, file: false, exit: false, api: false },
        ..Options::default()
    });
    let long = "x".repeat(26_600);
    let admit = |probes: &mut Probes, tgid| probes.set_tgid(tgid).unwrap();
    let story = run_as(&mut probes, admit, |_| {
        let arg = std::ffi::CString::new(long.clone()).unwrap();
        let args = [c"true".as_ptr(), arg.as_ptr(), std::ptr::null()];
        unsafe { libc::execv(c"/bin/true".as_ptr(), args.as_ptr()) };
    });
    let counters = probes.counters().unwrap();
    assert_eq!((counters.exec_args().seen, counters.exec_args().lost_ring), (3, 3));
    let records: Vec<_> = story.records().collect();
    let [Record::Exec(exec)] = &records[..] else { panic!("{records:?}") };
    assert!(exec.args_cut() && exec.args_before == 0 && exec.args_total == 26_606);
}
