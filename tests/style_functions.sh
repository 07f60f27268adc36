# Sourced by check_format.sh and run_tidy.sh, which define say().
# shellcheck shell=bash

# Debian 12's. Other versions format and find other things, so they do not count.
readonly llvm_version=14

# Prints the command of clang-format or clang-tidy; fails where there is none of that version.
find_llvm_tool() {
  local command
  for command in "$1-$llvm_version" "$1"; do
    if command -v "$command" >/dev/null 2>&1 && "$command" --version | grep -q "version $llvm_version\\."; then
      echo "$command"
      return
    fi
  done
  return 1
}

in_git_checkout() { git rev-parse --is-inside-work-tree >/dev/null 2>&1; }

skip() {
  say "$*: skipped"
  exit 77
}
