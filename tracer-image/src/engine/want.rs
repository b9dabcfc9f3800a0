//! Which records are events that are wanted. The kernel has told most of them apart; here it is told exactly, on the paths
//! that the events say.

use knark_specs::{frame::Plan, path};

use crate::{
    bpf::{Record, Wanted, mark},
    encode,
    same::Paths,
};

/// How many events of a kind that was asked for a record stands for.
pub fn events(plan: &Plan, record: &Record<'_>) -> u64 {
    let is_event = match record {
        Record::Exec(_) => plan.exec,
        Record::Open(_) | Record::Path(_) => plan.file,
        Record::Exit(_) => plan.exit,
        Record::Api(_) => plan.api,
        Record::ExecArgs(_) | Record::ApiBody(_) | Record::CgroupMkdir(_) | Record::CgroupRmdir(_) => false,
    };
    if is_event { record.head().events() } else { 0 }
}

/// Whether an event is wanted, on its own path or on one of the watched ones of its file. One is if that can't be told, since a part
/// of it is missing.
pub fn is_wanted(wanted: Option<&Wanted>, record: &Record<'_>, watched: &[Paths]) -> bool {
    let Some(wanted) = wanted else { return true };
    if record.head().has(mark::NO_REGS | mark::NO_HOW) {
        return true;
    }
    let is_same = |op| watched.iter().any(|paths| paths.iter().any(|path| wanted.same_file(op, path)));
    match record {
        Record::Exec(exec) => {
            exec.exe.cut() || wanted.exec(exec.exe.walked) || wanted.exec(&path::join(exec.cwd.walked, exec.filename))
        }
        Record::Open(open) => {
            let path = (!open.path.cut()).then(|| encode::open_path(open));
            wanted.file(open.file_op(), path.as_deref()) || is_same(open.file_op())
        }
        Record::Path(call) => {
            let whole = !call.path.cut() && call.second.is_none_or(|second| !second.cut());
            let (path, other) = encode::call_paths(call);
            let has = |path: &[u8]| wanted.file(call.file_op(), whole.then_some(path));
            has(&path) || other.is_some_and(|other| has(&other)) || is_same(call.file_op())
        }
        Record::Exit(_)
        | Record::Api(_)
        | Record::ApiBody(_)
        | Record::ExecArgs(_)
        | Record::CgroupMkdir(_)
        | Record::CgroupRmdir(_) => true,
    }
}
