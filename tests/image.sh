#!/usr/bin/env bash
# Builds the tracer's image as an OCI archive, without a daemon: image.sh [path]
#   path   only prints where the archive is
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

target=$(uname -m)-unknown-linux-musl
folder=${CARGO_TARGET_DIR:-target}/$target/release
archive=$folder/knark-tracer.oci.tar
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
image=ghcr.io/kubectl-knark/tracer:v$version

if [[ ${1:-} == path ]]; then
  echo "$archive"
  exit
fi

cargo build --quiet --release -p knark-tracer --target "$target"
# A context of its own: the build folder is large, and buildah copies what it is given.
context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
cp "$folder/knark-tracer" "$context/"
buildah() { command buildah --storage-driver vfs --root "$context/storage" --runroot "$context/run" "$@"; }
buildah build --quiet --isolation chroot --file tracer-image/Dockerfile --tag "$image" "$context" > /dev/null
rm -f "$archive"
buildah push --quiet "$image" "oci-archive:$archive:$image"
echo "$image: $(stat -c %s "$archive") bytes in $archive"
