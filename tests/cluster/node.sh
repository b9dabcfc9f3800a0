# A node: a container runtime and kubelet with files, sockets, address, pod network and control groups of their own.
#
# A runtime is a file like containerd.sh: RUNTIME_up NODE, RUNTIME_pull NODE ARCHIVE NAME, RUNTIME_has NODE NAME DIGEST and
# RUNTIME_tidy NODE, with a socket and a daemon of its name.
# shellcheck shell=bash

KUBELET_PORT=20250

# nodes: the names of those there are.
nodes() { [[ ! -d $STATE ]] || find "$STATE" -maxdepth 1 -name 'knark-*' -type d -printf '%f\n' | sort -V; }

# Where the kubelet listens, and what the node calls its own address: kubelet wants one that isn't of 127.0.0.0/8, and
# would else look for that of a default route, which not every machine has. It is one more address of the loopback.
address() { echo "127.0.0.$((${1#knark-} + 2))"; }
node_address() { echo "10.244.255.$((${1#knark-} + 2))"; }
pod_network() { echo "10.244.${1#knark-}.0/24"; }

# runtime_of NODE: both runtimes are about, containerd beside the control plane.
runtime_of() { if ((${1#knark-} % 2)); then echo crio; else echo containerd; fi; }

runtime_up() {
  local archive
  mkdir -p "$STATE/$1"/{cni,manifests}
  make_cgroup "$1"
  write_pod_network "$1"
  "$(runtime_of "$1")_up" "$1"
  for archive in "$(images)"/*.tar; do import "$1" "$archive"; done
}

# kubelet_start NODE: returns when the node is Ready.
kubelet_start() {
  must_exist "${1:-}"
  local folder=$STATE/$1
  if ! running "$1/kubelet"; then
    write_kubelet_config "$1"
    ip address replace "$(node_address "$1")/32" dev lo
    start "$1/kubelet" "$PROGRAMS/kubelet" --config "$folder/kubelet.yaml" --kubeconfig "$(kubeconfig "$1")" \
      --root-dir "$folder/kubelet" --hostname-override "$1" --address "$(address "$1")" --node-ip "$(node_address "$1")"
  fi
  wait_for 120 "$1/kubelet" node_ready "$1"
  progress "$1 ready after $SECONDS s"
}

kubelet_stop() {
  must_exist "${1:-}"
  stop "$1/kubelet"
}

node_restart_kubelet() {
  kubelet_stop "${1:-}"
  kubelet_start "$1"
}

must_exist() {
  [[ -n $1 ]] || fail "which node?"
  running "$1/$(runtime_of "$1")" || fail "no node $1 runs; \`cluster up\` starts nodes"
}

# node_ready NODE: the kubelet itself answers, and the API server says so; it would say so of a kubelet that just ended.
node_ready() {
  k --server "https://$1:$KUBELET_PORT" get --raw /healthz > /dev/null 2>&1 &&
    [[ $(k get node "$1" --output 'jsonpath={.status.conditions[?(@.type=="Ready")].status}') == True ]]
}

# load FILE [NODE...]
load() {
  local file=${1:-} node targets=("${@:2}")
  [[ -r $file ]] || fail "load takes the file of an OCI archive; ${file:-nothing} can't be read"
  ((${#targets[@]})) || mapfile -t targets < <(nodes)
  ((${#targets[@]})) || fail "no cluster; \`cluster up\` starts one"
  for node in "${targets[@]}"; do
    must_exist "$node"
    import "$node" "$file"
  done
}

# import NODE ARCHIVE: unless its image is there. A pod that is made right after this finds it.
import() {
  local index name digest runtime
  runtime=$(runtime_of "$1")
  index=$(tar --extract --to-stdout --file "$2" index.json)
  name=$(sed -nE 's/.*"org\.opencontainers\.image\.ref\.name" *: *"([^"]+)".*/\1/p' <<< "$index")
  digest=$(grep -oE 'sha256:[0-9a-f]{64}' <<< "$index")
  [[ -n $name && $digest != *$'\n'* ]] || fail "$2 must hold one image, with a name"
  ! "${runtime}_has" "$1" "$name" "$digest" || return 0
  "${runtime}_pull" "$1" "$2" "$name"
  wait_for 60 "$1/$runtime" "${runtime}_has" "$1" "$name" "$digest"
  progress "$1 has $name"
}

write_pod_network() {
  local folder=$STATE/$1
  cat > "$folder/cni/pods.conflist" << EOF
{"cniVersion": "1.0.0", "name": "$1", "plugins": [
  {"type": "ptp", "ipMasq": false, "ipam": {"type": "host-local", "dataDir": "$folder/addresses", "subnet": "$(pod_network "$1")", "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "loopback"}]}
EOF
}

write_kubelet_config() {
  local folder=$STATE/$1
  [[ -f $PKI/$1.crt ]] || client "$1" "/O=system:nodes/CN=system:node:$1" "DNS:$1"
  # KubeletInUserNamespace forgives sysctls and oom scores that can't be set. Images are never collected and a full
  # disk evicts nobody: the machine may be anything, and nothing could pull an image again.
  cat > "$folder/kubelet.yaml" << EOF
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $PKI/ca.crt}}
authorization: {mode: Webhook}
port: $KUBELET_PORT
healthzPort: 0
tlsCertFile: $PKI/$1.crt
tlsPrivateKeyFile: $PKI/$1.key
containerRuntimeEndpoint: unix://$folder/$(runtime_of "$1").sock
cgroupDriver: cgroupfs
cgroupRoot: /$1
failCgroupV1: false
failSwapOn: false
makeIPTablesUtilChains: false
featureGates: {KubeletInUserNamespace: true}
staticPodPath: $folder/manifests
fileCheckFrequency: 1s
podLogsDir: $folder/logs
nodeLeaseDurationSeconds: 8
nodeStatusUpdateFrequency: 1s
nodeStatusReportFrequency: 1m
evictionHard: {memory.available: "0%", nodefs.available: "0%", nodefs.inodesFree: "0%", imagefs.available: "0%", imagefs.inodesFree: "0%"}
imageGCHighThresholdPercent: 100
imageMinimumGCAge: 24h
EOF
}

# make_cgroup NODE: the group that the node's pods are in, because two kubelets must not share one. The controllers of
# version 1 have a tree each; version 2 is one tree, alone or, on hybrid machines, beside those.
make_cgroup() {
  local tree file controller
  for tree in $(cgroup_trees); do
    mkdir -p "$tree/$1"
    for file in cpuset.cpus cpuset.mems; do # empty in a new group of version 1, which then takes no process
      [[ ! -f $tree/$file || -f $tree/cgroup.controllers ]] || cat "$tree/$file" > "$tree/$1/$file"
    done
    [[ -f $tree/cgroup.controllers ]] || continue
    for controller in $(< "$tree/cgroup.controllers"); do
      echo "+$controller" > "$tree/cgroup.subtree_control" || progress "the controller $controller can't be used in $tree"
    done
  done
}

cgroup_trees() { awk '$3 ~ /^cgroup2?$/ {print $2}' /proc/mounts; }

# node_down NODE: pods are killed, not asked, so what the runtime would have tidied up is done here.
node_down() {
  local folder=$STATE/$1 tree
  stop "$1/kubelet"
  stop "$1/$(runtime_of "$1")"
  local deadline=$((SECONDS + 10)) processes
  while processes=$(node_processes "$1") && [[ -n $processes ]]; do
    ((SECONDS < deadline)) || fail "$1: these processes do not end: ${processes//$'\n'/ }"
    # shellcheck disable=SC2086
    kill -KILL $processes 2> /dev/null || true
    sleep 0.05
  done
  "$(runtime_of "$1")_tidy" "$1"
  awk -v folder="$folder/" 'index($2, folder) == 1 {print $2}' /proc/mounts | sort --reverse | xargs --no-run-if-empty umount --lazy
  ip -oneline -4 address show to "$(pod_network "$1")" | awk '{print $2}' |
    xargs --no-run-if-empty -n 1 ip link delete 2> /dev/null || true # they are going already, with their namespaces
  ip address delete "$(node_address "$1")/32" dev lo 2> /dev/null || true
  for tree in $(cgroup_trees); do
    [[ ! -d $tree/$1 ]] || find "$tree/$1" -depth -type d -exec rmdir {} +
  done
}

# node_processes NODE: the processes of the node's pods are those in its groups; what watches over them works in the
# bundles' folders.
node_processes() {
  local tree bundles=() folder
  for folder in state run storage; do bundles+=(-o -lname "$STATE/$1/$folder/*"); done
  {
    for tree in $(cgroup_trees); do
      find "$tree/$1" -name cgroup.procs -exec cat {} + 2> /dev/null || true
    done
    find /proc/[0-9]*/cwd -maxdepth 0 \( "${bundles[@]:1}" \) 2> /dev/null | cut -d / -f 3 || true
  } | sort -nu
}
