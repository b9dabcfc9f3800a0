#!/usr/bin/env bash
# Installs what building and testing need on a Debian machine that has rustup:
#   setup.sh [tracer|kernels|cluster|alerts|cross|licences|fuzz|all]
#   tracer   the eBPF programs and the static tracer
#   kernels  other kernels than this machine's, and what emulates a machine for them
#   cluster  the Kubernetes that the end-to-end cases run on (needs Go 1.21 or newer)
#   alerts   who is told of alerts in tests: a syslog daemon and an Alertmanager (needs Go 1.21 or newer)
#   cross    checks and builds of the plugin for other systems
#   licences the check of what the programs are made of
#   fuzz     what feeds the readers with damaged input
# One line is printed for each thing installed; where nothing is missing it is silent and quick.
set -euo pipefail

llvm=22
bpf_linker=0.13.0
cargo_zigbuild=0.24.0
cargo_deny=0.20.2
cargo_fuzz=0.13.2
zig=0.15.2

# rustup asks for a toolchain by folder, so it has to be asked in this one.
cd "$(dirname "${BASH_SOURCE[0]}")/.."
cache=${XDG_CACHE_HOME:-$HOME/.cache}/kubectl-knark
programs=${CARGO_HOME:-$HOME/.cargo}/bin
PATH=$PATH:$programs:/usr/sbin:/sbin

main() {
  mkdir -p "$cache" "$programs"
  exec 9> "$cache/setup.lock"
  flock 9 # two builds that start together install nothing twice
  case ${1:-all} in
    tracer | kernels | cluster | alerts | cross | licences | fuzz) "$1" ;;
    all) tracer && kernels && cluster && alerts && cross && licences && fuzz ;;
    *) sed -n '2,10s/^# \{0,1\}//p' tests/setup.sh >&2 && exit 2 ;;
  esac
}

tracer() {
  debian cc:build-essential musl-gcc:musl-tools /usr/include/zstd.h:libzstd-dev \
    "/usr/lib/llvm-$llvm/lib/libLLVMCore.a:llvm-$llvm-dev" "/usr/lib/llvm-$llvm/lib/libPolly.a:libpolly-$llvm-dev"
  targets x86_64-unknown-linux-musl
  # core is compiled for the BPF target from its source, which only nightly does.
  local nightly
  nightly=$(sed -n 's/^channel = "\(.*\)"/\1/p' tracer-ebpf/rust-toolchain.toml)
  if [[ ! -d $(RUSTUP_AUTO_INSTALL=0 rustc "+$nightly" --print sysroot 2> /dev/null)/lib/rustlib/src/rust/library/core ]]; then
    install_as "Rust $nightly with its source" rustup toolchain install "$nightly" --profile minimal --component rust-src
  fi
  local folder=$cache/bpf-linker-$bpf_linker
  # Both names of the prefix are needed: one is read by bpf-linker, one by the LLVM crate below it. `/` has no
  # Cargo configuration that could get in the way.
  [[ -x $folder/bin/bpf-linker ]] || install_as "bpf-linker $bpf_linker (takes a minute)" \
    env -C / LLVM_PREFIX="/usr/lib/llvm-$llvm" "LLVM_SYS_${llvm}0_PREFIX=/usr/lib/llvm-$llvm" \
    cargo install bpf-linker --version "$bpf_linker" --locked --no-default-features --features "llvm-$llvm" --root "$folder"
  link "$folder/bin/bpf-linker"
}

kernels() {
  cross # one of them is arm64's
  debian qemu-system-x86_64:qemu-system-x86 qemu-system-aarch64:qemu-system-arm busybox:busybox-static xz:xz-utils
  tests/kernels.sh get
}

cluster() {
  debian etcd:etcd-server containerd:containerd conmon:conmon runc:runc /usr/lib/cni/ptp:containernetworking-plugins ip:iproute2 \
    openssl:openssl buildah:buildah busybox:busybox-static curl:curl cc:gcc go:golang-go
  tests/cluster/cluster build
  command -v kubectl > /dev/null || link "$(tests/cluster/cluster programs)/kubectl"
}

alerts() {
  debian rsyslogd:rsyslog "/usr/lib/$(uname -m)-linux-gnu/rsyslog/lmnsd_ossl.so:rsyslog-openssl" go:golang-go
  local module=tests/alertmanager version folder
  version=$(sed -nE 's|.*github\.com/prometheus/alertmanager (v[^ ]+).*|\1|p' "$module/go.mod")
  folder=$cache/alertmanager-$version
  if [[ ! -x $folder/alertmanager ]]; then
    rm -rf "$folder.new"
    CGO_ENABLED=0 install_as "Alertmanager $version (takes some minutes)" \
      go -C "$module" build -buildvcs=false -trimpath -o "$folder.new/" -ldflags '-s -w' tool
    mv "$folder.new" "$folder"
  fi
  link "$folder/alertmanager"
}

cross() {
  targets aarch64-unknown-linux-musl x86_64-pc-windows-gnu aarch64-apple-darwin x86_64-apple-darwin
  local folder=$cache/zigbuild-$cargo_zigbuild-zig-$zig
  if [[ ! -x $folder/bin/cargo-zigbuild ]]; then
    python3 -m pip --version > /dev/null 2>&1 || debian /usr/bin/pip3:python3-pip
    rm -rf "$folder.new"
    install_as "cargo-zigbuild $cargo_zigbuild with zig $zig" \
      python3 -m pip install --quiet --target "$folder.new" "cargo-zigbuild==$cargo_zigbuild" "ziglang==$zig"
    mv "$folder.new" "$folder"
  fi
  link "$folder/bin/cargo-zigbuild"
  link "$folder/ziglang/zig"
}

licences() {
  local folder=$cache/cargo-deny-$cargo_deny
  [[ -x $folder/bin/cargo-deny ]] || install_as "cargo-deny $cargo_deny (takes some minutes)" \
    env -C / cargo install cargo-deny --version "$cargo_deny" --locked --root "$folder"
  link "$folder/bin/cargo-deny"
}

fuzz() {
  local folder=$cache/cargo-fuzz-$cargo_fuzz
  [[ -x $folder/bin/cargo-fuzz ]] || install_as "cargo-fuzz $cargo_fuzz" \
    env -C / cargo install cargo-fuzz --version "$cargo_fuzz" --locked --root "$folder"
  link "$folder/bin/cargo-fuzz"
}

# debian THING:PACKAGE...: installs the packages whose thing, a command or a file, isn't there.
# Things are looked for instead of packages, since containerd, for one, comes in packages of several names.
debian() {
  local pair packages=()
  for pair; do
    [[ -e ${pair%:*} ]] || command -v "${pair%:*}" > /dev/null || packages+=("${pair#*:}")
  done
  ((${#packages[@]})) || return 0
  local sudo=()
  ((EUID == 0)) || sudo=(sudo)
  export DEBIAN_FRONTEND=noninteractive
  install_as "list of Debian packages" "${sudo[@]}" apt-get update
  install_as "${packages[*]}" "${sudo[@]}" apt-get install --yes --no-install-recommends "${packages[@]}"
}

# targets TARGET...: adds Rust targets to the toolchain that this folder uses.
targets() {
  local target installed
  installed=$(rustup target list --installed)
  for target; do
    grep -qx "$target" <<< "$installed" || install_as "Rust target $target" rustup target add "$target"
  done
}

# link FILE: makes a program reachable, since Cargo's builds look for theirs in PATH.
link() {
  local name=$programs/${1##*/}
  [[ $(readlink "$name") == "$1" ]] || install_as "$name" ln -sfn "$1" "$name"
}

# install_as WHAT COMMAND...: says what is being installed; the command's own words are shown only where it fails.
install_as() {
  local log
  log=$(mktemp)
  echo "setup: $1"
  shift
  if ! "$@" > "$log" 2>&1 < /dev/null 9>&-; then
    tail -n 25 "$log" >&2
    echo "setup: failed: $* (all of its output: $log)" >&2
    exit 1
  fi
  rm -f "$log"
}

main "$@"
