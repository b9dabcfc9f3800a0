//! Each watched call gives one event, with what was asked for and what came of it.

use std::{fs, os::unix::fs::PermissionsExt as _};

use knark_tracer::bpf::{Op, PathCall, PathSource, Record, text};

use crate::harness::{c, lossy, ok, open, precise, private_folder, result, trace};

/// Calls, and says what they returned.
macro_rules! calls {
    ($work:ident; $($case:literal $nr:expr, $($arg:expr),*;)*) => {
        $(
            $work.case($case);
            let got = result(unsafe { libc::syscall($nr as libc::c_long, $($arg),*) });
            $work.case("");
            $work.say($case, got.to_ne_bytes());
        )*
    };
}

const FCHMODAT2: i64 = 452;
const SETXATTRAT: i64 = 463;
const REMOVEXATTRAT: i64 = 466;

#[test]
fn give_one_event_each() {
    let story = trace(|work| {
        let folder = private_folder();
        std::env::set_current_dir(folder.path()).unwrap();
        work.say("folder", folder.path().as_os_str().as_encoded_bytes());
        fs::create_dir("dir").unwrap();
        fs::write("file", "12345").unwrap();
        fs::set_permissions("file", fs::Permissions::from_mode(0o640)).unwrap();
        let at = |name: &str| c(folder.path().join(name));
        let dir = open("dir", libc::O_RDONLY);
        let file = open("file", libc::O_RDWR);
        let cwd = libc::AT_FDCWD;
        let (value, len) = (c"v".as_ptr(), 1_usize);
        let attributes = [value as u64, 1_u64];
        let empty = libc::AT_EMPTY_PATH;
        #[cfg(target_arch = "x86_64")]
        old(work, &at("file"), &at("fresh"));
        calls! { work;
            "truncate" libc::SYS_truncate, c"file".as_ptr(), 3;
            "ftruncate" libc::SYS_ftruncate, file, 7;
            "mkdirat" libc::SYS_mkdirat, dir, c"sub".as_ptr(), 0o750;
            "mknodat" libc::SYS_mknodat, dir, c"fifo".as_ptr(), libc::S_IFIFO | 0o622, 0;
            "symlinkat" libc::SYS_symlinkat, c"what/it says".as_ptr(), dir, c"sym".as_ptr();
            "linkat" libc::SYS_linkat, cwd, c"file".as_ptr(), dir, c"hard".as_ptr(), 0;
            "linkat, empty" libc::SYS_linkat, file, c"".as_ptr(), dir, c"harder".as_ptr(), empty;
            "renameat" libc::SYS_renameat, dir, c"hard".as_ptr(), cwd, c"moved".as_ptr();
            "renameat2" libc::SYS_renameat2, cwd, c"moved".as_ptr(), dir, at("dir/back").as_ptr(), 1;
            "unlinkat" libc::SYS_unlinkat, dir, c"back".as_ptr(), 0;
            "unlinkat, folder" libc::SYS_unlinkat, dir, c"./sub/../sub".as_ptr(), libc::AT_REMOVEDIR;
            "unlinkat, fails" libc::SYS_unlinkat, 9999, c"x".as_ptr(), 0;
            "fchmodat" libc::SYS_fchmodat, cwd, at("file").as_ptr(), 0o4755;
            "fchmodat2" FCHMODAT2, dir, c"../file".as_ptr(), 0o600, libc::AT_SYMLINK_NOFOLLOW;
            "fchmodat2, empty" FCHMODAT2, file, c"".as_ptr(), 0o644, empty;
            "fchmod" libc::SYS_fchmod, file, 0o400;
            "fchmod, fails" libc::SYS_fchmod, 9999, 0o400;
            "fchownat" libc::SYS_fchownat, dir, c"fifo".as_ptr(), 12, 34, libc::AT_SYMLINK_NOFOLLOW;
            "fchownat, empty" libc::SYS_fchownat, file, c"".as_ptr(), -1, 35, empty;
            "fchownat, here" libc::SYS_fchownat, cwd, c"".as_ptr(), 5, 6, empty;
            "fchown" libc::SYS_fchown, file, 1, -1;
            "setxattr" libc::SYS_setxattr, c"file".as_ptr(), c"trusted.a".as_ptr(), value, len, 0;
            "lsetxattr" libc::SYS_lsetxattr, c"file".as_ptr(), c"trusted.b".as_ptr(), value, len, 1;
            "fsetxattr" libc::SYS_fsetxattr, file, c"trusted.c".as_ptr(), value, len, 0;
            "setxattrat" SETXATTRAT, cwd, c"file".as_ptr(), 0, c"trusted.d".as_ptr(), attributes.as_ptr(), 16_usize;
            "removexattr" libc::SYS_removexattr, c"file".as_ptr(), c"trusted.a".as_ptr();
            "lremovexattr" libc::SYS_lremovexattr, c"file".as_ptr(), c"trusted.b".as_ptr();
            "fremovexattr" libc::SYS_fremovexattr, file, c"trusted.c".as_ptr();
            "removexattrat" REMOVEXATTRAT, dir, c"../file".as_ptr(), 0, c"trusted.d".as_ptr();
            "null" libc::SYS_fchmodat, cwd, 0_usize, 0o600;
        }
    });
    assert_eq!(story.status, 0);
    let folder = lossy(story.word("folder"));
    let fails = story.case("fchmod, fails");
    if precise("fchmod") {
        assert!(fails.is_empty(), "a bad descriptor leads to no file: {fails:?}");
    } else {
        let [Record::Path(call)] = &fails[..] else { panic!("{fails:?}") };
        assert_eq!(call.result, -i64::from(libc::EBADF));
    }
    let one = |case: &str| {
        let records = story.case(case);
        let [Record::Path(call)] = &records[..] else { panic!("{case}: {records:?}") };
        let said = i64::from_ne_bytes(story.word(case).try_into().unwrap());
        assert_eq!(call.result, said, "{case}");
        assert!(call.enter_ns <= call.head.boot_ns, "{case}");
        call.clone()
    };
    let path = |case: &str| {
        let call = one(case);
        let full = lossy(&call.path.normalized());
        (call.op, call.result, full.strip_prefix(&folder).unwrap_or(&full).to_owned())
    };
    let to = |case: &str| {
        let full = lossy(&one(case).second.unwrap().normalized());
        full.strip_prefix(&folder).unwrap_or(&full).to_owned()
    };
    for (case, op, want) in [
        ("truncate", Op::Truncate, "/file"),
        ("ftruncate", Op::Ftruncate, "/file"),
        ("mkdirat", Op::Mkdirat, "/dir/sub"),
        ("mknodat", Op::Mknodat, "/dir/fifo"),
        ("symlinkat", Op::Symlinkat, "/dir/sym"),
        ("linkat", Op::Linkat, "/file"),
        ("linkat, empty", Op::Linkat, "/file"),
        ("renameat", Op::Renameat, "/dir/hard"),
        ("renameat2", Op::Renameat2, "/moved"),
        ("unlinkat", Op::Unlinkat, "/dir/back"),
        ("unlinkat, folder", Op::Unlinkat, "/dir/sub"),
        ("fchmodat", Op::Fchmodat, "/file"),
        ("fchmod", Op::Fchmod, "/file"),
        ("fchownat", Op::Fchownat, "/dir/fifo"),
        ("fchownat, empty", Op::Fchownat, "/file"),
        ("fchownat, here", Op::Fchownat, ""),
        ("fchown", Op::Fchown, "/file"),
        ("setxattr", Op::Setxattr, "/file"),
        ("lsetxattr", Op::Lsetxattr, "/file"),
        ("fsetxattr", Op::Fsetxattr, "/file"),
        ("removexattr", Op::Removexattr, "/file"),
        ("lremovexattr", Op::Lremovexattr, "/file"),
        ("fremovexattr", Op::Fremovexattr, "/file"),
    ] {
        assert_eq!(path(case), (op, 0, want.to_owned()), "{case}");
    }
    // these came with 6.6 and 6.13
    for (case, op) in [
        ("fchmodat2", Op::Fchmodat2),
        ("fchmodat2, empty", Op::Fchmodat2),
        ("setxattrat", Op::Setxattrat),
        ("removexattrat", Op::Removexattrat),
    ] {
        if story.word(case) == (-i64::from(libc::ENOSYS)).to_ne_bytes() {
            println!("not tested, since this kernel lacks it: {case}");
        } else {
            assert_eq!(path(case), (op, 0, "/file".into()), "{case}");
        }
    }
    assert_eq!(to("linkat"), "/dir/hard");
    assert_eq!(to("linkat, empty"), "/dir/harder");
    assert_eq!(to("renameat"), "/moved");
    assert_eq!(to("renameat2"), "/dir/back");
    assert_eq!(to("symlinkat"), "what/it says");
    details(&one);
    #[cfg(target_arch = "x86_64")]
    check_old(&path, &to);
}

fn details<'a>(one: &impl Fn(&str) -> PathCall<'a>) {
    assert_eq!(one("mkdirat").new_mode(), Some(0o750));
    assert_eq!(one("mknodat").new_mode(), Some(libc::S_IFIFO | 0o622));
    assert_eq!(one("fchmodat").new_mode(), Some(0o4755));
    assert_eq!(one("fchmod").new_mode(), Some(0o400));
    assert_eq!(one("fchownat").new_owner(), Some((12, 34)));
    assert_eq!(one("fchownat, empty").new_owner(), Some((u32::MAX, 35)));
    assert_eq!(one("fchown").new_owner(), Some((1, u32::MAX)));
    assert_eq!((one("truncate").new_size(), one("ftruncate").new_size()), (Some(3), Some(7)));
    assert_eq!(one("renameat2").flags(), Some(1));
    assert_eq!(one("unlinkat, folder").flags(), Some(libc::AT_REMOVEDIR as u32));
    for (case, name) in [("setxattr", "trusted.a"), ("fsetxattr", "trusted.c"), ("lremovexattr", "trusted.b")] {
        assert_eq!(lossy(one(case).xattr.unwrap().name), name, "{case}");
    }
    assert_eq!(one("lsetxattr").flags(), Some(1));

    // what the file was like before, where a descriptor says which
    let before = |case: &str| one(case).before.map(|inode| (inode.mode & 0o7777, inode.uid, inode.gid, inode.size));
    assert_eq!(before("ftruncate"), Some((0o640, 0, 0, 3)));
    assert_eq!(before("fchown"), Some((0o400, 0, 35, 7)));
    assert_eq!(before("fchownat, empty").map(|b| b.2), Some(0));
    #[cfg(target_arch = "x86_64")]
    assert_eq!(before("chmod").is_some(), precise("chmod"));
    if precise("fchmodat") {
        assert_eq!(before("fchmodat"), Some((0o640, 0, 0, 7)));
    } else {
        assert_eq!(before("fchmodat"), None);
    }
    for case in ["fchmod", "fchown", "ftruncate", "fchownat, empty", "fchownat, here", "linkat, empty"] {
        assert_eq!(one(case).path.source(), PathSource::Kernel, "{case}");
    }
    for case in ["unlinkat, fails", "null"] {
        assert_eq!(one(case).path.source(), PathSource::Argument, "{case}");
    }
    let by_name = [
        "fchmodat",
        "fchownat",
        "linkat",
        "renameat",
        "unlinkat",
        "symlinkat",
        "mkdirat",
        "mknodat",
        "truncate",
        "setxattr",
        "lsetxattr",
        "removexattr",
        "lremovexattr",
    ];
    for call in by_name {
        let want = if precise(call) { PathSource::Kernel } else { PathSource::Argument };
        assert_eq!(one(call).path.source(), want, "{call}");
    }
    for call in ["linkat", "renameat", "renameat2"] {
        let want = if precise(call) { PathSource::Kernel } else { PathSource::Argument };
        assert_eq!(one(call).second.unwrap().source(), want, "{call}");
    }
    assert_eq!(one("unlinkat, fails").result, -i64::from(libc::EBADF));
    assert_eq!(one("null").result, -i64::from(libc::EFAULT));
    assert_eq!(one("null").path.name_flags & text::NULL, text::NULL);
}

/// The calls that newer architectures don't have.
#[cfg(target_arch = "x86_64")]
fn old(work: &mut crate::harness::Work, file: &std::ffi::CStr, fresh: &std::ffi::CStr) {
    calls! { work;
        "chmod" libc::SYS_chmod, file.as_ptr(), 0o640;
        "chown" libc::SYS_chown, file.as_ptr(), 0, 0;
        "lchown" libc::SYS_lchown, c"file".as_ptr(), -1, -1;
        "link" libc::SYS_link, file.as_ptr(), c"hard".as_ptr();
        "rename" libc::SYS_rename, c"hard".as_ptr(), fresh.as_ptr();
        "unlink" libc::SYS_unlink, fresh.as_ptr();
        "symlink" libc::SYS_symlink, c"text".as_ptr(), c"sym".as_ptr();
        "mkdir" libc::SYS_mkdir, fresh.as_ptr(), 0o700;
        "rmdir" libc::SYS_rmdir, fresh.as_ptr();
        "mknod" libc::SYS_mknod, fresh.as_ptr(), libc::S_IFIFO | 0o600, 0;
        "rmdir, fails" libc::SYS_rmdir, fresh.as_ptr();
    }
}

#[cfg(target_arch = "x86_64")]
fn check_old(path: &impl Fn(&str) -> (Op, i64, String), to: &impl Fn(&str) -> String) {
    for (case, op, want) in [
        ("chmod", Op::Chmod, "/file"),
        ("chown", Op::Chown, "/file"),
        ("lchown", Op::Lchown, "/file"),
        ("link", Op::Link, "/file"),
        ("rename", Op::Rename, "/hard"),
        ("unlink", Op::Unlink, "/fresh"),
        ("symlink", Op::Symlink, "/sym"),
        ("mkdir", Op::Mkdir, "/fresh"),
        ("rmdir", Op::Rmdir, "/fresh"),
        ("mknod", Op::Mknod, "/fresh"),
    ] {
        assert_eq!(path(case), (op, 0, want.to_owned()), "{case}");
    }
    assert_eq!(path("rmdir, fails").1, -i64::from(libc::ENOTDIR));
    assert_eq!((to("link"), to("rename"), to("symlink")), ("/hard".into(), "/fresh".into(), "text".into()));
}

#[test]
fn that_open_give_one_event_each() {
    let story = trace(|work| {
        let folder = private_folder();
        std::env::set_current_dir(folder.path()).unwrap();
        work.say("folder", folder.path().as_os_str().as_encoded_bytes());
        let how: [u64; 3] = [(libc::O_CREAT | libc::O_RDWR) as u64, 0o640, 0];
        let cwd = libc::AT_FDCWD;
        calls! { work;
            "openat" libc::SYS_openat, cwd, c"a".as_ptr(), libc::O_CREAT | libc::O_WRONLY | libc::O_APPEND, 0o604;
            "openat2" libc::SYS_openat2, cwd, c"b".as_ptr(), how.as_ptr(), 24_usize;
        }
        #[cfg(target_arch = "x86_64")]
        {
            calls! { work;
                "open" libc::SYS_open, c"c".as_ptr(), libc::O_CREAT | libc::O_RDWR | libc::O_TRUNC, 0o666;
                "creat" libc::SYS_creat, c"d".as_ptr(), 0o600;
            }
        }
    });
    let folder = lossy(story.word("folder"));
    let writes = |flags: libc::c_int| flags as u32;
    for (case, op, name, flags, mode) in [
        ("openat", Op::Openat, "/a", writes(libc::O_CREAT | libc::O_WRONLY | libc::O_APPEND), 0o604),
        ("openat2", Op::Openat2, "/b", writes(libc::O_CREAT | libc::O_RDWR), 0o640),
        ("open", Op::Open, "/c", writes(libc::O_CREAT | libc::O_RDWR | libc::O_TRUNC), 0o666),
        ("creat", Op::Creat, "/d", writes(libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC), 0o600),
    ] {
        if matches!(op, Op::Open | Op::Creat) && !cfg!(target_arch = "x86_64") {
            continue;
        }
        let records = story.case(case);
        let [Record::Open(open)] = &records[..] else { panic!("{case}: {records:?}") };
        let said = i64::from_ne_bytes(story.word(case).try_into().unwrap());
        assert_eq!((open.op, i64::from(open.result), open.created()), (op, said, true), "{case}");
        assert_eq!((open.flags, open.mode), (flags, mode), "{case}");
        assert_eq!(lossy(&open.path.joined()), folder.clone() + name, "{case}");
        let inode = open.inode.unwrap();
        assert_eq!((inode.uid, inode.gid, inode.mode & libc::S_IFMT), (0, 0, libc::S_IFREG), "{case}");
    }
}

#[test]
fn with_names_that_are_not_in_memory_yet_are_read_when_they_end() {
    let story = trace(|work| {
        let folder = private_folder();
        std::env::set_current_dir(folder.path()).unwrap();
        let file = folder.path().join("names");
        fs::write(&file, b"not there\0").unwrap();
        let fd = open(&file, libc::O_RDONLY);
        // mapped, and no page of it touched
        let page = unsafe { libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_READ, libc::MAP_PRIVATE, fd, 0) };
        assert_ne!(page, libc::MAP_FAILED);
        calls! { work;
            "late" libc::SYS_renameat2, libc::AT_FDCWD, page, libc::AT_FDCWD, c"to".as_ptr(), 0;
        }
        ok(0, "");
    });
    let records = story.case("late");
    let [Record::Path(call)] = &records[..] else { panic!("{records:?}") };
    assert_eq!((call.op, call.result), (Op::Renameat2, -i64::from(libc::ENOENT)));
    assert_eq!(lossy(call.path.name), "not there");
    // The precise tier takes the name that the kernel itself has copied.
    let late = if precise("renameat2") { 0 } else { text::LATE };
    assert_eq!(call.path.name_flags, text::PRESENT | late);
    assert_eq!(lossy(call.second.unwrap().name), "to");
}

#[test]
fn with_the_longest_paths_are_whole() {
    let story = trace(|work| {
        let folder = private_folder();
        std::env::set_current_dir(folder.path()).unwrap();
        let part = |letter: &str, n: usize| format!("{}/", letter.repeat(250)).repeat(n);
        let (from, to) = (c(part("a", 16)), c(part("b", 15)));
        work.say("from", from.as_bytes());
        work.say("to", to.as_bytes());
        calls! { work;
            "long" libc::SYS_renameat2, libc::AT_FDCWD, from.as_ptr(), libc::AT_FDCWD, to.as_ptr(), 0;
            "too long" libc::SYS_fchmodat, libc::AT_FDCWD, c("x".repeat(5000)).as_ptr(), 0;
        }
    });
    let records = story.case("long");
    let [Record::Path(call)] = &records[..] else { panic!("{records:?}") };
    assert_eq!(call.path.name, story.word("from"));
    assert_eq!(call.second.unwrap().name, story.word("to"));
    let records = story.case("too long");
    let [Record::Path(call)] = &records[..] else { panic!("{records:?}") };
    assert_eq!(call.result, -i64::from(libc::ENAMETOOLONG));
    assert!(call.path.cut() && call.path.name.len() == 4095);
}
