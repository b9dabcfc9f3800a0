//! Policies as a user meets them on the command line, without a cluster.
#![expect(clippy::unwrap_used, reason = "helpers of tests have no better way to end")]

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Output, Stdio},
};

use knark_tests::program::{plugin, seen};
use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn run(args: &[&str]) -> Output {
    plugin().args(args).current_dir(root()).stdin(Stdio::null()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A file with this text, for as long as it is held.
fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

/// The blocks of YAML in the documentation.
fn examples() -> Vec<String> {
    let page = std::fs::read_to_string(root().join("docs/policies.md")).unwrap();
    let blocks = page.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap().to_owned());
    blocks.collect()
}

#[test]
fn examples_of_the_documentation_work() {
    let examples = examples();
    assert_eq!(examples.len(), 4);
    for example in examples {
        let file = file(&example);
        let path = file.path().to_str().unwrap();
        if example.starts_with("policies:") {
            let output = run(&["policy", "test", path]);
            assert_eq!(output.status.code(), Some(0), "{}", seen(&output));
            assert!(text(&output.stderr).contains("2 cases passed, 0 failed"), "{}", seen(&output));
        } else {
            let output = run(&["policy", "validate", path]);
            assert_eq!(output.status.code(), Some(0), "{}", seen(&output));
            assert_eq!(text(&output.stderr), "", "not even a warning");
        }
    }
}

#[test]
fn every_mistake_comes_in_one_run_at_its_place() {
    let policy = "\
apiVersion: knark.dev/v1alpha1
kind: TracePolicy
metadata: {name: wrong}
spec:
  rules:
  - name: one
    file: {ops: [chmdo], paths: [/etc/../x]}
    where: proces.exe == 1
  - name: two
    sevrity: high
    exec: {}
";
    let file = file(policy);
    let path = file.path().to_str().unwrap();
    let output = run(&["policy", "validate", path]);
    assert_eq!(output.status.code(), Some(2), "{}", seen(&output));
    let shown = text(&output.stderr);
    for mark in ["chmdo", "did you mean `chmod`?", ":7:", "`..`", "proces", ":8:", "sevrity", "severity", ":10:"] {
        assert!(shown.contains(mark), "{mark} is missing: {shown}");
    }
    let output = run(&["policy", "validate", path, "-o", "json"]);
    assert_eq!(output.status.code(), Some(2));
    let findings: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let places: Vec<_> =
        findings.iter().map(|found| (found["line"].as_u64().unwrap(), found["field"].as_str().unwrap())).collect();
    for place in [(7, "spec.rules[0].file.ops[0]"), (7, "spec.rules[0].file.paths[0]"), (8, "spec.rules[0].where")] {
        assert!(places.contains(&place), "{place:?} is missing: {places:?}");
    }
}

#[test]
fn hostile_texts_get_an_answer() {
    let laughs = (1..20).fold("a0: &a0 [x, x]\n".to_owned(), |text, at| {
        let before = at - 1;
        format!("{text}a{at}: &a{at} [*a{before}, *a{before}, *a{before}, *a{before}]\n")
    });
    for (name, bytes) in [
        ("laughs", laughs.into_bytes()),
        ("deep", "[".repeat(100_000).into_bytes()),
        ("bytes", vec![0xff, 0xfe, 0x00, 0x80]),
        ("escape", b"\x1b[2Jkind: \x9b".to_vec()),
        ("large", vec![b'#'; 17 << 20]),
        ("nothing", Vec::new()),
    ] {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&bytes).unwrap();
        let output = run(&["policy", "validate", file.path().to_str().unwrap()]);
        let code = output.status.code();
        assert!(code == Some(2) || name == "nothing" && code == Some(0), "{name}: {}", seen(&output));
        assert!(!text(&output.stderr).contains('\x1b'), "{name}");
    }
}

#[test]
fn packs_are_listed_shown_and_explained() {
    let list = text(&run(&["policy", "list"]).stdout);
    for pack in ["cis-control-plane", "cis-node", "container-escape", "credentials", "execution", "persistence", "sensitive-api"]
    {
        assert!(list.contains(pack), "{list}");
        let shown = run(&["policy", "show", pack]);
        let file = file(&text(&shown.stdout));
        let valid = run(&["policy", "validate", file.path().to_str().unwrap()]);
        assert_eq!((valid.status.code(), text(&valid.stderr)), (Some(0), String::new()), "{pack}: {}", seen(&valid));
    }
    let output = run(&["policy", "show", "credential"]);
    assert_eq!(output.status.code(), Some(2), "{}", seen(&output));
    assert!(text(&output.stderr).contains("did you mean \"credentials\"?"), "{}", seen(&output));
    let explained = text(&run(&["policy", "explain", "--pack", "credentials"]).stdout);
    for mark in ["shadow-read", "left for user space", "What leaves the kernel", "io_uring"] {
        assert!(explained.contains(mark), "{mark} is missing: {explained}");
    }
}

#[test]
fn older_formats_are_read_where_policies_are() {
    let kive = "\
apiVersion: kivebpf.san7o.github.io/v2alpha1
kind: KivePolicy
metadata: {name: trap}
spec:
  alertVersion: v1
  traps:
  - path: /etc/secret
    create: true
    matchAny: [{namespace: prod, matchLabels: {app: web}}]
";
    let file = file(kive);
    let output = run(&["policy", "convert", file.path().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", seen(&output));
    assert!(text(&output.stderr).contains("create"), "what can't be honoured is said: {}", seen(&output));
    let converted = text(&output.stdout);
    for mark in ["TracePolicy", "/etc/secret", "app: web", "prod"] {
        assert!(converted.contains(mark), "{converted}");
    }
    let again = self::file(&converted);
    let valid = run(&["policy", "validate", again.path().to_str().unwrap()]);
    assert_eq!(valid.status.code(), Some(0), "{}", seen(&valid));
}

#[test]
fn a_recording_is_not_watched() {
    let policy = "\
apiVersion: knark.dev/v1alpha1
kind: TracePolicy
metadata: {name: api}
spec: {rules: [{name: exec-into-pods, api: {verbs: [create], resources: [pods], subresources: [exec]}}]}
";
    let file = file(policy);
    let output = run(&["replay", "/dev/null", "-f", file.path().to_str().unwrap(), "--watch"]);
    assert_eq!(output.status.code(), Some(2), "replay watches nothing: {}", seen(&output));
}
