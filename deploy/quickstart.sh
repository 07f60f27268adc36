#!/usr/bin/env bash
# From a clone to the dashboard: installs what is missing, builds, runs the whole
# study on a model and prints what came out. See --help.
set -euo pipefail

usage() {
  cat <<'USAGE'
usage: deploy/quickstart.sh [options]
Installs what is missing, builds, starts both servers on loopback, runs
baseline, patching, ablation, circuit and analysis, prints result tables and where
the dashboard is, and stops the servers.

  --model DIR        checkpoint to study, in Hugging Face layout [data/models/tiny-llama-refusal]
  --output-dir DIR   where results, the dashboard and logs go [outputs]
  --no-install       install no system packages
  --no-build         use what is built already
  --keep-serving     keep the servers, and the dashboard over HTTP, until Ctrl-C
  --help             this text

Environment: BUILD_DIR [build], JOBS (compilers at a time; one per core).
USAGE
}

start=$SECONDS
elapsed() { printf '%d:%02d' $(((SECONDS - start) / 60)) $(((SECONDS - start) % 60)); }
say() { echo "[$(elapsed)] $*" >&2; }

# fail MESSAGE [LOG]: ends the script, showing the log's last lines.
fail() {
  say "FAILED: $1"
  if [[ -n "${2:-}" && -s "$2" ]]; then
    echo "--- the end of $2:" >&2
    tail -n 30 "$2" >&2
  fi
  exit 1
}

# absolute PATH: as seen from where the script was called.
absolute() {
  case "$1" in /*) echo "$1" ;; *) echo "$PWD/$1" ;; esac
}

model=data/models/tiny-llama-refusal
output_dir=outputs
install=yes
build=yes
keep_serving=''
while [[ $# -gt 0 ]]; do
  case "$1" in
    --model | --output-dir)
      [[ $# -ge 2 && -n "$2" ]] || { echo "quickstart: $1 needs a folder" >&2; exit 2; }
      if [[ "$1" == --model ]]; then model=$(absolute "$2"); else output_dir=$(absolute "$2"); fi
      shift
      ;;
    --no-install) install='' ;;
    --no-build) build='' ;;
    --keep-serving) keep_serving=yes ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; echo "quickstart: unknown argument $1" >&2; exit 2 ;;
  esac
  shift
done
if [[ -n "${BUILD_DIR:-}" ]]; then BUILD_DIR=$(absolute "$BUILD_DIR"); else BUILD_DIR=build; fi

cd "$(dirname "${BASH_SOURCE[0]}")/.."
. deploy/build_functions.sh
[[ -f "$model/config.json" ]] || fail "$model is no checkpoint: it has no config.json"
readonly programs=(abstract-model-server abstract-analysis-server abstract)
readonly logs="$output_dir/logs"
mkdir -p "$logs" || fail "cannot make $logs"

# ---------------------------------------------------------------- servers

servers=() # Process ids.

stop_servers() {
  local status=$? pid alive tries
  trap - EXIT INT TERM HUP
  # Told more than once: a process that is still being started may miss it.
  for ((tries = 0; tries < 150; ++tries)); do
    alive=''
    for pid in ${servers[@]+"${servers[@]}"}; do
      if kill "$pid" 2>/dev/null; then alive=yes; fi
    done
    [[ -n "$alive" ]] || break
    sleep 0.1
  done
  for pid in ${servers[@]+"${servers[@]}"}; do kill -KILL "$pid" 2>/dev/null || true; done
  exit "$status"
}
trap stop_servers EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

is_listening() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# The first of PORT, PORT + 10, PORT + 20, ... that nobody listens on.
free_port() {
  local port="$1"
  while is_listening "$port"; do port=$((port + 10)); done
  echo "$port"
}

# start_server NAME LAUNCH LOG READY: calls LAUNCH, which puts the server's process
# id into server_process, and waits until its log says READY: a big model takes a
# while to load, a process that ended never answers. Somebody may take a port
# between our look at it and the server's, so that is tried again.
start_server() {
  local name="$1" launch="$2" log="$3" ready="$4" attempt
  for attempt in 1 2 3 4 5; do
    : >"$log" # What a former run logged is not what we wait for.
    "$launch" "$log"
    servers+=("$server_process")
    until grep -qs -- "$ready" "$log"; do
      kill -0 "$server_process" 2>/dev/null || break
      sleep 0.1
    done
    if grep -qs -- "$ready" "$log"; then return; fi
    grep -qsi 'address already in use' "$log" || break
    say "attempt $attempt: a port of $name was taken meanwhile"
  done
  fail "$name ended" "$log"
}

launch_model_server() {
  model_address="127.0.0.1:$(free_port 50051)"
  "$bin/abstract-model-server" --model "$model" --listen-address "$model_address" \
    --metrics-address "127.0.0.1:$(free_port 9464)" --log-level info >"$1" 2>&1 &
  server_process=$!
}

launch_analysis_server() {
  analysis_address="127.0.0.1:$(free_port 50052)"
  http_address="127.0.0.1:$(free_port 8080)"
  "$bin/abstract-analysis-server" --listen-address "$analysis_address" --http-address "$http_address" \
    --metrics-address "127.0.0.1:$(free_port 9465)" --database "$output_dir/analysis.sqlite" --log-level info \
    >"$1" 2>&1 &
  server_process=$!
}

start_servers() {
  start_server 'the model server' launch_model_server "$logs/model-server.log" 'serving mechinterp.v1.ModelService'
  start_server 'the analysis server' launch_analysis_server "$logs/analysis-server.log" 'gRPC on port .*; ready'
  "$bin/abstract" --server "$model_address" --quiet model >"$logs/model.log" ||
    fail 'the model server does not answer' "$logs/model-server.log"
}

# ---------------------------------------------------------------- steps

# Shows how far ninja is: a line drawn again on a terminal, one per tenth otherwise.
show_build_progress() {
  local line finished total shown=-1
  while IFS= read -r line; do
    [[ "$line" =~ ^\[([0-9]+)/([0-9]+)\] ]] || continue
    finished="${BASH_REMATCH[1]}"
    total="${BASH_REMATCH[2]}"
    if [[ -t 2 ]]; then
      printf '\r[%s] building: %d of %d ' "$(elapsed)" "$finished" "$total" >&2
    elif [[ $((10 * finished / total)) -gt $shown ]]; then
      shown=$((10 * finished / total))
      say "building: $finished of $total"
    fi
  done
  if [[ -t 2 ]]; then printf '\n' >&2; fi
}

build_programs() {
  local arguments=()
  # A tree that was configured for the tests keeps them.
  if [[ ! -f "$BUILD_DIR/CMakeCache.txt" ]]; then arguments=(-DABSTRACT_BUILD_TESTS=OFF); fi
  say "configuring in $BUILD_DIR"
  configure release "$BUILD_DIR" ${arguments[@]+"${arguments[@]}"} >"$logs/configure.log" 2>&1 ||
    fail 'cmake could not configure the build' "$logs/configure.log"
  local jobs="${JOBS:-$(default_jobs)}"
  say "building with $jobs jobs; all it says is in $logs/build.log"
  cmake --build "$BUILD_DIR" --parallel "$jobs" --target "${programs[@]}" 2>&1 | tee "$logs/build.log" |
    show_build_progress || fail 'the build failed' "$logs/build.log"
}

# experiment NAME [ARGUMENT]...: its tables go to the logs, its progress to the
# terminal.
experiment() {
  local name="$1"
  shift
  say "$name"
  "$bin/abstract" --server "$model_address" "$name" --output-dir "$output_dir" "$@" >"$logs/$name.log" ||
    fail "abstract $name failed; its message is above" "$logs/model-server.log"
}

# ---------------------------------------------------------------- the study

if [[ -n "$install" ]]; then
  say 'looking for missing packages'
  ./deploy/install_deps.sh || fail 'packages are missing; --no-install goes on without'
fi
if [[ -n "$build" ]]; then build_programs; fi
bin="$BUILD_DIR/bin"
for program in "${programs[@]}"; do
  [[ -x "$bin/$program" ]] || fail "there is no $bin/$program; run this without --no-build"
done

# gRPC connects to loopback through a proxy when it is told to use one.
export no_proxy="127.0.0.1,localhost,::1${no_proxy:+,$no_proxy}"
study_start=$SECONDS
say 'starting the servers'
start_servers
experiment baseline
experiment patching
experiment ablation
experiment circuit
experiment direction --controls 2 --test-limit 15
"$bin/abstract" --quiet report --output-dir "$output_dir" >"$logs/report.log" || fail 'the report failed'
readonly dashboard="$output_dir/figures/dashboard.html"
mkdir -p "$output_dir/figures"
say 'analysis'
"$bin/abstract" --quiet import --analysis-server "$analysis_address" \
  --output-dir "$output_dir" --run-id quickstart --output "$dashboard" >"$logs/import.log" ||
  fail 'the analysis failed; its message is above' "$logs/analysis-server.log"

node deploy/print_results.mjs "$output_dir/results" || fail "cannot print the results in $output_dir/results"
cat <<SUMMARY

The study took $((SECONDS - study_start)) s, everything $((SECONDS - start)) s.
Results    $output_dir/results/*.json, tables in $logs/{baseline,patching,ablation,circuit,direction}.log
Report     $output_dir/report.md and report.html
Dashboard  $dashboard  (open it in a browser)
SUMMARY
if [[ -n "$keep_serving" ]]; then
  echo "Served at  http://$http_address/runs/quickstart; model service at $model_address. Ctrl-C stops."
  wait
fi
