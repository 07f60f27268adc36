#!/usr/bin/env bash
# Runs clang-tidy, whose findings are errors (.clang-tidy). See --help.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec </dev/null
. tests/style_functions.sh

usage() {
  cat <<'USAGE'
usage: tests/run_tidy.sh [options] [--all | --since REF | --recent | FILE...]
Runs clang-tidy 14 over sources of a configured build and exits with 1 when it finds
anything. A header is looked at through a source that includes it. Exits with 77
(skipped, to ctest) without clang-tidy 14, without compile commands, or outside of a
git checkout.

  --all          every source
  --since REF    what has changed since that commit, uncommitted changes too
  --recent       what has changed since the last release tag, or where there is none in
                 the last 20 commits; this is the default
  FILE...        these sources and headers

  -p DIR         the build's folder [build]; the headers of the protos must have been
                 made there: cmake --build DIR --target mechinterp_proto
  --jobs N       so many at a time; default: one per core
  --seconds N    begins no file after so many seconds, and names those that are left
  --help         this text

Sources go in the order of their last change, the newest first.
USAGE
}

say() { echo "run_tidy: $*" >&2; }
fail() { say "$*"; exit 2; }

readonly recent_commits=20
mode=recent
ref=''
build_dir=build
seconds=0
jobs=''
files=()
while [[ $# -gt 0 ]]; do
  case "$1" in
    --all) mode=all ;;
    --recent) mode=recent ;;
    --since | -p | --jobs | --seconds)
      [[ $# -ge 2 && -n "$2" ]] || fail "$1 needs an argument"
      case "$1" in
        --since) mode=since ref="$2" ;;
        -p) build_dir="$2" ;;
        --jobs) jobs="$2" ;;
        --seconds) seconds="$2" ;;
      esac
      shift
      ;;
    -h | --help) usage; exit 0 ;;
    -*) usage >&2; fail "unknown argument $1" ;;
    *) mode=files files+=("$1") ;;
  esac
  shift
done

clang_tidy=$(find_llvm_tool clang-tidy) || skip "no clang-tidy $llvm_version here (package clang-tidy)"
in_git_checkout || skip 'not a git checkout'
[[ -e "$build_dir/compile_commands.json" ]] || skip "no $build_dir/compile_commands.json; configure a build"
if [[ -z "$jobs" ]]; then jobs=$(getconf _NPROCESSORS_ONLN); fi

work=$(mktemp -d "${TMPDIR:-/tmp}/abstract-tidy.XXXXXX")
trap 'rm -rf "$work"' EXIT
touch "$work"/{done,found,left,outside,unreadable}

# The sources that the build compiles, relative to the root.
sed -n "s|^ *\"file\": \"$PWD/\\(.*\\)\",*\$|\\1|p" "$build_dir/compile_commands.json" | sort -u >"$work/compiled"
[[ -s "$work/compiled" ]] || fail "$build_dir/compile_commands.json is of another source folder"

# Files with changes in `git log ARGUMENT...`, the latest first, after uncommitted ones.
changed_files() {
  {
    git diff --name-only HEAD
    git ls-files --others --exclude-standard
    git log --format= --name-only "$@"
  } | grep -E '\.(cc|h)$' | awk '!seen[$0]++' || true
}

# A compiled source through which a file is looked at; nothing where there is none.
source_of() {
  local candidate
  if [[ "$1" == *.h ]]; then
    for candidate in "${1%.h}.cc" $(git grep -l --untracked -F "#include \"$1\"" -- '*.cc'); do
      if grep -qxF "$candidate" "$work/compiled"; then echo "$candidate"; return; fi
    done
  elif grep -qxF "$1" "$work/compiled"; then
    echo "$1"
  fi
}

case "$mode" in
  all) { changed_files HEAD | grep '\.cc$'; cat "$work/compiled"; } >"$work/wanted" ;;
  since)
    git rev-parse --verify --quiet "$ref^{commit}" >/dev/null || fail "there is no commit $ref"
    changed_files "$ref..HEAD" >"$work/wanted"
    ;;
  recent)
    if tag=$(git describe --tags --abbrev=0 2>/dev/null); then
      changed_files "$tag..HEAD" >"$work/wanted"
    else
      changed_files "--max-count=$recent_commits" HEAD >"$work/wanted"
    fi
    ;;
  files) printf '%s\n' "${files[@]#"$PWD/"}" >"$work/wanted" ;;
esac
while read -r file; do
  if [[ ! -e "$file" ]]; then
    if [[ "$mode" == files ]]; then fail "there is no file $file"; fi
    continue
  fi
  source=$(source_of "$file")
  if [[ -n "$source" ]]; then
    echo "$source"
  else
    echo "$file" >>"$work/outside"
  fi
done <"$work/wanted" | awk '!seen[$0]++' >"$work/sources"

if [[ "$seconds" -gt 0 ]]; then deadline=$(($(date +%s) + seconds)); else deadline=0; fi
export work build_dir clang_tidy deadline
# -w: the compiler's own warnings are the build's business, and some of its flags are only GCC's.
# shellcheck disable=SC2016  # Expanded by the inner bash.
xargs -n 1 -P "$jobs" bash -c '
  if [[ $deadline -gt 0 && $(date +%s) -ge $deadline ]]; then echo "$1" >>"$work/left"; exit; fi
  log="$work/log.$$"
  if ! "$clang_tidy" -p "$build_dir" --quiet --extra-arg=-w "$1" >"$log" 2>/dev/null; then
    if grep -q "^/usr/.*clang-diagnostic-error" "$log" && ! grep -q "^$PWD/.*: error:" "$log"; then
      echo "$1" >>"$work/unreadable"
    else
      echo "$1" >>"$work/found"
      cat "$log"
    fi
  fi
  echo "$1" >>"$work/done"' tidy <"$work/sources"

lines() { grep -c '' "$work/$1" || true; }
say "$(lines 'done') of $(lines sources) sources looked at ($(lines compiled) in the build), $(lines found) with findings"
if [[ -s "$work/outside" ]]; then
  say "$(lines outside) changed or named files are not in this build, nor included by its sources:"
  sort "$work/outside" | paste -s -d ' ' - >&2
fi
if [[ -s "$work/unreadable" ]]; then
  say "clang $llvm_version cannot read a library's header in C++20, so these were looked at in part:"
  sort "$work/unreadable" >&2
fi
if [[ -s "$work/left" ]]; then
  say "no time for $(lines left); tests/run_tidy.sh FILE... looks at them, the first of them:"
  head -n 10 "$work/left" >&2
fi
[[ ! -s "$work/found" ]]
