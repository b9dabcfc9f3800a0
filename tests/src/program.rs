//! The programs under test, and what a user sees of a run.

use std::{
    path::PathBuf,
    process::{Command, Output},
    sync::OnceLock,
};

/// The plugin.
pub fn plugin() -> Command {
    let mut command = Command::new(program("kubectl-knark"));
    // What the machine's user has set must not matter.
    for variable in ["KUBECONFIG", "KNARK_IMAGE", "KNARK_TRACER", "NO_COLOR", "CLICOLOR_FORCE", "COLUMNS"] {
        command.env_remove(variable);
    }
    command.env("TZ", "UTC");
    command
}

/// The tracer.
pub fn tracer() -> PathBuf {
    program("knark-tracer")
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

/// A program of the workspace, built once per test: Cargo builds no other package's programs by itself. Built together, as
/// the tests were: for each choice of packages Cargo builds the dependencies anew.
#[expect(clippy::expect_used, clippy::panic, reason = "a test has no better way to end")]
fn program(name: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let profile = if cfg!(debug_assertions) { "dev" } else { "release" };
        // A test is run by Cargo, which says where it is; a benchmark by hand.
        let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        build.args(["build", "--quiet", "--bins", "--profile", profile]).current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
        // What Cargo has told this test of its package: build scripts would run anew for it, and so would all that stands on them.
        for (name, _) in std::env::vars_os() {
            if ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|of_test| name.to_string_lossy().starts_with(of_test)) {
                build.env_remove(name);
            }
        }
        let built = build.status();
        assert!(built.is_ok_and(|status| status.success()), "building the programs failed");
        // target/PROFILE/deps/TEST, or a benchmark in target/PROFILE
        let test = std::env::current_exe().expect("the test's own path");
        let folder = test.ancestors().skip(1).find(|folder| !folder.ends_with("deps"));
        folder.unwrap_or_else(|| panic!("{} lies in no target folder", test.display())).to_owned()
    });
    folder.join(name)
}
