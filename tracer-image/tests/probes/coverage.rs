//! docs/coverage.md: each row is done here, and each of its cells proved.

use std::{
    ffi::CStr,
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    sync::atomic::{AtomicBool, AtomicU8, Ordering},
    thread,
};

use knark_tracer::bpf::{PathSource, Record, Tier, mark};

use crate::{
    harness::{Story, Work, c, close, lossy, mount, ok, open, precise, private_folder, readlink, result, statuses, trace},
    ways::{Ask, Ring, int80, low, receive, send, sockets},
    writes,
};

const TABLE: &str = include_str!("../../../docs/coverage.md");

/// How a row is seen, as the table says it.
pub const SEEN: &str = "seen";
const ARGUMENT: &str = "argument";
pub const NOT_SEEN: &str = "not seen";

/// What is done; the call whose tier decides (for opens that their tracepoints don't see, one that has programs as they do); the path that is touched; how the precise and the portable tier see it.
pub type Row = (&'static str, &'static str, &'static str, &'static str, &'static str);

const ROWS: [Row; 47] = [
    ("chmod through a symbolic link", "fchmodat", "/file", SEEN, ARGUMENT),
    ("chmod through `/proc/self/fd`", "fchmodat", "/file", SEEN, ARGUMENT),
    ("chown through a symbolic link", "fchownat", "/file", SEEN, ARGUMENT),
    ("fchmod", "fchmod", "/file", SEEN, SEEN),
    ("fchmodat2 on a descriptor (`AT_EMPTY_PATH`)", "fchmodat2", "/file", SEEN, SEEN),
    ("unlink through a linked folder", "unlinkat", "/dir/a", SEEN, ARGUMENT),
    ("rename through a linked folder", "renameat2", "/dir/b", SEEN, ARGUMENT),
    ("link to what is named through a linked folder", "linkat", "/dir/c", SEEN, ARGUMENT),
    ("mkdir through a linked folder", "mkdirat", "/dir/made", SEEN, ARGUMENT),
    ("truncate through a symbolic link", "truncate", "/file", SEEN, ARGUMENT),
    ("ftruncate", "ftruncate", "/file", SEEN, SEEN),
    ("setxattr through a symbolic link", "setxattr", "/file", SEEN, ARGUMENT),
    ("setxattr of an access control list through a symbolic link", "setxattr", "/file", SEEN, ARGUMENT),
    ("removexattr through a symbolic link", "removexattr", "/file", SEEN, ARGUMENT),
    ("fsetxattr", "fsetxattr", "/file", SEEN, SEEN),
    ("rename over a file, through a linked folder", "renameat2", "/dir/h", SEEN, ARGUMENT),
    ("chmod under a hard link's name", "fchmodat", "/hard", SEEN, ARGUMENT),
    ("chmod under a bind mount's name", "fchmodat", "/bound/i", SEEN, ARGUMENT),
    ("open through a symbolic link", "openat", "/file", SEEN, SEEN),
    ("open through `/proc/self/fd`", "openat", "/file", SEEN, SEEN),
    ("open with `O_PATH`", "openat", "/file", SEEN, SEEN),
    ("open of what is open with `O_PATH`, through `/proc/self/fd`", "openat", "/file", SEEN, SEEN),
    ("open under a hard link's name", "openat", "/hard", SEEN, SEEN),
    ("open under a bind mount's name", "openat", "/bound/i", SEEN, SEEN),
    ("openat2 with `RESOLVE_IN_ROOT`, through a link to `/`", "openat2", "/dir/i", SEEN, SEEN),
    ("open_by_handle_at", "open_by_handle_at", "/dir/i", SEEN, SEEN),
    ("int 0x80: chmod", "fchmodat", "/file", SEEN, NOT_SEEN),
    ("int 0x80: chown", "fchownat", "/file", SEEN, NOT_SEEN),
    ("int 0x80: rename", "renameat2", "/dir/d", SEEN, NOT_SEEN),
    ("int 0x80: unlink", "unlinkat", "/dir/e", SEEN, NOT_SEEN),
    ("int 0x80: mkdir", "mkdirat", "/low", SEEN, NOT_SEEN),
    ("int 0x80: open", "fchmodat", "/file", SEEN, NOT_SEEN),
    ("int 0x80: truncate", "truncate", "/file", SEEN, NOT_SEEN),
    ("int 0x80: ftruncate", "ftruncate", "/file", SEEN, NOT_SEEN),
    ("int 0x80: setxattr", "setxattr", "/file", SEEN, NOT_SEEN),
    ("int 0x80: removexattr", "removexattr", "/file", SEEN, NOT_SEEN),
    ("io_uring: renameat", "renameat2", "/dir/f", SEEN, NOT_SEEN),
    ("io_uring: unlinkat", "unlinkat", "/dir/g", SEEN, NOT_SEEN),
    ("io_uring: linkat", "linkat", "/file", SEEN, NOT_SEEN),
    ("io_uring: symlinkat", "symlinkat", "/ring link", SEEN, NOT_SEEN),
    ("io_uring: mkdirat", "mkdirat", "/ring", SEEN, NOT_SEEN),
    ("io_uring: openat", "fchmodat", "/file", SEEN, NOT_SEEN),
    ("io_uring: ftruncate", "ftruncate", "/file", SEEN, NOT_SEEN),
    ("io_uring: setxattr", "setxattr", "/file", SEEN, NOT_SEEN),
    ("io_uring: fsetxattr", "fsetxattr", "/file", SEEN, NOT_SEEN),
    ("fchmod on a descriptor that came over a socket", "fchmod", "/file", SEEN, SEEN),
    ("a descriptor comes over a socket", "openat", "/file", NOT_SEEN, NOT_SEEN),
];

/// What races do, each in a test of its own: how the precise and the portable tier see it.
const RACES: [(&str, &str, &str); 2] = [
    ("chmod of a name that another thread keeps changing", SEEN, ARGUMENT),
    ("open of a name that another thread keeps changing", SEEN, SEEN),
];

/// Does it, and says so if it could be done.
pub fn row(work: &mut Work, case: &str, doing: impl FnOnce() -> i64) {
    work.case(case);
    let done = doing();
    work.case("");
    work.say(case, done.to_ne_bytes());
}

fn by_names(work: &mut Work) {
    let cwd = libc::AT_FDCWD;
    let file = open("file", libc::O_RDWR);
    let only_path = open("file", libc::O_PATH);
    let here = open(".", libc::O_RDONLY);
    // a handle leads to any of several
    let one_name = open("dir/i", libc::O_RDONLY);
    let [proc, proc_path] = [file, only_path].map(|fd| c(format!("/proc/self/fd/{fd}")));
    let [to_file, empty, a, list] = [c"to file", c"", c"trusted.a", c"system.posix_acl_access"].map(CStr::as_ptr);
    let in_root: [u64; 3] = [0, 0, 0x10 /* RESOLVE_IN_ROOT */];
    let mut call = |case: &str, doing: &dyn Fn() -> libc::c_long| row(work, case, || result(doing()));
    let all: [(&str, &dyn Fn() -> libc::c_long); 26] = unsafe {
        [
            ("chmod through a symbolic link", &|| libc::syscall(libc::SYS_fchmodat, cwd, to_file, 0o600)),
            ("chmod through `/proc/self/fd`", &|| libc::syscall(libc::SYS_fchmodat, cwd, proc.as_ptr(), 0o640)),
            ("chown through a symbolic link", &|| libc::syscall(libc::SYS_fchownat, cwd, to_file, 1, 2, 0)),
            ("fchmod", &|| libc::syscall(libc::SYS_fchmod, file, 0o600)),
            ("fchmodat2 on a descriptor (`AT_EMPTY_PATH`)", &|| libc::syscall(452, file, empty, 0o644, libc::AT_EMPTY_PATH)),
            ("unlink through a linked folder", &|| libc::syscall(libc::SYS_unlinkat, cwd, c"to dir/a".as_ptr(), 0)),
            ("rename through a linked folder", &|| {
                libc::syscall(libc::SYS_renameat2, cwd, c"to dir/b".as_ptr(), cwd, c"to dir/b2".as_ptr(), 0)
            }),
            ("link to what is named through a linked folder", &|| {
                libc::syscall(libc::SYS_linkat, cwd, c"to dir/c".as_ptr(), cwd, c"c2".as_ptr(), 0)
            }),
            ("mkdir through a linked folder", &|| libc::syscall(libc::SYS_mkdirat, cwd, c"to dir/made".as_ptr(), 0o700)),
            ("truncate through a symbolic link", &|| libc::syscall(libc::SYS_truncate, to_file, 1)),
            ("ftruncate", &|| libc::syscall(libc::SYS_ftruncate, file, 2)),
            ("setxattr through a symbolic link", &|| libc::syscall(libc::SYS_setxattr, to_file, a, c"v".as_ptr(), 1_usize, 0)),
            ("setxattr of an access control list through a symbolic link", &|| {
                libc::syscall(libc::SYS_setxattr, to_file, list, LIST.as_ptr(), size_of_val(&LIST), 0)
            }),
            ("removexattr through a symbolic link", &|| libc::syscall(libc::SYS_removexattr, to_file, a)),
            ("fsetxattr", &|| libc::syscall(libc::SYS_fsetxattr, file, a, c"v".as_ptr(), 1_usize, 0)),
            ("rename over a file, through a linked folder", &|| {
                libc::syscall(libc::SYS_renameat2, cwd, c"to dir/h".as_ptr(), cwd, c"over".as_ptr(), 0)
            }),
            ("chmod under a hard link's name", &|| libc::syscall(libc::SYS_fchmodat, cwd, c"hard".as_ptr(), 0o600)),
            ("chmod under a bind mount's name", &|| libc::syscall(libc::SYS_fchmodat, cwd, c"bound/i".as_ptr(), 0o600)),
            ("open through a symbolic link", &|| libc::syscall(libc::SYS_openat, cwd, to_file, 0)),
            ("open through `/proc/self/fd`", &|| libc::syscall(libc::SYS_openat, cwd, proc.as_ptr(), 0)),
            ("open with `O_PATH`", &|| libc::syscall(libc::SYS_openat, cwd, c"file".as_ptr(), libc::O_PATH)),
            ("open of what is open with `O_PATH`, through `/proc/self/fd`", &|| {
                libc::syscall(libc::SYS_openat, cwd, proc_path.as_ptr(), libc::O_RDWR)
            }),
            ("open under a hard link's name", &|| libc::syscall(libc::SYS_openat, cwd, c"hard".as_ptr(), 0)),
            ("open under a bind mount's name", &|| libc::syscall(libc::SYS_openat, cwd, c"bound/i".as_ptr(), 0)),
            ("openat2 with `RESOLVE_IN_ROOT`, through a link to `/`", &|| {
                libc::syscall(libc::SYS_openat2, here, c"to root/dir/i".as_ptr(), in_root.as_ptr(), size_of_val(&in_root))
            }),
            ("open_by_handle_at", &|| by_handle(one_name)),
        ]
    };
    for (case, doing) in all {
        call(case, doing);
    }
}

/// An access control list that says no more than a mode: its version, then (what, which permissions, whose) in 2, 2 and 4 bytes.
static LIST: [u32; 7] = [2, 0x6_0001, u32::MAX, 0x4_0004, u32::MAX, 0x4_0020, u32::MAX];

/// What is done through descriptors that are open already.
fn by_descriptors(work: &mut Work) {
    let file = open("file", libc::O_RDWR);
    let sockets = sockets();
    send(sockets[0], file);
    let mut came = -1;
    row(work, "a descriptor comes over a socket", || {
        came = receive(sockets[1]);
        i64::from(came)
    });
    row(work, "fchmod on a descriptor that came over a socket", || {
        result(unsafe { libc::syscall(libc::SYS_fchmod, came, 0o644) })
    });
}

/// `struct file_handle`, with room for what any file system puts there.
#[repr(C)]
struct Handle {
    bytes: u32,
    kind: i32,
    id: [u8; 128],
}

fn by_handle(file: i32) -> libc::c_long {
    let mut handle = Handle { bytes: 128, kind: 0, id: [0; 128] };
    let mut mount = 0_i32;
    unsafe {
        let empty = c"".as_ptr();
        let named = libc::syscall(libc::SYS_name_to_handle_at, file, empty, &raw mut handle, &raw mut mount, libc::AT_EMPTY_PATH);
        assert_eq!(named, 0, "name_to_handle_at: {}", std::io::Error::last_os_error());
        libc::syscall(libc::SYS_open_by_handle_at, file, &raw mut handle, 0)
    }
}

fn by_32_bit_calls(work: &mut Work) {
    let descriptor = open("file", libc::O_RDWR) as u64;
    let attribute = low("trusted.low");
    row(work, "int 0x80: chmod", || int80(15, [low("to file"), 0o600, 0, 0, 0]));
    row(work, "int 0x80: chown", || int80(212, [low("file"), 3, 4, 0, 0]));
    row(work, "int 0x80: rename", || int80(38, [low("dir/d"), low("dir/d2"), 0, 0, 0]));
    row(work, "int 0x80: unlink", || int80(10, [low("dir/e"), 0, 0, 0, 0]));
    row(work, "int 0x80: mkdir", || int80(39, [low("low"), 0o700, 0, 0, 0]));
    row(work, "int 0x80: open", || int80(5, [low("file"), 0, 0, 0, 0]));
    row(work, "int 0x80: truncate", || int80(92, [low("to file"), 3, 0, 0, 0]));
    row(work, "int 0x80: ftruncate", || int80(93, [descriptor, 4, 0, 0, 0]));
    row(work, "int 0x80: setxattr", || int80(226, [low("to file"), attribute, low("v"), 1, 0]));
    row(work, "int 0x80: removexattr", || int80(235, [low("to file"), attribute, 0, 0, 0]));
}

fn by_io_uring(work: &mut Work) {
    let Some(mut ring) = Ring::new() else { return };
    work.say("native", if ring.native { "yes" } else { "no" });
    let cwd = libc::AT_FDCWD as u64;
    let at = |name: &'static CStr| name.as_ptr() as u64;
    let [file, two, g] = [at(c"file"), at(c"dir/f2"), at(c"dir/g")];
    row(work, "io_uring: openat", || ring.ask(Ask::Openat, [cwd, file, 0, 0, 0]));
    row(work, "io_uring: renameat", || ring.ask(Ask::Renameat, [cwd, at(c"to dir/f"), cwd, two, 0]));
    row(work, "io_uring: unlinkat", || ring.ask(Ask::Unlinkat, [cwd, g, 0, 0, 0]));
    row(work, "io_uring: linkat", || ring.ask(Ask::Linkat, [cwd, file, cwd, at(c"ring hard"), 0]));
    row(work, "io_uring: symlinkat", || ring.ask(Ask::Symlinkat, [at(c"text"), cwd, at(c"ring link"), 0, 0]));
    row(work, "io_uring: mkdirat", || ring.ask(Ask::Mkdirat, [cwd, at(c"ring"), 0o700, 0, 0]));
    let descriptor = open("file", libc::O_RDWR) as u64;
    let [name, value] = [at(c"trusted.ring"), at(c"v")];
    row(work, "io_uring: ftruncate", || ring.ask(Ask::Ftruncate, [descriptor, 5, 0, 0, 0]));
    row(work, "io_uring: setxattr", || ring.ask(Ask::Setxattr, [at(c"to file"), name, value, 1, 0]));
    row(work, "io_uring: fsetxattr", || ring.ask(Ask::Fsetxattr, [descriptor, name, value, 1, 0]));
}

pub fn how<'a>(story: &'a Story, case: &str, path: &str) -> (&'static str, Vec<Record<'a>>) {
    let records: Vec<_> = story.case(case).into_iter().filter(|r| matches!(r, Record::Open(_) | Record::Path(_))).collect();
    let is_it = |record: &Record<'_>| {
        let name = match record {
            Record::Open(open) => &open.path,
            Record::Path(call) => &call.path,
            _ => return false,
        };
        name.source() == PathSource::Kernel && lossy(&name.joined()) == path
    };
    let how = match &records[..] {
        [] => NOT_SEEN,
        [one] if is_it(one) => SEEN,
        [_] => ARGUMENT,
        _ => "seen more than once",
    };
    (how, records)
}

#[test]
fn is_as_the_table_says() {
    let story = trace(|work| {
        let folder = private_folder();
        std::env::set_current_dir(folder.path()).unwrap();
        work.say("folder", folder.path().as_os_str().as_encoded_bytes());
        fs::create_dir("dir").unwrap();
        fs::write("file", "12345").unwrap();
        for name in ["a", "b", "c", "d", "e", "f", "g", "h", "i"] {
            fs::write(format!("dir/{name}"), name).unwrap();
        }
        fs::write("over", "").unwrap();
        fs::hard_link("file", "hard").unwrap();
        mount(&c("dir"), &folder.path().join("bound"), "", libc::MS_BIND, "");
        symlink("file", "to file").unwrap();
        symlink("dir", "to dir").unwrap();
        symlink("/", "to root").unwrap();
        by_names(work);
        by_descriptors(work);
        by_32_bit_calls(work);
        by_io_uring(work);
    });
    assert_eq!(story.status, 0);
    let folder = lossy(story.word("folder"));
    let mut table = Vec::new();
    for (case, call, path, in_precise, in_portable) in ROWS {
        table.push(format!("| {case} | {in_precise} | {in_portable} |"));
        let Some((_, done)) = story.said().find(|(said, _)| *said == case) else {
            println!("not tested, since this kernel has no io_uring: {case}");
            continue;
        };
        let done = i64::from_ne_bytes(done.try_into().unwrap());
        // some came with 5.11, 5.15, 5.19, 6.6 and 6.9, and some file systems have no such lists
        let newer = case.starts_with("io_uring") && done == -i64::from(libc::EINVAL);
        let no_lists = case.contains("access control") && done == -i64::from(libc::EOPNOTSUPP);
        if newer || no_lists || done == -i64::from(libc::ENOSYS) {
            println!("not tested, since this kernel lacks it: {case}");
            continue;
        }
        assert!(done >= 0, "{case}: {done}");
        // Before 5.12 threads of no process open files for io_uring.
        let strange = case == "io_uring: openat" && story.word("native") == b"no";
        let want = if precise(call) && !strange { in_precise } else { in_portable };
        let (seen, records) = how(&story, case, &format!("{folder}{path}"));
        assert_eq!(seen, want, "{case}: {records:?}");
        for record in records {
            let head = record.head();
            assert_eq!(head.has(mark::IO_URING), case.starts_with("io_uring"), "{case}");
            assert_eq!(head.has(mark::COMPAT), case.starts_with("int 0x80"), "{case}");
            if let Record::Path(call) = record {
                assert_eq!(call.result, 0, "{case}");
                let attribute = call.xattr.map(|xattr| lossy(xattr.name)).unwrap_or_default();
                assert_eq!(!attribute.is_empty(), case.contains("xattr"), "{case}: {attribute}");
                if case.starts_with("rename over") {
                    let over = lossy(&call.second.unwrap().normalized());
                    assert_eq!(over, format!("{folder}/over"), "{case}");
                }
            }
        }
    }
    table.extend(writes::ROWS.map(|(case, _, _, in_precise, in_portable)| format!("| {case} | {in_precise} | {in_portable} |")));
    table.extend(RACES.map(|(case, in_precise, in_portable)| format!("| {case} | {in_precise} | {in_portable} |")));
    let documented: Vec<&str> = TABLE.lines().filter(|line| line.ends_with("seen |") || line.ends_with("argument |")).collect();
    assert_eq!(documented, table, "docs/coverage.md");
}

#[test]
fn is_precise_for_all_calls_that_can_be_or_says_why() {
    let statuses = statuses();
    let could_be = [
        "chmod",
        "chown",
        "unlink",
        "rmdir",
        "rename",
        "link",
        "symlink",
        "mkdir",
        "mknod",
        "truncate",
        "ftruncate",
        "setxattr",
        "fremovexattr",
    ];
    let not: Vec<_> = statuses.iter().filter_map(|probe| Some((&probe.name, probe.not_precise.as_ref()?))).collect();
    let precise = |call: &&str| statuses.iter().any(|probe| probe.name == **call && probe.tier == Tier::Precise);
    match could_be.iter().filter(|call| precise(call)).count() {
        13 => assert!(not.is_empty(), "{not:?}"),
        0 if std::env::var("KNARK_TEST_TIER").as_deref() == Ok("portable") => assert!(not.is_empty(), "{not:?}"),
        0 => {
            assert!(not.iter().any(|(_, why)| why.contains("forbidden")), "{not:?}");
            println!("not tested, since this kernel forbids programs on its functions: the precise tier");
        }
        _ => panic!("{not:?}"),
    }
}

#[test]
fn in_an_overlay_is_what_was_asked_of_it() {
    let story = trace(|work| {
        let folder = private_folder();
        std::env::set_current_dir(folder.path()).unwrap();
        work.say("folder", folder.path().as_os_str().as_encoded_bytes());
        for name in ["lo", "up", "wk"] {
            fs::create_dir(name).unwrap();
        }
        let attribute = c"trusted.below".as_ptr();
        for name in ["a", "b", "c", "d"] {
            let below = c(format!("lo/{name}"));
            fs::write(format!("lo/{name}"), "12345").unwrap();
            let set = unsafe { libc::setxattr(below.as_ptr(), attribute, c"v".as_ptr().cast(), 1, 0) };
            ok(set, "setxattr");
        }
        mount(c"overlay", &folder.path().join("mnt"), "overlay", 0, "lowerdir=lo,upperdir=up,workdir=wk");
        // each is copied first, with the attribute that it has
        row(work, "setxattr", || {
            let (value, name) = (c"v".as_ptr(), c"trusted.above".as_ptr());
            result(unsafe { libc::syscall(libc::SYS_setxattr, c"mnt/a".as_ptr(), name, value, 1_usize, 0) })
        });
        row(work, "int 0x80: setxattr", || int80(226, [low("mnt/b"), low("trusted.above"), low("v"), 1, 0]));
        row(work, "truncate", || result(unsafe { libc::syscall(libc::SYS_truncate, c"mnt/c".as_ptr(), 2) }));
        if let Some(mut ring) = Ring::new() {
            let cwd = libc::AT_FDCWD as u64;
            row(work, "io_uring: openat", || ring.ask(Ask::Openat, [cwd, c"mnt/d".as_ptr() as u64, libc::O_RDWR as u64, 0, 0]));
        }
    });
    assert_eq!(story.status, 0);
    let folder = lossy(story.word("folder"));
    for (case, call, path) in
        [("setxattr", "setxattr", "/mnt/a"), ("int 0x80: setxattr", "setxattr", "/mnt/b"), ("truncate", "truncate", "/mnt/c")]
    {
        assert_eq!(story.word(case), 0_i64.to_ne_bytes(), "{case}");
        let want = match (precise(call), case.starts_with("int 0x80")) {
            (true, _) => SEEN,
            (false, true) => NOT_SEEN,
            (false, false) => ARGUMENT,
        };
        let (seen, records) = how(&story, case, &format!("{folder}{path}"));
        assert_eq!(seen, want, "{case}: {records:?}");
        for record in records {
            let Record::Path(call) = record else { panic!("{case}: {record:?}") };
            let attribute = call.xattr.map(|xattr| lossy(xattr.name));
            assert_eq!((call.result, attribute), (0, case.contains("xattr").then(|| "trusted.above".to_owned())), "{case}");
        }
    }
    let opened = story.case("io_uring: openat");
    assert!(!opened.iter().any(|record| matches!(record, Record::Path(_))), "{opened:?}");
}

#[test]
fn of_a_name_that_is_changed_meanwhile_is_what_was_used() {
    const TRIES: u32 = 300;
    let story = trace(|work| {
        let folder = private_folder();
        std::env::set_current_dir(folder.path()).unwrap();
        work.say("folder", folder.path().as_os_str().as_encoded_bytes());
        for name in ["a", "b"] {
            fs::write(name, "").unwrap();
            fs::set_permissions(name, fs::Permissions::from_mode(0o000)).unwrap();
        }
        let name = [AtomicU8::new(b'a'), AtomicU8::new(0)];
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    name[0].fetch_xor(b'a' ^ b'b', Ordering::Relaxed);
                }
            });
            for try_ in 1..=TRIES {
                let mode = try_ & 0o777 | 0o1000;
                work.case(&try_.to_string());
                let done = unsafe { libc::syscall(libc::SYS_fchmodat, libc::AT_FDCWD, name.as_ptr(), mode) };
                work.case("");
                ok(done as i32, "fchmodat");
                let changed = ["a", "b"].into_iter().find(|name| fs::metadata(name).unwrap().mode() & 0o7777 == mode).unwrap();
                work.say(&try_.to_string(), changed);
                fs::set_permissions(changed, fs::Permissions::from_mode(0o000)).unwrap();
                work.case(&format!("open {try_}"));
                let opened = unsafe { libc::open(name.as_ptr().cast(), 0) };
                work.case("");
                ok(opened, "open");
                work.say(&format!("open {try_}"), readlink(opened));
                close(opened);
            }
            stop.store(true, Ordering::Relaxed);
        });
    });
    assert_eq!(story.status, 0);
    let folder = lossy(story.word("folder"));
    let mut checked = 0;
    for (try_, used) in story.said().filter(|(case, _)| *case != "folder") {
        for record in story.case(try_) {
            match record {
                Record::Path(call) if precise("fchmodat") => {
                    assert_eq!(lossy(&call.path.joined()), format!("{folder}/{}", lossy(used)), "{call:?}");
                }
                // as it was when the call began
                Record::Path(call) => assert_eq!(call.path.source(), PathSource::Argument, "{call:?}"),
                Record::Open(open) => assert_eq!(lossy(open.path.walked), lossy(used), "{open:?}"),
                _ => continue,
            }
            checked += 1;
        }
    }
    // a kernel that preempts programs skips some, and counts them
    assert!(checked + story.skipped >= 2 * u64::from(TRIES), "{checked} of 2 * {TRIES}, {} skipped", story.skipped);
}
