#!/usr/bin/env bash
# An installation: it works under a prefix and under DESTDIR and leaves the source tree as it was, its programs find
# their data from another folder, and another project builds against its client library.
#   install_test.sh BUILD_FOLDER SOURCE_FOLDER CMAKE
set -uo pipefail
build="$1" source="$2" cmake="$3"
scratch=$(mktemp -d)
running=''
cleanup() {
  [[ -z "$running" ]] || kill -KILL "$running" 2>/dev/null
  rm -rf "$scratch"
}
trap cleanup EXIT
failures=0
expect() { # expect WHAT COMMAND...
  local what="$1"
  shift
  if "$@" >"$scratch/log" 2>&1; then
    echo "ok: $what"
  else
    cat "$scratch/log"
    echo "FAILED: $what"
    failures=$((failures + 1))
  fi
}
prints() { # prints TEXT COMMAND...
  local text="$1" output
  shift
  output=$("$@" 2>&1)
  echo "$output"
  grep -qF -- "$text" <<<"$output"
}
is_listed_alike() { diff <(cd "$1" && find . | sort) <(cd "$2" && find . | sort); }
tree_state() { git -C "$source" status --porcelain --ignored 2>/dev/null; }

before=$(tree_state)
prefix="$scratch/prefix"
expect 'it installs under a prefix' "$cmake" --install "$build" --prefix "$prefix"
expect '... and under DESTDIR' env DESTDIR="$scratch/stage" "$cmake" --install "$build" --prefix /usr
expect '... the same' is_listed_alike "$prefix" "$scratch/stage/usr"
expect '... and leaves the source tree as it was' test "$before" = "$(tree_state)"

mkdir "$scratch/elsewhere"
cd "$scratch/elsewhere" || exit 1
"$prefix/bin/abstract-model-server" --listen-address 127.0.0.1:0 --metrics-address '' --device cpu >"$scratch/server.log" 2>&1 &
running=$!
for _ in $(seq 100); do
  grep -q 'serving mechinterp' "$scratch/server.log" && [[ -z "$(tail -c 1 "$scratch/server.log")" ]] && break
  kill -0 "$running" 2>/dev/null || break
  sleep 0.1
done
address="127.0.0.1:$(sed -n 's/.*serving.*port \([0-9]*\).*/\1/p' "$scratch/server.log")"
expect 'the installed server finds its model' grep -F 'loaded tiny-llama-refusal' "$scratch/server.log"
expect 'the installed tool finds prompts and phrases' \
  "$prefix/bin/abstract" --server "$address" baseline --limit 1 --max-new-tokens 4
mkdir "$scratch/data"
cp "$source/data/refusal_phrases.json" "$scratch/data"
echo '{"version": 1, "pairs": []}' >"$scratch/data/prompts.json"
expect '... those of ABSTRACT_DATA_DIR before its own' prints "$scratch/data/prompts.json" \
  env ABSTRACT_DATA_DIR="$scratch/data" "$prefix/bin/abstract" --server "$address" baseline

expect 'another project finds the package' "$cmake" -G Ninja -S "$source/tests/integration/consumer" -B "$scratch/consumer" \
  -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_BUILD_TYPE=Debug -DCMAKE_CXX_FLAGS=-O0
expect '... builds' "$cmake" --build "$scratch/consumer"
expect '... and asks the server' prints tiny-llama-refusal "$scratch/consumer/consumer" "$address"

[[ "$failures" -eq 0 ]]
