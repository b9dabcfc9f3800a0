//! Builds the eBPF programs with nightly Rust, and puts the object file into `OUT_DIR`.

use anyhow::Context as _;

fn main() -> anyhow::Result<()> {
    let programs = aya_build::Package {
        name: "knark-ebpf",
        root_dir: concat!(env!("CARGO_MANIFEST_DIR"), "/../tracer-ebpf"),
        ..Default::default()
    };
    aya_build::build_ebpf([programs], aya_build::Toolchain::Nightly)
        .context("building the eBPF programs needs nightly Rust with rust-src, and bpf-linker; see tests/setup.sh")
}
