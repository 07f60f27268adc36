#!/usr/bin/env bash
# Holds the C++ files that git tracks to .clang-format. See --help.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. tests/style_functions.sh

usage() {
  cat <<'USAGE'
usage: tests/check_format.sh [--fix]
Shows where C++ files that git tracks are not as clang-format 14 writes them, and
exits with 1 if there are any. Exits with 77 (skipped, to ctest) where it cannot
tell: without clang-format 14, or outside of a git checkout.
  --fix   formats them instead
USAGE
}

say() { echo "check_format: $*" >&2; }
options=(--dry-run -Werror)
case "${1:-}" in
  '') ;;
  --fix) options=(-i) ;;
  -h | --help) usage; exit 0 ;;
  *) usage >&2; say "unknown argument $1"; exit 2 ;;
esac

clang_format=$(find_llvm_tool clang-format) || skip "no clang-format $llvm_version here (package clang-format)"
in_git_checkout || skip 'not a git checkout'
# In pieces: without a limit there would be one call, and one call uses one core.
git ls-files -z '*.cc' '*.h' | xargs -0 -n 100 -P 2 "$clang_format" "${options[@]}" || {
  say 'these lines are not as clang-format writes them; tests/check_format.sh --fix formats them'
  exit 1
}
