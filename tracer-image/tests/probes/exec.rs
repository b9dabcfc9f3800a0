//! Programs that start and end.

use std::{
    ffi::CString,
    fs,
    io::Read as _,
    os::unix::{ffi::OsStrExt as _, fs::PermissionsExt as _},
    path::Path,
    process::Command,
    ptr,
};

use knark_tracer::bpf::{Args, Exec, Head, Record, Upper, mark};

use crate::harness::{Story, c, lossy, mount, ok, open, private_folder, trace};

/// The exec of the work's own process, and all of its arguments.
fn exec(story: &Story) -> (Exec<'_>, Vec<u8>) {
    let mut args = Args::default();
    let mut found = None;
    for record in story.records() {
        match record {
            Record::ExecArgs(part) => args.push(&part),
            Record::Exec(exec) if exec.head.tgid == story.tgid => {
                let joined = args.join(&exec).into_owned();
                assert!(found.replace((exec, joined)).is_none(), "more than one exec");
            }
            _ => {}
        }
    }
    found.expect("no exec")
}

fn execv(program: impl AsRef<Path>, args: &[&[u8]]) {
    let program = c(program);
    let args: Vec<CString> = args.iter().map(|arg| CString::new(*arg).unwrap()).collect();
    let pointers: Vec<_> = args.iter().map(|arg| arg.as_ptr()).chain([ptr::null()]).collect();
    unsafe { libc::execv(program.as_ptr(), pointers.as_ptr()) };
    panic!("execv: {}", std::io::Error::last_os_error());
}

fn zeros(args: &[&[u8]]) -> Vec<u8> {
    args.iter().flat_map(|arg| arg.iter().copied().chain([0])).collect()
}

fn truth() -> String {
    lossy(fs::canonicalize("/bin/true").unwrap().as_os_str().as_bytes())
}

#[test]
fn has_its_arguments_folder_and_ancestors() {
    let story = trace(|_| {
        std::env::set_current_dir("/sys").unwrap();
        execv("/bin/true", &[b"true", b"", b"a b\xff"]);
    });
    let (exec, args) = exec(&story);
    assert_eq!(lossy(exec.exe.walked), truth());
    assert_eq!(lossy(exec.filename), "/bin/true");
    assert_eq!(lossy(exec.cwd.walked), "/sys");
    assert_eq!(args, zeros(&[b"true", b"", b"a b\xff"]));
    assert_eq!((exec.args_total, exec.args_before, exec.args_cut()), (args.len() as u64, 0, false));
    assert_eq!(exec.head.comm(), b"true");
    let inode = exec.inode.unwrap();
    assert_eq!((inode.mode & 0o7111, inode.uid), (0o111, 0));
    let me = std::process::id();
    let ancestors: Vec<_> = exec.ancestors.iter().collect();
    assert_eq!((exec.head.ppid, ancestors[0].tgid), (me, me));
    assert_eq!(ancestors[0].start_ns, exec.head.parent_start_ns);
    assert_eq!(exec.more_ancestors(), ancestors.last().unwrap().tgid != 1 && ancestors.len() == 16);
    assert!(exec.exe.walked_flags == 1 && !exec.memfd());
}

#[test]
fn has_up_to_64_kib_of_arguments() {
    let fill = |n: usize| (0..n).map(|i| b'a' + (i % 26) as u8).collect::<Vec<_>>();
    for (total, cut) in [(2048, false), (2049, false), (33_000, false), (65_536, false), (65_537, true)] {
        let arg = fill(total - 6);
        let story = trace(|_| execv("/bin/true", &[b"true", &arg]));
        let (exec, args) = exec(&story);
        let whole = zeros(&[b"true", &arg]);
        assert_eq!((exec.args_total, exec.args_cut()), (total as u64, cut));
        assert!(args == whole[..total.min(65_536)], "{total}: {} bytes", args.len());
    }
    // one argument can have 128 KiB, and all together a quarter of the stack
    let big = fill(131_000);
    let story = trace(|_| execv("/bin/true", &[b"true", &big, &big, &big, &big, &big, &big, &big, &big]));
    let (exec, args) = exec(&story);
    assert!(exec.args_total > 1_000_000 && exec.args_cut() && args == zeros(&[b"true", &big])[..65_536]);
}

#[test]
fn of_a_script_has_its_interpreter() {
    let story = trace(|work| {
        let folder = private_folder();
        let script = folder.path().join("script");
        fs::write(&script, "#!/bin/sh -e\nexit 3\n").unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        work.say("script", script.as_os_str().as_bytes());
        execv(&script, &[b"script", b"x"]);
    });
    let (exec, args) = exec(&story);
    assert_eq!(lossy(exec.exe.walked), lossy(fs::canonicalize("/bin/sh").unwrap().as_os_str().as_bytes()));
    assert_eq!(exec.filename, story.word("script"));
    assert_eq!(args, zeros(&[b"/bin/sh", b"-e", story.word("script"), b"x"]));
}

#[test]
fn out_of_memory_or_of_a_deleted_file_is_marked() {
    let program = fs::read("/bin/true").unwrap();
    let run = |fd: i32| {
        let args = [c"true".as_ptr(), ptr::null()];
        unsafe { libc::fexecve(fd, args.as_ptr(), [ptr::null()].as_ptr()) };
        panic!("fexecve: {}", std::io::Error::last_os_error());
    };
    let story = trace(|_| {
        let memory = unsafe { libc::memfd_create(c"payload".as_ptr(), 0) };
        ok(memory, "memfd_create");
        assert_eq!(unsafe { libc::write(memory, program.as_ptr().cast(), program.len()) }, program.len() as isize);
        run(memory);
    });
    let memory = exec(&story).0;
    assert!(memory.memfd(), "{memory:?}");
    assert_eq!(lossy(memory.exe.walked), "memfd:payload");

    let story = trace(|_| {
        let folder = private_folder();
        let file = folder.path().join("gone");
        fs::write(&file, &program).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        let fd = open(&file, libc::O_RDONLY | libc::O_CLOEXEC);
        fs::remove_file(&file).unwrap();
        run(fd);
    });
    let gone = exec(&story).0;
    assert!(gone.exe.deleted() && !gone.memfd() && gone.exe.walked.ends_with(b"/gone"), "{gone:?}");
}

#[test]
fn in_an_overlay_has_its_layer() {
    for (how, want) in [("below", Upper::No), ("above", Upper::Yes), ("changed", Upper::Yes), ("", Upper::NotOverlay)] {
        let story = trace(|_| {
            let folder = private_folder();
            let at = |name: &str| folder.path().join(name);
            for name in ["lo", "up", "wk"] {
                fs::create_dir(at(name)).unwrap();
            }
            fs::copy("/bin/true", at("lo/below")).unwrap();
            fs::copy("/bin/true", at("lo/changed")).unwrap();
            let options =
                format!("lowerdir={},upperdir={},workdir={}", at("lo").display(), at("up").display(), at("wk").display());
            mount(c"overlay", &at("mnt"), "overlay", 0, &options);
            fs::copy("/bin/true", at("mnt/above")).unwrap();
            fs::set_permissions(at("mnt/changed"), fs::Permissions::from_mode(0o755)).unwrap();
            if how.is_empty() {
                execv(at("lo/below"), &[b"x"]);
            }
            execv(at("mnt").join(how), &[b"x"]);
        });
        assert_eq!(exec(&story).0.upper(), want, "{how}");
    }
}

#[test]
fn from_another_thread_is_the_processs() {
    let story = trace(|_| {
        std::thread::spawn(|| execv("/bin/true", &[b"true"])).join().unwrap();
    });
    let (exec, _) = exec(&story);
    assert_eq!(exec.head.tid, story.tgid);
    assert_ne!(exec.old_tid, story.tgid);
}

#[test]
fn children_are_followed_with_and_without_exec() {
    let story = trace(|work| {
        let child = unsafe { libc::fork() };
        if child == 0 {
            open("/proc/sys/kernel/hostname", 0);
            unsafe { libc::_exit(0) };
        }
        work.say("forked", child.to_ne_bytes());
        unsafe { libc::waitpid(child, ptr::null_mut(), 0) };
        let mut sh = Command::new("/bin/sh");
        sh.args(["-c", "cat /proc/sys/kernel/hostname; exit 5"]).stdout(std::process::Stdio::piped());
        let mut spawned = sh.spawn().unwrap();
        spawned.stdout.take().unwrap().read_to_string(&mut String::new()).unwrap();
        spawned.wait().unwrap();
    });
    let forked = u32::from_ne_bytes(story.word("forked").try_into().unwrap());
    let opened: Vec<_> = story
        .records()
        .filter_map(|record| match record {
            Record::Open(open) if open.path.walked == b"/proc/sys/kernel/hostname" => Some(open.head),
            _ => None,
        })
        .collect();
    assert_eq!(opened.iter().map(Head::comm).collect::<Vec<_>>(), [opened[0].comm(), b"cat"]);
    assert_eq!((opened[0].tgid, opened[0].ppid), (forked, story.tgid));
    let execs = story.records().filter(|record| matches!(record, Record::Exec(_))).count();
    assert_eq!(execs, 2);
    let code = |tgid| {
        story.records().find_map(|record| match record {
            Record::Exit(exit) if exit.head.tgid == tgid => Some(exit.code()),
            _ => None,
        })
    };
    assert_eq!((code(forked), code(story.tgid)), (Some(Some(0)), Some(Some(0))));
}

#[test]
fn exits_have_code_or_signal_and_a_time() {
    let exit = |work: fn()| {
        let story = trace(|_| work());
        let mut exits = story.records().filter_map(|record| match record {
            Record::Exit(exit) if exit.head.tgid == story.tgid => Some(exit),
            _ => None,
        });
        let exit = exits.next().expect("no exit");
        assert_eq!(exit.status, story.status, "as wait() says");
        assert!(exits.next().is_none(), "more than one exit");
        exit
    };
    let slept = exit(|| {
        std::thread::sleep(std::time::Duration::from_millis(80));
        unsafe { libc::_exit(7) }
    });
    assert_eq!((slept.code(), slept.signal()), (Some(7), None));
    assert!((80_000_000..5_000_000_000).contains(&slept.lived_ns), "{slept:?}");
    let killed = exit(|| unsafe {
        libc::kill(libc::getpid(), libc::SIGKILL);
    });
    assert_eq!((killed.code(), killed.signal()), (None, Some(libc::SIGKILL)));
    // threads that end at the same time are one exit
    for _ in 0..20 {
        let group = exit(|| {
            for _ in 0..8 {
                std::thread::spawn(|| {
                    loop {
                        std::hint::spin_loop();
                    }
                });
            }
            unsafe { libc::_exit(9) }
        });
        assert_eq!(group.code(), Some(9));
    }
    // the leader alone: the process lives on
    let last = exit(|| {
        std::thread::spawn(|| std::thread::sleep(std::time::Duration::from_millis(30)));
        unsafe { libc::syscall(libc::SYS_exit, 4) };
    });
    assert!(last.lived_ns > 30_000_000 && !last.head.has(mark::UNFINISHED));
}
