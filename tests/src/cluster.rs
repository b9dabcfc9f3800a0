//! The real cluster under the end-to-end tests: namespaces of their own, pods, and traces under way.
#![expect(clippy::expect_used, clippy::missing_panics_doc, reason = "a test has no better way to end")]

mod proxy;
mod trace;

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    thread::sleep,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::program::{plugin, seen};
pub use proxy::Proxy;
pub use trace::Trace;

/// How long anything may take on a slow machine.
pub const PATIENCE: Duration = Duration::from_secs(90);
/// The image that every node has: busybox and a shell.
pub const IMAGE: &str = "localhost/knark-test:1";
const POLL: Duration = Duration::from_millis(200);

/// Runs `tests/cluster/cluster`; its stdout.
pub fn cluster(args: &[&str]) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster/cluster");
    let output = Command::new(script).args(args).output().expect("tests/cluster/cluster runs");
    assert!(output.status.success(), "cluster {args:?}: {}", seen(&output));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// The kubeconfig of a user: admin, alice or bob.
pub fn kubeconfig(user: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let path = PathBuf::from(cluster(&["kubeconfig"]));
        assert!(path.exists(), "the cluster isn't up: run `tests/cluster/cluster up`");
        path.parent().expect("a file lies in a folder").to_owned()
    });
    folder.join(format!("{user}.kubeconfig"))
}

/// The nodes' names.
pub fn nodes() -> Vec<String> {
    let names = kubectl(["get", "nodes", "-o", "name"]);
    names.lines().map(|line| line.trim_start_matches("node/").to_owned()).collect()
}

/// Runs kubectl as admin; its stdout.
pub fn kubectl<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> String {
    let output = try_kubectl(args);
    assert!(output.status.success(), "kubectl: {}", seen(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs kubectl as admin, whatever comes of it.
pub fn try_kubectl<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Output {
    Command::new("kubectl").args(args).env("KUBECONFIG", kubeconfig("admin")).output().expect("kubectl runs")
}

/// Creates objects.
pub fn apply(object: &Value) {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), object.to_string()).expect("a temporary file can be written");
    kubectl([OsStr::new("apply"), OsStr::new("-f"), file.path().as_os_str()]);
}

/// `kubectl knark ARGS`, as a user runs it: by kubectl's plugin mechanism.
pub fn knark(args: &[&str]) -> Command {
    let plugin = plugin();
    let folder = Path::new(plugin.get_program()).parent().expect("a program lies in a folder");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(std::iter::once(folder.to_owned()).chain(std::env::split_paths(&path)));
    let mut command = Command::new("kubectl");
    for (name, value) in plugin.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.arg("knark").args(args).env("PATH", path.expect("a PATH")).env("KUBECONFIG", kubeconfig("admin"));
    command.stdin(Stdio::null());
    command
}

/// Waits until something is there.
#[track_caller]
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "waited {} s for {what}", PATIENCE.as_secs());
        sleep(POLL);
    }
}

/// A namespace of a test's own, for its pods and its tracers. It goes with the test.
pub struct Namespace {
    /// Its name.
    pub name: String,
}

impl Drop for Namespace {
    fn drop(&mut self) {
        try_kubectl(["delete", "namespace", &self.name, "--wait=false"]);
    }
}

impl Namespace {
    /// A new one.
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("t{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        kubectl(["create", "namespace", &name]);
        // Pods are refused until their service account is there.
        wait_for("the service account", || {
            try_kubectl(["get", "serviceaccount", "default", "-n", &name]).status.success().then_some(())
        });
        Self { name }
    }

    /// Runs kubectl in it; its stdout.
    pub fn kubectl(&self, args: &[&str]) -> String {
        kubectl(["-n", &self.name].iter().chain(args))
    }

    /// Starts a pod that runs a command, on a node, and doesn't wait.
    pub fn start(&self, name: &str, node: &str, command: &[&str]) {
        apply(&json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": { "name": name, "namespace": self.name, "labels": { "app": name } },
            "spec": {
                "nodeName": node,
                "restartPolicy": "Never",
                "terminationGracePeriodSeconds": 0,
                "containers": [{ "name": "main", "image": IMAGE, "command": command }],
            },
        }));
    }

    /// Starts a pod, and waits until it runs.
    pub fn run(&self, name: &str, node: &str, command: &[&str]) {
        self.start(name, node, command);
        self.kubectl(&["wait", "--for=condition=Ready", &format!("pod/{name}"), "--timeout=90s"]);
    }

    /// Starts a pod that executes `/bin/true tick-N` five times a second, N counting from 1, and waits until it runs.
    pub fn run_ticker(&self, name: &str, node: &str) {
        self.run(name, node, &["/bin/sh", "-c", "n=0; while :; do n=$((n+1)); echo $n; /bin/true tick-$n; sleep 0.2; done"]);
    }

    /// `kubectl knark trace` in this namespace, its tracers as well.
    pub fn trace(&self, args: &[&str]) -> Command {
        let mut command = knark(&["trace", "-n", &self.name, "--tracer-namespace", &self.name]);
        command.args(args);
        command
    }

    /// What sessions have in this namespace, by name.
    pub fn leftovers(&self) -> Vec<String> {
        let names = self.kubectl(&["get", "jobs,pods", "-l", "app.kubernetes.io/name=kubectl-knark", "-o", "name"]);
        names.lines().map(str::to_owned).collect()
    }

    /// The tracer pods, by name.
    pub fn tracers(&self) -> Vec<String> {
        let names = self.kubectl(&["get", "pods", "-l", "app.kubernetes.io/name=kubectl-knark", "-o", "name"]);
        names.lines().map(|name| name.trim_start_matches("pod/").to_owned()).collect()
    }

    /// Checks that nothing of a session is left.
    #[track_caller]
    pub fn assert_clean(&self) {
        let left = self.leftovers();
        assert!(left.is_empty(), "left behind: {left:?}");
    }
}

impl Default for Namespace {
    fn default() -> Self {
        Self::new()
    }
}
