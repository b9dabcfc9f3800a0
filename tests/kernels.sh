#!/usr/bin/env bash
# The tests of the probes on other kernels than this machine's, in emulated machines: kernels.sh [get] [KERNEL...]
#   get      only downloads the kernels that aren't in the cache
#   KERNEL   the release of a Debian cloud kernel, or how it begins, such as 6.12, or arm64/6.12; without any, one of each below
# A kernel once downloaded is used from then on: to have a newer one, name its release, or empty the cache.
# Needs no root and no KVM. Everything that is run is static or brings its libraries: there is no disk and no network.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# The oldest that the probes are for; one with typed pointers; the one whose verifier is the pickiest; what comes next.
kernels=(5.10 6.1 6.12 7 arm64/6.12)
# Seconds for one machine. On one that has both processors to itself it takes up to 200 s.
deadline=1200
at_once=2
cache=${XDG_CACHE_HOME:-$HOME/.cache}/kubectl-knark/kernels
work=$(mktemp -d)
declare -A machines=() # what runs: process id -> RELEASE NAME

main() {
  local get_only='' kernel releases=()
  trap end EXIT
  [[ ${1:-} != get ]] || { get_only=1 && shift; }
  [[ ${1:-} != -* ]] || { sed -n '2,6s/^# \{0,1\}//p' tests/kernels.sh >&2 && exit 2; }
  (($#)) || set -- "${kernels[@]}"
  mkdir -p "$cache"
  exec 9> "$cache/lock"
  flock 9
  for kernel; do
    [[ $(newest "$kernel" < <(cached)) ]] || download "$kernel"
    releases+=("$(newest "$kernel" < <(cached))")
  done
  [[ ${releases[*]} != *-arm64* || -d $cache/programs-arm64 ]] || download_programs arm64
  exec 9>&-
  [[ $get_only ]] || run "${releases[@]}"
}

end() {
  ((${#machines[@]} == 0)) || kill "${!machines[@]}" 2> /dev/null || true
  rm -rf "$work"
}

fail() {
  echo "kernels: $*" >&2
  exit 1
}

cached() { find "$cache" -mindepth 2 -maxdepth 2 -name vmlinuz -printf '%h\n' | sed 's|.*/||'; }

# newest KERNEL: of the releases that are read, the newest one that begins so; 6.1 is no beginning of 6.12.
newest() {
  awk -v want="${1#*/}" -v end="-$(architecture "$1")\$" \
    'index($0, want) == 1 && substr($0, length(want) + 1, 1) ~ /^[.+-]?$/ && $0 ~ end' | sort --version-sort | tail -n 1
}

# architecture KERNEL|RELEASE: as Debian calls it.
architecture() {
  case $1 in
    arm64/* | *-arm64) echo arm64 ;;
    *) echo amd64 ;;
  esac
}

# download KERNEL: what is needed of it goes to the cache, in a folder with the name that `uname -r` gives.
download() {
  [[ -f $work/apt.conf ]] || lists
  local -x APT_CONFIG=$work/apt.conf
  local release folder=$cache/new package architecture
  architecture=$(architecture "$1")
  release=$(apt-cache pkgnames linux-image- | sed -n 's/^linux-image-\([0-9]*\.[0-9]*\.[0-9].*-cloud-[a-z0-9]*\)$/\1/p' | newest "$1")
  [[ $release ]] || { cat "$work/lists.log" >&2 && fail "Debian offers no cloud kernel whose release begins with $1"; }
  echo "kernels: downloading $release" >&2
  rm -rf "$folder" && mkdir -p "$folder"/{packages,kept}
  (
    cd "$folder/packages"
    apt-get download --quiet=2 "linux-image-$release:$architecture"
    # From 7 on, that package is empty and depends on those that have it all.
    for package in $(dpkg-deb --field ./*.deb Depends | grep -oE 'linux-(binary|modules)-[^ ,]+' || true); do
      apt-get download --quiet=2 "$package:$architecture"
    done
    for package in *.deb; do dpkg-deb --extract "$package" .; done
  ) > /dev/null
  find "$folder/packages" -name 'vmlinuz*' -exec cp {} "$folder/kept/vmlinuz" \;
  # Without a module it is part of the kernel.
  find "$folder/packages" -name overlay.ko.xz -exec xz --decompress {} +
  find "$folder/packages" -name overlay.ko -exec cp {} "$folder/kept/" \;
  [[ -f $folder/kept/vmlinuz ]] || fail "there is no vmlinuz in the packages of $release"
  mv "$folder/kept" "$cache/$release"
  rm -rf "$folder"
}

# download_programs ARCHITECTURE: those that the file system of the machines has, for another architecture than this machine's.
download_programs() {
  [[ -f $work/apt.conf ]] || lists
  local -x APT_CONFIG=$work/apt.conf
  local folder=$cache/new package
  echo "kernels: downloading programs for $1" >&2
  rm -rf "$folder" && mkdir -p "$folder"/{packages,kept/bin,kept/lib}
  (
    cd "$folder/packages"
    for package in busybox-static dash libc6; do apt-get download --quiet=2 "$package:$1"; done
    for package in *.deb; do dpkg-deb --extract "$package" .; done
    # bin and lib of these packages are in /usr from Debian 13 on.
    cp -L {.,usr}/bin/{busybox,dash} ../kept/bin/ 2> /dev/null || true
    cp -RL {.,usr}/lib/ld-linux-* ../kept/lib/ 2> /dev/null || true
    for package in {.,usr}/lib/*-linux-gnu; do
      [[ ! -f $package/libc.so.6 ]] || install -D "$package/libc.so.6" "../kept/lib/${package##*/}/libc.so.6"
    done
  ) > /dev/null
  [[ -f $folder/kept/bin/busybox && -f $folder/kept/bin/dash ]] || fail "there are no busybox and dash in the packages for $1"
  mv "$folder/kept" "$cache/programs-$1"
  rm -rf "$folder"
}

# Reads what Debian offers, beside the machine's own lists and settings, which stay as they are. 5.10, 6.1 and 6.12 are the
# kernels of Debian 11, 12 and 13, and are updated in the security archive; backports has what comes next.
lists() {
  local keys=/usr/share/keyrings/debian-archive-keyring.gpg security main suite
  security=$(mirror debian-security)
  main=$(mirror debian)
  {
    for suite in bullseye bookworm trixie; do echo "deb [signed-by=$keys] $security $suite-security main"; done
    echo "deb [signed-by=$keys] $main trixie-backports main"
    echo "deb [arch=arm64 signed-by=$keys] $main trixie main"
  } > "$work/sources.list"
  mkdir -p "$work"/lists/partial
  cat > "$work/apt.conf" << END
Dir::Etc::SourceList "$work/sources.list";
Dir::Etc::SourceParts "-";
Dir::State::Lists "$work/lists";
Dir::Cache "$work";
APT::Architectures { "amd64"; "arm64"; };
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
END
  echo "kernels: reading Debian's lists" >&2
  # An old suite moves away one day: that is no reason to miss the kernels of the others.
  APT_CONFIG=$work/apt.conf apt-get update --quiet=2 > "$work/lists.log" 2>&1 || true
}

# mirror ARCHIVE: where this machine gets it from.
mirror() {
  local own
  # shellcheck disable=SC2016
  own=$(apt-get indextargets --format '$(REPO_URI)' | sed -n "s|^\(.*/$1\)/\$|\1|p" | sort -u | head -n 1)
  [[ $own ]] || fail "apt has no archive called $1 on this machine: add it to its sources"
  echo "$own"
}

run() {
  local release architecture failed=0
  for architecture in $(for release; do architecture "$release"; done | sort -u); do pack "$architecture"; done
  for release; do
    start "$release" probes "" /probes --show-output
    # The tier that works everywhere: on the oldest and the newest, between which it has no reason to differ.
    [[ $release == 6.* ]] || start "$release" portable KNARK_TEST_TIER=portable /probes --show-output
    start "$release" lockdown lockdown=confidentiality /knark-tracer doctor
    # Nowhere else a clock may be set.
    [[ $release != 6.12.*-amd64 ]] || start "$release" clock "CARGO=/bin/true KNARK_TEST_CLOCK=1" /clock --show-output
    # Whatever else is tested is the same there.
    start "$release" cgroups-v1 KNARK_TEST_CGROUPS=v1 /probes --show-output scopes::
  done
  while ((${#machines[@]})); do finish; done
  ((failed == 0)) || fail "$failed runs failed"
}

# pack ARCHITECTURE: the file system of all its machines, with all their modules.
pack() {
  local root=$work/root-$1 release built cargo=cargo packages=() target=x86_64-unknown-linux-musl
  if [[ $1 == arm64 ]]; then
    # Nothing else is built for it.
    cargo=cargo-zigbuild packages=(-p knark-tracer) target=aarch64-unknown-linux-musl
  fi
  built=$("$cargo" test --quiet --no-run "${packages[@]}" --test probes --target "$target" --message-format json-render-diagnostics)
  # shellcheck source=/dev/null
  source tests/cluster/build.sh
  root_filesystem "$root"
  [[ $1 == amd64 ]] || cp -R "$cache/programs-$1/." "$root/"
  mkdir -p "$root"/{dev,proc,sys,modules}
  cp "$(executable probes-)" "$root/probes"
  cp "$(executable knark-tracer)" "$root/knark-tracer"
  [[ $1 == arm64 ]] || pack_plugin "$root"
  for release in $(cached); do
    [[ ! -f $cache/$release/overlay.ko ]] || cp "$cache/$release/overlay.ko" "$root/modules/$release.ko"
  done
  install --mode 755 /dev/stdin "$root/init" << 'END'
#!/bin/sh
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t securityfs security /sys/kernel/security
mount -t tracefs tracing /sys/kernel/tracing
if [ "${KNARK_TEST_CGROUPS-}" = v1 ]; then
  mount -t tmpfs cgroups /sys/fs/cgroup
  for controller in memory pids; do
    mkdir "/sys/fs/cgroup/$controller"
    mount -t cgroup -o "$controller" cgroup "/sys/fs/cgroup/$controller"
  done
else
  mount -t cgroup2 cgroup /sys/fs/cgroup
fi
mount -t tmpfs tmp /tmp
module=/modules/$(uname -r).ko
[ ! -f "$module" ] || insmod "$module"
line=/dev/ttyS1
if [ "$(uname -m)" = aarch64 ]; then
  # There is one line, for the kernel as well: it says nothing more, unless it ends.
  line=/dev/ttyAMA0
  dmesg -n 1
fi
exec > "$line" 2>&1 < /dev/null
stty -F "$line" raw
"$@"
echo "ended with $?"
poweroff -f
END
  (cd "$root" && find . | busybox cpio -o -H newc 2> /dev/null) > "$work/initramfs-$1"
}

# pack_plugin FOLDER: the plugin, a test of it and their libraries. Where that test looks for the programs' sources there is nothing.
pack_plugin() {
  local built program library
  built=$(cargo test --quiet --no-run --test clock --message-format json-render-diagnostics && cargo build --quiet --bins --message-format json-render-diagnostics)
  for program in clock- kubectl-knark; do
    program=$(executable "$program")
    cp "$program" "$1/$(basename "${program%-????????????????}")"
    for library in $(ldd "$program" | grep -o '/[^ ]*'); do
      mkdir -p "$1${library%/*}"
      [[ -e $1$library ]] || cp --dereference "$library" "$1$library"
    done
  done
  strip "$1/clock" "$1/kubectl-knark"
  mkdir -p "$1$PWD/tests"
}

# executable NAME: the one that Cargo says it has built, by how its name begins.
executable() { sed -n "s|.*\"executable\":\"\([^\"]*/$1[^/\"]*\)\".*|\1|p" <<< "$built" | grep . || fail "Cargo has built no $1"; }

# start RELEASE NAME PARAMETERS COMMAND...: boots it, and runs the command in place of a system.
start() {
  local release=$1 name=$2 parameters=$3 log=$work/$1.$2 architecture console=ttyS0 emulator
  shift 3
  architecture=$(architecture "$release")
  ((${#machines[@]} < at_once)) || finish
  case $architecture in
    # With cmpxchg16b, qemu 7.2 damages flags, and 6.12 dies now and then. Five levels of page tables are slow.
    amd64) emulator=(qemu-system-x86_64 -cpu "max,la57=off,cx16=off" -serial "file:$log.kernel" -serial "file:$log") ;;
    arm64) emulator=(qemu-system-aarch64 -machine virt -cpu cortex-a72 -serial "file:$log") && console=ttyAMA0 ;;
  esac
  local arguments=(
    -accel "tcg,thread=multi,tb-size=256"
    -smp 2 -m 1G -nodefaults -no-user-config -display none -no-reboot
    -kernel "$cache/$release/vmlinuz" -initrd "$work/initramfs-$architecture"
    # What is emulated is slow: fewer events make the same point.
    -append "console=$console panic=-1 mitigations=off rdinit=/init KNARK_TEST_OPENS=40000 $parameters -- $*"
  )
  boot "$release: $name" "$log" "${emulator[@]}" "${arguments[@]}" &
  machines[$!]="$release $name $SECONDS"
}

# boot WHAT LOG EMULATOR...: once more where the machine dies, be it before its command says anything. Rarely, a kernel that changes its
# own code, as it does when a tracepoint is attached, has the other emulated CPU run what is half changed.
boot() {
  local what=$1 log=$2 status=0
  shift 2
  timeout --kill-after 2 "$deadline" "$@" > "$log.qemu" 2>&1 < /dev/null || status=$?
  if ((status != 124)) && { [[ ! -s $log ]] || grep -qs 'Kernel panic' "$log.kernel"; }; then
    echo "$what: the machine died (qemu ended with $status); once more. The end of what its kernel said:"
    tail -n 40 "$log.kernel" 2> /dev/null | grep -E 'RIP|Code|panic' | sed 's/^/  /' || true
    status=0
    timeout --kill-after 2 "$deadline" "$@" > "$log.qemu" 2>&1 < /dev/null || status=$?
  fi
  return "$status"
}

# Waits for one machine to end, and says what came of it; counts it in `failed`.
finish() {
  local process='' release name began status=0
  wait -n -p process "${!machines[@]}" || status=$?
  read -r release name began <<< "${machines[$process]}"
  unset "machines[$process]"
  if "$name" "$work/$release.$name"; then
    echo "$release: $name: $verdict in $((SECONDS - began)) s"
    grep '^not tested' "$work/$release.$name" | sed 's/^/  /' || true
    return
  fi
  failed=$((failed + 1))
  ((status != 124)) || verdict="no verdict within $deadline s"
  echo "$release: $name: failed: ${verdict:-no verdict} (qemu ended with $status after $((SECONDS - began)) s)"
  sed 's/^/  /' "$work/$release.$name.qemu" "$work/$release.$name"
  [[ ! -f $work/$release.$name.kernel ]] || grep -q '^ended with ' "$work/$release.$name" ||
    tail -n 20 "$work/$release.$name.kernel" | sed 's/^/  /'
}

# probes FILE: all tests have passed, and there were some.
probes() {
  verdict=$(sed -n 's/^test result: .*\. \([0-9]* passed\); \([0-9]* failed\); \([0-9]* ignored\);.*/\1, \2, \3/p' "$1")
  [[ $verdict == [1-9]*" passed, 0 failed, "* ]] && grep -qx 'ended with 0' "$1"
}

# portable FILE: the same, of the probes that work everywhere. cgroups-v1 FILE: the same, of some of them.
portable() { probes "$1"; }
cgroups-v1() { probes "$1"; }
# clock FILE: the same, of the plugin.
clock() { probes "$1"; }

# lockdown FILE: where no program may read the kernel's memory, the tracer says that this is why, and nothing beside it.
lockdown() {
  verdict=$(sed -n 's/.*"problems":\["\(.*\)"\].*/\1/p' "$1")
  [[ $verdict == *"lockdown=confidentiality"* && $verdict != *'","'* ]] && grep -qx 'ended with 0' "$1" &&
    verdict="named as the cause"
}

main "$@"
