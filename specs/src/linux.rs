//! Names of the kernel's numbers, as x86-64 and arm64 have them.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Permission bits, set-id and sticky bits included, as a quoted octal string: `"0644"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String", extend("pattern" = "^0[0-7]{3,4}$"))]
pub struct Mode(pub u32);

impl Mode {
    /// Without the bits that say what kind of file it is.
    pub fn of(mode: u32) -> Self {
        Self(mode & 0o7777)
    }
}

impl std::fmt::Display for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:04o}", self.0 & 0o7777)
    }
}

impl Serialize for Mode {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Mode {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        u32::from_str_radix(&text, 8)
            .ok()
            .filter(|mode| *mode <= 0o7777)
            .map(Self)
            .ok_or_else(|| serde::de::Error::custom(format!("a mode is an octal string such as \"0644\", not {text:?}")))
    }
}

/// All names that [`open_flags`] gives.
pub const OPEN_FLAGS: [&str; 20] = [
    "O_RDONLY",
    "O_WRONLY",
    "O_RDWR",
    "O_SYNC",
    "O_TMPFILE",
    "O_CREAT",
    "O_EXCL",
    "O_NOCTTY",
    "O_TRUNC",
    "O_APPEND",
    "O_NONBLOCK",
    "O_DSYNC",
    "O_ASYNC",
    "O_DIRECT",
    "O_LARGEFILE",
    "O_DIRECTORY",
    "O_NOFOLLOW",
    "O_NOATIME",
    "O_CLOEXEC",
    "O_PATH",
];

/// Names of the bits of open(2)'s flags; an unknown bit appears as a hexadecimal number.
///
/// Source: include/uapi/asm-generic/fcntl.h; `aarch64` differs in four of them (arch/arm64/include/uapi/asm/fcntl.h).
pub fn open_flags(flags: u64, aarch64: bool) -> Vec<Cow<'static, str>> {
    const O_SYNC: u64 = 0o4_010_000;
    const O_TMPFILE_BIT: u64 = 0o20_000_000;
    let (directory, nofollow, direct, largefile) =
        if aarch64 { (0o40_000, 0o100_000, 0o200_000, 0o400_000) } else { (0o200_000, 0o400_000, 0o40_000, 0o100_000) };
    let access = match flags & 3 {
        0 => "O_RDONLY",
        1 => "O_WRONLY",
        2 => "O_RDWR",
        _ => "O_ACCMODE",
    };
    let mut names = vec![Cow::Borrowed(access)];
    let mut rest = flags & !3;
    for (bits, name) in [
        (O_SYNC, "O_SYNC"),
        (O_TMPFILE_BIT | directory, "O_TMPFILE"),
        (0o100, "O_CREAT"),
        (0o200, "O_EXCL"),
        (0o400, "O_NOCTTY"),
        (0o1000, "O_TRUNC"),
        (0o2000, "O_APPEND"),
        (0o4000, "O_NONBLOCK"),
        (0o10_000, "O_DSYNC"),
        (0o20_000, "O_ASYNC"),
        (direct, "O_DIRECT"),
        (largefile, "O_LARGEFILE"),
        (directory, "O_DIRECTORY"),
        (nofollow, "O_NOFOLLOW"),
        (0o1_000_000, "O_NOATIME"),
        (0o2_000_000, "O_CLOEXEC"),
        (0o10_000_000, "O_PATH"),
    ] {
        if rest & bits == bits {
            names.push(Cow::Borrowed(name));
            rest &= !bits;
        }
    }
    if rest != 0 {
        names.push(format!("{rest:#x}").into());
    }
    names
}

/// The symbol of an errno value, such as `ENOENT`; an unknown one is its number.
///
/// Source: include/uapi/asm-generic/errno-base.h and errno.h.
pub fn errno_name(errno: i64) -> Cow<'static, str> {
    let name = match errno {
        1 => "EPERM",
        2 => "ENOENT",
        3 => "ESRCH",
        4 => "EINTR",
        5 => "EIO",
        6 => "ENXIO",
        7 => "E2BIG",
        8 => "ENOEXEC",
        9 => "EBADF",
        10 => "ECHILD",
        11 => "EAGAIN",
        12 => "ENOMEM",
        13 => "EACCES",
        14 => "EFAULT",
        15 => "ENOTBLK",
        16 => "EBUSY",
        17 => "EEXIST",
        18 => "EXDEV",
        19 => "ENODEV",
        20 => "ENOTDIR",
        21 => "EISDIR",
        22 => "EINVAL",
        23 => "ENFILE",
        24 => "EMFILE",
        25 => "ENOTTY",
        26 => "ETXTBSY",
        27 => "EFBIG",
        28 => "ENOSPC",
        29 => "ESPIPE",
        30 => "EROFS",
        31 => "EMLINK",
        32 => "EPIPE",
        33 => "EDOM",
        34 => "ERANGE",
        35 => "EDEADLK",
        36 => "ENAMETOOLONG",
        38 => "ENOSYS",
        39 => "ENOTEMPTY",
        40 => "ELOOP",
        61 => "ENODATA",
        75 => "EOVERFLOW",
        95 => "EOPNOTSUPP",
        116 => "ESTALE",
        122 => "EDQUOT",
        // Not for user space, yet a tracepoint sees them: the call will be restarted after a signal.
        512 => "ERESTARTSYS",
        513 => "ERESTARTNOINTR",
        514 => "ERESTARTNOHAND",
        516 => "ERESTART_RESTARTBLOCK",
        _ => return errno.to_string().into(),
    };
    name.into()
}

/// The name of a signal, such as `SIGKILL`; an unknown one is its number.
///
/// Source: include/uapi/asm-generic/signal.h.
pub fn signal_name(signal: i32) -> String {
    const NAMES: [&str; 32] = [
        "0",
        "SIGHUP",
        "SIGINT",
        "SIGQUIT",
        "SIGILL",
        "SIGTRAP",
        "SIGABRT",
        "SIGBUS",
        "SIGFPE",
        "SIGKILL",
        "SIGUSR1",
        "SIGSEGV",
        "SIGUSR2",
        "SIGPIPE",
        "SIGALRM",
        "SIGTERM",
        "SIGSTKFLT",
        "SIGCHLD",
        "SIGCONT",
        "SIGSTOP",
        "SIGTSTP",
        "SIGTTIN",
        "SIGTTOU",
        "SIGURG",
        "SIGXCPU",
        "SIGXFSZ",
        "SIGVTALRM",
        "SIGPROF",
        "SIGWINCH",
        "SIGIO",
        "SIGPWR",
        "SIGSYS",
    ];
    usize::try_from(signal).ok().and_then(|n| NAMES.get(n)).map_or_else(|| signal.to_string(), |name| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_is_not_the_kind_of_file() {
        assert_eq!(Mode::of(0o100_600), Mode(0o600));
        assert_eq!(Mode::of(0o104_755), Mode(0o4755));
    }

    #[test]
    fn all_names_of_flags_are_listed() {
        for bits in (0..24).map(|bit| 1 << bit).chain([0o4_010_000, 0o20_200_000]) {
            for name in open_flags(bits, false).iter().chain(&open_flags(bits, true)) {
                assert!(OPEN_FLAGS.contains(&&**name) || name.starts_with("0x") || name == "O_ACCMODE", "{name}");
            }
        }
    }

    #[test]
    fn flags_have_their_names() {
        assert_eq!(open_flags(0o2_000_000, false), ["O_RDONLY", "O_CLOEXEC"]);
        assert_eq!(open_flags(0o1101, false), ["O_WRONLY", "O_CREAT", "O_TRUNC"]);
        assert_eq!(open_flags(0o20_200_002, false), ["O_RDWR", "O_TMPFILE"]);
        assert_eq!(open_flags(0o40_000, true), ["O_RDONLY", "O_DIRECTORY"]);
        assert_eq!(open_flags(1 << 40, false), ["O_RDONLY", "0x10000000000"]);
    }

    #[test]
    fn modes_are_octal_strings() {
        assert_eq!(serde_json::to_string(&Mode(0o100_644)).unwrap(), "\"0644\"");
        assert_eq!(serde_json::from_str::<Mode>("\"4755\"").unwrap(), Mode(0o4755));
        assert!(serde_json::from_str::<Mode>("\"999\"").is_err());
        assert!(serde_json::from_str::<Mode>("\"77777\"").is_err());
    }
}
