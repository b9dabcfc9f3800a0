# More API servers, each in a static pod of a node's kubelet and in the node's network, as kubeadm runs them.
# shellcheck shell=bash

# api_server_start NODE PORT [VERSION]: returns when it is ready. One of the cluster's version serves the same objects as
# the others do, one of another version has its own.
api_server_start() {
  local node=${1:-} port=${2:-} version=${3:-$KUBERNETES} folder=$STATE/api-server-${2:-} flags
  must_exist "$node"
  [[ $port =~ ^[0-9]+$ ]] || fail "which port?"
  mkdir -p "$folder"
  cp "$STATE/audit-policy.yaml" "$folder"
  mapfile -t flags < <(api_server_flags "$port" "$folder")
  [[ $version == "$KUBERNETES" ]] || flags+=("--etcd-prefix=/registry-$version")
  import "$node" "$(api_server_image "$version")"
  # Under another name first: the kubelet reads whatever is there, be it half.
  {
    printf '%s\n' 'apiVersion: v1' 'kind: Pod' 'metadata:' "  name: kube-apiserver-$port" '  namespace: kube-system' \
      '  labels: {component: kube-apiserver, tier: control-plane}' 'spec:' '  hostNetwork: true' '  containers:' \
      '  - name: kube-apiserver' "    image: localhost/kube-apiserver:$version" '    command:' '    - kube-apiserver'
    printf '    - "%s"\n' "${flags[@]}"
    printf '%s\n' '    volumeMounts:' "    - {name: pki, mountPath: $PKI, readOnly: true}" "    - {name: own, mountPath: $folder}" \
      '  volumes:' "  - {name: pki, hostPath: {path: $PKI}}" "  - {name: own, hostPath: {path: $folder}}"
  } > "$STATE/$node/manifests/.$port"
  mv "$STATE/$node/manifests/.$port" "$STATE/$node/manifests/$port.yaml"
  wait_for 120 "$node/kubelet" answers "$port"
  progress "an API server $version listens at port $port after $SECONDS s"
}

# api_server_stop NODE PORT
api_server_stop() {
  must_exist "${1:-}"
  rm -f "$STATE/$1/manifests/${2:-}.yaml"
  wait_for 60 "$1/kubelet" is_gone "kube-apiserver-$2-$1"
}

answers() { k --server "https://127.0.0.1:$1" get --raw /readyz; }

# is_gone POD: its object goes when its containers have ended.
is_gone() { [[ -z $(k get pod "$1" -n kube-system --ignore-not-found -o name) ]]; }
