//! Requests to the Kubernetes API, on one timeline with what happens on the nodes.
#![expect(clippy::unwrap_used, reason = "helpers of tests have no better way to end")]

use std::{
    io::Write as _,
    process::{Command, Output, Stdio},
};

use knark_tests::{
    cluster::{IMAGE, Namespace, Trace, knark, kubeconfig, nodes, wait_for},
    program::{plugin, tracer},
};
use serde_json::Value;

/// What a user without rights of its own gets to hear.
fn kubectl_by(user: &str, args: &[&str]) -> Output {
    Command::new("kubectl").env("KUBECONFIG", kubeconfig(user)).args(args).output().unwrap()
}

/// Lets a user do something in the namespace.
fn allow(ns: &Namespace, user: &str, verbs: &str, resources: &str) {
    ns.kubectl(&["create", "role", user, &format!("--verb={verbs}"), &format!("--resource={resources}")]);
    ns.kubectl(&["create", "rolebinding", user, &format!("--role={user}"), &format!("--user={user}")]);
}

/// The shell that `kubectl exec` starts is alice's, and so is all that it runs.
#[test]
fn a_shell_belongs_to_who_ran_exec() {
    let (ns, nodes) = (Namespace::new(), nodes());
    ns.run_ticker("web", &nodes[0]);
    allow(&ns, "alice", "get,list,create", "pods,pods/exec");
    let mut trace = Trace::start(&mut ns.trace(&["web", "--on", "api,exec", "--no-system", "--by", "alice", "-o", "json"]));
    trace.first_tick();
    let ran =
        kubectl_by("alice", &["exec", "-n", &ns.name, "web", "-c", "main", "--", "sh", "-c", "echo a; /bin/cat /etc/hostname"]);
    assert!(ran.status.success(), "{ran:?}");
    let alices = |event: &Value| event["cause"]["user"] == "alice";
    let shell = trace.event("shell", |event| alices(event) && event["process"]["args"][0] == "sh");
    assert_eq!(shell["cause"]["certainty"], "certain", "{shell}");
    let cat = trace.event("what it ran", |event| alices(event) && event["process"]["args"][1] == "/etc/hostname");
    assert_eq!(cat["cause"], shell["cause"]);
    let request = trace.event("request", |event| {
        event["type"] == "api" && event["api"]["subresource"] == "exec" && event["api"]["stage"] == "complete"
    });
    let api = &request["api"];
    assert_eq!(api["request_id"], shell["cause"]["request_id"]);
    assert_eq!((&api["name"], &api["namespace"], &api["code"]), (&"web".into(), &ns.name.as_str().into(), &101.into()));
    assert!(api["user_agent"].as_str().unwrap().starts_with("kubectl"), "{api}");
    assert_eq!(trace.interrupt(), Some(0), "{}", trace.words());
    let events = trace.events();
    // The filter is about requests; what the pod does by itself is shown as well, and has no cause.
    assert!(events.iter().any(|event| event["type"] == "exec" && event["cause"].is_null()), "{}", trace.words());
    assert!(events.iter().all(|event| event["type"] != "api" || event["api"]["user"]["name"] == "alice"), "{}", trace.words());
    ns.assert_clean();
}

/// A pod's first process is of who created the pod; what is typed into it, of who attached.
#[test]
fn a_pod_belongs_to_who_created_it_and_what_is_typed_to_who_attached() {
    let (ns, nodes) = (Namespace::new(), nodes());
    // It keeps a tracer on the node before the other is there.
    ns.run_ticker("web", &nodes[0]);
    allow(&ns, "alice", "get,list,create", "pods");
    allow(&ns, "bob", "get,list,create", "pods,pods/attach");
    let mut trace = Trace::start(&mut ns.trace(&["-l", "app in (web,made)", "--on", "api,exec", "--no-system", "-o", "json"]));
    trace.first_tick();
    let place = format!(r#"{{"apiVersion":"v1","spec":{{"nodeName":"{}"}}}}"#, nodes[0]);
    let (image, place) = (format!("--image={IMAGE}"), format!("--overrides={place}"));
    let run =
        ["run", "made", "-n", &ns.name, "--labels=app=made", "--restart=Never", "--stdin", "--attach=false", &image, &place];
    let ran = kubectl_by("alice", &[&run[..], &["--command", "--", "/bin/sh"]].concat());
    assert!(ran.status.success(), "{ran:?}");
    let first = trace.event("first process", |event| {
        event["type"] == "exec" && event["kubernetes"]["pod"] == "made" && event["cause"]["user"] == "alice"
    });
    assert_eq!((&first["cause"]["verb"], &first["cause"]["subresource"]), (&"create".into(), &"".into()), "{first}");
    ns.kubectl(&["wait", "--for=condition=Ready", "pod/made", "--timeout=90s"]);
    let mut attach = Command::new("kubectl");
    attach.env("KUBECONFIG", kubeconfig("bob")).args(["attach", "-i", "-n", &ns.name, "made", "-c", "made"]);
    let mut attached = attach.stdin(Stdio::piped()).spawn().unwrap();
    attached.stdin.as_mut().unwrap().write_all(b"/bin/true typed\n").unwrap();
    let typed = trace.event("what was typed", |event| event["type"] == "exec" && event["process"]["args"][1] == "typed");
    let cause = &typed["cause"];
    assert_eq!((&cause["user"], &cause["subresource"]), (&"bob".into(), &"attach".into()), "{typed}");
    assert_eq!(cause["certainty"], "likely");
    attached.kill().unwrap();
    attached.wait().unwrap();
    assert_eq!(trace.interrupt(), Some(0), "{}", trace.words());
    ns.assert_clean();
}

/// Rules on api need no audit log, and no pod as a target.
#[test]
fn rules_match_requests() {
    let ns = Namespace::new();
    let policy = format!(
        "apiVersion: knark.dev/v1alpha1\nkind: TracePolicy\nmetadata: {{name: requests}}\nspec:\n  namespaces: {{names: [{}]}}\n  rules:\n  \
         - name: secret-read\n    severity: high\n    message: \"{{{{api.user.name}}}} {{{{api.verb}}}} {{{{api.name}}}}\"\n    \
         api: {{verbs: [get], resources: [secrets], codes: [403]}}\n",
        ns.name
    );
    let file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
    std::fs::write(file.path(), policy).unwrap();
    let path = file.path().to_str().unwrap();
    let args = ["trace", "-f", path, "--tracer-namespace", &ns.name, "-o", "json", "--fail-on-match"];
    let mut trace = Trace::start(&mut knark(&args));
    let is_match = |event: &Value| event["matches"][0]["rule"] == "secret-read";
    wait_for("match", || {
        let refused = kubectl_by("bob", &["get", "secret", "password", "-n", &ns.name]);
        assert!(!refused.status.success(), "{refused:?}");
        trace.events().iter().any(is_match).then_some(())
    });
    let event = trace.event("match", is_match);
    assert_eq!(event["matches"][0]["message"], "bob get password");
    assert_eq!((&event["api"]["decision"], &event["api"]["code"]), (&"denied".into(), &403.into()));
    assert_eq!(trace.interrupt(), Some(4), "{}", trace.words());
    let events = trace.events();
    assert!(events.iter().all(|event| event["type"] == "summary" || is_match(event)));
    let matched = events.iter().filter(|event| is_match(event)).count();
    assert_eq!(events.last().unwrap()["summary"]["matches"]["high"], matched, "{}", trace.words());
    ns.assert_clean();
}

#[test]
fn a_shell_in_a_pod_is_told_of_when_it_begins_and_when_it_ends() {
    let (ns, nodes) = (Namespace::new(), nodes());
    ns.run("web", &nodes[0], &["/bin/sleep", "600"]);
    let mut command = plugin();
    command.env("KNARK_TRACER", tracer()).args(["trace", "--local", "--on", "api,exec", "-o", "json"]);
    let mut trace = Trace::start(&mut command);
    let is_ours = |event: &Value| event["type"] == "api" && event["api"]["namespace"] == ns.name.as_str();
    // The node's kubelet looks at its pods all the time; from then on requests are seen.
    trace.event("request", |event| event["type"] == "api");
    ns.kubectl(&["exec", "web", "--", "/bin/sh", "-c", "sleep 1; true"]);
    let exec = |stage: &str| {
        trace.event(&format!("exec that is {stage}"), |event| {
            is_ours(event) && event["api"]["subresource"] == "exec" && event["api"]["stage"] == stage
        })
    };
    let (started, complete) = (exec("started"), exec("complete"));
    for event in [&started, &complete] {
        let api = &event["api"];
        assert_eq!((&api["name"], &api["resource"]), (&"web".into(), &"pods".into()), "{api:#}");
        assert_eq!(api["user"]["name"], "admin", "{api:#}");
        assert!(api["query"].as_str().unwrap().contains("command=%2Fbin%2Fsh"), "{api:#}");
    }
    let (from, to) = (&started["api"], &complete["api"]);
    assert_eq!((&from["request_id"], &from["audit_id"]), (&to["request_id"], &to["audit_id"]));
    assert_eq!((&from["code"], &to["code"], &to["decision"]), (&Value::Null, &101.into(), &"allowed".into()));
    assert!(to["latency_ns"].as_u64().unwrap() > 1_000_000_000, "{to:#}");
    // What it executes comes in between.
    let shell = trace.event("shell", |event| event["type"] == "exec" && event["process"]["args"][2] == "sleep 1; true");
    assert!(from["received"].as_str() < shell["time"].as_str() && shell["time"].as_str() < complete["time"].as_str());
    trace.interrupt();

    let log = std::fs::read_to_string(kubeconfig("admin").with_file_name("audit.log")).unwrap();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let of_it: Vec<Value> = lines.filter(|line| line["auditID"] == to["audit_id"]).collect();
    assert!(of_it.iter().any(|line| line["responseStatus"]["code"] == 101), "{of_it:#?}");
}
