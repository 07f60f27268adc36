#!/usr/bin/env bash
# From a clone to the dashboard: installs what is missing, builds, runs the whole
# study on a model and prints what came out. See --help.
set -euo pipefail

usage() {
  cat <<'USAGE'
usage: deploy/quickstart.sh [options]
Installs what is missing, builds, starts both servers on loopback, runs
baseline, patching, ablation and analysis, prints a result table and where the
dashboard is, and stops the servers.

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

model_server='' # Process ids; empty when not running.
analysis_server=''

stop_servers() {
  local status=$? pid
  trap - EXIT
  for pid in $model_server $analysis_server; do kill "$pid" 2>/dev/null || true; done
  for pid in $model_server $analysis_server; do wait "$pid" 2>/dev/null || true; done
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

is_healthy_http() (
  exec 3<>"/dev/tcp/127.0.0.1/$1" || exit 1
  printf 'GET /healthz HTTP/1.0\r\n\r\n' >&3
  line=''
  read -r -t 5 line <&3 || true
  [[ "$line" == *' 200 '* ]]
)

# wait_until PROCESS NAME LOG COMMAND...: repeats the command until it succeeds;
# a big model takes a while to load, a process that ended never answers.
wait_until() {
  local process="$1" name="$2" log="$3"
  shift 3
  until "$@" >/dev/null 2>&1; do
    kill -0 "$process" 2>/dev/null || fail "$name ended" "$log"
    sleep 0.2
  done
}

start_servers() {
  local model_port analysis_port http_port
  model_port=$(free_port 50051)
  analysis_port=$(free_port 50052)
  http_port=$(free_port 8080)
  model_address="127.0.0.1:$model_port"
  analysis_address="127.0.0.1:$analysis_port"
  dashboard_url="http://127.0.0.1:$http_port"

  "$bin/abstract-model-server" --model "$model" --listen-address "$model_address" \
    --metrics-address "127.0.0.1:$(free_port 9464)" >"$logs/model-server.log" 2>&1 &
  model_server=$!
  "$bin/abstract-analysis-server" --listen-address "$analysis_address" --http-address "127.0.0.1:$http_port" \
    --metrics-address "127.0.0.1:$(free_port 9465)" --database "$output_dir/analysis.sqlite" \
    >"$logs/analysis-server.log" 2>&1 &
  analysis_server=$!
  wait_until "$model_server" 'the model server' "$logs/model-server.log" \
    "$bin/abstract" --server "$model_address" --max-attempts 1 --timeout 10 --quiet model
  wait_until "$analysis_server" 'the analysis server' "$logs/analysis-server.log" is_healthy_http "$http_port"
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
readonly dashboard="$output_dir/figures/dashboard.html"
mkdir -p "$output_dir/figures"
say 'analysis'
"$bin/abstract" --quiet import --analysis-server "$analysis_address" --dashboard-url "$dashboard_url" \
  --output-dir "$output_dir" --run-id quickstart --output "$dashboard" >"$logs/import.log" ||
  fail 'the analysis failed; its message is above' "$logs/analysis-server.log"

node deploy/print_results.mjs "$output_dir/results" || fail "cannot print the results in $output_dir/results"
cat <<SUMMARY

The study took $((SECONDS - study_start)) s, everything $((SECONDS - start)) s.
Results    $output_dir/results/*.json, tables in $logs/{baseline,patching,ablation}.log
Dashboard  $dashboard  (open it in a browser)
SUMMARY
if [[ -n "$keep_serving" ]]; then
  echo "Served at  $dashboard_url/runs/quickstart; model service at $model_address. Ctrl-C stops."
  wait
fi
