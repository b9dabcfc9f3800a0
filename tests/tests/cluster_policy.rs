//! The API server and `policy validate` agree on what a policy is.
#![expect(clippy::unwrap_used, reason = "helpers of tests have no better way to end")]

use std::{
    path::{Path, PathBuf},
    process::Output,
};

use proptest::{
    strategy::{Strategy as _, ValueTree as _},
    test_runner::TestRunner,
};

use knark_tests::{
    cluster::{Namespace, Trace, knark, kubectl, nodes, try_kubectl, wait_for},
    program::seen,
};

/// Example objects, which specs checks by itself as well.
fn cases(kind: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../specs/cases/objects").join(kind);
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty());
    paths
}

/// What `kubectl knark schema policy --crd | kubectl apply -f -` makes.
fn install() {
    let crds = knark(&["schema", "policy", "--crd"]).output().unwrap();
    assert!(crds.status.success(), "{}", seen(&crds));
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &crds.stdout).unwrap();
    kubectl(["apply", "-f", file.path().to_str().unwrap()]);
    kubectl(["wait", "--for=condition=Established", "--timeout=60s", "crd/tracepolicies.knark.dev", "crd/tracelists.knark.dev"]);
    // The API server announces a kind a little after it serves it.
    for kind in ["tracepolicies", "tracelists"] {
        wait_for("the kind to be known", || try_kubectl(["explain", kind]).status.success().then_some(()));
    }
}

/// Nothing is kept, but all of the API server's checks are made.
fn create(path: &Path) -> Output {
    try_kubectl(["create", "--validate=strict", "--dry-run=server", "-f", path.to_str().unwrap()])
}

#[test]
fn objects_are_what_validate_says_they_are() {
    install();
    for path in cases("good") {
        let output = create(&path);
        assert!(output.status.success(), "{}: {}", path.display(), seen(&output));
    }
    for path in cases("bad") {
        let output = create(&path);
        assert!(!output.status.success(), "{}: {}", path.display(), seen(&output));
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(text.contains("is invalid") || text.contains("BadRequest"), "{}: {text}", path.display());
    }

    let rules = kubectl(["explain", "tracepolicy.spec.rules"]);
    for words in ["Exactly one of `exec`, `file` and", "-required-", "severity", "How bad a match is."] {
        assert!(rules.contains(words), "{words:?} is missing: {rules}");
    }
    let severity = kubectl(["explain", "tp.spec.rules.severity"]);
    assert!(severity.contains("`critical`: Worth waking somebody."), "{severity}");

    let path = cases("good").into_iter().find(|path| path.ends_with("files.yaml")).unwrap();
    kubectl(["create", "-f", path.to_str().unwrap()]);
    let table = kubectl(["get", "tp"]);
    let kept = kubectl(["get", "tp", "files", "-o", "yaml"]);
    kubectl(["delete", "tp", "files"]);
    assert!(table.contains("DESCRIPTION") && table.contains("The control plane's manifests keep"), "{table}");
    let parsed = knark_specs::policy::document::parse(&kept);
    assert_eq!(parsed.problems, [], "{kept}");
    assert_eq!(parsed.policies.len(), 1);
}

/// Kinds of other systems, for clusters that lack these systems.
#[test]
fn kinds_of_other_systems_can_be_objects_of_the_cluster() {
    let kinds = [
        (
            "KivePolicy",
            "{apiVersion: kivebpf.san7o.github.io/v2alpha1, kind: KivePolicy, metadata: {name: a}, spec: {traps: [{path: /a, mode: 444, \
             create: true, metadata: {a: b}, matchAny: [{}, {pod: a, matchLabels: {app: web}}]}, {path: /b, metadata: text}]}}",
            "mode: 444",
            "mode: many",
        ),
        (
            "RuntimeRuleAlertBinding",
            "{apiVersion: kubescape.io/v1, kind: RuntimeRuleAlertBinding, metadata: {name: a}, spec: {namespaceSelector: {matchExpressions: \
             [{key: a, operator: NotIn, values: [kube-system]}]}, rules: [{ruleID: R1004, parameters: {ports: [22]}}]}}",
            "ruleID: R1004",
            "ruleID: [R1004]",
        ),
        (
            "ApplicationProfile",
            "{apiVersion: kubescape.io/v1, kind: ApplicationProfile, metadata: {name: job-a}, spec: {containers: [{name: c, execs: \
             [{path: /a, args: null}], opens: null, capabilities: [{caps: [NET_ADMIN], syscall: bind}], syscalls: [read]}]}}",
            "syscalls: [read]",
            "syscalls: read",
        ),
        (
            "PodCheckpoint",
            "{apiVersion: forensics.orkaproj.io/v1alpha1, kind: PodCheckpoint, metadata: {name: a}, spec: {destination: s3://b, \
             subpath: forensics, pod: web-0, namespace: default}}",
            "pod: web-0, ",
            "",
        ),
    ];
    for (kind, good, part, wrong) in kinds {
        let crd = knark(&["schema", "crd", kind]).output().unwrap();
        assert!(crd.status.success(), "{}", seen(&crd));
        let file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
        std::fs::write(file.path(), &crd.stdout).unwrap();
        let path = file.path().to_str().unwrap();
        kubectl(["apply", "-f", path]);
        kubectl(["wait", "--for=condition=Established", "--timeout=60s", "-f", path]);
        wait_for("the kind to be known", || try_kubectl(["explain", kind]).status.success().then_some(()));
        let object = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
        // kubectl takes what begins with a brace for JSON.
        std::fs::write(object.path(), format!("# YAML\n{good}\n")).unwrap();
        let made = create(object.path());
        assert!(made.status.success(), "{kind}: {}", seen(&made));
        let validated = knark(&["policy", "validate", object.path().to_str().unwrap()]).output().unwrap();
        assert!(matches!(validated.status.code(), Some(0 | 2)), "{}", seen(&validated));
        assert!(good.contains(part));
        std::fs::write(object.path(), format!("# YAML\n{}\n", good.replace(part, wrong))).unwrap();
        let refused = create(object.path());
        assert!(!refused.status.success(), "{kind}: {}", seen(&refused));
        kubectl(["delete", "--wait=true", "-f", path]);
    }
}

#[path = "../../specs/src/policy/document/generated.rs"]
mod generated;

/// What the structural stage of `validate` takes, the API server takes, and nothing else.
#[test]
fn the_api_server_and_validate_agree_on_generated_policies() {
    install();
    let strategy = generated::policy();
    let mut runner = TestRunner::deterministic();
    let mut good = 0;
    for _ in 0..200 {
        let mut policy = strategy.new_tree(&mut runner).unwrap().current();
        // Of what has no kind, neither knows what it is.
        if let Some(fields) = policy.as_object_mut() {
            fields.insert("apiVersion".to_owned(), "knark.dev/v1alpha1".into());
            fields.insert("kind".to_owned(), "TracePolicy".into());
        }
        let text = policy.to_string();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
        let path = "/apis/knark.dev/v1alpha1/tracepolicies?dryRun=All&fieldValidation=Strict";
        let output = try_kubectl(["create", "--raw", path, "-f", file.path().to_str().unwrap()]);
        let parsed = knark_specs::policy::document::parse(&text);
        assert_eq!(output.status.success(), !parsed.has_errors(), "{text}: {:?} {}", parsed.problems, seen(&output));
        good += usize::from(output.status.success());
    }
    assert!((30..170).contains(&good), "{good}");
}

/// Rules about what a ticker does, and about what it doesn't.
fn policy(name: &str, namespace: &str, rule: &str, path: &str) -> String {
    format!(
        "apiVersion: knark.dev/v1alpha1\nkind: TracePolicy\nmetadata: {{name: {name}}}\nspec:\n  \
         namespaces: {{names: [{namespace}]}}\n  pods: {{matchLabels: {{app: web}}}}\n  rules:\n  \
         - name: {rule}\n    severity: high\n    message: \"{{{{process.exe}}}} in {{{{kubernetes.pod}}}}\"\n    exec: {{paths: [{path}]}}\n"
    )
}

#[test]
fn a_trace_shows_what_policies_say_where_they_say() {
    let (ns, nodes) = (Namespace::new(), nodes());
    ns.run_ticker("web", &nodes[0]);
    ns.run_ticker("other", &nodes[1]);
    let file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
    std::fs::write(file.path(), policy("ticks", &ns.name, "tick", "/bin/true")).unwrap();
    let path = file.path().to_str().unwrap();

    // No target: the policy selects the pods.
    let args = ["trace", "-f", path, "--tracer-namespace", &ns.name, "-o", "json", "--watch", "--fail-on-match"];
    let mut trace = Trace::start(&mut knark(&args));
    let event = trace.event("match", |event| event["matches"][0]["rule"] == "tick");
    let matched = &event["matches"][0];
    assert_eq!(event["kubernetes"]["pod"], "web", "{event}");
    assert_eq!((&matched["policy"], &matched["severity"]), (&"ticks".into(), &"high".into()));
    assert_eq!(matched["message"], "/bin/busybox in web");

    // A mistake leaves the old rules in force; what is right replaces them, with the stream as it is.
    std::fs::write(file.path(), policy("ticks", &ns.name, "tick", "/bin/true").replace("exec:", "exce:")).unwrap();
    trace.says("stay in force");
    std::fs::write(file.path(), policy("ticks", &ns.name, "pause", "/bin/sleep")).unwrap();
    trace.event("match of the new rule", |event| event["matches"][0]["rule"] == "pause");
    assert_eq!(trace.interrupt(), Some(4), "{}", trace.words());
    let events = trace.events();
    assert!(events.iter().all(|event| event["type"] == "summary" || event["kubernetes"]["pod"] == "web"), "{}", trace.words());
    assert_eq!(events.last().unwrap()["summary"]["lost"], 0, "{}", trace.words());
    ns.assert_clean();
}

#[test]
fn policies_of_the_cluster_are_used() {
    install();
    let (ns, nodes) = (Namespace::new(), nodes());
    ns.run_ticker("web", &nodes[0]);
    let file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
    let name = format!("ticks-{}", ns.name);
    std::fs::write(file.path(), policy(&name, &ns.name, "tick", "/bin/true")).unwrap();
    kubectl(["apply", "-f", file.path().to_str().unwrap()]);
    let valid = knark(&["policy", "validate", "--from-cluster"]).output().unwrap();
    assert_eq!(valid.status.code(), Some(0), "{}", seen(&valid));
    let mut trace = Trace::start(ns.trace(&["web", "--from-cluster", "-o", "json", "--max-events", "2"]).arg("--on").arg("exec"));
    assert_eq!(trace.end().code(), Some(0), "{}", trace.words());
    let matched = trace.event("match", |event| event["matches"][0]["policy"] == name.as_str());
    assert_eq!(matched["matches"][0]["rule"], "tick");
    kubectl(["delete", "tracepolicy", &name]);
    ns.assert_clean();
}
