//! How a trace ends, and that nothing of it remains.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests have no better way to end")]

use std::net::SocketAddr;

use knark_tests::{
    cgroups::memory_limit,
    cluster::{Namespace, Proxy, Trace, knark, kubeconfig, kubectl, nodes, wait_for},
};
use rustix::process::{Pid, Signal, kill_process};

/// Ticks come without gaps.
#[track_caller]
fn assert_whole(trace: &Trace) {
    let ticks = trace.ticks();
    assert!(ticks.windows(2).all(|pair| pair[1] == pair[0] + 1), "ticks are missing: {ticks:?}\n{}", trace.stderr());
}

/// A namespace with a ticker, and its trace, streaming.
fn traced(args: &[&str]) -> (Namespace, Trace) {
    let (ns, nodes) = (Namespace::new(), nodes());
    ns.run_ticker("web", &nodes[0]);
    let trace = Trace::start(ns.trace(&["web", "--on", "exec", "-o", "json"]).args(args));
    trace.first_tick();
    (ns, trace)
}

#[test]
fn ctrl_c_is_the_usual_end() {
    let (ns, mut trace) = traced(&[]);
    assert_eq!(trace.interrupt(), Some(0), "{}", trace.words());
    assert_whole(&trace);
    ns.assert_clean();
}

#[test]
fn a_second_ctrl_c_ends_it_at_once_and_removes_all() {
    let (ns, mut trace) = traced(&[]);
    trace.signal(Signal::INT);
    trace.signal(Signal::INT);
    trace.end();
    ns.assert_clean();
}

#[test]
fn sigterm_ends_it_as_well() {
    let (ns, mut trace) = traced(&[]);
    trace.signal(Signal::TERM);
    assert_eq!(trace.end().code(), Some(0), "{}", trace.words());
    ns.assert_clean();
}

#[test]
fn ctrl_c_before_anything_streams_leaves_nothing() {
    let (ns, nodes) = (Namespace::new(), nodes());
    ns.run_ticker("web", &nodes[0]);
    // An image that is no tracer's: nothing streams, whether the signal comes before its failure or after.
    let mut trace = Trace::start(&mut ns.trace(&["web", "--image", "localhost/knark-test:1", "--image-pull-policy", "Never"]));
    wait_for("the tracer's Job", || (!ns.leftovers().is_empty()).then_some(()));
    trace.signal(Signal::INT);
    assert_ne!(trace.end().code(), Some(0), "{}", trace.words());
    ns.assert_clean();
}

#[test]
fn ctrl_c_while_waiting_for_a_pod_is_130() {
    let ns = Namespace::new();
    let mut trace = Trace::start(&mut ns.trace(&["-l", "app=none-yet"]));
    trace.says("no pod matches yet");
    assert_eq!(trace.interrupt(), Some(130), "{}", trace.words());
    ns.assert_clean();
}

#[test]
fn it_ends_when_the_time_is_over() {
    let (ns, nodes) = (Namespace::new(), nodes());
    ns.run_ticker("web", &nodes[0]);
    let mut trace = Trace::start(&mut ns.trace(&["web", "--on", "exec", "-o", "json", "--for", "3s"]));
    assert_eq!(trace.end().code(), Some(0), "{}", trace.words());
    assert!(trace.ticks().len() >= 5, "{}", trace.words());
    ns.assert_clean();
}

#[test]
fn a_killed_plugin_leaves_nothing_for_long() {
    let (ns, mut trace) = traced(&[]);
    let pods = ns.tracers();
    assert_eq!(pods.len(), 1, "{pods:?}");
    trace.signal(Signal::KILL);
    trace.end();
    // The pod ends by itself: its tracer hears nothing for the grace time. Then the Job's time to live runs out.
    let killed = std::time::Instant::now();
    let phase = |pod: &str| ns.kubectl(&["get", "pod", pod, "--ignore-not-found", "-o", "jsonpath={.status.phase}"]);
    wait_for("the tracer's own end", || (phase(&pods[0]) != "Running").then_some(()));
    assert!(killed.elapsed().as_secs() < 25, "it took {} s", killed.elapsed().as_secs());
    wait_for("the Job's removal", || ns.leftovers().is_empty().then_some(()));
}

#[test]
fn cleanup_removes_what_a_killed_plugin_left() {
    let (ns, mut trace) = traced(&[]);
    trace.signal(Signal::KILL);
    trace.end();
    let cleanup = |args: &[&str]| {
        let output = knark(&["cleanup", "--tracer-namespace", &ns.name]).args(args).output().unwrap();
        assert!(output.status.success(), "{}", knark_tests::program::seen(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(cleanup(&["--session", "00000000"]).is_empty());
    let dry = cleanup(&["--dry-run=client"]);
    assert!(dry.starts_with("job.batch/knark-") && dry.ends_with("deleted (dry run)\n"), "{dry}");
    assert!(!ns.leftovers().is_empty());
    let text = cleanup(&[]);
    assert!(text.starts_with("job.batch/knark-") && text.ends_with("deleted\n"), "{text}");
    ns.assert_clean();
}

#[test]
fn a_cut_connection_is_taken_up_without_loss() {
    let (ns, nodes) = (Namespace::new(), nodes());
    ns.run_ticker("web", &nodes[0]);
    let server = kubectl(["config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}"]);
    let target: SocketAddr = server.trim_start_matches("https://").parse().unwrap();
    let proxy = Proxy::to(target);
    let address = format!("https://{}", proxy.address);
    let mut trace = Trace::start(ns.trace(&["web", "--on", "exec", "-o", "json"]).args(["--server", &address]));
    let first = trace.first_tick();
    for round in 1..=2 {
        trace.tick_after(first + 5 * round);
        let before = trace.ticks().last().copied().unwrap();
        proxy.cut();
        // As long as it takes the pod to tick on unheard.
        wait_for("ticks that nobody hears", || (last_tick(&ns) > before + 10).then_some(()));
        proxy.mend();
        trace.tick_after(before + 15);
    }
    assert_eq!(trace.interrupt(), Some(0), "{}", trace.words());
    assert_whole(&trace);
    ns.assert_clean();
}

/// How far the ticker is, by its own word.
fn last_tick(ns: &Namespace) -> u64 {
    ns.kubectl(&["logs", "web", "--tail=1"]).trim().parse().unwrap_or(0)
}

#[test]
fn a_lost_connection_ends_the_trace() {
    let (ns, nodes) = (Namespace::new(), nodes());
    ns.run_ticker("web", &nodes[0]);
    let server = kubectl(["config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}"]);
    let proxy = Proxy::to(server.trim_start_matches("https://").parse().unwrap());
    let address = format!("https://{}", proxy.address);
    let mut trace = Trace::start(ns.trace(&["web", "--on", "exec", "-o", "json"]).args(["--server", &address]));
    trace.first_tick();
    proxy.cut();
    assert_eq!(trace.end().code(), Some(1), "{}", trace.words());
    wait_for("the tracer's own end", || ns.leftovers().is_empty().then_some(()));
}

#[test]
fn a_deleted_pod_is_told_and_the_trace_goes_on() {
    let (ns, mut trace) = traced(&[]);
    ns.kubectl(&["delete", "pod", "web", "--wait=false"]);
    trace.says("pod web was deleted");
    // Another of that name is traced again, from its first event on.
    wait_for("the pod's end", || ns.kubectl(&["get", "pods", "web", "--ignore-not-found"]).is_empty().then_some(()));
    ns.start("web", &nodes()[0], &["/bin/true", "tick-1000000"]);
    trace.tick_after(999_999);
    assert_eq!(trace.interrupt(), Some(0), "{}", trace.words());
    ns.assert_clean();
}

#[test]
fn a_killed_tracer_is_told_at_once() {
    let (ns, mut trace) = traced(&[]);
    kill_process(tracer_process(&ns), Signal::KILL).unwrap();
    let begun = std::time::Instant::now();
    assert_eq!(trace.end().code(), Some(1), "{}", trace.words());
    assert!(begun.elapsed().as_secs() < 20, "it took {} s", begun.elapsed().as_secs());
    assert!(trace.stderr().contains("killed by signal 9"), "{}", trace.words());
    ns.assert_clean();
}

#[test]
fn a_tracer_without_memory_is_told_and_what_to_do() {
    let (ns, mut trace) = traced(&[]);
    let limit = memory_limit(tracer_process(&ns).as_raw_nonzero().get().unsigned_abs()).unwrap();
    // What it has is all that it gets: version 1 refuses less than that, version 2 kills at once.
    wait_for("the end of its memory", || {
        let usage = limit.with_file_name(if limit.ends_with("memory.max") { "memory.current" } else { "memory.usage_in_bytes" });
        let _ = std::fs::read_to_string(&usage).and_then(|bytes| std::fs::write(&limit, bytes));
        ns.tracers().is_empty().then_some(())
    });
    assert_eq!(trace.end().code(), Some(1), "{}", trace.words());
    let said = trace.stderr();
    assert!(said.contains("OOMKilled") && said.contains("256Mi") && said.contains("--aggregate"), "{}", trace.words());
    ns.assert_clean();
}

/// The tracer's main process: the nodes of this cluster share this machine's process ids.
fn tracer_process(ns: &Namespace) -> Pid {
    let uid =
        ns.kubectl(&["get", "pods", "-l", "app.kubernetes.io/name=kubectl-knark", "-o", "jsonpath={.items[0].metadata.uid}"]);
    let found = std::fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let cgroups = std::fs::read_to_string(entry.path().join("cgroup")).ok()?;
        let command = std::fs::read(entry.path().join("cmdline")).ok()?;
        let is_it = cgroups.contains(&uid) && command.starts_with(b"/knark-tracer\0serve\0");
        is_it.then_some(pid)
    });
    found.and_then(Pid::from_raw).expect("the tracer's process")
}

#[test]
fn a_deleted_tracer_is_told_at_once() {
    let (ns, mut trace) = traced(&[]);
    ns.kubectl(&["delete", "pod", &ns.tracers()[0], "--wait=false"]);
    assert_eq!(trace.end().code(), Some(1), "{}", trace.words());
    assert!(trace.stderr().contains("deleted"), "{}", trace.words());
    ns.assert_clean();
}

#[test]
fn two_sessions_run_side_by_side() {
    let (ns, mut first) = traced(&[]);
    let mut second = Trace::start(&mut ns.trace(&["web", "--on", "exec", "-o", "json"]));
    let at = second.first_tick();
    assert_eq!(ns.tracers().len(), 2);
    assert_eq!(second.interrupt(), Some(0), "{}", second.words());
    first.tick_after(at + 5);
    assert_eq!(ns.tracers().len(), 1, "only its own pods are removed");
    assert_eq!(first.interrupt(), Some(0), "{}", first.words());
    assert_whole(&first);
    ns.assert_clean();
}

#[test]
fn a_deadline_ends_the_tracer_and_is_named() {
    let (ns, mut trace) = traced(&["--deadline", "12s"]);
    assert_eq!(trace.end().code(), Some(1), "{}", trace.words());
    assert!(trace.stderr().contains("--deadline"), "{}", trace.words());
    ns.assert_clean();
}

#[test]
fn a_closed_pipe_ends_it_quietly() {
    let (ns, nodes) = (Namespace::new(), nodes());
    ns.run_ticker("web", &nodes[0]);
    let command = format!("kubectl knark trace web -n {0} --tracer-namespace {0} --on exec | head -n 2", ns.name);
    let knark = knark(&[]);
    let mut shell = std::process::Command::new("/bin/sh");
    for (name, value) in knark.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    let output = shell.args(["-c", &command]).env("KUBECONFIG", kubeconfig("admin")).output().unwrap();
    assert!(!String::from_utf8_lossy(&output.stderr).contains("error"), "{}", knark_tests::program::seen(&output));
    ns.assert_clean();
}
