//! What can't be done is said in one message that names the thing and its remedy, and nothing is left behind.
#![expect(clippy::unwrap_used, reason = "helpers of tests have no better way to end")]

use std::process::{Command, Stdio};

use knark_tests::{
    cluster::{Namespace, apply, knark, kubeconfig, kubectl, nodes, try_kubectl},
    program::seen,
};
use serde_json::json;

/// Runs a command that must fail with this status and one message with these marks.
#[track_caller]
fn refused(command: &mut Command, status: i32, marks: &[&str]) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let seen = seen(&output);
    assert_eq!(output.status.code(), Some(status), "{seen}");
    assert!(output.stdout.iter().all(|b| *b != b'{'), "stdout is data alone: {seen}");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(stderr.lines().filter(|line| line.starts_with("error: ")).count(), 1, "{seen}");
    for mark in marks {
        assert!(stderr.contains(mark), "{mark:?} is missing: {seen}");
    }
}

#[test]
fn things_that_do_not_exist() {
    let (ns, nodes) = (Namespace::new(), nodes());
    ns.run("web", &nodes[0], &["/bin/sleep", "1000"]);
    for (args, marks) in [
        (&["nope"][..], &["no pod \"nope\"", &ns.name, "kubectl get pods"][..]),
        (&["deploy"], &["no pod \"deploy\"", "deploy/NAME"]),
        (&["deploy/nope"], &["deployments.apps", "nope", &ns.name]),
        (&["svc/nope"], &["services", "nope"]),
        (&["web", "-c", "nope"], &["container \"nope\"", "web", "main"]),
        (&["web", "--node", "nope"], &["no node \"nope\"", "kubectl get nodes"]),
        (&["node/nope"], &["no node \"nope\""]),
        (&["web", "--node-selector", "no=such"], &["no=such", "--show-labels"]),
    ] {
        refused(&mut ns.trace(args), 1, marks);
    }
    for target in ["web", "deploy/web", "-l=app=web"] {
        refused(&mut knark(&["trace", target, "-n", "no-such-namespace"]), 1, &["no namespace \"no-such-namespace\"", "-n"]);
    }
    refused(
        &mut knark(&["trace", "web", "-n", &ns.name, "--tracer-namespace", "no-such-namespace"]),
        1,
        &["no-such-namespace", "kubectl create namespace"],
    );
    ns.assert_clean();
}

#[test]
fn wrong_usage() {
    let ns = Namespace::new();
    for (args, mark) in [
        (&["cronjob/x"][..], "cronjob"),
        (&["a/b/c"], "a/b/c"),
        (&["web", "-l", "app=web"], "-l"),
        (&["web", "-A"], "-A"),
        (&["-l", "app=we b"], "we b"),
        (&["node/a", "web"], "node/a"),
        (&["node/a", "-c", "x"], "-c"),
    ] {
        refused(&mut ns.trace(args), 2, &[mark]);
    }
}

#[test]
fn a_user_without_rights() {
    let (ns, nodes) = (Namespace::new(), nodes());
    ns.run_ticker("web", &nodes[0]);
    let alice = || {
        let mut command = ns.trace(&["web", "--on", "exec", "--max-events", "3"]);
        command.env("KUBECONFIG", kubeconfig("alice"));
        command
    };
    refused(&mut alice(), 1, &["\"alice\" cannot list", "\"pods\"", &ns.name, "doctor --rbac"]);
    kubectl(["-n", &ns.name, "create", "role", "look", "--verb=list,watch", "--resource=pods"]);
    kubectl(["-n", &ns.name, "create", "rolebinding", "look", "--role=look", "--user=alice"]);
    refused(&mut alice(), 1, &["\"alice\" cannot create", "\"pods\"", &ns.name, "doctor --rbac"]);

    // What doctor prints is enough, and the same command works.
    let rbac = knark(&["doctor", "--rbac", "-n", &ns.name, "--tracer-namespace", &ns.name]).output().unwrap();
    assert!(rbac.status.success(), "{}", seen(&rbac));
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &rbac.stdout).unwrap();
    kubectl(["apply", "-f", file.path().to_str().unwrap()]);
    for role in ["knark-tracers", "knark-targets"] {
        kubectl(["-n", &ns.name, "create", "rolebinding", role, &format!("--role={role}"), "--user=alice"]);
    }
    let output = alice().output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", seen(&output));
    ns.assert_clean();

    // Impersonation reaches the same limits.
    let mut bob = ns.trace(&["web", "--as", "bob", "--as-group", "nobody"]);
    refused(&mut bob, 1, &["\"bob\" cannot list"]);
}

#[test]
fn admission_says_no() {
    let (ns, nodes) = (Namespace::new(), nodes());
    ns.run("web", &nodes[0], &["/bin/sleep", "1000"]);
    let strict = Namespace::new();
    kubectl(["label", "namespace", &strict.name, "pod-security.kubernetes.io/enforce=baseline"]);
    refused(
        knark(&["trace", "web", "-n", &ns.name, "--tracer-namespace"]).arg(&strict.name),
        1,
        &["PodSecurity", "hostPID", "--tracer-namespace", "pod-security.kubernetes.io/enforce=privileged"],
    );
    strict.assert_clean();

    let full = Namespace::new();
    apply(&json!({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": { "name": "none", "namespace": full.name },
        "spec": { "hard": { "pods": "0" } },
    }));
    // The quota counts once its controller has seen it.
    full.kubectl(&["wait", "--for=jsonpath={.status.hard.pods}=0", "resourcequota/none", "--timeout=60s"]);
    refused(
        knark(&["trace", "web", "-n", &ns.name, "--tracer-namespace"]).arg(&full.name),
        1,
        &["exceeded quota: none", "kubectl describe resourcequota", "--tracer-namespace"],
    );
    full.assert_clean();
}

#[test]
fn images_that_do_not_do() {
    let (ns, nodes) = (Namespace::new(), nodes());
    ns.run("web", &nodes[0], &["/bin/sleep", "1000"]);
    for (image, policy, marks) in [
        ("localhost/no-such:1", "Never", &["localhost/no-such:1", "--image-pull-policy"][..]),
        // Nothing listens there.
        ("127.0.0.1:1/no-such:1", "IfNotPresent", &["127.0.0.1:1/no-such:1", "can't be pulled", "--image-pull-secret"]),
        ("No Such", "IfNotPresent", &["No Such", "no image name"]),
        ("localhost/knark-test:1", "Never", &["localhost/knark-test:1", "no tracer", "knark version"]),
    ] {
        refused(&mut ns.trace(&["web", "--image", image, "--image-pull-policy", policy]), 1, marks);
        ns.assert_clean();
    }
}

#[test]
fn api_servers_that_can_not_be_reached() {
    let folder = tempfile::tempdir().unwrap();
    let broken = folder.path().join("broken");
    std::fs::write(&broken, "clusters: [\ntoken: secret\n").unwrap();
    let empty = folder.path().join("empty");
    std::fs::write(&empty, "apiVersion: v1\nkind: Config\n").unwrap();
    let with = |variable: &std::path::Path| {
        let mut command = knark(&["trace", "web"]);
        command.env("KUBECONFIG", variable);
        command
    };
    refused(&mut with(&broken), 1, &[broken.to_str().unwrap(), "line", "--kubeconfig"]);
    let said = with(&broken).output().unwrap();
    assert!(!String::from_utf8_lossy(&said.stderr).contains("secret"), "a kubeconfig's lines are not for the terminal");
    refused(&mut with(&empty), 1, &["no kubeconfig was found"]);
    refused(&mut with(&folder.path().join("none")), 1, &["no kubeconfig was found"]);
    refused(&mut knark(&["trace", "web", "--kubeconfig", "/no/such/file"]), 1, &["/no/such/file"]);
    refused(&mut knark(&["trace", "web", "--context", "nope"]), 1, &["\"nope\"", "knark-test"]);
    refused(&mut knark(&["trace", "web", "--server", "https://127.0.0.1:1"]), 1, &["https://127.0.0.1:1", "can't be reached"]);
    refused(
        knark(&["trace", "web", "--server", "https://127.0.0.1:1", "--insecure-skip-tls-verify", "--token", "x"])
            .env("KUBECONFIG", &empty),
        1,
        &["can't be reached"],
    );
    let mut stranger = knark(&["trace", "web"]);
    stranger.env("KUBECONFIG", kubeconfig("alice")).args(["--token", "wrong"]);
    refused(&mut stranger, 1, &["Unauthorized", "log in again"]);
    let mut unsigned = knark(&["trace", "web", "--tls-server-name", "other.example"]);
    refused(&mut unsigned, 1, &["certificate", "--tls-server-name"]);
}

#[test]
fn several_kubeconfigs_are_one() {
    let (ns, nodes) = (Namespace::new(), nodes());
    ns.run_ticker("web", &nodes[0]);
    let folder = tempfile::tempdir().unwrap();
    let context = folder.path().join("context");
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: here\ncontexts: [{{name: here, context: {{cluster: knark-test, user: admin, namespace: {}}}}}]\n",
        ns.name
    );
    std::fs::write(&context, text).unwrap();
    let none = folder.path().join("none");
    let files = std::env::join_paths([&context, &none, &kubeconfig("admin")]).unwrap();
    let mut command = knark(&["trace", "web", "--on", "exec", "--max-events", "2", "--tracer-namespace", &ns.name]);
    let output = command.env("KUBECONFIG", files).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", seen(&output));
}

#[test]
fn an_exec_credential_is_used() {
    let (ns, nodes) = (Namespace::new(), nodes());
    ns.run_ticker("web", &nodes[0]);
    let folder = tempfile::tempdir().unwrap();
    let admin = try_kubectl(["config", "view", "--raw", "-o", "json"]);
    let mut config: serde_json::Value = serde_json::from_slice(&admin.stdout).unwrap();
    let credential = json!({
        "apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": { "token": token("alice") },
    });
    let file = folder.path().join("credential");
    std::fs::write(&file, credential.to_string()).unwrap();
    config["users"][0]["user"] = json!({ "exec": {
        "apiVersion": "client.authentication.k8s.io/v1", "command": "cat", "args": [file], "interactiveMode": "Never",
    } });
    let path = folder.path().join("config");
    std::fs::write(&path, config.to_string()).unwrap();
    let mut command = ns.trace(&["web"]);
    refused(command.env("KUBECONFIG", &path), 1, &["\"alice\" cannot list"]);

    config["users"][0]["user"]["exec"]["command"] = json!("no-such-program");
    std::fs::write(&path, config.to_string()).unwrap();
    let mut command = ns.trace(&["web"]);
    refused(command.env("KUBECONFIG", &path), 1, &["credentials", "no-such-program"]);
}

fn token(user: &str) -> String {
    let args = ["config", "view", "--raw", "-o", "jsonpath={.users[0].user.token}"];
    let output = Command::new("kubectl").args(args).env("KUBECONFIG", kubeconfig(user)).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
