//! Records as the rest of the program sees them. Every path and name is bytes, as the kernel gave them.

use knark_abi::{API_GROUPS, API_GROUPS_MAX, API_TEXTS, api_text};

use super::{Exec, ExecArgs, Open, PathCall, Verdict};

/// One event, borrowed from the ring buffer.
#[derive(Clone, Debug)]
pub enum Record<'a> {
    /// A process replaced its program.
    Exec(Exec<'a>),
    /// Arguments of an exec whose own record comes later; see [`Exec::args_before`].
    ExecArgs(ExecArgs<'a>),
    /// A file was opened, or was not.
    Open(Open<'a>),
    /// A call that names a file, or changes one through its descriptor.
    Path(PathCall<'a>),
    /// The last thread of a process ended.
    Exit(Exit),
    /// A request to the Kubernetes API has come a step further.
    Api(Api<'a>),
    /// A piece of what such a request carries, or of what it is answered.
    ApiBody(ApiBody<'a>),
    /// A control group of the chosen hierarchy was made.
    CgroupMkdir(Cgroup<'a>),
    /// A control group of the chosen hierarchy was removed.
    CgroupRmdir(Cgroup<'a>),
}

impl<'a> Record<'a> {
    /// The record that these bytes are, as [`super::Probes::drain`] gave them; None if they contradict themselves.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        super::parse::record(bytes)
    }

    /// Who did it, and when.
    pub fn head(&self) -> &Head {
        match self {
            Record::Exec(r) => &r.head,
            Record::ExecArgs(r) => &r.head,
            Record::Open(r) => &r.head,
            Record::Path(r) => &r.head,
            Record::Exit(r) => &r.head,
            Record::Api(r) => &r.head,
            Record::ApiBody(r) => &r.head,
            Record::CgroupMkdir(r) | Record::CgroupRmdir(r) => &r.head,
        }
    }
}

/// Who did it, and when. Ids are those of the first pid and user namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Nanoseconds since boot, sleep included.
    pub boot_ns: u64,
    /// The kernfs id of the control group, in the chosen hierarchy.
    pub cgroup: u64,
    /// The verdict that let it through.
    pub verdict: Verdict,
    /// See [`super::mark`].
    pub marks: u32,
    /// Process.
    pub tgid: u32,
    /// Thread.
    pub tid: u32,
    /// Parent process.
    pub ppid: u32,
    /// Effective user.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
    /// Process, as its own PID namespace counts.
    pub ns_tgid: u32,
    /// Effective user, as the process's own user namespace counts; [`super::UNMAPPED`] where that has no number for it.
    pub ns_uid: u32,
    /// Effective group, likewise.
    pub ns_gid: u32,
    /// When the process started, ns since boot.
    pub start_ns: u64,
    /// When its parent started.
    pub parent_start_ns: u64,
    /// How many programs the process has executed: together with `tgid` and `start_ns` it names this one.
    pub exec_id: u64,
    /// Thread name, zero padded.
    pub comm: [u8; 16],
    /// If it stands for several events, these.
    pub repeats: Option<Repeats>,
}

/// Events like one that was reported before. Who did them is told of that one; descriptors that calls returned are not told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repeats {
    /// How many, not counting that one.
    pub count: u64,
    /// When the first of them was, ns since boot.
    pub first_ns: u64,
    /// When the last one was.
    pub last_ns: u64,
}

impl Head {
    /// The thread's name without its padding.
    pub fn comm(&self) -> &[u8] {
        trim(&self.comm)
    }

    /// How many events it stands for.
    pub fn events(&self) -> u64 {
        self.repeats.map_or(1, |repeats| repeats.count)
    }

    /// Whether one of these [`super::mark`]s is set.
    pub const fn has(&self, marks: u32) -> bool {
        self.marks & marks != 0
    }
}

pub(super) fn trim(name: &[u8]) -> &[u8] {
    &name[..name.iter().position(|b| *b == 0).unwrap_or(name.len())]
}

/// A file's inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inode {
    /// Number.
    pub ino: u64,
    /// Device, major part.
    pub major: u32,
    /// Device, minor part.
    pub minor: u32,
    /// Type and permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Owning group.
    pub gid: u32,
    /// Bytes.
    pub size: u64,
}

/// The last thread of a process ended.
#[derive(Clone, Debug)]
pub struct Exit {
    /// Who and when.
    pub head: Head,
    /// As `wait` reports it.
    pub status: i32,
    /// How long it lived.
    pub lived_ns: u64,
}

impl Exit {
    /// The exit code, unless a signal ended it.
    pub const fn code(&self) -> Option<i32> {
        match self.status & 0x7f {
            0 => Some(self.status >> 8 & 0xff),
            _ => None,
        }
    }

    /// The signal that ended it.
    pub const fn signal(&self) -> Option<i32> {
        match self.status & 0x7f {
            0 => None,
            signal => Some(signal),
        }
    }
}

/// A step of a request to the Kubernetes API, in an API server.
#[derive(Clone, Debug)]
pub struct Api<'a> {
    /// The API server, and when.
    pub head: Head,
    /// See [`super::site`].
    pub site: u8,
    /// The goroutine.
    pub goroutine: u64,
    /// The one that started it.
    pub parent: u64,
    /// At the end: the HTTP status; 0 where none was written.
    pub status: i64,
    /// At the end: bytes of the response's body.
    pub bytes: i64,
    /// How many groups the user has.
    pub groups: u32,
    /// All texts, one after another.
    pub(super) texts: &'a [u8],
    /// How long each is, and what is wrong with it.
    pub(super) marks: [u16; API_TEXTS],
}

impl<'a> Api<'a> {
    /// The text in a place, which the site gives a meaning; empty where it can't be read.
    pub fn text(&self, place: usize) -> &'a [u8] {
        let length = |mark: &u16| if mark & api_text::FAULT == 0 { usize::from(mark & api_text::LENGTH) } else { 0 };
        let before = self.marks.iter().take(place).map(length).sum::<usize>();
        let own = self.marks.get(place).map_or(0, length);
        self.texts.get(before..).and_then(|rest| rest.get(..own)).unwrap_or_default()
    }

    /// Whether that text isn't whole.
    pub fn is_cut(&self, place: usize) -> bool {
        self.marks.get(place).is_some_and(|mark| mark & (api_text::CUT | api_text::FAULT) != 0)
    }

    /// The user's groups, as many as the record holds.
    pub fn groups(&self) -> impl Iterator<Item = &'a [u8]> + '_ {
        (API_GROUPS..).take((self.groups as usize).min(API_GROUPS_MAX)).map(|place| self.text(place))
    }

    /// Whether there were more, or one of them isn't whole.
    pub fn groups_cut(&self) -> bool {
        let places = API_GROUPS..API_GROUPS + (self.groups as usize).min(API_GROUPS_MAX);
        self.groups as usize > API_GROUPS_MAX || places.into_iter().any(|place| self.is_cut(place))
    }
}

/// A piece of a request's or response's body.
#[derive(Clone, Debug)]
pub struct ApiBody<'a> {
    /// The API server, and when.
    pub head: Head,
    /// Whether it is the response's.
    pub response: bool,
    /// The goroutine.
    pub goroutine: u64,
    /// The one that started it.
    pub parent: u64,
    /// Where the bytes belong, counted from the body's front.
    pub offset: u64,
    /// How long the body is; of a response, as far as it has come.
    pub total: u64,
    /// The bytes; none where the body is empty, the rest of it isn't wanted, or it could not be read.
    pub bytes: &'a [u8],
}

/// A control group was made or removed.
#[derive(Clone, Debug)]
pub struct Cgroup<'a> {
    /// Who and when.
    pub head: Head,
    /// Its kernfs id.
    pub id: u64,
    /// Its parent's.
    pub parent: u64,
    /// Its path in its hierarchy.
    pub path: &'a [u8],
    /// What it got from its parent; already in force.
    pub verdict: Option<Verdict>,
}
