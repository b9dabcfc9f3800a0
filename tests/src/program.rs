//! The programs under test, and what a user sees of a run.

use std::{
    path::PathBuf,
    process::{Command, Output},
    sync::OnceLock,
};

/// The plugin, built once per test binary: Cargo builds no other package's programs by itself.
pub fn plugin() -> Command {
    static PLUGIN: OnceLock<PathBuf> = OnceLock::new();
    let mut command = Command::new(PLUGIN.get_or_init(|| build("kubectl-knark", "kubectl-knark")));
    // What the machine's user has set must not matter.
    for variable in ["KUBECONFIG", "KNARK_IMAGE", "KNARK_TRACER", "NO_COLOR", "CLICOLOR_FORCE", "COLUMNS"] {
        command.env_remove(variable);
    }
    command.env("TZ", "UTC");
    command
}

/// The tracer, likewise.
pub fn tracer() -> PathBuf {
    static TRACER: OnceLock<PathBuf> = OnceLock::new();
    TRACER.get_or_init(|| build("knark-tracer", "knark-tracer")).clone()
}

/// What a person would see: exit status, standard output and standard error.
pub fn seen(output: &Output) -> String {
    let status = output.status.code().map_or_else(|| "none".to_owned(), |code| code.to_string());
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    format!("status {status}\n--- stdout\n{stdout}--- stderr\n{stderr}")
}

/// Compares what was seen with what was to be seen, and shows both where they differ.
///
/// # Panics
/// Where they differ.
#[track_caller]
pub fn check(output: &Output, want: &str) {
    let got = seen(output);
    assert!(got == want, "--- got\n{got}\n--- want\n{want}");
}

#[expect(clippy::expect_used, clippy::panic, reason = "a test has no better way to end")]
fn build(package: &str, program: &str) -> PathBuf {
    let profile = if cfg!(debug_assertions) { "dev" } else { "release" };
    let built = Command::new(env!("CARGO")).args(["build", "--quiet", "--profile", profile, "--package", package]).status();
    assert!(built.is_ok_and(|status| status.success()), "building {package} failed");
    // target/PROFILE/deps/TEST
    let test = std::env::current_exe().expect("the test's own path");
    let Some(folder) = test.parent().and_then(|deps| deps.parent()) else {
        panic!("{} lies in no target folder", test.display())
    };
    folder.join(program)
}
