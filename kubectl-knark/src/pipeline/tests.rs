use std::{sync::Arc, time::Instant};

use knark_specs::{
    event::{Event, Exit, Node, Process, ProcessSource, SCHEMA, What},
    frame::{self, Batch, Hello, Item, Probe, Up},
};

use tokio::sync::{mpsc, watch};

use super::{Options, Requests, flow::Flow, output::CHUNK, run};
use crate::{filter::Filter, render::OutputFlags, source::Input};

/// An event whose time is all that matters.
pub fn event(boot_ns: u64) -> Event {
    let process = Process {
        pid: 1,
        ppid: 0,
        uid: 0,
        gid: 0,
        ns_pid: None,
        ns_uid: None,
        ns_gid: None,
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
        count: None,
        first_time: None,
        last_time: None,
        node: Arc::new(Node { name: "n".into(), clock_offset_ns: 0 }),
        kubernetes: None,
        container: None,
        process: Arc::new(process),
        thread: None,
        cause: None,
        what: What::Exit { exit: Exit { code: Some(0), signal: None, duration_ns: 1 } },
    }
}

#[test]
fn one_batch_makes_no_more_text_at_a_time_than_a_chunk_and_an_event() {
    const EVENTS: u32 = 1000;
    let args = vec![b'\n'; 64 << 10];
    let process = frame::Process {
        slot: 0,
        pid: 1,
        ppid: 0,
        start_ns: 0,
        uid: 0,
        gid: 0,
        comm: b"",
        exe: b"",
        args: &args,
        args_cut_from: 0,
        cwd: b"",
        upper_layer: None,
        memfd: false,
        source: frame::ProcessSource::Exec,
        ancestors: Vec::new(),
        container: 0,
        ancestors_cut: false,
        ns_pid: None,
        ns_uid: None,
        ns_gid: None,
    };
    let exit = Item::Exit(frame::Exit { time_ns: 1, process: 0, code: 0 });
    let mut items = Vec::new();
    for item in [Item::Process(process)].into_iter().chain(std::iter::repeat_n(exit, EVENTS as usize)) {
        minicbor::encode(item, &mut items).unwrap();
    }
    let hello = hello(Vec::new());
    let mut flow = Flow::new(Options { live: false, complete: true, ..options(Requests::Unwanted) });
    for message in [Up::Hello(hello), Up::Batch(Batch { seq: 1, items })] {
        flow.take(Input::Up { node: 0, message });
    }
    let mut shown = 0;
    loop {
        flow.release(Instant::now()).unwrap();
        let event = 2 * args.len() + 1000;
        assert!(flow.out.len() <= CHUNK + event, "{}", flow.out.len());
        let full = !flow.has_room();
        shown += String::from_utf8(std::mem::take(&mut flow.out)).unwrap().lines().count();
        if !full {
            break;
        }
    }
    assert_eq!(shown, EVENTS as usize);
}

fn hello(probes: Vec<Probe>) -> Hello {
    Hello {
        version: String::new(),
        kernel: String::new(),
        arch: String::new(),
        probes,
        realtime_offset_ns: 0,
        hostname: String::new(),
        portable: Vec::new(),
    }
}

fn options(requests: Requests) -> Options {
    Options {
        requests,
        render: OutputFlags { output: crate::render::Format::Json, ..OutputFlags::default() }.renderer(),
        screen: None,
        filter: Filter::default(),
        alerts: None,
        fail_on_match: false,
        max_events: None,
        duration: None,
        recorder: None,
        live: true,
        complete: false,
        local: true,
    }
}

#[test]
fn a_trace_of_requests_that_sees_no_api_server_is_in_vain() {
    let probe = |missing: Option<&str>| Probe {
        name: "kube-apiserver 7".into(),
        serves: "api".into(),
        missing: missing.map(str::to_owned),
    };
    for (requests, probes, failed) in [
        (Requests::Needed, vec![], true),
        (Requests::Needed, vec![probe(Some("no room"))], true),
        (Requests::Needed, vec![probe(None)], false),
        (Requests::Wanted, vec![], false),
        (Requests::Unwanted, vec![], false),
    ] {
        let mut flow = Flow::new(options(requests));
        flow.take(Input::Up { node: 0, message: Up::Hello(hello(probes.clone())) });
        assert_eq!((flow.failed, flow.over), (failed, failed), "{requests:?} {probes:?}");
    }
}

#[tokio::test]
async fn a_second_signal_interrupts() {
    let (sink, inputs) = mpsc::channel(1);
    let (signal, mut signals) = mpsc::channel(4);
    let (stop, _) = watch::channel(false);
    sink.send(Input::Up { node: 0, message: Up::Hello(hello(Vec::new())) }).await.unwrap();
    let run = run(None, inputs, &stop, &mut signals, options(Requests::Unwanted));
    let signalling = async {
        // There is room again once the Hello was heard.
        drop(sink.reserve().await.unwrap());
        // The first asks the tracers to end.
        signal.send(()).await.unwrap();
        stop.subscribe().wait_for(|stop| *stop).await.unwrap();
        signal.send(()).await.unwrap();
    };
    let (ended, ()) = tokio::join!(run, signalling);
    assert_eq!(ended.unwrap().finish(&mut signals).await.unwrap(), crate::exit::Exit::Interrupted);
}
