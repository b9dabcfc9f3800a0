//! Files that are watched under whatever name: the kernel knows them by what they are.

use std::{
    collections::BTreeSet,
    fs,
    os::{
        fd::{AsFd as _, FromRawFd as _, OwnedFd},
        unix::fs::MetadataExt as _,
    },
    path::Path,
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use knark_specs::{
    frame::{self, Ending, FileOp, HostFilter, Item, Plan, SameFiles, SamePath, Target, Up, Want, WantedFile},
    packet,
};
use knark_tracer::{
    bpf::{Events, FileId, Options, Probes, Record, Scope, Tier, Wanted, WatchedFiles},
    engine::{Command, Engine},
    outbox::{Next, Outbox},
};

use crate::{
    harness::{Work, attach, c, close, mount, ok, open, private_folder, result, run},
    scopes::Group,
};

const OPS: [FileOp; 4] = [FileOp::Open, FileOp::Chmod, FileOp::Unlink, FileOp::Rename];
const FILE: Events = Events { exec: false, file: true, exit: false, api: false };

fn paths(paths: &[&str]) -> frame::Wanted {
    frame::Wanted::Paths(paths.iter().map(|path| path.as_bytes().to_vec().into()).collect())
}

/// Probes that let through what is done to watched files, and what sets cases apart.
fn watch() -> (Probes, WatchedFiles) {
    let want = Want {
        exec: frame::Wanted::All,
        file: vec![
            WantedFile { ops: OPS.to_vec(), paths: paths(&["/no such folder/"]) },
            WantedFile { ops: vec![FileOp::Truncate], paths: paths(&["/proc/no such file/"]) },
        ],
    };
    let options = Options {
        scope: Scope { tgids: true, ..Scope::default() },
        events: FILE,
        wanted: Some(Wanted::new(&want)),
        same: OPS.to_vec(),
        ..Options::default()
    };
    let mut probes = attach(&options);
    let files = probes.take_watched().unwrap();
    (probes, files)
}

fn identity(files: &mut WatchedFiles, path: &Path) -> FileId {
    let fd = open(path, libc::O_PATH);
    ok(fd, "opening what is to be watched");
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    files.identify(fd.as_fd()).unwrap()
}

/// The numbers of watched files that the records of a case bear.
fn numbers(records: &[Record<'_>]) -> Vec<[u32; 2]> {
    let numbers = |record: &Record<'_>| match record {
        Record::Open(open) => [open.same, 0],
        Record::Path(call) => call.same,
        other => panic!("{other:?}"),
    };
    records.iter().map(numbers).collect()
}

const TABLE: &str = include_str!("../../../docs/coverage.md");

/// What is done; the numbers of its two files; the call whose tier decides whether these are known; whether the portable one tells them,
/// too; whether it has an event all the same.
type Row = (&'static str, [u32; 2], &'static str, bool, bool);

const ROWS: [Row; 12] = [
    ("open of a hard link", [7, 0], "openat", true, true),
    ("open of a bind mount", [7, 0], "openat", true, true),
    ("open below a folder that is mounted elsewhere, too", [7, 0], "openat", true, true),
    ("open through `/proc/self/fd`", [7, 0], "openat", true, true),
    ("open in an overlay", [8, 0], "openat", true, true),
    ("open of a hard link in an overlay", [8, 0], "openat", true, true),
    ("open of a bind mount of what is in an overlay", [8, 0], "openat", true, true),
    ("fchmod", [7, 0], "fchmod", true, true),
    ("chmod of a hard link", [7, 0], "fchmodat", false, false),
    ("unlink of a hard link", [7, 0], "unlinkat", false, false),
    // Calls with two paths all pass.
    ("rename of a hard link", [7, 0], "renameat2", false, true),
    ("rename over a hard link", [0, 7], "renameat2", false, true),
];

#[test]
fn a_file_is_known_under_all_its_names() {
    let (mut probes, mut files) = watch();
    let precise: Vec<String> =
        probes.attached().iter().filter(|probe| probe.tier == Tier::Precise).map(|probe| probe.name.clone()).collect();
    let story = run(&mut probes, |work| in_all_ways(work, &mut files));
    assert_eq!(story.status, 0);
    let mut table = Vec::new();
    for (case, want, call, in_portable, has_event) in ROWS {
        let is_known = in_portable || precise.iter().any(|name| name == call);
        let want = if is_known {
            vec![want]
        } else if has_event {
            vec![[0, 0]]
        } else {
            vec![]
        };
        assert_eq!(numbers(&story.case(case)), want, "{case}");
        table.push(format!("| {case} | known | {} |", if in_portable { "known" } else { "not known" }));
    }
    let documented: Vec<&str> = TABLE.lines().filter(|line| line.ends_with("known |")).collect();
    assert_eq!(documented, table, "docs/coverage.md");
    assert_eq!(numbers(&story.case("its own name")), [[7, 0]]);
    for case in [
        "another file",
        "another one that is called like it",
        "fchmod of another file",
        "chmod of another file",
        "another file in an overlay",
        "what lies below the overlay",
        "what has taken its place",
        "a hard link of what is watched no more",
    ] {
        assert_eq!(numbers(&story.case(case)), [[0; 2]; 0], "{case}");
    }
    // What stat tells of a file in an overlay is not what the kernel itself goes by.
    assert_eq!(story.word("told apart"), b"yes");
}

fn in_all_ways(work: &mut Work, files: &mut WatchedFiles) {
    let folder = private_folder();
    let at = |name: &str| folder.path().join(name);
    let bind = |from: &str, to: &str| {
        let (from, to) = (c(at(from)), c(at(to)));
        let none = std::ptr::null();
        ok(unsafe { libc::mount(from.as_ptr(), to.as_ptr(), none, libc::MS_BIND, none.cast()) }, "binding");
    };
    for name in ["in", "bound", "lo", "up", "wk", "mnt"] {
        fs::create_dir(at(name)).unwrap();
    }
    for name in ["in/f", "in/g", "f", "bound f", "bound o", "lo/o", "lo/p"] {
        fs::write(at(name), "x").unwrap();
    }
    for link in ["hard", "hard 2", "hard 3"] {
        fs::hard_link(at("in/f"), at(link)).unwrap();
    }
    bind("in/f", "bound f");
    bind("in", "bound");
    std::env::set_current_dir(&folder).unwrap();
    mount(c"overlay", &at("mnt"), "overlay", 0, "lowerdir=lo,upperdir=up,workdir=wk");

    let (watched, lower) = (identity(files, &at("in/f")), identity(files, &at("mnt/o")));
    files.watch(watched, 7).unwrap();
    files.watch(lower, 8).unwrap();
    let stat = fs::metadata(at("in/f")).unwrap();
    let is_plain = watched.ino == stat.ino() && watched.dev == (libc::major(stat.dev()) << 20 | libc::minor(stat.dev()));
    let below = identity(files, &at("lo/o"));
    work.say("told apart", if is_plain && lower != below && lower.dev != below.dev { "yes" } else { "no" });

    let own = open(at("in/f"), libc::O_RDWR);
    let other = open(at("in/g"), libc::O_RDWR);
    let case = |name: &str, doing: &dyn Fn()| {
        work.case(name);
        doing();
        work.case("");
    };
    let read = |name: &str| close(open(at(name), libc::O_RDONLY));
    let chmod = |name: &str| {
        let path = c(at(name));
        let done = unsafe { libc::syscall(libc::SYS_fchmodat, libc::AT_FDCWD, path.as_ptr(), 0o600) };
        assert_eq!(result(done), 0, "{name}");
    };
    let rename = |from: &str, to: &str| {
        let (from, to) = (c(at(from)), c(at(to)));
        let cwd = libc::AT_FDCWD;
        let done = unsafe { libc::syscall(libc::SYS_renameat2, cwd, from.as_ptr(), cwd, to.as_ptr(), 0) };
        assert_eq!(result(done), 0);
    };
    case("its own name", &|| read("in/f"));
    case("open of a hard link", &|| read("hard"));
    case("open of a bind mount", &|| read("bound f"));
    case("open below a folder that is mounted elsewhere, too", &|| read("bound/f"));
    case("open through `/proc/self/fd`", &|| close(open(format!("/proc/self/fd/{own}"), libc::O_RDONLY)));
    case("another file", &|| read("in/g"));
    case("another one that is called like it", &|| read("f"));
    case("fchmod", &|| ok(unsafe { libc::fchmod(own, 0o640) }, "fchmod"));
    case("fchmod of another file", &|| ok(unsafe { libc::fchmod(other, 0o640) }, "fchmod"));
    case("chmod of a hard link", &|| chmod("hard"));
    case("chmod of another file", &|| chmod("in/g"));
    case("open in an overlay", &|| read("mnt/o"));
    // It is copied up for that, and stays the same file.
    fs::hard_link(at("mnt/o"), at("mnt/hard")).unwrap();
    bind("mnt/hard", "bound o");
    case("open of a hard link in an overlay", &|| read("mnt/hard"));
    case("open of a bind mount of what is in an overlay", &|| read("bound o"));
    case("another file in an overlay", &|| read("mnt/p"));
    case("what lies below the overlay", &|| read("lo/o"));
    case("unlink of a hard link", &|| {
        let path = c(at("hard 2"));
        ok(unsafe { libc::unlinkat(libc::AT_FDCWD, path.as_ptr(), 0) }, "unlinkat");
    });
    case("rename of a hard link", &|| rename("hard 3", "hard 4"));
    case("rename over a hard link", &|| rename("in/g", "hard 4"));
    // Another file in its place is another file.
    fs::rename(at("f"), at("in/f")).unwrap();
    case("what has taken its place", &|| read("in/f"));
    files.forget(watched).unwrap();
    case("a hard link of what is watched no more", &|| read("hard"));
}

#[test]
fn an_inode_that_is_used_again_is_another_file() {
    let (mut probes, mut files) = watch();
    // On a disk: file systems in memory take another number for each file.
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("f"), "x").unwrap();
    let first = identity(&mut files, &at("f"));
    files.watch(first, 9).unwrap();
    fs::remove_file(at("f")).unwrap();
    let again = (0..1000).find_map(|n| {
        let path = at(&n.to_string());
        fs::write(&path, "y").unwrap();
        let id = identity(&mut files, &path);
        (id.ino == first.ino).then_some((path, id))
    });
    let Some((path, second)) = again else {
        eprintln!("skipped: this file system uses no inode again");
        return;
    };
    assert_eq!((first.dev, first.generation == second.generation), (second.dev, false));
    let story = run(&mut probes, |work| {
        work.case("used again");
        close(open(&path, libc::O_RDONLY));
        work.case("");
    });
    assert_eq!(numbers(&story.case("used again")), [[0; 2]; 0]);
}

#[test]
fn the_tracer_keeps_up_with_files_that_are_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let text = |name: &str| at(name).to_str().unwrap().to_owned();
    fs::create_dir(at("keys")).unwrap();
    for name in ["watched", "next", "keys/one", "other"] {
        fs::write(at(name), "x").unwrap();
    }
    for (file, link) in [("watched", "first link"), ("next", "second link"), ("keys/one", "third link")] {
        fs::hard_link(at(file), at(link)).unwrap();
    }
    let child = unsafe { libc::fork() };
    if child == 0 {
        // until it is in the plan, and the plan in force
        unsafe { libc::raise(libc::SIGSTOP) };
        for name in ["first link", "third link", "other"] {
            close(open(at(name), libc::O_RDONLY));
        }
        let done = fs::rename(at("next"), at("watched"));
        // The tracer is told of that; until it has looked, what the other link leads to isn't watched.
        let until = Instant::now() + Duration::from_mins(1);
        while !at("seen").exists() && Instant::now() < until {
            close(open(at("second link"), libc::O_RDONLY));
            thread::sleep(Duration::from_millis(5));
        }
        unsafe { libc::_exit(i32::from(done.is_err())) };
    }
    unsafe { libc::waitpid(child, std::ptr::null_mut(), libc::WUNTRACED) };
    let folder_of_keys = format!("{}/", text("keys"));
    let want = paths(&[&text("watched"), &folder_of_keys]);
    let same = vec![
        SamePath::Plain(text("watched")),
        SamePath::Regex { folder: folder_of_keys.clone(), regex: format!("^{folder_of_keys}o.*$") },
    ];
    let seen = opens(child, want, same, |path| {
        if path == text("second link") {
            fs::write(at("seen"), "").unwrap();
        }
    });
    let want = [("first link", "watched"), ("second link", "watched"), ("third link", "keys/one")];
    assert_eq!(seen, want.map(|(name, same)| (text(name), text(same))).into());
}

#[test]
fn a_path_is_one_in_a_container_and_one_on_the_node() {
    let hierarchy = knark_tracer::bpf::hierarchy().unwrap();
    let group = Group::new(&hierarchy.mount, &format!("{}{:048x}", "5a".repeat(8), std::process::id()));
    let (root, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let watched = outside.path().join("watched");
    let inside = root.path().join(watched.strip_prefix("/").unwrap());
    fs::create_dir_all(inside.parent().unwrap()).unwrap();
    for (file, link) in [(&inside, "own"), (&watched, "of the node")] {
        fs::write(file, "x").unwrap();
        fs::hard_link(file, root.path().join(link)).unwrap();
    }
    fs::write(root.path().join("neither"), "x").unwrap();
    let child = unsafe { libc::fork() };
    if child == 0 {
        group.join();
        let root = c(root.path());
        ok(unsafe { libc::chroot(root.as_ptr()) }, "chroot");
        unsafe { libc::raise(libc::SIGSTOP) };
        for name in ["/own", "/of the node", "/neither"] {
            close(open(name, libc::O_RDONLY));
        }
        unsafe { libc::_exit(0) };
    }
    unsafe { libc::waitpid(child, std::ptr::null_mut(), libc::WUNTRACED) };
    let path = watched.to_str().unwrap().to_owned();
    let seen = opens(child, paths(&[&path]), vec![SamePath::Plain(path.clone())], |_| {});
    assert_eq!(seen, ["/of the node", "/own"].map(|name| (name.to_owned(), path.clone())).into());
}

/// The opens of a process that has stopped: once the tracer is there it goes on, and the tracer ends with it. Gives their paths, and the
/// watched paths of their files. `seen` is told of each, as it comes.
fn opens(
    child: libc::pid_t,
    want: frame::Wanted,
    same: Vec<SamePath>,
    mut seen: impl FnMut(String),
) -> BTreeSet<(String, String)> {
    let ops = vec![FileOp::Open];
    let plan = Plan {
        file: true,
        target: Target::Host(HostFilter { pids: vec![child as u32], ..HostFilter::default() }),
        want: Some(Want { exec: paths(&[]), file: vec![WantedFile { ops: ops.clone(), paths: want }] }),
        same: Some(SameFiles { ops, paths: same }),
        ..Plan::default()
    };
    let outbox = Arc::new(Outbox::default());
    let (wish, commands) = mpsc::channel();
    wish.send(Command::Plan(Box::new(plan))).unwrap();
    let engine = Engine { outbox: Arc::clone(&outbox), commands, ending: || None, own_pod: None };
    let tracer = thread::spawn(move || engine.run());
    let mut cursor = outbox.take_over(0);
    let mut decoder = packet::Decoder::default();
    let mut all = BTreeSet::new();
    let mut has_ended = false;
    let deadline = Instant::now() + Duration::from_mins(3);
    let status = loop {
        assert!(Instant::now() < deadline, "the tracer never ended: {all:?}");
        let mut status = 0;
        if !has_ended && unsafe { libc::waitpid(child, &raw mut status, libc::WNOHANG) } == child {
            assert_eq!(status, 0);
            has_ended = true;
            wish.send(Command::Stop).unwrap();
        }
        let (Next::Packet(packet) | Next::Last(packet)) = outbox.next(&mut cursor, Duration::from_millis(50)) else { continue };
        decoder.push(&packet);
        match decoder.next::<Up>().unwrap() {
            Some(Up::Hello(_)) => ok(unsafe { libc::kill(child, libc::SIGCONT) }, "kill"),
            Some(Up::Batch(batch)) => {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                for item in frame::items(&batch.items) {
                    if let Item::File(file) = item.unwrap() {
                        let same = file.same_as.iter().flatten().map(|path| text(path)).collect::<Vec<_>>();
                        all.insert((text(file.path.path), same.join(",")));
                        seen(text(file.path.path));
                    }
                }
                outbox.ack(batch.seq);
            }
            Some(Up::Bye { reason: Ending::Stopped, status }) => break status,
            Some(Up::Status(_)) => {}
            other => panic!("{other:?}"),
        }
    };
    tracer.join().unwrap().unwrap();
    assert_eq!(status.seen, status.filtered + status.sent + status.held + status.lost_total());
    all
}
