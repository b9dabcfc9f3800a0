#!/usr/bin/env bash
# Builds the plugin's archives and the manifest for krew into target/krew: build.sh [PLATFORM...]
# PLATFORM is linux_amd64, linux_arm64 or windows_amd64; all without one, and only then the manifest is filled in.
# Linux archives hold the tracer too, for `kubectl-knark trace --local`. What it needs, `tests/setup.sh all` installs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

declare -A targets=(
  [linux_amd64]=x86_64-unknown-linux-musl
  [linux_arm64]=aarch64-unknown-linux-musl
  [windows_amd64]=x86_64-pc-windows-gnu
)
version=v$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
target=${CARGO_TARGET_DIR:-$PWD/target}
out=$target/krew

main() {
  local platforms=("$@")
  (($#)) || platforms=(linux_amd64 linux_arm64 windows_amd64)
  mkdir -p "$out"
  local platform
  for platform in "${platforms[@]}"; do
    [[ -v "targets[$platform]" ]] || { sed -n '2,4s/^# //p' krew-manifest/build.sh >&2 && exit 2; }
    archive "$platform"
  done
  (($#)) || manifest "${platforms[@]}"
}

# archive PLATFORM: one .tar.gz, the same bytes from the same sources.
archive() {
  local triple=${targets[$1]} programs=(kubectl-knark) packages=(--package kubectl-knark) extras=()
  case $1 in
    linux_*)
      programs+=(knark-tracer)
      packages+=(--package knark-tracer)
      extras=(krew-manifest/kubectl_complete-knark)
      ;;
    windows_*) programs=(kubectl-knark.exe) ;;
  esac
  cargo zigbuild --release --target "$triple" "${packages[@]}"
  local stage
  stage=$(mktemp -d)
  chmod 755 "$stage"
  cp LICENSE README.md "${extras[@]}" "${programs[@]/#/$target/$triple/release/}" "$stage/"
  tar --create --sort=name --owner=0 --group=0 --numeric-owner --mtime="@${SOURCE_DATE_EPOCH:-0}" --directory "$stage" . |
    gzip --no-name --best > "$(file "$1")"
  rm -rf "$stage"
  ls -l "$(file "$1")"
}

# manifest PLATFORM...: the template with version and digests, checked.
manifest() {
  local platform digest edits=(-e '/^#/d' -e "s/@VERSION@/$version/g")
  for platform; do
    digest=$(sha256sum < "$(file "$platform")")
    edits+=(-e "s/@SHA256_$platform@/${digest%% *}/")
  done
  sed "${edits[@]}" krew-manifest/knark.yaml > "$out/knark.yaml"
  cargo test --quiet --package knark-tests --test krew
  echo "$out/knark.yaml"
}

file() {
  echo "$out/kubectl-knark_${version}_$1.tar.gz"
}

main "$@"
