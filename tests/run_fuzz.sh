#!/usr/bin/env bash
# Builds the fuzz targets with clang and runs them. See --help.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec </dev/null
. deploy/build_functions.sh
. tests/style_functions.sh

usage() {
  cat <<'USAGE'
usage: tests/run_fuzz.sh [options] [TARGET...]
Builds the fuzz targets (tests/fuzz) with clang's libFuzzer, AddressSanitizer and
UndefinedBehaviorSanitizer, and runs them, or those that are named, each from its files
in tests/fuzz/corpus. Exits with 1 when one finds a fault; the input is then in
BUILD/findings, and the output says how to run it alone. Exits with 77 (skipped, to
ctest) without clang and its libFuzzer.

  --seconds N    each runs for so long [60]
  --runs N       each makes so many executions, however long that takes
  --jobs N       so many at a time; default: one per core
  --seed N       of the random numbers; 0: another each time [0]
  -p DIR         the build's folder [build/fuzz]
  --build-only   builds, and runs nothing
  --no-build     runs what is there
  --help         this text

Inputs that reach new code are kept in BUILD/corpus, and are where the next run begins.
USAGE
}

say() { echo "run_fuzz: $*" >&2; }
fail() { say "$*"; exit 2; }

# Far above what an input of some kilobytes may take.
readonly input_seconds=10
readonly memory_megabytes=1024

seconds=60
runs=-1
jobs=''
seed=0
build_dir=build/fuzz
builds=yes
executes=yes
targets=()
while [[ $# -gt 0 ]]; do
  case "$1" in
    --seconds | --runs | --jobs | --seed | -p)
      [[ $# -ge 2 && -n "$2" ]] || fail "$1 needs an argument"
      case "$1" in
        --seconds) seconds="$2" ;;
        --runs) runs="$2" seconds=0 ;;
        --jobs) jobs="$2" ;;
        --seed) seed="$2" ;;
        -p) build_dir="$2" ;;
      esac
      shift
      ;;
    --build-only) executes='' ;;
    --no-build) builds='' ;;
    -h | --help) usage; exit 0 ;;
    -*) usage >&2; fail "unknown argument $1" ;;
    *) targets+=("$1") ;;
  esac
  shift
done
if [[ -z "$jobs" ]]; then jobs=$(default_jobs); fi

if [[ -n "$builds" ]]; then
  clang=$(find_llvm_tool clang) || skip "no clang $llvm_version here (package clang)"
  clangxx=$(find_llvm_tool clang++) || skip "no clang++ $llvm_version here (package clang)"
  echo 'extern "C" int LLVMFuzzerTestOneInput(const unsigned char*, unsigned long) { return 0; }' |
    "$clangxx" -x c++ -fsanitize=fuzzer -o /dev/null - 2>/dev/null || skip 'no libFuzzer here (package libclang-rt-dev)'
  begin=$SECONDS
  configure fuzz "$build_dir" "-DCMAKE_C_COMPILER=$clang" "-DCMAKE_CXX_COMPILER=$clangxx" >&2
  wanted=(fuzzers)
  if [[ ${#targets[@]} -gt 0 ]]; then wanted=("${targets[@]/%/_fuzz}"); fi
  cmake --build "$build_dir" --parallel "$jobs" --target "${wanted[@]}" >&2
  say "built in $((SECONDS - begin)) s"
fi
if [[ -z "$executes" ]]; then exit; fi
if [[ ${#targets[@]} -eq 0 ]]; then
  for program in "$build_dir"/bin/*_fuzz; do targets+=("$(basename "${program%_fuzz}")"); done
fi
for target in "${targets[@]}"; do
  [[ -x "$build_dir/bin/${target}_fuzz" ]] || fail "there is no $build_dir/bin/${target}_fuzz"
done

# Scratch files lie in memory where the system has such a folder: they are synchronized when written.
scratch=$(mktemp -d "$([[ -w /dev/shm ]] && echo /dev/shm || echo "${TMPDIR:-/tmp}")/abstract-fuzz.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
export TMPDIR="$scratch"
# As tests/run.sh has it: the libraries come without instrumentation.
export ASAN_OPTIONS="${ASAN_OPTIONS:-detect_leaks=0:detect_odr_violation=0:detect_container_overflow=0}"
export UBSAN_OPTIONS="${UBSAN_OPTIONS:-print_stacktrace=1:halt_on_error=1}"
mkdir -p "$build_dir/findings" "$build_dir/corpus" "$build_dir/log"
export build_dir seconds runs seed input_seconds memory_megabytes

# shellcheck disable=SC2016  # Expanded by the inner bash.
printf '%s\n' "${targets[@]}" | xargs -n 1 -P "$jobs" bash -c '
  target="$1"
  kept="$build_dir/corpus/$target"
  log="$build_dir/log/$target"
  mkdir -p "$kept"
  arguments=("-seed=$seed" "-timeout=$input_seconds" "-rss_limit_mb=$memory_megabytes" -print_final_stats=1
    "-artifact_prefix=$build_dir/findings/$target-")
  if [[ "$runs" -ge 0 ]]; then arguments+=("-runs=$runs"); fi
  if [[ "$seconds" -gt 0 ]]; then arguments+=("-max_total_time=$seconds"); fi
  if [[ -e "tests/fuzz/$target.dict" ]]; then arguments+=("-dict=tests/fuzz/$target.dict"); fi
  if "$build_dir/bin/${target}_fuzz" "${arguments[@]}" "$kept" "tests/fuzz/corpus/$target" >"$log" 2>&1; then
    executions=$(sed -n "s/^stat::number_of_executed_units: *//p" "$log")
    rate=$(sed -n "s/^stat::average_exec_per_sec: *//p" "$log")
    echo "run_fuzz: $target: $executions executions, $rate a second" >&2
  else
    tail -n 60 "$log" >&2
    echo "run_fuzz: $target found a fault; again: $build_dir/bin/${target}_fuzz FILE" >&2
    echo "$target" >>"$TMPDIR/faults"
  fi' fuzz
if [[ -e "$scratch/faults" ]]; then exit 1; fi
