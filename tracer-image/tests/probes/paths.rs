//! Paths of opened files: as /proc/self/fd says.

use std::{fs, os::unix::fs::symlink, path::Path};

use knark_tracer::bpf::{Open, PathSource, Record, mark, text};

use crate::harness::{Story, Work, c, close, lossy, mount, ok, open, private_folder, readlink, result, trace};

/// The open of a case, of which there must be just one.
fn only<'a>(story: &'a Story, case: &str) -> Open<'a> {
    let mut opens = story.case(case).into_iter().filter_map(|record| match record {
        Record::Open(open) => Some(open),
        _ => None,
    });
    let open = opens.next().unwrap_or_else(|| panic!("{case}: no event"));
    assert!(opens.next().is_none(), "{case}: more than one event");
    open
}

/// Opens, and says what the kernel calls the file.
fn good(work: &mut Work, case: &str, open: impl FnOnce() -> i32) -> i32 {
    work.case(case);
    let fd = open();
    work.case("");
    ok(fd, case);
    work.say(case, readlink(fd));
    fd
}

#[test]
fn are_those_that_the_kernel_knows() {
    let story = trace(|work| {
        let folder = private_folder();
        let at = |name: &str| folder.path().join(name);
        let deep = (1..30).map(|i| format!("component-{i:02}")).collect::<Vec<_>>().join("/") + "/";
        let long = "n".repeat(255);
        for name in ["lo", "up", "wk", "bind", "lazy", &deep] {
            fs::create_dir_all(at(name)).unwrap();
        }
        for name in ["lo/low", &format!("lo/{long}"), "plain", "gone", &format!("{deep}leaf")] {
            fs::write(at(name), "x").unwrap();
        }
        let overlay = format!(
            "lowerdir={lo},upperdir={up},workdir={wk}",
            lo = at("lo").display(),
            up = at("up").display(),
            wk = at("wk").display()
        );
        mount(c"overlay", &at("mnt"), "overlay", 0, &overlay);
        mount(&c(at("lo")), &at("bind"), "", libc::MS_BIND, "");
        mount(c"tmpfs", &at("nested/inner"), "tmpfs", 0, "");
        fs::write(at("nested/inner/y"), "x").unwrap();
        mount(c"tmpfs", &at("lazy"), "tmpfs", 0, "");
        fs::write(at("lazy/f"), "x").unwrap();
        symlink(at("plain"), at("link")).unwrap();

        let read = |name: &str| open(at(name), libc::O_RDONLY);
        good(work, "plain", || read("plain"));
        good(work, "symbolic link", || read("link"));
        good(work, "created", || open(at("new"), libc::O_CREAT | libc::O_RDWR));
        good(work, "30 components", || read(&format!("{deep}leaf")));
        good(work, "255 bytes", || read(&format!("lo/{long}")));
        good(work, "overlay, lower", || read("mnt/low"));
        good(work, "overlay, copied up", || open(at("mnt/low"), libc::O_RDWR));
        good(work, "overlay, new", || open(at("mnt/made"), libc::O_CREAT | libc::O_RDWR));
        good(work, "bind mount", || read("bind/low"));
        good(work, "nested mount", || read("nested/inner/y"));
        good(work, "top of a mount", || read("nested/inner"));
        good(work, "procfs", || open("/proc/self/status", 0));
        good(work, "sysfs", || open("/sys/kernel/notes", 0));
        good(work, "device", || open("/dev/null", 0));
        good(work, "root", || open("/", libc::O_PATH));
        let lo = good(work, "folder", || read("lo"));
        good(work, "relative to a descriptor", || unsafe { libc::openat(lo, c"../plain".as_ptr(), 0) });
        std::env::set_current_dir(at("lo")).unwrap();
        good(work, "relative", || open("low", 0));
        let gone = good(work, "unlinked later", || read("gone"));
        fs::remove_file(at("gone")).unwrap();
        good(work, "unlinked before", || open(format!("/proc/self/fd/{gone}"), 0));
        good(work, "O_TMPFILE", || open(folder.path(), libc::O_TMPFILE | libc::O_RDWR));
        let lazy = read("lazy");
        let place = c(at("lazy"));
        ok(unsafe { libc::umount2(place.as_ptr(), libc::MNT_DETACH) }, "umount");
        good(work, "in a mount that was taken away", || unsafe { libc::openat(lazy, c"f".as_ptr(), 0) });
        let jail = c(at("nested"));
        ok(unsafe { libc::chroot(jail.as_ptr()) }, "chroot");
        work.case("in a chroot");
        let inside = open("/inner/y", 0);
        work.case("outside of the chroot");
        let outside = unsafe { libc::openat(lo, c"low".as_ptr(), 0) };
        work.case("");
        ok(inside.min(outside), "opening in and outside of a chroot");
    });
    assert_eq!(story.status, 0);
    let mut cases = 0;
    for (case, want) in story.said() {
        let open = only(&story, case);
        let deleted: &[u8] = if open.path.deleted() && !open.path.outside() { b" (deleted)" } else { b"" };
        let got = [&open.path.joined()[..], deleted].concat();
        assert_eq!(lossy(&got), lossy(want), "{case}");
        assert_eq!(open.path.source(), PathSource::Kernel, "{case}");
        assert!(open.inode.is_some() && !open.racy(), "{case}");
        cases += 1;
    }
    assert_eq!(cases, 22);
    assert_eq!(lossy(&only(&story, "in a chroot").path.joined()), "/inner/y");
    let outside = only(&story, "outside of the chroot");
    assert!(outside.path.outside() && outside.path.joined().ends_with(b"/low"), "{outside:?}");
    for (case, created) in [("plain", false), ("created", true), ("overlay, new", true), ("overlay, lower", false)] {
        assert_eq!(only(&story, case).created(), created, "{case}");
    }
}

#[test]
fn of_failed_opens_are_those_asked_for() {
    let story = trace(|work| {
        let folder = private_folder();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("dir")).unwrap();
        fs::write(at("secret"), "x").unwrap();
        fs::set_permissions(at("secret"), std::os::unix::fs::PermissionsExt::from_mode(0o000)).unwrap();
        fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        work.say("folder", folder.path().as_os_str().as_encoded_bytes());
        let dir = open(at("dir"), libc::O_RDONLY);
        std::env::set_current_dir(at("dir")).unwrap();
        let how: [u64; 3] = [libc::O_RDWR as u64, 0, 8 /* RESOLVE_BENEATH */];
        let up = c"../secret";
        work.case("ENOENT");
        open(at("nothing"), libc::O_WRONLY);
        work.case("relative");
        open("nothing", 0);
        work.case("descriptor");
        unsafe { libc::openat(dir, c"a/b".as_ptr(), 0) };
        work.case("bad descriptor");
        unsafe { libc::openat(9999, c"x".as_ptr(), 0) };
        work.case("null");
        unsafe { libc::openat(dir, std::ptr::null(), 0) };
        work.case("openat2");
        let got = unsafe { libc::syscall(libc::SYS_openat2, dir, up.as_ptr(), how.as_ptr(), size_of_val(&how)) };
        assert_eq!(result(got), -i64::from(libc::EXDEV));
        work.case("EACCES");
        // the effective ids decide, whatever the real ones are
        ok(unsafe { libc::setresgid(u32::MAX, 65533, u32::MAX) }, "setresgid");
        ok(unsafe { libc::setresuid(u32::MAX, 65534, u32::MAX) }, "setresuid");
        open(at("secret"), libc::O_RDWR);
        work.case("");
    });
    let folder = lossy(story.word("folder"));
    let join = |rest: &str| format!("{folder}{rest}");
    for (case, errno, want, flags) in [
        ("ENOENT", libc::ENOENT, join("/nothing"), libc::O_WRONLY),
        ("relative", libc::ENOENT, join("/dir/nothing"), 0),
        ("descriptor", libc::ENOENT, join("/dir/a/b"), 0),
        ("bad descriptor", libc::EBADF, "x".into(), 0),
        ("openat2", libc::EXDEV, join("/secret"), libc::O_RDWR),
        ("EACCES", libc::EACCES, join("/secret"), libc::O_RDWR),
    ] {
        let open = only(&story, case);
        assert_eq!(open.result, -errno, "{case}");
        assert_eq!(lossy(&open.path.normalized()), want, "{case}");
        assert_eq!(open.path.source(), PathSource::Argument, "{case}");
        assert_eq!(open.flags & !(libc::O_LARGEFILE as u32 | 0o10_0000), flags as u32, "{case}");
        assert!(open.inode.is_none() && open.path.name_flags == text::PRESENT, "{case}");
    }
    let refused = only(&story, "EACCES").head;
    assert_eq!((refused.uid, refused.gid), (65534, 65533));
    let null = only(&story, "null");
    assert_eq!((null.result, null.path.name), (-libc::EFAULT, &b""[..]));
}

#[test]
fn longer_than_a_record_are_cut_at_the_front() {
    let story = trace(|work| {
        let folder = private_folder();
        std::env::set_current_dir(folder.path()).unwrap();
        // deeper than PATH_MAX, which only relative paths reach
        for i in 0..24 {
            let name = format!("{i:02}{}", "d".repeat(250));
            fs::create_dir(&name).unwrap();
            std::env::set_current_dir(&name).unwrap();
        }
        work.case("deep");
        let fd = open("leaf", libc::O_CREAT | libc::O_RDWR);
        work.case("");
        ok(fd, "open");
        close(fd);
    });
    let open = only(&story, "deep");
    assert!(open.path.cut());
    assert!(open.path.walked.ends_with(b"/leaf") && open.path.walked.len() > 3800, "{}", open.path.walked.len());
}

#[test]
fn without_a_place_in_a_tree_are_names() {
    let story = trace(|work| {
        let memory = unsafe { libc::memfd_create(c"hidden".as_ptr(), 0) };
        ok(memory, "memfd_create");
        work.case("memfd");
        open(Path::new("/proc/self/fd").join(memory.to_string()), 0);
        work.case("");
    });
    let open = only(&story, "memfd");
    assert_eq!(lossy(open.path.walked), "memfd:hidden");
    assert!(open.head.has(mark::INODE));
}
