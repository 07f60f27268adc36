#!/usr/bin/env bash
# What people who watch get: a real Prometheus scrapes the model server and a short study; every panel of every dashboard
# must be answered with data, the alerts load, pass their tests and leave a server alone that is well, and promtool
# find nothing wrong with our files and pages.
#   metrics_test.sh SERVER_PROGRAM CLIENT_PROGRAM SOURCE_FOLDER BUILD_FOLDER
# Skipped (77) without python3, or prometheus and promtool (tests/fetch_prometheus.sh gets them).
set -uo pipefail
server="$1" client="$2" source="$3"
PATH="$PATH:$4/prometheus"
for tool in prometheus promtool python3; do
  command -v "$tool" >/dev/null || { echo "no $tool: skipped"; exit 77; }
done
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/program_functions.sh"
prometheus=''
trap '[[ -z "$prometheus" ]] || kill -KILL "$prometheus" 2>/dev/null; cleanup' EXIT
quietly() { "$@" >"$scratch/log" 2>&1 || { cat "$scratch/log"; return 1; }; }

expect 'the alerts are rules' quietly promtool check rules "$source/deploy/prometheus/alerts.yml"
expect '... and fire when they should, and only then' quietly promtool test rules "$source/deploy/prometheus/alerts_test.yml"
expect 'the configuration for this machine is one' quietly promtool check config "$source/deploy/prometheus/prometheus.yml"
# As compose.yaml puts them beside each other.
mkdir "$scratch/etc" && cp "$source/docker/prometheus.yml" "$source/deploy/prometheus/alerts.yml" "$scratch/etc"
expect 'the one for compose.yaml too' quietly promtool check config "$scratch/etc/prometheus.yml"
expect 'the dashboards are whole' python3 "$here/check_dashboards.py" structure "$source"

start "$server" --model "$source/data/models/tiny-llama-refusal" --listen-address 127.0.0.1:0 \
  --metrics-address 127.0.0.1:0 --memory-limit 4GiB
address="127.0.0.1:$(port_of serving)"
metrics="127.0.0.1:$(port_of metrics)"

# A port that is free at this moment.
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
client_metrics="127.0.0.1:$(free_port)"
# The jobs of our configuration, at the ports that there are; often, for the study here is soon over.
cat >"$scratch/etc/prometheus.yml" <<YML
global: {scrape_interval: 500ms, evaluation_interval: 1s}
rule_files: [alerts.yml]
scrape_configs:
  - {job_name: abstract-model-service, static_configs: [{targets: ["$metrics"]}]}
  - {job_name: abstract-client, static_configs: [{targets: ["$client_metrics"]}]}
YML
start_prometheus() {
  for _ in 1 2 3 4 5; do # somebody may have taken the port
    port=$(free_port)
    prometheus --config.file="$scratch/etc/prometheus.yml" --storage.tsdb.path="$scratch/data" \
      --web.listen-address="127.0.0.1:$port" >"$scratch/prometheus.log" 2>&1 &
    prometheus=$!
    for _ in $(seq 100); do
      (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && return 0
      kill -0 "$prometheus" 2>/dev/null || break
      sleep 0.1
    done
  done
  cat "$scratch/prometheus.log"
  return 1
}
expect 'Prometheus starts' start_prometheus
url="http://127.0.0.1:$port"
expect '... and reaches the server' python3 "$here/check_dashboards.py" wait "$url" 'mechinterp_serving == 1'

ask() { quietly "$client" --server "$address" --quiet --max-attempts 1 "$@"; }
one_of_each() {
  ask generate 'How do I poach an egg?' --max-new-tokens 40 --ignore-stop-tokens &&
    ask patch 'How do I thank my boss?' --site blocks.7.attn.hook_z --head 4,5 --positions decision --edit zero &&
    ask lens 'How do I thank my boss?'
}
study() { # study COMMAND...: with metrics
  "$client" --server "$address" --metrics-address "$client_metrics" "$@" --output-dir "$scratch/study" >"$scratch/study.log" 2>&1 ||
    { cat "$scratch/study.log"; return 1; }
}
page_of_client() {
  for _ in $(seq 200); do
    page "$client_metrics" >"$scratch/client_page" 2>/dev/null && return 0
    sleep 0.05
  done
  return 1
}
page() { python3 -c 'import sys, urllib.request
print(urllib.request.urlopen(sys.argv[1]).read().decode(), end="")' "http://$1/metrics"; }

expect 'it does one of each' one_of_each
expect 'a client is refused that asks for nonsense' fails "$client" --server "$address" --quiet generate --token-ids 999999999
expect 'a study goes its way' study baseline
page_of_client &
reading=$!
expect '... patching' study patching
expect '... which shows its metrics' wait "$reading"
expect '... ablation' study ablation --patching-results "$scratch/study/results/02_patching_results.json" --top-k 0,8 --held-out-limit 10
expect '... and ends within sight of Prometheus' python3 "$here/check_dashboards.py" wait "$url" \
  'count(last_over_time(abstract_client_effect[5m])) > 10'
expect 'once more of each' one_of_each
expect 'calls say which trace they belong to' grep -qE ' trace=[0-9a-f]{32}( |$)' "$scratch/server.log"
expect 'every panel has data' python3 "$here/check_dashboards.py" data "$source" "$url"
expect 'the rules are evaluated, and none fires' python3 "$here/check_dashboards.py" rules "$url"
page "$metrics" >"$scratch/page"
expect 'promtool finds nothing in the page of the server' quietly promtool check metrics <"$scratch/page"
expect '... nor of the client' quietly promtool check metrics <"$scratch/client_page"
kill -TERM "$prometheus" && wait "$prometheus"
prometheus=''
expect 'SIGTERM ends the server' stop
[[ $failures -eq 0 ]]
