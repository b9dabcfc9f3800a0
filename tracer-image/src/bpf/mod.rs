//! The eBPF programs, as safe Rust: load and attach them, set what they let through, take their records.
//!
//! [`Probes::attach`] does everything that needs rights; afterwards [`Probes::wait`] and [`Probes::drain`] hand out
//! [`Record`]s, which borrow from the ring buffer, and [`Probes::counters`] accounts for each event that was seen. This
//! module and the programs themselves are the only places with unsafe code, and nothing outside knows about aya.
//!
//! There are two tiers. The portable one: tracepoints of single system calls for files, raw tracepoints for processes. The precise
//! one (`precise`, `groups`): programs on the kernel's own functions, where it allows them, in place of the tracepoints of those
//! calls or beside them.

pub mod btf;
pub mod cgroups;
pub mod features;

mod api;
mod calls;
mod counters;
mod error;
mod exec;
mod file;
mod groups;
mod info;
mod link;
mod load;
mod offsets;
mod parse;
mod plan;
mod precise;
mod probes;
mod record;
mod refusal;
mod storm;
mod tracefs;
mod wanted;
mod watched;

pub use api::ApiProbes;
pub use calls::call_name;
pub use cgroups::{CgroupVersion, Hierarchy, hierarchy};
pub use counters::{Count, Counters};
pub use error::{AttachError, MapError};
pub use exec::{Ancestor, Ancestors, Args, Exec, ExecArgs, Upper};
pub use file::{Open, PathCall, PathName, PathSource, Xattr};
pub use knark_abi::{FileId, Op, UNMAPPED, kind, mark, site, text, walk};
pub use plan::{API_SERVER, Missing, ProbeState, ProbeStatus, Tier, not_precise};
pub use probes::{Aggregate, Events, Options, Probes, Scope, Verdict};
pub use record::{Api, ApiBody, Cgroup, Exit, Head, Inode, Record, Repeats};
pub use wanted::Wanted;
pub use watched::WatchedFiles;

use wanted::Effects;
