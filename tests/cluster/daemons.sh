# Processes that outlive the command which started them. NAME.pid and NAME.log in the state folder are a daemon's.
# shellcheck shell=bash

progress() { echo "cluster: $*" >&2; }

fail() {
  progress "$*"
  exit 1
}

# start NAME COMMAND...: runs it as a daemon, unless it runs already.
start() {
  local name=$1
  shift
  running "$name" && return
  # In a session and a folder of its own; 9 is the lock, which must end with us.
  (cd / && exec setsid "$@") >> "$STATE/$name.log" 2>&1 < /dev/null 9>&- &
  echo "$! $(started_at $!)" > "$STATE/$name.pid"
}

# stop NAME: ends it, by force if it takes more than 5 s.
stop() {
  local pid
  pid=$(process_of "$1")
  if running "$1"; then
    kill "$pid"
    ends_within 5 "$1" || kill -KILL "$pid"
    ends_within 5 "$1" || fail "$1 (process $pid) does not end"
  fi
  rm -f "$STATE/$1.pid"
}

# running NAME: whether the process that was recorded is still there. An id alone could be another's by now,
# so its starting time is compared as well.
running() {
  local pid started
  read -r pid started 2> /dev/null < "$STATE/$1.pid" && [[ -n $started && $started == "$(started_at "$pid")" ]]
}

process_of() { [[ ! -f $STATE/$1.pid ]] || cut -d ' ' -f 1 "$STATE/$1.pid"; }

# started_at PID: in clock ticks since boot; nothing if there is no such process, or only what is left of it.
started_at() {
  local stat
  stat=$(cat "/proc/$1/stat" 2> /dev/null) || return 0
  read -ra stat <<< "${stat##*) }" # what follows the name, which may hold blanks
  [[ ${stat[0]} == Z ]] || echo "${stat[19]}"
}

# wait_for SECONDS NAME COMMAND...: until the command succeeds. If that takes too long, or the daemon ends
# before, the daemon is named, with the end of its log.
wait_for() {
  local deadline=$((SECONDS + $1)) name=$2 trouble=
  shift 2
  until "$@" > /dev/null 2>&1; do
    running "$name" || trouble="ended"
    ((SECONDS < deadline)) || trouble="not ready in time ($*)"
    if [[ $trouble ]]; then
      progress "$name: $trouble. The end of its log, $STATE/$name.log:"
      tail -n 20 "$STATE/$name.log" | cut -c 1-300 >&2
      exit 1
    fi
    sleep 0.1
  done
}

ends_within() {
  local deadline=$((SECONDS + $1))
  while running "$2"; do
    ((SECONDS < deadline)) || return 1
    sleep 0.05
  done
}

# in_parallel COMMANDLINE...: runs them all, and ends if any failed. (Not for conditions: in them, bash goes on after
# whatever fails inside.)
in_parallel() {
  local job jobs=() failed=0
  for job; do
    $job &
    jobs+=($!)
  done
  for job in "${jobs[@]}"; do wait "$job" || failed=1; done
  ((failed == 0)) || exit 1
}
