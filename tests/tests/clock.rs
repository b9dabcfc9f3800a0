//! A clock that is set while a trace runs. This is done in an emulated machine, by `tests/kernels.sh`: elsewhere others need the clock.
#![expect(clippy::unwrap_used, reason = "a test has no better way to end")]

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use knark_tests::program::{plugin, seen, tracer};
use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};
use serde_json::Value;

/// The first argument of what is executed.
const NAME: &str = "knark-clock";
const SECOND: i64 = 1_000_000_000;
const HOUR: i64 = 3_600 * SECOND;
/// Hours that the clock is moved by, one after the other.
const MOVES: [i64; 3] = [5 * HOUR, -8 * HOUR, 2 * HOUR];
/// Between two of them, ...
const BETWEEN: Duration = Duration::from_secs(4);
/// ... and how long the trace runs: heartbeats are due and awaited several times.
const FOR: Duration = Duration::from_secs(25);
/// When the trace has learnt of a new time at the latest, in ns. An emulated machine may stand still for a while.
const LEARNT: i64 = 2 * SECOND;
/// What the two clocks' distance may be off by, in ns: they are not read at once.
const AT_ONCE: i64 = SECOND / 5;

fn nanos(clock: ClockId) -> i64 {
    let now = clock_gettime(clock);
    now.tv_sec * SECOND + now.tv_nsec
}

/// The wall clock's distance from the time since boot.
fn distance() -> i64 {
    nanos(ClockId::Realtime) - nanos(ClockId::Boottime)
}

/// Moves the wall clock.
fn move_clock(by: i64) {
    let to = nanos(ClockId::Realtime) + by;
    clock_settime(ClockId::Realtime, Timespec { tv_sec: to / SECOND, tv_nsec: to % SECOND }).unwrap();
}

#[test]
fn a_clock_that_is_set_disturbs_nothing() {
    if std::env::var_os("KNARK_TEST_CLOCK").is_none() {
        println!("not tested, since others need this machine's clock");
        return;
    }
    let for_seconds = format!("{}s", FOR.as_secs());
    let mut command = plugin();
    command.env("KNARK_TRACER", tracer()).args(["trace", "--local", "-o", "json", "--on", "exec"]);
    command.args(["--for", &for_seconds, &format!("--pid={}", std::process::id())]);
    let begun = Instant::now();
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let (first, begun_to_tell) = mpsc::channel();
    let over = AtomicBool::new(false);
    // What was made when, and from when on the clocks were how far from each other: all since boot.
    let (made, distances, mut lines, output) = thread::scope(|scope| {
        let maker = scope.spawn(|| {
            let mut made = Vec::new();
            while !over.load(Ordering::Relaxed) {
                let before = nanos(ClockId::Boottime);
                let number = made.len().to_string();
                assert!(Command::new("/bin/true").args([NAME, &number]).status().unwrap().success());
                made.push((before, nanos(ClockId::Boottime)));
                // How many there are is of no interest, but that there are some all the time.
                thread::sleep(Duration::from_millis(20));
            }
            made
        });
        let mover = scope.spawn(move || {
            let mut distances = vec![(0, distance())];
            begun_to_tell.recv().unwrap();
            for by in MOVES {
                thread::sleep(BETWEEN);
                move_clock(by);
                distances.push((nanos(ClockId::Boottime), distance()));
            }
            distances
        });
        let mut told = Vec::new();
        for line in stdout.lines() {
            told.push(serde_json::from_str::<Value>(&line.unwrap()).unwrap());
            let _ = first.send(());
        }
        drop(first);
        let output = child.wait_with_output().unwrap();
        over.store(true, Ordering::Relaxed);
        (maker.join().unwrap(), mover.join().unwrap(), told, output)
    });
    let took = begun.elapsed();
    assert!(output.status.success(), "{}", seen(&output));
    assert!(took >= FOR && took < 3 * FOR, "--for {for_seconds} took {took:?}");
    let sums = lines.pop().unwrap()["summary"].clone();
    assert_eq!((&sums["lost"], sums["shown"].as_u64()), (&0.into(), Some(lines.len() as u64)), "{sums}");
    let seconds = sums["seconds"].as_f64().unwrap();
    assert!((FOR.as_secs_f64() - 1.0..took.as_secs_f64() + 1.0).contains(&seconds), "{sums}");

    // One after the other, none missing: all that was made from the first to the last that was seen.
    let number = |line: &Value| match line["process"]["args"].as_array().map(Vec::as_slice) {
        Some([_, name, number]) if name == NAME => number.as_str()?.parse::<usize>().ok(),
        _ => None,
    };
    let told: Vec<(usize, &Value)> = lines.iter().filter_map(|line| Some((number(line)?, line))).collect();
    let first = told.first().unwrap().0;
    assert!(
        told.iter().map(|(number, _)| *number).eq(first..first + told.len()),
        "{:?}",
        told.iter().map(|t| t.0).collect::<Vec<_>>()
    );
    let mut by_distance: BTreeMap<usize, u32> = BTreeMap::new();
    let mut latest = 0;
    for (number, line) in told {
        let boot_ns: i64 = line["boot_ns"].as_str().unwrap().parse().unwrap();
        let (before, after) = made[number];
        assert!((before..=after).contains(&boot_ns), "{number} was made between {before} and {after}: {line}");
        let time: jiff::Timestamp = line["time"].as_str().unwrap().parse().unwrap();
        let told = i64::try_from(time.as_nanosecond()).unwrap() - boot_ns;
        let at = distances.iter().rposition(|(_, distance)| (distance - told).abs() < AT_ONCE);
        let at = at.unwrap_or_else(|| panic!("{told} is none of {distances:?}: {line}"));
        // Which one it was: never an older one again, never one to come, and the new one soon.
        let is_due = distances.iter().rposition(|(from, _)| from + LEARNT < boot_ns).unwrap();
        let may_be = distances.iter().rposition(|(from, _)| *from < boot_ns + LEARNT).unwrap();
        assert!((is_due.max(latest)..=may_be).contains(&at), "{at} of {distances:?}: {line}");
        latest = at;
        *by_distance.entry(at).or_default() += 1;
    }
    assert_eq!(by_distance.len(), distances.len(), "{by_distance:?}");
    println!("events by the time that they were given: {by_distance:?}, in {took:?}");
}
