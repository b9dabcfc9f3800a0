//! Who is in scope: control groups, names, programs.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use knark_tracer::bpf::{self, CgroupVersion, Events, Options, ProbeStatus, Probes, Record, Scope, Verdict, cgroups};

use crate::harness::{attach, c, open, run_as};

const FILE: Events = Events { exec: false, file: true, exit: false, api: false };

/// A control group that goes with the test.
pub struct Group(pub PathBuf);

impl Group {
    pub fn new(parent: &std::path::Path, name: &str) -> Group {
        let folder = parent.join(name);
        fs::create_dir(&folder).unwrap();
        Group(folder)
    }

    pub fn id(&self) -> u64 {
        cgroups::id_of(&self.0).unwrap()
    }

    pub fn join(&self) {
        fs::write(self.0.join("cgroup.procs"), "0").unwrap();
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // what ran in it may take a moment to go
        let end = Instant::now() + Duration::from_secs(2);
        while fs::remove_dir(&self.0).is_err() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

#[test]
fn a_new_control_group_inherits_before_anything_runs_in_it() {
    let hierarchy = bpf::hierarchy().unwrap();
    if std::env::var_os("KNARK_TEST_CGROUPS").is_some_and(|which| which == "v1") {
        assert_eq!(hierarchy.version, CgroupVersion::V1);
    }
    let outer = Group::new(&hierarchy.mount, &format!("knark-test-{}", std::process::id()));
    let scope = Scope { cgroups: true, ..Scope::default() };
    let mut probes = attach(&Options { scope, events: FILE, ..Options::default() });
    probes.set_cgroup(outer.id(), Verdict::Hold).unwrap();
    let inner = Group::new(&outer.0, "inner");
    assert!(probes.wait(Duration::from_secs(2)).unwrap(), "a new group wakes the reader");
    let mut made = Vec::new();
    probes.drain(usize::MAX, |_, record| {
        if let Record::CgroupMkdir(group) = record {
            made.push((group.id, group.parent, group.path.to_vec(), group.verdict));
        }
    });
    let path = format!("/{}/inner", outer.0.file_name().unwrap().to_str().unwrap());
    assert!(made.contains(&(inner.id(), outer.id(), path.into_bytes(), Some(Verdict::Hold))), "{made:?}");

    let opens = |probes: &mut Probes, group: &Group| {
        let story = run_as(
            probes,
            |_, _| {},
            |_| {
                group.join();
                fs::read("/proc/sys/kernel/hostname").unwrap();
            },
        );
        let mut opens = Vec::new();
        for record in story.records() {
            if let Record::Open(open) = record
                && open.path.walked == b"/proc/sys/kernel/hostname"
            {
                opens.push((open.head.cgroup, open.head.verdict, open.head.tgid == story.tgid));
            }
        }
        opens
    };
    assert_eq!(opens(&mut probes, &inner), [(inner.id(), Verdict::Hold, true)]);
    probes.set_cgroup(inner.id(), Verdict::Trace).unwrap();
    assert_eq!(opens(&mut probes, &inner), [(inner.id(), Verdict::Trace, true)]);
    probes.set_cgroup(inner.id(), Verdict::Ignore).unwrap();
    assert_eq!(opens(&mut probes, &inner), []);
    probes.set_cgroup(inner.id(), Verdict::Trace).unwrap();
    probes.remove_cgroup(inner.id()).unwrap();
    assert_eq!(opens(&mut probes, &inner), []);
    assert_eq!(opens(&mut probes, &outer), [(outer.id(), Verdict::Hold, true)]);

    let id = inner.id();
    drop(inner);
    let mut gone = false;
    probes.drain(usize::MAX, |_, record| gone |= matches!(record, Record::CgroupRmdir(group) if group.id == id));
    assert!(gone);
    drop(probes);
}

#[test]
fn a_threads_name() {
    let mut comm = [0; 16];
    comm[..10].copy_from_slice(b"knark-name");
    let scope = Scope { comms: vec![comm], ..Scope::default() };
    let mut probes = attach(&Options { scope, events: FILE, ..Options::default() });
    let story = run_as(
        &mut probes,
        |_, _| {},
        |_| {
            open("/proc/sys/kernel/ostype", 0);
            unsafe { libc::prctl(libc::PR_SET_NAME, c"knark-name".as_ptr()) };
            open("/proc/sys/kernel/hostname", 0);
        },
    );
    let opened: Vec<_> = story
        .records()
        .map(|record| match record {
            Record::Open(open) => open.path.walked.to_vec(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(opened, [b"/proc/sys/kernel/hostname"]);
}

#[test]
fn a_program_that_runs_already_or_starts_later() {
    let folder = tempfile::tempdir().unwrap();
    let shell = fs::canonicalize("/bin/sh").unwrap();
    let [program, other] = ["wanted", "other"].map(|name| {
        let program = folder.path().join(name).join("sh");
        fs::create_dir(program.parent().unwrap()).unwrap();
        fs::copy(&shell, &program).unwrap();
        program
    });
    let start = |script: &str| {
        let mut command = std::process::Command::new(&program);
        command.args(["-c", script, "sh"]).arg(&other).stdin(std::process::Stdio::piped());
        command.spawn().unwrap()
    };
    let mut early = start("read x; : </proc/sys/kernel/hostname");
    let scope = Scope { exes: vec![c(&program).into_bytes()], ..Scope::default() };
    let events = Events { exec: true, file: true, exit: false, api: false };
    let mut probes = attach(&Options { scope, events, ..Options::default() });
    early.stdin.take();
    early.wait().unwrap();
    // the other program is not wanted, and its process was
    let mut late = start(": </proc/sys/kernel/ostype; exec $1 -c ': </proc/sys/kernel/osrelease'");
    late.stdin.take();
    late.wait().unwrap();
    let (mut opened, mut execs) = (Vec::new(), Vec::new());
    probes.drain(usize::MAX, |_, record| match record {
        Record::Open(open) if open.path.walked.starts_with(b"/proc/sys/kernel/") => {
            opened.push((open.head.tgid, open.path.walked.to_vec()));
        }
        Record::Exec(exec) => execs.push((exec.head.tgid, exec.exe.walked.to_vec())),
        _ => {}
    });
    assert_eq!(execs, [(late.id(), c(&program).into_bytes())]);
    assert_eq!(opened, [(early.id(), b"/proc/sys/kernel/hostname".to_vec()), (late.id(), b"/proc/sys/kernel/ostype".to_vec())]);
}

#[test]
fn conditions_that_were_not_asked_for_are_refused() {
    let scope = Scope { tgids: true, ..Scope::default() };
    let events = Events { exec: true, file: false, exit: false, api: false };
    let mut probes = attach(&Options { scope, events, ..Options::default() });
    assert!(probes.set_cgroup(1, Verdict::Trace).is_err());
    assert!(probes.set_tgid(1).is_ok() && probes.remove_tgid(1).is_ok() && probes.remove_tgid(1).is_ok());
    assert!(probes.attached().iter().all(ProbeStatus::attached));
}
