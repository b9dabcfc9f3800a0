use std::sync::Arc;

use knark_specs::event::{Event, Exit, Node, Process, ProcessSource, SCHEMA, What};

/// An event whose time is all that matters.
pub fn event(boot_ns: u64) -> Event {
    let process = Process {
        pid: 1,
        ppid: 0,
        uid: 0,
        gid: 0,
        comm: "init".into(),
        comm_b64: None,
        exe: "/sbin/init".into(),
        exe_b64: None,
        args: ["init"].into_iter().collect(),
        args_b64: None,
        args_cut_from: None,
        cwd: "/".into(),
        cwd_b64: None,
        start_time: "1970-01-01T00:00:00.000000000Z".into(),
        start_boot_ns: 0,
        exe_upper_layer: None,
        exe_memfd: false,
        ancestors: Vec::new(),
        ancestors_cut: false,
        source: ProcessSource::Proc,
    };
    Event {
        schema: SCHEMA.into(),
        time: "1970-01-01T00:00:00.000000001Z".into(),
        boot_ns,
        node: Arc::new(Node { name: "n".into(), clock_offset_ns: 0 }),
        kubernetes: None,
        container: None,
        process: Arc::new(process),
        thread: None,
        what: What::Exit { exit: Exit { code: Some(0), signal: None, duration_ns: 1 } },
    }
}
