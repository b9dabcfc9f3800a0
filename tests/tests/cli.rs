//! The command line without a cluster: usage, help, versions, schema, completion.
#![expect(clippy::unwrap_used, reason = "a test has no better way to end")]

use std::process::Output;

use knark_tests::program::{check, plugin, seen};

fn run(args: &[&str]) -> Output {
    plugin().args(args).env("KUBECONFIG", "/nonexistent/kubeconfig").output().unwrap()
}

fn stdout(args: &[&str]) -> String {
    let output = run(args);
    assert!(output.status.success(), "{args:?}: {}", seen(&output));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn wrong_usage_is_status_2_and_says_why() {
    for (args, why) in [
        (&["trace", "--local", "-n", "prod"][..], "cannot be used with"),
        (&["trace", "--local", "web"], "cannot be used with"),
        (&["trace", "--local", "-l", "app=web"], "cannot be used with"),
        (&["trace", "--local", "--privileged"], "cannot be used with"),
        (&["trace", "--pid", "1"], "--local"),
        (&["trace", "--comm", "sh"], "--local"),
        (&["trace", "--on", "files"], "invalid value 'files'"),
        (&["trace", "--for", "soon"], "invalid value 'soon'"),
        (&["trace", "--ring-buffer", "3M"], "power of two"),
        (&["trace", "--max-events", "0"], "invalid value '0'"),
        (&["trace", "-o", "xml"], "[possible values: table, wide, json, yaml, name, tui]"),
        (&["trace", "--no-such-flag"], "unexpected argument '--no-such-flag'"),
        (&["trace", "cronjob/x"], "cronjob"),
        (&["trace", "-l", "a b"], "a b"),
        (
            &["trace", "--on", "api", "--show-secrets"],
            "error: --show-secrets says how bodies are shown, and they are not asked for: add --bodies\n",
        ),
        (&["trace", "--local", "--body-limit", "1Ki"], "error: --body-limit says how bodies are shown"),
        (&["replay"], "<FILE>"),
        (&["replay", "-", "--fail-on-match"], "--fail-on-match is about policies"),
        (&["schema", "policies"], "invalid value 'policies'"),
        (&["schema", "event", "--crd"], "schema policy --crd"),
        (&["no-such-command"], "unrecognized subcommand"),
        (&[], "Usage: kubectl knark <COMMAND>"),
    ] {
        let output = run(args);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", seen(&output));
        assert!(text.contains(why), "{args:?} doesn't say {why:?}: {text}");
        assert!(output.stdout.is_empty(), "{args:?}: {}", seen(&output));
    }
}

#[test]
fn help_is_kubectls() {
    let help = stdout(&["--help"]);
    assert!(help.contains("Usage: kubectl knark <COMMAND>"), "{help}");
    for command in ["trace", "replay", "doctor", "cleanup", "schema", "version", "completion"] {
        assert!(help.contains(&format!("\n  {command} ")), "{command} is missing: {help}");
        let help = stdout(&[command, "--help"]);
        assert!(help.contains(&format!("Usage: kubectl knark {command}")), "{help}");
        assert!(help.contains("Examples:"), "{command} has no examples: {help}");
    }
    assert!(!help.contains("__complete"), "{help}");
}

#[test]
fn the_schemas_are_the_committed_ones() {
    for (args, file, committed) in [
        (&["schema", "event"][..], "event.json", include_str!("../../specs/schema/event.json")),
        (&["schema", "policy"], "policy.json", include_str!("../../specs/schema/policy.json")),
        (&["schema", "policy", "--crd"], "policy.crd.yaml", include_str!("../../specs/schema/policy.crd.yaml")),
    ] {
        assert_eq!(stdout(args), committed, "run `kubectl knark {} > specs/schema/{file}`", args.join(" "));
    }
}

#[test]
fn versions() {
    let version: serde_json::Value = serde_json::from_str(&stdout(&["version", "-o", "json"])).unwrap();
    assert_eq!(version["version"], concat!("v", env!("CARGO_PKG_VERSION")));
    assert_eq!(version["protocol"], knark_specs::PROTOCOL);
    assert_eq!(version["eventSchema"], knark_specs::event::SCHEMA);
    let image = version["tracerImage"].as_str().unwrap();
    assert!(image.ends_with(concat!(":v", env!("CARGO_PKG_VERSION"))), "{image}");
    assert!(stdout(&["version"]).contains(image));
    assert!(stdout(&["version", "-o", "yaml"]).contains(&format!("tracerImage: {image}\n")));
    assert_eq!(stdout(&["--version"]), concat!("kubectl-knark ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn completion_answers_as_cobra_does() {
    let answer = stdout(&["__complete", "re"]);
    assert_eq!(answer, "replay\tShow a recording that trace --record made\n:4\n");
    let answer = stdout(&["__complete", "trace", "-o", "j"]);
    assert_eq!(answer, "json\tOne JSON object per line (see `kubectl knark schema event`), a summary last\n:4\n");
    assert!(stdout(&["__complete", "trace", "--max"]).starts_with("--max-events\t"));
    assert!(stdout(&["__complete", ""]).contains("trace\t"));
    assert!(stdout(&["completion", "bash"]).contains("complete -F"));
}

#[cfg(unix)]
#[test]
fn completion_works_by_the_name_that_kubectl_looks_for() {
    let folder = tempfile::tempdir().unwrap();
    let name = folder.path().join("kubectl_complete-knark");
    std::os::unix::fs::symlink(plugin().get_program(), &name).unwrap();
    let output = std::process::Command::new(&name).args(["sche"]).output().unwrap();
    check(
        &output,
        "status 0\n--- stdout\nschema\tPrint the JSON Schema of what -o json and -o yaml write, or of what policies may say\n:4\n--- stderr\n",
    );
}

#[test]
fn a_missing_kubeconfig_is_told() {
    let output = run(&["trace", "web"]);
    assert_eq!(output.status.code(), Some(1), "{}", seen(&output));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no kubeconfig was found"), "{}", seen(&output));
}

#[test]
fn a_recording_is_never_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rec.knark");
    std::fs::write(&file, "precious").unwrap();
    let output = run(&["trace", "web", "--record", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1), "{}", seen(&output));
    assert!(String::from_utf8_lossy(&output.stderr).contains("never overwritten"), "{}", seen(&output));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");

    // One that came to nothing doesn't stay.
    let file = folder.path().join("new.knark");
    run(&["trace", "web", "--record", file.to_str().unwrap()]);
    assert!(!file.exists());
}
