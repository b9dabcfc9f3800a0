# containerd, as a node's runtime.
# shellcheck shell=bash

containerd_up() {
  if ! running "$1/containerd"; then
    write_containerd_config "$1"
    start "$1/containerd" containerd --config "$STATE/$1/containerd.toml"
  fi
  wait_for 60 "$1/containerd" ctr_of "$1" version
}

# ctr_of NODE COMMAND...: ctr as kubelet's side of containerd sees things.
ctr_of() { ctr --address "$STATE/$1/containerd.sock" --namespace k8s.io "${@:2}"; }

containerd_pull() {
  # What kubelet sees of it follows by an event, which labels the image. An image that only changes keeps its label,
  # and then there would be nothing to wait for.
  ctr_of "$1" images remove "$3" > /dev/null 2>&1 || true
  ctr_of "$1" images import "$2" > /dev/null
}

containerd_has() {
  [[ -n $(ctr_of "$1" images list --quiet "name==$2,target.digest==$3,labels.\"io.cri-containerd.image\"==managed") ]]
}

containerd_tidy() {
  # The shims' sockets, which lie outside of the folder.
  { cat "$STATE/$1"/state/io.containerd.runtime.v2.task/k8s.io/*/address 2> /dev/null || true; } |
    sed 's|unix://|\n|g' | xargs --no-run-if-empty rm -f
}

write_containerd_config() {
  local folder=$STATE/$1
  # Scores below zero and AppArmor profiles are more than some machines allow. What has no use here, or a
  # folder somewhere else, is off.
  cat > "$folder/containerd.toml" << EOF
version = 2
root = "$folder/root"
state = "$folder/state"
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]
[grpc]
  address = "$folder/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  netns_mounts_under_state_dir = true
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "$folder/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      Root = "$folder/runc"
EOF
}
