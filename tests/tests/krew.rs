//! krew's rules for plugins: its documentation's "Writing plugin manifests", "Naming guide" and "Best practices".
#![expect(clippy::unwrap_used, reason = "a test has no better way to end")]

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// Where build.sh puts its results.
fn built() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    target.join("krew")
}

/// Checks all that can be told without the archives.
fn check(manifest: &str, version: &str) -> Value {
    let plugin: Value = serde_yaml::from_str(manifest).unwrap();
    assert_eq!(plugin["apiVersion"], "krew.googlecontainertools.github.com/v1alpha2");
    assert_eq!(plugin["kind"], "Plugin");
    let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("a text is missing: {value}")).to_owned();

    // The file is named after the plugin; a name is in lower case, with hyphens, and doesn't repeat `kubectl` or `kube`.
    let name = text(&plugin["metadata"]["name"]);
    assert_eq!(name, "knark");
    assert!(name.chars().all(|c| c.is_ascii_lowercase() || c == '-') && !name.starts_with("kube"), "{name}");

    let spec = &plugin["spec"];
    assert_eq!(text(&spec["version"]), version);
    let numbers: Vec<_> = version.strip_prefix('v').unwrap().splitn(3, '.').collect();
    assert!(numbers.len() == 3 && numbers[..2].iter().all(|n| n.parse::<u64>().is_ok()), "{version} is no semantic version");
    assert!(text(&spec["homepage"]).starts_with("https://"));

    // What `kubectl krew search` shows on one line.
    let short = text(&spec["shortDescription"]);
    assert!(!short.is_empty() && short.len() <= 50 && !short.contains('\n') && !short.ends_with('.'), "{short}: {}", short.len());
    let first = short.to_lowercase();
    assert!(!["a ", "the ", "kubectl", "plugin", "this "].iter().any(|word| first.starts_with(word)), "{short}");
    for field in ["description", "caveats"] {
        let longest = text(&spec[field]).lines().map(str::len).max().unwrap();
        assert!(longest <= 80, "{field} has a line of {longest} characters");
    }

    let mut selected = BTreeSet::new();
    for platform in spec["platforms"].as_array().unwrap() {
        let labels = platform["selector"]["matchLabels"].as_object().unwrap();
        assert_eq!(labels.keys().collect::<Vec<_>>(), ["arch", "os"], "krew sets no other labels");
        let (os, arch) = (text(&labels["os"]), text(&labels["arch"]));
        assert!(
            ["linux", "windows", "darwin"].contains(&os.as_str()) && ["amd64", "arm64"].contains(&arch.as_str()),
            "{os} {arch}"
        );
        assert!(selected.insert((os.clone(), arch.clone())), "{os} {arch} is selected twice");

        let uri = text(&platform["uri"]);
        assert!(uri.starts_with("https://") && uri.ends_with(&format!("_{version}_{os}_{arch}.tar.gz")), "{uri}");
        let digest = text(&platform["sha256"]);
        assert!(digest.len() == 64 && digest.chars().all(|c| c.is_ascii_digit() || ('a'..='f').contains(&c)), "{digest}");
        assert_eq!(text(&platform["bin"]), if os == "windows" { "kubectl-knark.exe" } else { "kubectl-knark" });
        // Without `files`, krew installs the whole archive.
        assert!(platform.get("files").is_none());
    }
    assert!(selected.len() >= 3);
    plugin
}

#[test]
fn the_template_keeps_to_the_rules() {
    let mut manifest = std::fs::read_to_string(root().join("krew-manifest/knark.yaml")).unwrap();
    for platform in ["linux_amd64", "linux_arm64", "windows_amd64"] {
        manifest = manifest.replace(&format!("@SHA256_{platform}@"), &"0a".repeat(32));
    }
    let version = concat!("v", env!("CARGO_PKG_VERSION"));
    let manifest = manifest.replace("@VERSION@", version);
    assert!(
        !manifest.lines().any(|line| !line.starts_with('#') && line.contains('@')),
        "something is left to fill in: {manifest}"
    );
    check(&manifest, version);
}

/// What build.sh made fits together; it runs this test when it is done.
#[test]
fn the_built_archives_fit_the_manifest() {
    let Ok(manifest) = std::fs::read_to_string(built().join("knark.yaml")) else {
        eprintln!("skipped: krew-manifest/build.sh hasn't been run");
        return;
    };
    let plugin = check(&manifest, concat!("v", env!("CARGO_PKG_VERSION")));
    for platform in plugin["spec"]["platforms"].as_array().unwrap() {
        let archive = built().join(platform["uri"].as_str().unwrap().rsplit('/').next().unwrap());
        let digest = output(Command::new("sha256sum").arg(&archive));
        assert!(digest.starts_with(platform["sha256"].as_str().unwrap()), "{} has another digest: {digest}", archive.display());

        let listing = output(Command::new("tar").args(["--list", "--verbose", "--file"]).arg(&archive));
        let has = |name: &str| listing.lines().any(|line| line.starts_with("-rwx") && line.ends_with(&format!("./{name}")));
        assert!(has(platform["bin"].as_str().unwrap()), "{listing}");
        assert!(listing.contains("./LICENSE"), "krew wants the licence in the archive: {listing}");
        if platform["selector"]["matchLabels"]["os"] == "linux" {
            assert!(has("knark-tracer") && has("kubectl_complete-knark"), "{listing}");
        }
    }
}

fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}
