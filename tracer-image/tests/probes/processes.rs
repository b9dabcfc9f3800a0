//! docs/coverage.md: what runs. Each row is done here, and its cell proved.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read as _, Write as _},
    os::unix::{ffi::OsStrExt as _, fs::PermissionsExt as _},
    path::Path,
    ptr,
};

use knark_tracer::bpf::{Exec, Head, Record, UNMAPPED};

use crate::harness::{Story, Work, c, lossy, ok, open, pipe, private_folder, trace};

const TABLE: &str = include_str!("../../../docs/coverage.md");

const SCRIPT: &str = "a script with `#!`";
const LOADER: &str = "a program by the dynamic loader, run by hand";
const MEMORY: &str = "memory, by execveat with `AT_EMPTY_PATH`";
const LIBRARY: &str = "a program with libraries";
const SHORT: &str = "a program that ends at once";
const AGAIN: &str = "a process that has the id of an earlier one";
const PID_NAMESPACE: &str = "a process in a PID namespace of its own";
const USER_NAMESPACE: &str = "a process in a user namespace of its own";

/// What runs, and what is shown of it.
const ROWS: [(&str, &str); 8] = [
    (SCRIPT, "the interpreter as program, the script as file name"),
    (LOADER, "the loader as program, the program among its arguments and as an open"),
    (MEMORY, "its name, marked as memory"),
    (LIBRARY, "an open of each library, and its mapping where that is asked for"),
    (SHORT, "its beginning and its end"),
    (AGAIN, "another process, since it started at another time"),
    (PID_NAMESPACE, "the node's id, and beside it the one that it knows"),
    (USER_NAMESPACE, "the node's user and group, and beside them those that it knows"),
];

#[test]
fn are_in_the_table() {
    let rows: Vec<_> = ROWS.iter().map(|(what, shown)| format!("| {what} | {shown} |")).collect();
    let (_, below) = TABLE.split_once("| what runs | what is shown |\n|---|---|\n").unwrap();
    assert_eq!(below.lines().take_while(|line| line.starts_with('|')).collect::<Vec<_>>(), rows, "docs/coverage.md");
}

/// Does it in a child, waits for that, and gives its process id and its exit code.
pub fn child(of: impl FnOnce() -> i32) -> (u32, i32) {
    let child = unsafe { libc::fork() };
    if child == 0 {
        let code = of();
        unsafe { libc::_exit(code) };
    }
    ok(child, "fork");
    let mut status = 0;
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert!(libc::WIFEXITED(status), "{status}");
    (child as u32, libc::WEXITSTATUS(status))
}

/// Runs a program to its end.
pub fn run(program: impl AsRef<Path>, args: &[&str]) {
    let program = c(program);
    let args: Vec<_> = args.iter().map(c).collect();
    let pointers: Vec<_> = args.iter().map(|arg| arg.as_ptr()).chain([ptr::null()]).collect();
    let (_, code) = child(|| unsafe { libc::execv(program.as_ptr(), pointers.as_ptr()) });
    assert_eq!(code, 0, "{}", program.to_string_lossy());
}

pub fn in_case(work: &mut Work, case: &str, doing: impl FnOnce()) {
    work.case(case);
    doing();
    work.case("");
}

fn real(path: &str) -> String {
    lossy(fs::canonicalize(path).unwrap().as_os_str().as_bytes())
}

/// The only exec of a case.
fn exec<'a>(story: &'a Story, case: &str) -> Exec<'a> {
    let mut execs = story.case(case).into_iter().filter_map(|record| match record {
        Record::Exec(exec) => Some(exec),
        _ => None,
    });
    let exec = execs.next().unwrap_or_else(|| panic!("{case}: no exec"));
    assert!(execs.next().is_none(), "{case}: more than one exec");
    exec
}

/// The paths that were opened in a case.
fn opened(story: &Story, case: &str) -> Vec<String> {
    let path = |record| match record {
        Record::Open(open) if open.result >= 0 => Some(lossy(open.path.walked)),
        _ => None,
    };
    story.case(case).into_iter().filter_map(path).collect()
}

#[test]
fn are_shown_by_what_is_executed() {
    let loader = Path::new("/lib64/ld-linux-x86-64.so.2");
    let has_loader = loader.exists();
    let story = trace(|work| {
        let folder = private_folder();
        let script = folder.path().join("script");
        fs::write(&script, "#!/bin/sh\nexit 0\n").unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        work.say("script", script.as_os_str().as_bytes());
        let program = fs::read("/bin/true").unwrap();
        in_case(work, SCRIPT, || run(&script, &["script"]));
        in_case(work, LIBRARY, || run("/bin/sh", &["sh", "-c", ":"]));
        if has_loader {
            in_case(work, LOADER, || run(loader, &["ld.so", "/bin/sh", "-c", ":"]));
        }
        let memory = unsafe { libc::memfd_create(c"payload".as_ptr(), libc::MFD_CLOEXEC) };
        ok(memory, "memfd_create");
        assert_eq!(unsafe { libc::write(memory, program.as_ptr().cast(), program.len()) }, program.len() as isize);
        in_case(work, MEMORY, || {
            let args = [c"true".as_ptr(), ptr::null()];
            let empty = c"".as_ptr();
            let execute = || unsafe {
                libc::syscall(libc::SYS_execveat, memory, empty, args.as_ptr(), &args[1], libc::AT_EMPTY_PATH) as i32
            };
            assert_eq!(child(execute).1, 0);
        });
    });
    assert_eq!(story.status, 0);
    let script = exec(&story, SCRIPT);
    assert_eq!((lossy(script.exe.walked), lossy(script.filename)), (real("/bin/sh"), lossy(story.word("script"))));
    let memory = exec(&story, MEMORY);
    assert_eq!((lossy(memory.exe.walked), memory.memfd()), ("memfd:payload".into(), true));
    // Mappings aren't asked for here: a library is there once.
    let libraries: Vec<_> = opened(&story, LIBRARY).into_iter().filter(|path| path.contains(".so.")).collect();
    let different: BTreeSet<_> = libraries.iter().collect();
    let library = libraries.iter().find(|path| path.contains("/libc.so."));
    assert!(library.is_some() && different.len() == libraries.len(), "{libraries:?}");
    if !has_loader {
        println!("not tested, since there is no loader of that name: {LOADER}");
        return;
    }
    let by_hand = exec(&story, LOADER);
    assert_eq!(lossy(by_hand.exe.walked), real(loader.to_str().unwrap()));
    assert_eq!(lossy(by_hand.args), "ld.so\0/bin/sh\0-c\0:\0");
    assert!(opened(&story, LOADER).contains(&real("/bin/sh")), "{:?}", opened(&story, LOADER));
}

#[test]
fn are_shown_however_short_they_live() {
    const TIMES: usize = 100;
    let story = trace(|work| {
        in_case(work, SHORT, || (0..TIMES).for_each(|_| run("/bin/true", &["true"])));
    });
    assert_eq!(story.status, 0);
    let (mut began, mut ended) = (BTreeSet::new(), BTreeSet::new());
    for record in story.case(SHORT) {
        match record {
            Record::Exec(exec) => drop(began.insert((exec.head.tgid, exec.head.start_ns))),
            Record::Exit(exit) => drop(ended.insert((exit.head.tgid, exit.head.start_ns))),
            _ => {}
        }
    }
    assert_eq!((began.len(), &began), (TIMES, &ended));
}

/// `struct clone_args`, as far as it is used.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    descriptors: [u64; 3],
    exit_signal: u64,
    stack: [u64; 3],
    set_tid: u64,
    set_tid_size: u64,
}

#[test]
fn are_told_apart_where_an_id_is_used_again() {
    let story = trace(|work| {
        let read = || {
            open("/proc/sys/kernel/hostname", 0);
            0
        };
        work.case(AGAIN);
        let (id, _) = child(read);
        let ids = [id as i32];
        let args = CloneArgs {
            exit_signal: libc::SIGCHLD as u64,
            set_tid: ids.as_ptr() as u64,
            set_tid_size: 1,
            ..CloneArgs::default()
        };
        let again = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of_val(&args)) } as i32;
        if again == 0 {
            unsafe { libc::_exit(read()) };
        }
        ok(again, "clone3");
        assert_eq!(again as u32, id);
        unsafe { libc::waitpid(again, ptr::null_mut(), 0) };
        work.case("");
    });
    assert_eq!(story.status, 0);
    let mut processes = Vec::new();
    for record in story.case(AGAIN) {
        if let Record::Open(open) = record {
            processes.push((open.head.tgid, open.head.start_ns));
        }
    }
    let [(first, began), (second, began_later)] = processes[..] else { panic!("{processes:?}") };
    assert!(first == second && began < began_later, "{processes:?}");
}

fn read() -> i32 {
    open("/proc/sys/kernel/hostname", 0)
}

/// The heads of the opens of a case that read().
fn read_by(story: &Story, case: &str) -> Vec<Head> {
    let records = story.case(case).into_iter();
    let reads = records.filter(|record| matches!(record, Record::Open(open) if open.path.walked.ends_with(b"/hostname")));
    reads.map(|record| *record.head()).collect()
}

/// A number that the work said.
fn number(story: &Story, name: &str) -> u32 {
    u32::from_ne_bytes(story.word(name).try_into().unwrap())
}

#[test]
fn are_shown_with_both_ids_of_a_pid_namespace() {
    let story = trace(|work| {
        work.case(PID_NAMESPACE);
        read();
        ok(unsafe { libc::unshare(libc::CLONE_NEWPID) }, "unshare");
        // Its own id stays as it is.
        read();
        let (id, own) = child(|| {
            read();
            // A thread has the id of its process.
            std::thread::spawn(read).join().unwrap();
            child(|| 0);
            ok(unsafe { libc::unshare(libc::CLONE_NEWPID) }, "unshare");
            // Of three that know it by a number, this one's own counts.
            let (_, nested) = child(|| {
                read();
                run("/bin/true", &["true"]);
                unsafe { libc::getpid() }
            });
            assert_eq!(nested, 1);
            unsafe { libc::getpid() }
        });
        work.case("");
        assert_eq!(own, 1);
        work.say("id", id.to_ne_bytes());
    });
    assert_eq!(story.status, 0);
    let id = number(&story, "id");
    let [before, after, first, thread, nested] = read_by(&story, PID_NAMESPACE)[..] else { panic!() };
    for head in [before, after] {
        assert_eq!((head.tgid, head.ns_tgid), (story.tgid, story.tgid));
    }
    assert_eq!((first.tgid, first.ns_tgid), (id, 1));
    assert_eq!((thread.tgid, thread.ns_tgid, thread.tid == thread.tgid), (id, 1, false));
    assert_eq!((nested.ppid, nested.ns_tgid), (id, 1));
    // What it ran, from its beginning to its end, however short: the second one in that namespace.
    let short = |record: &Record<'_>| record.head().ppid == nested.tgid;
    let told: Vec<_> = story.case(PID_NAMESPACE).into_iter().filter(short).collect();
    assert!(matches!(told.first(), Some(Record::Exec(_))) && matches!(told.last(), Some(Record::Exit(_))), "{told:?}");
    assert!(told.iter().all(|record| record.head().ns_tgid == 2), "{told:?}");
}

#[test]
fn are_shown_with_both_ids_of_a_user_namespace() {
    /// What the namespace calls them, how the node does, and how many there are: first few, ...
    const FEW: &[[u32; 3]] = &[[200, 0, 1], [100, 3_000, 10], [0, 1_000, 100]];
    /// ... then more than what lies in the kernel's map itself.
    const MANY: &[[u32; 3]] =
        &[[500, 70_000, 3], [0, 0, 1], [10, 3_000, 10], [20, 2_000, 10], [90, 1_000, 2], [40, 5_000, 5], [3_000, 300, 1]];
    let maps = [("few", FEW), ("many", MANY)];
    let story = trace(|work| {
        in_case(work, "unmapped", || {
            child(|| {
                ok(unsafe { libc::unshare(libc::CLONE_NEWUSER) }, "unshare");
                read();
                fs::write("/proc/self/setgroups", "deny").unwrap();
                fs::write("/proc/self/gid_map", "7 0 1").unwrap();
                read();
                0
            });
        });
        for (case, map) in maps {
            in_case(work, case, || as_mapped(map));
        }
    });
    assert_eq!(story.status, 0);
    let ids = |head: &Head| (head.uid, head.gid, head.ns_uid, head.ns_gid);
    let unmapped: Vec<_> = read_by(&story, "unmapped").iter().map(ids).collect();
    assert_eq!(unmapped, [(0, 0, UNMAPPED, UNMAPPED), (0, 0, UNMAPPED, 7)]);
    for (case, map) in maps {
        let told: Vec<_> = read_by(&story, case).iter().map(ids).collect();
        let each = ends(map).map(|(own, node)| (node, node, own, own));
        assert_eq!(told, each.collect::<Vec<_>>(), "{case}");
    }
    // Here they are the same.
    let own = story.records().find(|record| record.head().tgid == story.tgid).map(|record| ids(record.head()));
    assert_eq!(own, Some((0, 0, 0, 0)));
}

/// The first and the last of each extent: as the namespace, and as the node counts it.
fn ends(map: &[[u32; 3]]) -> impl Iterator<Item = (u32, u32)> {
    map.iter().flat_map(|[own, node, count]| [(*own, *node), (own + count - 1, node + count - 1)])
}

/// Reads as each of these users, in a user namespace with that map.
fn as_mapped(map: &[[u32; 3]]) {
    let (ready, written) = (pipe(), pipe());
    let process = unsafe { libc::fork() };
    if process == 0 {
        drop((ready.0, written.1));
        ok(unsafe { libc::unshare(libc::CLONE_NEWUSER) }, "unshare");
        fs::File::from(ready.1).write_all(b".").unwrap();
        fs::File::from(written.0).read_exact(&mut [0]).unwrap();
        for (id, _) in ends(map) {
            let (_, code) = child(|| {
                ok(unsafe { libc::setresgid(id, id, id) }, "setresgid");
                ok(unsafe { libc::setresuid(id, id, id) }, "setresuid");
                read();
                i32::from(unsafe { libc::geteuid() } != id)
            });
            assert_eq!(code, 0);
        }
        unsafe { libc::_exit(0) };
    }
    ok(process, "fork");
    drop((ready.1, written.0));
    fs::File::from(ready.0).read_exact(&mut [0]).unwrap();
    let lines: Vec<_> = map.iter().map(|[own, node, count]| format!("{own} {node} {count}\n")).collect();
    let text = lines.concat();
    for file in ["uid_map", "gid_map"] {
        fs::write(format!("/proc/{process}/{file}"), &text).unwrap();
    }
    fs::File::from(written.1).write_all(b".").unwrap();
    let mut status = 0;
    unsafe { libc::waitpid(process, &raw mut status, 0) };
    assert_eq!(status, 0);
}
