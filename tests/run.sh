#!/usr/bin/env bash
# All tests, with all that they need: run.sh [pure|kernel|cluster|all]
#   pure     formatting, lints, licences, policies, frames, rendering: runs anywhere
#   kernel   the probes on this machine's kernel, which needs root, and on others, emulated
#   cluster  the plugin on a real two-node Kubernetes on this machine: needs root
# The cluster is brought up and taken down again, unless it was up before.
# All of Cargo's calls are for all packages: each choice of packages would build the dependencies anew.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-never}

main() {
  local part
  tests/setup.sh tracer
  case ${1:-all} in
    pure | kernel | cluster) "$1" ;;
    all) for part in pure kernel cluster; do "$part"; done ;;
    *) sed -n '2,5s/^# \{0,1\}//p' tests/run.sh >&2 && exit 2 ;;
  esac
}

pure() {
  step "formatting" cargo fmt --all --check
  step "lints" cargo clippy --quiet --all-targets -- -D warnings
  tests/setup.sh licences
  # Advisories need their database from the network: `cargo deny check advisories` before a release.
  step "licences and sources" cargo deny --log-level error check licenses bans sources
  tests/setup.sh cross
  local target
  for target in x86_64-pc-windows-gnu aarch64-apple-darwin; do
    step "the plugin for $target" cargo-zigbuild check --quiet -p knark-specs -p kubectl-knark --target "$target"
  done
  step "the tracer for arm64" cargo-zigbuild check --quiet -p knark-tracer --target aarch64-unknown-linux-musl
  step "unit tests" cargo test --lib --bins --examples
  step "damaged input" tests/fuzz.sh
  step "commands" cargo test --test cli --test replay --test audit --test tui --test krew --test policy
}

kernel() {
  step "probes" as_root cargo test --test probes
  step "local traces" as_root cargo test --test local --test balance -- --test-threads 1
  tests/setup.sh alerts
  step "alerts to receivers" as_root cargo test --test alerts
  tests/setup.sh kernels
  step "probes on other kernels" tests/kernels.sh
}

cluster() {
  tests/setup.sh cluster
  step "the tracer's image" tests/image.sh
  local was_up=
  tests/cluster/cluster status > /dev/null 2>&1 && was_up=1
  step "cluster up" tests/cluster/cluster up
  [[ $was_up ]] || trap 'tests/cluster/cluster down' EXIT
  tests/cluster/cluster load "$(tests/image.sh path)"
  step "requests to a lone API server" as_root cargo test --test api --test api_bodies --test body -- --test-threads 1
  step "end to end" as_root cargo test --test 'cluster_*' -- --test-threads 2
}

# step NAME COMMAND...: says what is being done, and how long it took.
step() {
  local name=$1 began=$SECONDS
  shift
  echo "== $name"
  "$@"
  echo "== $name: $((SECONDS - began)) s"
}

# The kernel lets only root load probes; the build folder stays the user's.
as_root() {
  if ((EUID)); then
    sudo --preserve-env=CARGO_TERM_COLOR env "PATH=$PATH" "HOME=$HOME" "$@"
  else
    "$@"
  fi
}

main "$@"
