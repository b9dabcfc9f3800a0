# CRI-O, as a node's runtime.
# shellcheck shell=bash

crio_up() {
  if ! running "$1/crio"; then
    mkdir -p "$STATE/$1"/{run,storage}
    write_crio_config "$1"
    start "$1/crio" "$CRIO/crio" --config "$STATE/$1/crio.conf" --config-dir ""
  fi
  wait_for 60 "$1/crio" crio_answers "$1"
}

crio_answers() { curl --fail --silent --output /dev/null --unix-socket "$STATE/$1/crio.sock" http://crio/info; }

# storage NODE COMMAND...: buildah on the images that CRI-O has.
storage() { buildah --root "$STATE/$1/storage" --runroot "$STATE/$1/run" --storage-driver overlay "${@:2}"; }

crio_pull() { storage "$1" pull --quiet --signature-policy "$STATE/$1/policy.json" "oci-archive:$2" > /dev/null; }

crio_has() { storage "$1" images --digests --format '{{.Name}}:{{.Tag}}@{{.Digest}}' | grep -qxF "$2@$3"; }

# Nothing of it lies outside of the node's folder.
crio_tidy() { :; }

write_crio_config() {
  local folder=$STATE/$1
  echo '{"default": [{"type": "insecureAcceptAnything"}]}' > "$folder/policy.json"
  # CRI-O takes it for granted that every controller that the kernel lists is mounted; containerd looks.
  cat > "$folder/runc-without-hugetlb" << 'EOF'
#!/bin/sh
before=
for argument; do
  [ "$before" != --bundle ] || sed -z -i 's/"hugepageLimits": *\[[^]]*\]/"hugepageLimits": []/' "$argument/config.json"
  before=$argument
done
exec runc "$@"
EOF
  chmod +x "$folder/runc-without-hugetlb"
  cat > "$folder/crio.conf" << EOF
[crio]
root = "$folder/storage"
runroot = "$folder/run"
storage_driver = "overlay"
log_dir = "$folder/crio-logs"
version_file = "$folder/run/version"
version_file_persist = ""
clean_shutdown_file = "$folder/run/clean"
[crio.api]
listen = "$folder/crio.sock"
stream_address = "127.0.0.1"
stream_port = "0"
[crio.runtime]
default_runtime = "runc"
cgroup_manager = "cgroupfs"
conmon_cgroup = "pod"
namespaces_dir = "$folder/namespaces"
pinns_path = "$CRIO/pinns"
container_exits_dir = "$folder/run/exits"
container_attach_socket_dir = "$folder/run/attach"
apparmor_profile = "unconfined"
[crio.runtime.runtimes.runc]
runtime_path = "$folder/runc-without-hugetlb"
runtime_root = "$folder/runc"
monitor_path = "$(command -v conmon)"
monitor_cgroup = "pod"
[crio.image]
pause_image = "localhost/pause:1"
pause_command = ""
signature_policy = "$folder/policy.json"
[crio.network]
network_dir = "$folder/cni"
plugin_dirs = ["/usr/lib/cni"]
[crio.nri]
enable_nri = false
EOF
}
