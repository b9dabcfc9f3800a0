# What is built once and kept in the cache: the Kubernetes of go.mod, CRI-O, and the images that every node has.
# shellcheck shell=bash

# Modules like go.mod here, each with the API server of another minor version.
API_SERVERS=("${BASH_SOURCE[0]%/*}"/../api-servers/*/)

build() {
  local module
  mkdir -p "$CACHE"
  exec 8> "$CACHE/build.lock"
  flock 8
  for module in "$HERE" "${API_SERVERS[@]}"; do
    [[ -d $(folder_of "$module") ]] || build_programs "$module"
  done
  [[ -d $CRIO ]] || build_crio
  [[ -d $(images) ]] || build_images
  exec 8>&-
}

# version_of MODULE: the Kubernetes that it requires. folder_of MODULE: what its tools are built into.
version_of() { sed -nE 's|^(require)?[[:space:]]+k8s\.io/kubernetes (v[^ ]+).*|\2|p' "$1/go.mod"; }
folder_of() { echo "$CACHE/kubernetes-$(version_of "$1")"; }

api_servers() {
  local module
  for module in "${API_SERVERS[@]}"; do echo "$(folder_of "$module")/kube-apiserver"; done
}

# build_programs MODULE
build_programs() {
  local go kubernetes folder version=k8s.io/component-base/version
  kubernetes=$(version_of "$1") folder=$(folder_of "$1")
  local minor=${kubernetes#v*.}
  go=$(go version 2> /dev/null) || fail "building Kubernetes needs Go: 1.21 or newer in PATH"
  [[ $go =~ go1\.(2[1-9]|[3-9][0-9]) ]] || fail "building Kubernetes needs Go 1.21 or newer, this is: $go"
  progress "building Kubernetes $kubernetes; this takes some minutes, once"
  rm -rf "$folder.new"
  # Stripped and without C, as the released programs are: the tests read symbols and offsets out of them.
  CGO_ENABLED=0 go -C "$1" build -buildvcs=false -trimpath -o "$folder.new/" -ldflags "-s -w \
    -X $version.gitVersion=$kubernetes -X $version.gitMajor=1 -X $version.gitMinor=${minor%%.*}" tool ||
    fail "Kubernetes $kubernetes does not build"
  mv "$folder.new" "$folder"
}

# The module that CRI-O is a tool of.
CRIO_MODULE=${BASH_SOURCE[0]%/*}/../cri-o

crio_folder() { echo "$CACHE/cri-o-$(sed -nE 's|^(require)?[[:space:]]+github.com/cri-o/cri-o (v[^ ]+).*|\2|p' "$CRIO_MODULE/go.mod")"; }

build_crio() {
  local source
  progress "building CRI-O; this takes some minutes, once"
  rm -rf "$CRIO.new"
  # Without what asks for libraries of C that not every machine has; pinns has no other source than C.
  CGO_ENABLED=1 go -C "$CRIO_MODULE" build -buildvcs=false -trimpath -o "$CRIO.new/" -ldflags "-s -w" \
    -tags "containers_image_openpgp exclude_graphdriver_btrfs" tool || fail "CRI-O does not build"
  source=$(go -C "$CRIO_MODULE" list -m -f '{{.Dir}}' github.com/cri-o/cri-o)
  cc -std=c99 -Os -static -o "$CRIO.new/pinns" "$source"/pinns/src/*.c || fail "CRI-O's pinns does not build"
  mv "$CRIO.new" "$CRIO"
}

# The folder of the images' archives, named after what goes into them.
images() {
  local key
  key=$({ declare -f root_filesystem && cat "$HERE/Dockerfile" "$(command -v busybox)"; } | sha256sum)
  echo "$CACHE/images-${key:0:12}"
}

build_images() {
  local folder new target
  folder=$(images)
  new=$folder.new
  progress "building the images of the nodes"
  rm -rf "$CACHE"/images-* && mkdir -p "$new" # those of another Dockerfile as well
  root_filesystem "$new/root"
  for target in pause knark-test; do
    build_image "$new" "localhost/$target:1" "$new/$target.tar" --file "$HERE/Dockerfile" --target "$target" "$new/root"
  done
  rm -rf "$new/root" "$new/storage" "$new/run"
  mv "$new" "$folder"
}

# build_image FOLDER NAME ARCHIVE ARGUMENT...: with a storage of its own in the folder, without a daemon, overlay mounts or
# anything left behind.
build_image() {
  local buildah=(buildah --root "$1/storage" --runroot "$1/run" --storage-driver vfs)
  "${buildah[@]}" bud --quiet --isolation chroot --tag "$2" "${@:4}" > /dev/null
  "${buildah[@]}" push --quiet "$2" "oci-archive:$3:$2" > /dev/null
}

# api_server_image VERSION: the archive of an image with this API server.
api_server_image() { echo "$CACHE/kubernetes-$1/kube-apiserver.tar"; }

build_api_server_image() {
  local archive new=$CACHE/api-server-image.new
  archive=$(api_server_image "$1")
  [[ ! -f $archive ]] || return 0
  [[ -d ${archive%/*} ]] || fail "no API server $1 was built; \`cluster api-servers\` lists those that were"
  progress "building the image of the API server $1"
  rm -rf "$new" && mkdir -p "$new"
  build_image "$new" "localhost/kube-apiserver:$1" "$new/archive.tar" --file "$HERE/api-server.Dockerfile" "${archive%/*}"
  mv "$new/archive.tar" "$archive"
  rm -rf "$new"
}

# root_filesystem FOLDER: a static busybox with a link for each of its applets, and what programs expect beside them. The
# shell is dash, because Debian's busybox runs its own applets without an exec, which no test would see then.
root_filesystem() {
  local busybox applet file
  busybox=$(command -v busybox)
  ! ldd "$busybox" > /dev/null 2>&1 || fail "$busybox is not static; the package busybox-static has one that is"
  mkdir -p "$1"/{bin,sbin,usr/bin,usr/sbin,etc,root,tmp,var/log}
  chmod 1777 "$1/tmp"
  cp "$(realpath "$busybox")" "$1/bin/busybox"
  cp "$(realpath /bin/dash)" "$1/bin/dash"
  for file in $(ldd /bin/dash | grep -o '/[^ ]*'); do
    mkdir -p "$1${file%/*}"
    cp --dereference "$file" "$1$file"
  done
  ln -s dash "$1/bin/sh"
  for applet in $("$busybox" --list-full); do
    [[ -e $1/$applet ]] || ln -s /bin/busybox "$1/$applet"
  done
  printf '%s\n' root:x:0:0:root:/root:/bin/sh app:x:1000:1000:app:/tmp:/bin/sh nobody:x:65534:65534:nobody:/:/bin/sh > "$1/etc/passwd"
  printf '%s\n' root:x:0: app:x:1000: nogroup:x:65534: > "$1/etc/group"
}
