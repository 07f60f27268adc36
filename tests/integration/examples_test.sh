#!/usr/bin/env bash
# The examples of every language against a server with TLS and tokens, in their documented form: what is not given on the
# command line stands in the environment.
#   examples_test.sh SERVER_PROGRAM CLIENT_PROGRAM SOURCE_FOLDER SCRATCH_FOLDER
# What a machine has no interpreter or packages for is left out, by name.
set -uo pipefail
server="$1" client="$2" source="$3" work="$4"
command -v openssl >/dev/null || exit 77
. "$(dirname "${BASH_SOURCE[0]}")/program_functions.sh"
mkdir -p "$work"

bash "$source/deploy/tls/make_certs.sh" "$scratch/tls" localhost,127.0.0.1 >/dev/null
"$client" --quiet token create examples --tokens "$scratch/tokens.json" >"$scratch/token"
start "$server" --model "$source/data/models/tiny-llama-refusal" --metrics-address '' --listen-address 127.0.0.1:0 \
  --tls-certificate "$scratch/tls/server.pem" --tls-key "$scratch/tls/server.key" --tokens "$scratch/tokens.json"
address="127.0.0.1:$(port_of serving)"
with_tls=(env "ABSTRACT_SERVER=$address" "ABSTRACT_TLS_CA=$scratch/tls/ca.pem" "ABSTRACT_TOKEN_FILE=$scratch/token")
answers() { "${with_tls[@]}" "$@" >"$scratch/log" 2>&1 || { cat "$scratch/log"; return 1; }; }
patched() { answers "$@" && says 'patched'; }
refused() { ! env "ABSTRACT_SERVER=$address" "ABSTRACT_TLS_CA=$scratch/tls/ca.pem" "$@" >"$scratch/log" 2>&1; }

expect 'the tool' answers "$client" --quiet generate 'How do I thank my neighbor?'
expect '... not without a token' refused "$client" --quiet --max-attempts 1 generate 'How do I thank my neighbor?'

# The package lies where run_python.sh put it; it unsets the environment, so that these go past it.
if bash "$source/tests/run_python.sh" "$server" "$source" "$work/python" -c ''; then
  python() { PYTHONPATH="$work/python/checkout/clients/python" MPLBACKEND=Agg "$@"; }
  python3=/usr/bin/python3
  "$python3" -c 'import grpc, numpy' 2>/dev/null || python3=python3
  examples="$source/clients/python/examples"
  expect 'a first patched run from Python' python patched "$python3" "$examples/first_patch.py"
  expect '... not without a token' python refused "$python3" "$examples/first_patch.py"
  if "$python3" -c 'import matplotlib' 2>/dev/null; then
    for name in activation_patching head_attribution direction_ablation; do
      expect "$name.py" python answers "$python3" "$examples/$name.py" --output "$work/$name.png"
      expect '... draws' test -s "$work/$name.png"
    done
  else
    echo 'left out: no matplotlib'
  fi
else
  echo 'left out: no Python with grpcio'
fi

if mkdir -p "$work/clients/examples" && cp -R "$source/clients/examples/node" "$work/clients/examples/" &&
  ln -sfn "$source/proto" "$work/proto" && (cd "$work/clients/examples/node" &&
    npm ci --ignore-scripts --no-audit --no-fund --loglevel=error); then
  expect 'Node' patched node "$work/clients/examples/node/patch.mjs"
  expect '... not without a token' refused node "$work/clients/examples/node/patch.mjs"
else
  echo 'FAILED: npm'
  failures=$((failures + 1))
fi

if command -v go >/dev/null && [[ -d /usr/share/gocode/src/google.golang.org/grpc ]]; then
  expect 'Go' patched env "BUILD_DIR=$work" bash "$source/clients/examples/go/run.sh"
  expect '... not without a token' refused env "BUILD_DIR=$work" bash "$source/clients/examples/go/run.sh"
else
  echo 'left out: no Go, or not its gRPC'
fi
expect 'SIGTERM ends it' stop
[[ $failures -eq 0 ]]
