# What a cluster changes outside of its own folder, and how that is undone.
# shellcheck shell=bash

MARK='# kubectl-knark test cluster'

# Set by kubelet and by the pods' network.
SYSCTLS=(kernel/panic kernel/panic_on_oops vm/overcommit_memory vm/panic_on_oom kernel/keys/root_maxkeys
  kernel/keys/root_maxbytes net/ipv4/ip_forward)

# Used by kubelet, CNI and containerd, whatever their configuration says.
FOLDERS=(/var/lib/kubelet /var/lib/cni /var/log/containers /run/containerd)

# host_prepare NODE...
host_prepare() {
  local boot node name
  boot=$(< /proc/sys/kernel/random/boot_id)
  if [[ ! -f $STATE/boot ]]; then
    [[ -z $(ls -A "$STATE" 2> /dev/null) ]] || fail "$STATE has other files; KNARK_CLUSTER_DIR must name a folder of its own"
  elif [[ $(< "$STATE/boot") != "$boot" ]]; then
    down # the machine was restarted, and its files speak of processes and mounts that are no more
  fi
  if [[ ! -f $STATE/boot ]]; then
    mkdir -p "$STATE"
    for name in "${SYSCTLS[@]}"; do
      [[ ! -r /proc/sys/$name ]] || echo "$name $(< "/proc/sys/$name")"
    done > "$STATE/sysctls"
    for name in "${FOLDERS[@]}"; do
      [[ -e $name ]] || echo "$name"
    done > "$STATE/folders"
    echo "$boot" > "$STATE/boot"
  fi
  # systemd mounts this on a real node.
  if [[ ! -e /sys/kernel/tracing/events ]] && mount -t tracefs tracefs /sys/kernel/tracing; then
    touch "$STATE/tracefs"
  fi
  # The API server reaches kubelets by their names, which lead to where they listen.
  for node; do
    grep -q " $node $MARK\$" /etc/hosts || echo "$(address "$node") $node $MARK" >> /etc/hosts
  done
}

host_restore() {
  local name value
  if grep -q "$MARK\$" /etc/hosts; then
    value=$(sed "/$MARK\$/d" /etc/hosts)
    echo "$value" > /etc/hosts # in place: containers often have it as a mount, which can't be replaced
  fi
  if [[ $(< "$STATE/boot") == "$(< /proc/sys/kernel/random/boot_id)" ]]; then
    while read -r name value; do
      [[ $(< "/proc/sys/$name") == "$value" ]] || echo "$value" > "/proc/sys/$name"
    done < "$STATE/sysctls"
  fi
  [[ ! -e $STATE/tracefs ]] || umount /sys/kernel/tracing || true
  while read -r name; do rm -rf --one-file-system "$name"; done < "$STATE/folders"
  find /var/log/containers -lname "$STATE/*" -delete 2> /dev/null || true
  rm -f /var/lib/cni/results/knark-*
}
