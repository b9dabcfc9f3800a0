//! A lone API server and its etcd, with an audit log that says what it did.
#![expect(clippy::expect_used, clippy::missing_panics_doc, reason = "a test has no better way to end")]

use std::{
    ffi::OsStr,
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::{
    cluster::{PATIENCE, cluster},
    program::seen,
};

const POLL: Duration = Duration::from_millis(100);

/// The server. Users are known by their tokens: admin may do all, alice and bob nothing.
pub struct ApiServer {
    program: PathBuf,
    folder: tempfile::TempDir,
    etcd: Child,
    server: Child,
    ports: [u16; 3],
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        for child in [&mut self.server, &mut self.etcd] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl ApiServer {
    /// Starts the test cluster's, and waits until it is ready. `KNARK_API_SERVER` names another program.
    pub fn start() -> Self {
        Self::auditing("Metadata")
    }

    /// The same with an audit log of this level: `RequestResponse` has bodies, `None` is no log.
    pub fn auditing(level: &str) -> Self {
        Self::of(&Self::program(), level)
    }

    /// The program that [`Self::start`] starts.
    pub fn program() -> PathBuf {
        std::env::var_os("KNARK_API_SERVER").map_or_else(|| programs().join("kube-apiserver"), PathBuf::from)
    }

    /// Starts this program with an audit log of this level, and waits until it is ready.
    pub fn of(program: &Path, level: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).expect("a file can be written");
        let admin = "admin-token,admin,uid-admin,\"system:masters\"\n";
        write("tokens.csv", &format!("{admin}alice-token,alice,uid-alice,\"dev,ops\"\nbob-token,bob,uid-bob\n"));
        write("audit-policy.yaml", &format!("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{{level: {level}}}]\n"));
        for arguments in [
            "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out accounts.key",
            "pkey -in accounts.key -pubout -out accounts.pub",
        ] {
            let made = Command::new("openssl").args(arguments.split(' ')).current_dir(folder.path()).output();
            let made = made.expect("openssl runs");
            assert!(made.status.success(), "{}", seen(&made));
        }

        let ports = free_ports();
        let [client, peer, _] = ports.map(|port| format!("http://127.0.0.1:{port}"));
        let etcd = spawn(
            folder.path(),
            Path::new("etcd"),
            &["--data-dir", "etcd", "--unsafe-no-fsync", "--listen-client-urls", &client, "--advertise-client-urls", &client]
                .into_iter()
                .chain(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
                .chain(["--initial-cluster", &format!("default={peer}")])
                .collect::<Vec<_>>(),
        );
        let server = spawn_server(program, folder.path(), ports);
        let mut new = Self { program: program.to_owned(), folder, etcd, server, ports };
        new.wait();
        new
    }

    /// Ends the server and starts it again, with the same etcd.
    pub fn restart(&mut self) {
        self.server.kill().expect("the server runs");
        self.server.wait().expect("a child can be waited for");
        self.server = spawn_server(&self.program, self.folder.path(), self.ports);
        self.wait();
    }

    /// Stops etcd, so that requests wait; `false` lets it go on.
    pub fn hold(&self, hold: bool) {
        let signal = if hold { Signal::STOP } else { Signal::CONT };
        kill_process(Pid::from_child(&self.etcd), signal).expect("etcd runs");
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.ports[2])
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.server.id()
    }

    /// kubectl as this user, ready for arguments.
    pub fn kubectl(&self, user: &str) -> Command {
        let mut command = Command::new(programs().join("kubectl"));
        command
            .arg(format!("--server={}", self.url()))
            .arg(format!("--token={user}-token"))
            .arg("--insecure-skip-tls-verify")
            .arg(format!("--cache-dir={}", self.folder.path().join("cache").display()))
            .env("KUBECONFIG", "/dev/null")
            .stdin(Stdio::null());
        command
    }

    /// Runs kubectl as this user, and has what comes of it.
    pub fn run<A: AsRef<OsStr>>(&self, user: &str, args: impl IntoIterator<Item = A>) -> Output {
        self.kubectl(user).args(args).output().expect("kubectl runs")
    }

    /// Runs kubectl as admin; its stdout.
    #[track_caller]
    pub fn admin<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> String {
        let output = self.run("admin", args);
        assert!(output.status.success(), "{}", seen(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// What it answers admin about a path, in this format.
    #[track_caller]
    pub fn get(&self, path: &str, format: &str) -> Vec<u8> {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--fail", "--insecure", "--noproxy", "*", "--header"])
            .arg("Authorization: Bearer admin-token");
        curl.arg("--header").arg(format!("Accept: {format}")).arg(format!("https://127.0.0.1:{}{path}", self.ports[2]));
        let output = curl.output().expect("curl runs");
        assert!(output.status.success(), "{path}: {}", seen(&output));
        output.stdout
    }

    /// A file of its own with this text.
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, text).expect("a file can be written");
        path
    }

    /// Its audit log.
    pub fn audit_log(&self) -> PathBuf {
        self.folder.path().join("audit.log")
    }

    /// What its audit log says, so far.
    pub fn audit(&self) -> Vec<Value> {
        let log = fs::read_to_string(self.audit_log()).expect("there is an audit log");
        log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    fn wait(&mut self) {
        let begun = Instant::now();
        while !self.run("admin", ["get", "--raw", "/readyz"]).status.success() {
            let log = || fs::read_to_string(self.folder.path().join("kube-apiserver.log")).unwrap_or_default();
            let ended = self.server.try_wait().expect("a child can be waited for");
            assert!(ended.is_none() && begun.elapsed() < PATIENCE, "the API server isn't ready\n{}", log());
            sleep(POLL);
        }
    }
}

/// API servers of other minor versions than the test cluster's, the oldest first.
pub fn other_versions() -> Vec<PathBuf> {
    cluster(&["api-servers"]).lines().map(PathBuf::from).collect()
}

fn programs() -> PathBuf {
    PathBuf::from(cluster(&["programs"]))
}

fn spawn_server(program: &Path, folder: &Path, [etcd, _, port]: [u16; 3]) -> Child {
    let arguments = format!(
        "--etcd-servers http://127.0.0.1:{etcd} --bind-address 127.0.0.1 --secure-port {port} --advertise-address 127.0.0.1 \
         --endpoint-reconciler-type none --cert-dir certs --service-account-issuer https://kubernetes.default.svc \
         --service-account-key-file accounts.pub --service-account-signing-key-file accounts.key \
         --service-cluster-ip-range 10.96.0.0/16 --token-auth-file tokens.csv --authorization-mode RBAC \
         --audit-policy-file audit-policy.yaml --audit-log-path audit.log --audit-log-maxsize 4096"
    );
    spawn(folder, program, &arguments.split_whitespace().collect::<Vec<_>>())
}

fn spawn(folder: &Path, program: &Path, arguments: &[&str]) -> Child {
    let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let log = fs::File::create(folder.join(format!("{name}.log"))).expect("a log can be written");
    let mut command = Command::new(program);
    for proxy in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"] {
        command.env_remove(proxy);
    }
    let log_too = log.try_clone().expect("a descriptor");
    let spawned = command.args(arguments).current_dir(folder).stdin(Stdio::null()).stdout(log).stderr(log_too).spawn();
    spawned.unwrap_or_else(|error| panic!("{}: {error}", program.display()))
}

/// Held all at once, so that they differ.
fn free_ports() -> [u16; 3] {
    let listeners = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port"));
    listeners.each_ref().map(|listener| listener.local_addr().expect("an address").port())
}
