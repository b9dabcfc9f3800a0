//! docs/coverage.md: what is done through files that are open, and what is mapped. Each row is done here, and each of its cells proved.

use std::{
    collections::BTreeSet,
    ffi::CStr,
    fs,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::Path,
    ptr,
    sync::{LazyLock, Mutex, PoisonError},
};

use knark_specs::frame::{FileOp, Want, Wanted as Paths, WantedFile};
use knark_tracer::bpf::{Options, PathCall, Probes, Record, Scope, Tier, Wanted, mark};

use crate::{
    coverage::{NOT_SEEN, Row, SEEN, how, row},
    harness::{self, ALL, Story, Work, attach, close, lossy, mount, ok, open, private_folder, result, run as work_with},
    processes::{child, in_case, run},
    ways::{Ask, Ring, int80, low, receive, send, sockets},
};

pub const ROWS: [Row; 21] = [
    ("a write through a descriptor that was open before", "write", "/a", SEEN, SEEN),
    ("a write through a descriptor that came over a socket", "write", "/b", SEEN, SEEN),
    ("pwrite64", "pwrite64", "/c", SEEN, SEEN),
    ("writev", "writev", "/d", SEEN, SEEN),
    ("pwritev2", "pwritev2", "/e", SEEN, SEEN),
    ("sendfile to a file", "sendfile64", "/f", SEEN, SEEN),
    ("splice to a file", "splice", "/g", SEEN, SEEN),
    ("copy_file_range to a file", "copy_file_range", "/h", SEEN, SEEN),
    ("fallocate", "fallocate", "/i", SEEN, SEEN),
    ("a write through a shared mapping", "mmap", "/j", SEEN, SEEN),
    ("a write through a shared mapping that is made writable later", "mprotect", "/k", SEEN, NOT_SEEN),
    ("a write to a file of an overlay", "write", "/mnt/l", SEEN, SEEN),
    ("a write through a shared mapping of an overlay's file that is made writable later", "mprotect", "/mnt/t", SEEN, NOT_SEEN),
    ("io_submit: a write", "write", "/m", SEEN, NOT_SEEN),
    ("io_uring: write", "write", "/n", SEEN, NOT_SEEN),
    ("int 0x80: write", "write", "/o", SEEN, NOT_SEEN),
    ("a mapping of a library with `PROT_EXEC`, through a descriptor", "mmap", "/p", SEEN, SEEN),
    ("a mapping of memory (`memfd_create`) with `PROT_EXEC`", "mmap", "memfd:code", SEEN, SEEN),
    ("a mapping that is made executable later", "mprotect", "/q", SEEN, NOT_SEEN),
    ("a mapping of an overlay's file that is made executable later", "mprotect", "/mnt/r", SEEN, NOT_SEEN),
    ("int 0x80: mmap with `PROT_EXEC`", "mmap", "/s", SEEN, NOT_SEEN),
];

/// What has no name in the folder.
const MEMORY: &str = "memfd:code";

const READ: libc::c_int = libc::PROT_READ;
const WRITE: libc::c_int = libc::PROT_WRITE;
const EXEC: libc::c_int = libc::PROT_EXEC;

/// What sets cases apart, writes, and mappings.
fn options(paths: Paths) -> Options {
    let file =
        vec![WantedFile { ops: vec![FileOp::Truncate], paths: Paths::All }, WantedFile { ops: FileOp::NAMED.to_vec(), paths }];
    let wanted = Wanted::new(&Want { exec: Paths::All, file });
    Options { scope: Scope { tgids: true, ..Scope::default() }, events: ALL, wanted: Some(wanted), ..Options::default() }
}

static WATCHING: LazyLock<Mutex<Probes>> = LazyLock::new(|| Mutex::new(attach(&options(Paths::All))));

fn watch(work: impl FnOnce(&mut Work)) -> Story {
    let mut probes = WATCHING.lock().unwrap_or_else(PoisonError::into_inner);
    let before = probes.counters().unwrap();
    let mut story = work_with(&mut probes, work);
    let after = probes.counters().unwrap();
    for (before, after) in before.kinds.iter().zip(&after.kinds) {
        assert_eq!((after.lost(), after.in_flight()), (before.lost(), 0));
    }
    story.skipped = after.missed.unwrap_or(0) - before.missed.unwrap_or(0);
    story
}

/// Whether this call is seen in the precise tier.
fn precise(call: &str) -> bool {
    let probes = WATCHING.lock().unwrap_or_else(PoisonError::into_inner);
    probes.attached().iter().any(|probe| probe.name == call && probe.tier == Tier::Precise)
}

/// What was told of files in a case.
fn told<'a>(story: &'a Story, case: &str) -> Vec<PathCall<'a>> {
    let path = |record| match record {
        Record::Path(call) => Some(call),
        _ => None,
    };
    story.case(case).into_iter().filter_map(path).collect()
}

fn map(fd: i32, prot: libc::c_int, how: libc::c_int) -> *mut libc::c_void {
    let at = unsafe { libc::mmap(ptr::null_mut(), 4096, prot, how, fd, 0) };
    assert_ne!(at, libc::MAP_FAILED, "mmap: {}", std::io::Error::last_os_error());
    at
}

fn protect(at: *mut libc::c_void, prot: libc::c_int) -> i64 {
    result(libc::c_long::from(unsafe { libc::mprotect(at, 4096, prot) }))
}

fn write(fd: i32) -> i64 {
    result(unsafe { libc::write(fd, c"x".as_ptr().cast(), 1) as libc::c_long })
}

fn update(name: &CStr) -> i32 {
    let fd = unsafe { libc::open(name.as_ptr(), libc::O_RDWR) };
    ok(fd, "open");
    fd
}

#[expect(clippy::many_single_char_names, reason = "a file for each row, called by its letter")]
fn writes(work: &mut Work) {
    let [a, b, c, d, e, f] = [c"a", c"b", c"c", c"d", c"e", c"f"].map(update);
    let [g, h, i, j, k, source] = [c"g", c"h", c"i", c"j", c"k", c"source"].map(update);
    let sockets = sockets();
    send(sockets[0], b);
    close(b);
    let came = receive(sockets[1]);
    let mut pipe = [-1; 2];
    ok(unsafe { libc::pipe(pipe.as_mut_ptr()) }, "pipe");
    assert_eq!(write(pipe[1]), 1);
    let bytes = libc::iovec { iov_base: c"x".as_ptr().cast_mut().cast(), iov_len: 1 };
    let (x, bytes, none) = (c"x".as_ptr(), &raw const bytes, ptr::null_mut::<i64>());
    let later = map(k, READ, libc::MAP_SHARED);
    let all: [(&str, &dyn Fn() -> i64); 11] = unsafe {
        [
            ("a write through a descriptor that was open before", &|| write(a)),
            ("a write through a descriptor that came over a socket", &|| write(came)),
            ("pwrite64", &|| result(libc::syscall(libc::SYS_pwrite64, c, x, 1_usize, 0_u64))),
            ("writev", &|| result(libc::syscall(libc::SYS_writev, d, bytes, 1))),
            ("pwritev2", &|| result(libc::syscall(libc::SYS_pwritev2, e, bytes, 1, 0, 0, 0))),
            ("sendfile to a file", &|| result(libc::syscall(libc::SYS_sendfile, f, source, none, 1_usize))),
            ("splice to a file", &|| result(libc::syscall(libc::SYS_splice, pipe[0], none, g, none, 1_usize, 0))),
            ("copy_file_range to a file", &|| {
                result(libc::syscall(libc::SYS_copy_file_range, source, none, h, none, 1_usize, 0))
            }),
            ("fallocate", &|| result(libc::syscall(libc::SYS_fallocate, i, 0, 0_u64, 8_u64))),
            ("a write through a shared mapping", &|| {
                map(j, READ | WRITE, libc::MAP_SHARED);
                0
            }),
            ("a write through a shared mapping that is made writable later", &|| protect(later, READ | WRITE)),
        ]
    };
    for (case, doing) in all {
        row(work, case, doing);
    }
}

/// `struct iocb`
#[repr(C)]
#[derive(Default)]
struct Iocb {
    data: u64,
    key: u32,
    rw_flags: u32,
    opcode: u16,
    priority: i16,
    fd: u32,
    bytes: u64,
    len: u64,
    at: u64,
    rest: [u64; 2],
}
const _: () = assert!(size_of::<Iocb>() == 64);

fn by_other_ways(work: &mut Work) {
    const PWRITE: u16 = 1;
    let [m, n, o, s] = [c"m", c"n", c"o", c"s"].map(update);
    let text = low("x");
    let mut context = 0_u64;
    if unsafe { libc::syscall(libc::SYS_io_setup, 1, &raw mut context) } == 0 {
        let mut one = Iocb { opcode: PWRITE, fd: m as u32, bytes: c"x".as_ptr() as u64, len: 1, ..Iocb::default() };
        let list = [&raw mut one];
        row(work, "io_submit: a write", || result(unsafe { libc::syscall(libc::SYS_io_submit, context, 1, list.as_ptr()) }));
        unsafe { libc::syscall(libc::SYS_io_destroy, context) };
    }
    row(work, "int 0x80: write", || int80(4, [o as u64, text, 1, 0, 0]));
    row(work, "int 0x80: mmap with `PROT_EXEC`", || {
        let (prot, how) = (READ | EXEC, libc::MAP_PRIVATE);
        // of six arguments, which this call is given the address of
        let args = [0_u32, 4096, prot as u32, how as u32, s as u32, 0];
        let at = low_words(args);
        let mapped = int80(90, [at, 0, 0, 0, 0]);
        if (-4095..0).contains(&mapped) { mapped } else { 0 }
    });
    let Some(mut ring) = Ring::new() else { return };
    work.say("native", if ring.native { "yes" } else { "no" });
    row(work, "io_uring: write", || ring.ask(Ask::Write, [n as u64, c"x".as_ptr() as u64, 1, 0, 0]));
}

/// Where a 32-bit call can read these.
fn low_words(words: [u32; 6]) -> u64 {
    let at = low("");
    unsafe { (at as *mut [u32; 6]).write(words) };
    at
}

fn mappings(work: &mut Work) {
    let [p, q] = [c"p", c"q"].map(update);
    let memory = unsafe { libc::memfd_create(c"code".as_ptr(), libc::MFD_CLOEXEC) };
    ok(memory, "memfd_create");
    ok(unsafe { libc::ftruncate(memory, 4096) }, "ftruncate");
    let later = map(q, READ, libc::MAP_PRIVATE);
    let mut mapped = |case, fd| {
        row(work, case, || {
            map(fd, READ | EXEC, libc::MAP_PRIVATE);
            0
        });
    };
    mapped("a mapping of a library with `PROT_EXEC`, through a descriptor", p);
    mapped("a mapping of memory (`memfd_create`) with `PROT_EXEC`", memory);
    row(work, "a mapping that is made executable later", || protect(later, READ | EXEC));
}

fn in_an_overlay(work: &mut Work, folder: &Path) {
    for name in ["lo", "up", "wk"] {
        fs::create_dir(name).unwrap();
    }
    for name in ["lo/l", "lo/r", "lo/t"] {
        fs::write(name, [0; 4096]).unwrap();
    }
    mount(c"overlay", &folder.join("mnt"), "overlay", 0, "lowerdir=lo,upperdir=up,workdir=wk");
    let (l, r, t) = (update(c"mnt/l"), open("mnt/r", libc::O_RDONLY), update(c"mnt/t"));
    let later = map(r, READ, libc::MAP_PRIVATE);
    let shared = map(t, READ, libc::MAP_SHARED);
    row(work, "a write to a file of an overlay", || write(l));
    row(work, "a mapping of an overlay's file that is made executable later", || protect(later, READ | EXEC));
    let case = "a write through a shared mapping of an overlay's file that is made writable later";
    row(work, case, || protect(shared, READ | WRITE));
}

#[test]
fn are_as_the_table_says() {
    let story = watch(|work| {
        let folder = private_folder();
        std::env::set_current_dir(folder.path()).unwrap();
        work.say("folder", folder.path().as_os_str().as_encoded_bytes());
        for name in 'a'..='s' {
            fs::write(name.to_string(), [0; 4096]).unwrap();
        }
        fs::write("source", "12345").unwrap();
        writes(work);
        mappings(work);
        by_other_ways(work);
        in_an_overlay(work, folder.path());
    });
    assert_eq!(story.status, 0);
    // Where one group of programs can be had, these can.
    assert_eq!(["write", "mmap"].map(precise), [harness::precise("fchmodat"); 2]);
    let folder = lossy(story.word("folder"));
    for (case, call, path, in_precise, in_portable) in ROWS {
        let Some((_, done)) = story.said().find(|(said, _)| *said == case) else {
            println!("not tested, since this kernel lacks it: {case}");
            continue;
        };
        let done = i64::from_ne_bytes(done.try_into().unwrap());
        if done == -i64::from(libc::ENOSYS) {
            println!("not tested, since this kernel lacks it: {case}");
            continue;
        }
        assert!(done >= 0, "{case}: {done}");
        // Before 5.12 threads of no process write for io_uring.
        let strange = case == "io_uring: write" && story.word("native") == b"no";
        let want = if precise(call) && !strange { in_precise } else { in_portable };
        let path = if path == MEMORY { path.to_owned() } else { format!("{folder}{path}") };
        let (seen, records) = how(&story, case, &path);
        assert_eq!(seen, want, "{case}: {records:?}");
        for record in records {
            let Record::Path(call) = record else { panic!("{case}: {record:?}") };
            assert_eq!(call.head.has(mark::IO_URING), case.starts_with("io_uring"), "{case}");
            assert_eq!(call.head.has(mark::COMPAT), case.starts_with("int 0x80"), "{case}");
            assert_eq!(call.head.has(mark::OTHER_CALL), case.starts_with("io_submit"), "{case}");
            let is_code = case.contains("PROT_EXEC") || case.contains("executable");
            assert_eq!(call.file_op(), if is_code { FileOp::MapExec } else { FileOp::Write }, "{case}");
            assert_eq!((call.result, call.before.map(|inode| inode.mode & libc::S_IFMT)), (0, Some(libc::S_IFREG)), "{case}");
        }
    }
}

/// As many as these, but for what a kernel skips that preempts programs, and counts.
fn assert_told(story: &Story, case: &str, times: usize) {
    let told = told(story, case);
    let skipped = usize::try_from(story.skipped).unwrap();
    assert!(told.len() <= times && told.len() + skipped >= times, "{case}: {} of {times}: {told:?}", told.len());
}

#[test]
fn are_told_once_for_each_open_file_and_program() {
    const TIMES: usize = 50;
    let story = watch(|work| {
        let folder = private_folder();
        std::env::set_current_dir(folder.path()).unwrap();
        let append = || open("file", libc::O_WRONLY | libc::O_CREAT | libc::O_APPEND);
        let write = |fd| assert_eq!(write(fd), 1);
        in_case(work, "often", || {
            let fd = append();
            (0..TIMES).for_each(|_| write(fd));
            close(fd);
        });
        // An address is used again at once.
        in_case(work, "closed", || {
            for _ in 0..TIMES {
                let fd = append();
                write(fd);
                close(fd);
            }
        });
        in_case(work, "a range closed", || {
            for _ in 0..TIMES {
                let fd = append();
                write(fd);
                ok(unsafe { libc::syscall(436, fd, fd, 0) } as i32, "close_range");
            }
        });
        in_case(work, "replaced", || {
            let fd = append();
            write(fd);
            for _ in 1..TIMES {
                let other = append();
                ok(unsafe { libc::syscall(libc::SYS_dup3, other, fd, libc::O_CLOEXEC) } as i32, "dup3");
                close(other);
                write(fd);
            }
            close(fd);
        });
        let fd = append();
        in_case(work, "renamed", || {
            write(fd);
            fs::rename("file", "other").unwrap();
            write(fd);
            write(fd);
        });
        in_case(work, "by a child", || {
            child(|| {
                write(fd);
                write(fd);
                0
            });
            write(fd);
        });
        in_case(work, "as another user", || {
            child(|| {
                write(fd);
                ok(unsafe { libc::setuid(1) }, "setuid");
                write(fd);
                write(fd);
                0
            });
        });
        in_case(work, "mapped", || {
            fs::hard_link("other", "linked").unwrap();
            mount(c".", &folder.path().join("mounted"), "none", libc::MS_BIND, "");
            for name in ["other", "linked", "mounted/other", "other", "linked", "mounted/other"] {
                map(open(name, libc::O_RDONLY), READ | EXEC, libc::MAP_PRIVATE);
            }
        });
        in_case(work, "by a program", || {
            child(|| {
                write(fd);
                unsafe { libc::dup2(fd, 1) };
                run("/bin/sh", &["sh", "-c", "echo 1; echo 2"]);
                0
            });
        });
    });
    assert_eq!(story.status, 0);
    // the program's libraries aside
    let written = |case| told(&story, case).into_iter().filter(|call| call.file_op() == FileOp::Write).collect::<Vec<_>>();
    for (case, times) in [("often", 1), ("closed", TIMES), ("a range closed", TIMES), ("replaced", TIMES), ("renamed", 2)] {
        assert_told(&story, case, times);
    }
    let names: BTreeSet<_> = told(&story, "renamed").iter().map(|call| lossy(&call.path.joined())).collect();
    assert!(story.skipped > 0 || names.len() == 2, "{names:?}");
    assert_told(&story, "by a child", 1);
    assert_told(&story, "as another user", 2);
    assert_told(&story, "mapped", 3);
    let names: BTreeSet<_> = told(&story, "mapped").iter().map(|call| lossy(&call.path.joined())).collect();
    assert!(story.skipped > 0 || names.len() == 3, "{names:?}");
    let by_program = written("by a program");
    assert!(by_program.len() + usize::try_from(story.skipped).unwrap() >= 2 && by_program.len() <= 2, "{by_program:?}");
}

#[test]
fn of_libraries_are_seen_once_by_each_program() {
    const CASE: &str = "a program with libraries";
    let story = watch(|work| in_case(work, CASE, || run("/bin/sh", &["sh", "-c", ":"])));
    assert_eq!(story.status, 0);
    let mapped = told(&story, CASE);
    let files: BTreeSet<_> =
        mapped.iter().filter_map(|call| call.before).map(|inode| (inode.major, inode.minor, inode.ino)).collect();
    assert_eq!(files.len(), mapped.len(), "{mapped:?}");
    let library = mapped.iter().find(|call| call.path.walked.windows(9).any(|part| part == b"/libc.so."));
    assert!(library.is_some_and(|call| call.file_op() == FileOp::MapExec && call.flags().is_some()), "{mapped:?}");
    // What the kernel maps as it executes a program is told by that alone.
    let shell = fs::metadata("/bin/sh").unwrap().ino();
    assert!(files.iter().all(|(_, _, ino)| *ino != shell), "{mapped:?}");
}

#[test]
fn are_told_of_wanted_paths_alone() {
    let folder = tempfile::tempdir().unwrap();
    let wanted = folder.path().join("wanted");
    fs::create_dir(&wanted).unwrap();
    let mut path = wanted.as_os_str().as_bytes().to_vec();
    path.push(b'/');
    let mut probes = attach(&options(Paths::Paths(vec![path.into()])));
    let before = probes.counters().unwrap();
    let story = work_with(&mut probes, |work| {
        in_case(work, "both", || {
            for name in [folder.path().join("x"), wanted.join("y")] {
                let fd = open(name, libc::O_RDWR | libc::O_CREAT);
                assert_eq!((write(fd), write(fd)), (1, 1));
                map(fd, READ | EXEC, libc::MAP_PRIVATE);
            }
        });
    });
    assert_eq!(story.status, 0);
    let told = told(&story, "both");
    let seen: Vec<_> = told.iter().map(|call| (call.file_op(), lossy(&call.path.joined()))).collect();
    let y = wanted.join("y").to_string_lossy().into_owned();
    assert_eq!(seen, [(FileOp::Write, y.clone()), (FileOp::MapExec, y)]);
    // Those, and what sets the case apart.
    let after = probes.counters().unwrap();
    let count = |of: fn(&knark_tracer::bpf::Count) -> u64| {
        after.kinds.iter().map(of).sum::<u64>() - before.kinds.iter().map(of).sum::<u64>()
    };
    assert_eq!(count(|kind| kind.seen), story.records().count() as u64);
}
