//! Builds the eBPF programs with the nightly Rust that their folder names, and puts the object file into `OUT_DIR`.

use anyhow::Context as _;

const TOOLCHAIN: &str = include_str!("../tracer-ebpf/rust-toolchain.toml");

fn main() -> anyhow::Result<()> {
    let programs = aya_build::Package {
        name: "knark-ebpf",
        root_dir: concat!(env!("CARGO_MANIFEST_DIR"), "/../tracer-ebpf"),
        ..Default::default()
    };
    let channel = TOOLCHAIN.lines().find_map(|line| line.strip_prefix("channel = \"")?.strip_suffix('"'));
    let channel = channel.context("tracer-ebpf/rust-toolchain.toml names no channel")?;
    aya_build::build_ebpf([programs], aya_build::Toolchain::Custom(channel)).with_context(|| {
        format!("building the eBPF programs needs Rust {channel} with rust-src, and bpf-linker: run tests/setup.sh")
    })
}
