#!/usr/bin/env bash
# Feeds the readers of what others write with damaged and invented input: fuzz.sh [SECONDS] [TARGET...]
# Targets are the files of tests/fuzz/targets; each gets so many seconds (20), two run at a time. An input that breaks one is
# kept, and the command that repeats it is said. The same seed makes the same inputs: SEED=2 fuzz.sh 600 looks elsewhere, and longer.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# No sanitizer: the code has no unsafe block, so panics, hangs and memory are what there is to find.
fuzz=(--fuzz-dir tests/fuzz --sanitizer none)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

main() {
  local seconds=${1:-20} targets=("${@:2}")
  ((${#targets[@]})) || targets=(policy matcher cel frame audit body)
  tests/setup.sh fuzz
  # What both use is of the versions that the other crates are tested with.
  cp Cargo.lock tests/fuzz/Cargo.lock
  cargo fuzz build "${fuzz[@]}" 2> "$folder/build" || { cat "$folder/build" >&2 && exit 1; }
  printf '%s\0' "${targets[@]}" | xargs -0 -n 1 -P 2 tests/fuzz.sh --one "$seconds"
}

# one SECONDS TARGET
one() {
  local target=$2 options=(-max_total_time="$1" -seed="${SEED:-1}" -timeout=5 -rss_limit_mb=2048 -print_final_stats=1 -verbosity=0) seeds=()
  case $target in
    policy) seeds=(specs/packs specs/cases/objects/good specs/cases/objects/bad) options+=(-max_len=20000 -dict=tests/fuzz/yaml.dict) ;;
    matcher) seeds=(specs/cases) options+=(-max_len=6000 -dict=tests/fuzz/yaml.dict) ;;
    cel) seeds=(tests/fuzz/seeds/cel) options+=(-max_len=1000 -dict=tests/fuzz/cel.dict) ;;
    audit) seeds=(specs/src/audit/tests) options+=(-max_len=50000) ;;
    body) seeds=(tests/fuzz/seeds/body) options+=(-max_len=20000) ;;
    frame) options+=(-max_len=20000) ;;
  esac
  mkdir "$folder/corpus"
  if ! cargo fuzz run "${fuzz[@]}" "$target" "$folder/corpus" "${seeds[@]}" -- "${options[@]}" > "$folder/log" 2>&1; then
    grep -v '^INFO' "$folder/log" | tail -n 40 >&2
    return 1
  fi
  echo "$target: $(sed -n 's/^stat::number_of_executed_units: *//p' "$folder/log") inputs in $1 s, nothing found"
}

if [[ ${1:-} == --one ]]; then one "$2" "$3"; else main "$@"; fi
