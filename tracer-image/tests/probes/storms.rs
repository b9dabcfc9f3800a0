//! Storms: what one control group does at full speed costs no other its events, and nothing is lost in silence.

use std::{
    collections::BTreeMap,
    num::NonZeroU32,
    sync::{
        LazyLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use knark_tracer::{
    bpf::{self, Aggregate, Counters, Events, Options, Probes, Record, Scope, Verdict},
    clock,
};

use crate::{
    harness::{FULL_SPEED, attach, close, lossy, open},
    scopes::Group,
};

/// Emulated machines are slow and take fewer.
static STORM: LazyLock<u64> = LazyLock::new(|| std::env::var("KNARK_TEST_OPENS").map_or(100_000, |n| n.parse().unwrap()));
const THREADS: u64 = 4;
const SLOW: u64 = 100;
const FILE: Events = Events { exec: false, file: true, exit: false, api: false };
const NOISY: &str = "/proc/sys/kernel/hostname";
const QUIET: &str = "/proc/sys/kernel/ostype";

/// What was told of one control group: events by their operation, outcome and path, and by what records.
#[derive(Debug, Default)]
struct Told {
    events: BTreeMap<(String, bool, String), u64>,
    records: u64,
    repeats: u64,
    tgids: BTreeMap<u32, u64>,
}

impl Told {
    fn take(&mut self, record: &Record<'_>) {
        let (op, failed, path) = match record {
            Record::Open(open) => (open.file_op(), open.result < 0, open.path.joined()),
            Record::Path(call) => (call.file_op(), call.result < 0, call.path.joined()),
            other => panic!("{other:?}"),
        };
        let head = record.head();
        if let Some(repeats) = head.repeats {
            assert!(repeats.count > 0 && repeats.first_ns <= repeats.last_ns && repeats.last_ns <= head.boot_ns, "{repeats:?}");
            self.repeats += repeats.count;
        }
        *self.events.entry((op.name().to_owned(), failed, lossy(&path))).or_default() += head.events();
        *self.tgids.entry(head.tgid).or_default() += head.events();
        self.records += 1;
    }

    fn events(&self) -> u64 {
        self.events.values().sum()
    }
}

struct Outcome {
    noisy: Told,
    quiet: Told,
    counters: Counters,
    too_fast: Vec<(u64, u64)>,
    noisy_id: u64,
    took: Duration,
}

/// Two works in control groups of their own, side by side.
fn side_by_side(name: &str, options: Options, noisy: impl Fn(), quiet: impl Fn()) -> Outcome {
    let _alone = FULL_SPEED.lock().unwrap_or_else(PoisonError::into_inner);
    let parent = Group::new(&bpf::hierarchy().unwrap().mount, &format!("knark-{name}-{}", std::process::id()));
    let groups = [Group::new(&parent.0, "noisy"), Group::new(&parent.0, "quiet")];
    let [noisy_id, quiet_id] = [groups[0].id(), groups[1].id()];
    let scope = Scope { cgroups: true, ..Scope::default() };
    let mut probes = attach(&Options { scope, events: FILE, ..options });
    for group in &groups {
        probes.set_cgroup(group.id(), Verdict::Trace).unwrap();
    }
    let begun = Instant::now();
    let start = |group: &Group, work: &dyn Fn()| {
        let child = unsafe { libc::fork() };
        if child == 0 {
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                group.join();
                work();
            }));
            unsafe { libc::_exit(if done.is_ok() { 0 } else { 101 }) };
        }
        child
    };
    let children = [start(&groups[0], &noisy), start(&groups[1], &quiet)];
    let mut told = [Told::default(), Told::default()];
    let mut take = |record: &Record<'_>| match record {
        Record::CgroupMkdir(_) | Record::CgroupRmdir(_) => {}
        record if record.head().cgroup == noisy_id => told[0].take(record),
        record if record.head().cgroup == quiet_id => told[1].take(record),
        other => panic!("{other:?}"),
    };
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for child in children {
                let mut status = 0;
                unsafe { libc::waitpid(child, &raw mut status, 0) };
                assert_eq!(status, 0);
            }
            ended.store(true, Ordering::Release);
        });
        while !ended.load(Ordering::Acquire) {
            look(&mut probes, &mut take);
            probes.wait(Duration::from_millis(2)).unwrap();
        }
    });
    let took = begun.elapsed();
    probes.detach();
    look(&mut probes, &mut take);
    let (counters, too_fast) = (probes.counters().unwrap(), probes.too_fast().unwrap());
    assert_eq!(probes.malformed(), 0);
    let [noisy, quiet] = told;
    println!("{counters:?}, {} and {} records in {took:?}", noisy.records, quiet.records);
    Outcome { noisy, quiet, counters, too_fast, noisy_id, took }
}

fn look(probes: &mut Probes, take: &mut impl FnMut(&Record<'_>)) {
    probes.drain(usize::MAX, |_, record| take(&record));
    while probes.take_repeats(2, clock::boot_ns(), |_, record| take(&record)).unwrap() {}
}

/// As fast as it goes, by several threads.
fn storm() {
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for _ in 0..*STORM / THREADS {
                    close(open(NOISY, 0));
                }
            });
        }
    });
}

/// Slower than any limit here. The pauses are what makes it slow.
fn slow() {
    for _ in 0..SLOW {
        close(open(QUIET, 0));
        thread::sleep(Duration::from_millis(5));
    }
}

fn opened(path: &str) -> (String, bool, String) {
    ("open".to_owned(), false, path.to_owned())
}

/// On 7.2 the kernel preempts programs, and skips others; it counts these, and that they are missing is all that can be told.
fn skips(out: &Outcome) -> bool {
    out.counters.missed.unwrap_or(0) > 0
}

#[test]
fn a_storm_is_limited_and_costs_no_other_an_event() {
    const RATE: u32 = 1_000;
    let options = Options { events_per_second: NonZeroU32::new(RATE), ring_bytes: 1 << 20, ..Options::default() };
    let out = side_by_side("rate", options, storm, slow);
    let counts = out.counters.open();
    assert_eq!((counts.lost_ring, counts.lost_inflight, counts.aggregated, counts.in_flight()), (0, 0, 0, 0));
    assert_eq!(out.too_fast, [(out.noisy_id, counts.lost_rate)]);
    // Twice as many in the first second, and what CPUs let through that came at once.
    let most = u64::from(RATE) * (out.took.as_secs() + 2) + 64;
    assert!((u64::from(RATE)..most).contains(&out.noisy.events()), "{} of {most}", out.noisy.events());
    assert_eq!(out.noisy.events() + out.quiet.events() + counts.lost_rate, counts.seen);
    if !skips(&out) {
        assert_eq!(out.noisy.events() + counts.lost_rate, *STORM);
        assert_eq!(out.quiet.events[&opened(QUIET)], SLOW);
    }
}

#[test]
fn groups_within_a_container_share_its_rate() {
    const RATE: u32 = 500;
    let _alone = FULL_SPEED.lock().unwrap_or_else(PoisonError::into_inner);
    let container = Group::new(&bpf::hierarchy().unwrap().mount, &format!("knark-shared-{}", std::process::id()));
    let early = Group::new(&container.0, "early");
    let scope = Scope { cgroups: true, ..Scope::default() };
    let events_per_second = NonZeroU32::new(RATE);
    let mut probes = attach(&Options { scope, events: FILE, events_per_second, ..Options::default() });
    for id in [container.id(), early.id()] {
        probes.set_cgroup(id, Verdict::Trace).unwrap();
        probes.share_rate(id, Some(container.id())).unwrap();
    }
    // Made while it is traced, as a container does that manages control groups itself.
    let inner = Group::new(&container.0, "inner");
    let innermost = Group::new(&inner.0, "innermost");
    let begun = Instant::now();
    let groups = [early, innermost, inner];
    let each = *STORM / groups.len() as u64;
    let mut shown = BTreeMap::new();
    for group in &groups {
        let child = unsafe { libc::fork() };
        if child == 0 {
            group.join();
            (0..each).for_each(|_| close(open(NOISY, 0)));
            unsafe { libc::_exit(0) };
        }
        let mut status = 0;
        unsafe { libc::waitpid(child, &raw mut status, 0) };
        assert_eq!(status, 0);
        probes.drain(usize::MAX, |_, record| {
            if let Record::Open(open) = record
                && open.path.walked == NOISY.as_bytes()
            {
                *shown.entry(open.head.cgroup).or_insert(0) += 1;
            }
        });
    }
    let took = begun.elapsed();
    let counters = probes.counters().unwrap();
    let (counts, skipped) = (counters.open(), counters.missed.unwrap_or(0));
    assert_eq!(probes.too_fast().unwrap(), [(container.id(), counts.lost_rate)]);
    let most = u64::from(RATE) * (took.as_secs() + 2) + 64;
    let sum = shown.values().sum::<u64>();
    assert!((u64::from(RATE) - 64..most).contains(&sum), "{shown:?} of {most} in {took:?}");
    assert!(counts.lost_rate + sum <= counts.seen && counts.lost_rate >= 3 * each - sum - skipped, "{counts:?}");
    // What is made outside of it has a rate of its own, also where one within it was removed.
    drop(groups);
    probes.drain(usize::MAX, |_, _| {});
    probes.share_rate(container.id(), None).unwrap();
    assert_eq!(probes.forget_rate(container.id()).unwrap(), Some(counts.lost_rate));
    assert_eq!(probes.too_fast().unwrap(), []);
}

#[test]
fn repeats_are_counted_and_cost_no_other_an_event() {
    let options = Options { aggregate: Some(Aggregate::ByExe), ring_bytes: 64 << 10, ..Options::default() };
    let noisy = || {
        storm();
        for n in 0..1_000 {
            open("/nowhere/nothing", 0);
            // What lies in the registers that the call doesn't look at makes no difference.
            unsafe { libc::syscall(libc::SYS_unlinkat, libc::AT_FDCWD, c"/nowhere/nothing".as_ptr(), 0, n, 2 * n) };
        }
    };
    let out = side_by_side("repeats", options, noisy, slow);
    assert_eq!(out.counters.lost() - out.counters.missed.unwrap_or(0), 0);
    assert_eq!(out.too_fast, []);
    let [opens, calls] = [out.counters.open(), out.counters.path()];
    assert_eq!(opens.aggregated + calls.aggregated, out.noisy.repeats + out.quiet.repeats);
    assert_eq!(opens.seen + calls.seen, out.noisy.events() + out.quiet.events());
    // Of each kind one by itself and one with a count in each window, the first and the last of which are shorter.
    let most = 2 * 4 * (out.took.as_secs() + 2);
    assert!(out.noisy.records + out.quiet.records <= most, "{} records: {:?}", out.noisy.records, out.noisy);
    if !skips(&out) {
        let failed = |op: &str| (op.to_owned(), true, "/nowhere/nothing".to_owned());
        let made = [(opened(NOISY), *STORM), (failed("open"), 1_000), (failed("unlink"), 1_000)];
        assert_eq!(out.noisy.events, made.into());
        assert_eq!(out.quiet.events, [(opened(QUIET), SLOW)].into());
    }
}

#[test]
fn what_differs_is_no_repeat() {
    let options = Options { aggregate: Some(Aggregate::ByProcess), ..Options::default() };
    let folder = tempfile::tempdir().unwrap();
    let (file, longest) = (folder.path().join("file"), folder.path().join("x".repeat(250)).join("y".repeat(250)));
    std::fs::create_dir(longest.parent().unwrap()).unwrap();
    for file in [&file, &longest] {
        std::fs::write(file, "").unwrap();
    }
    let noisy = || {
        let work = || {
            for _ in 0..10 {
                for flags in [libc::O_RDONLY, libc::O_RDWR] {
                    close(open(&file, flags));
                }
                close(open(&longest, 0));
            }
        };
        work();
        // The same program and another process.
        let child = unsafe { libc::fork() };
        if child == 0 {
            work();
            unsafe { libc::_exit(0) };
        }
        unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
        // A user's rights are part of what is done.
        unsafe { libc::setresuid(libc::uid_t::MAX, 4_711, libc::uid_t::MAX) };
        close(open(&file, 0));
    };
    let out = side_by_side("differs", options, noisy, || {});
    assert_eq!(out.counters.lost(), 0);
    let path = |path: &std::path::Path, op: &str| (op.to_owned(), false, path.to_str().unwrap().to_owned());
    let events = |op: &str| out.noisy.events.get(&path(&file, op)).copied();
    assert_eq!((events("write-open"), out.noisy.events.get(&path(&longest, "open")).copied()), (Some(20), Some(20)));
    assert_eq!(out.noisy.tgids.values().max(), Some(&31));
    assert_eq!(out.noisy.events(), 61);
    // Too long to be compared: told one by one.
    assert!(out.noisy.records > 20 + 4 && out.noisy.repeats <= 4 * 9, "{:?}", out.noisy);
    assert!(out.noisy.repeats > 0 || skips(&out), "{:?}", out.noisy);
}
