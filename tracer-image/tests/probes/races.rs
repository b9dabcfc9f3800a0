//! Threads that change descriptors under each other.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use knark_tracer::bpf::{Record, mark};

use crate::harness::{close, lossy, open, trace};

#[test]
fn a_shared_table_is_marked_and_the_name_is_there_too() {
    let story = trace(|work| {
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    thread::yield_now();
                }
            });
            work.case("shared");
            close(open("/proc/sys/kernel/ostype", 0));
            work.case("");
            stop.store(true, Ordering::Relaxed);
        });
    });
    let records = story.case("shared");
    let [Record::Open(open)] = &records[..] else { panic!("{records:?}") };
    assert!(open.racy() && open.head.has(mark::FD_SHARED));
    assert_eq!(lossy(open.path.walked), "/proc/sys/kernel/ostype");
    assert_eq!(lossy(open.path.name), "/proc/sys/kernel/ostype");
}

#[test]
fn a_storm_of_closes_loses_no_event() {
    const OPENS: u64 = 20_000;
    let story = trace(|work| {
        let stop = AtomicBool::new(false);
        let first = open("/proc/sys/kernel/hostname", 0);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    close(first + 1);
                }
            });
            work.case("storm");
            for _ in 0..OPENS {
                open("/proc/sys/kernel/hostname", 0);
                close(first + 1);
            }
            work.case("");
            stop.store(true, Ordering::Relaxed);
        });
    });
    let mut opens = 0;
    for record in story.case("storm") {
        let Record::Open(open) = record else { continue };
        opens += 1;
        assert!(open.racy());
        assert_eq!(lossy(&open.path.joined()), "/proc/sys/kernel/hostname", "{open:?}");
    }
    // two busy threads on one CPU are where a kernel that preempts programs skips them
    assert!(opens <= OPENS && opens + story.skipped >= OPENS, "{opens} opens, and {} skipped programs", story.skipped);
}
