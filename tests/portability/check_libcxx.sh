#!/usr/bin/env bash
# Runs in a suite's folder, see ../run_portability.sh: parses every source of the
# tree with clang and libc++ against the suite's libraries.
#   check_libcxx.sh linux|macos
# "macos" parses for the target arm64-apple-macos with the headers of this folder's
# apple/ before the system's, so that `#ifdef __APPLE__` branches, ours and the
# libraries', are read. Leaves "parsed_PLATFORM=yes|no" in /build/portability_result.
set -euo pipefail
cd /src
exec </dev/null
. tests/portability/suite_functions.sh
readonly platform="$1" log="/build/libcxx_$1.log"

install_packages
# The last is glibc's headers for arm64.
apt-get -y -qq -o Dpkg::Use-Pty=0 install --no-install-recommends clang libc++-dev libomp-dev \
  libc6-dev-arm64-cross >/build/clang.log 2>&1 || {
  tail -n 20 /build/clang.log >&2
  exit 1
}
[[ -f "$build_dir/CMakeCache.txt" ]] || configure_suite
cmake --build "$build_dir" --parallel "$JOBS" --target mechinterp_proto

parsed=yes
node tests/portability/check_libcxx.mjs "$platform" "$build_dir/compile_commands.json" "$JOBS" | tee "$log" || parsed=no
note "sources_$platform" "$(tail -n 1 "$log")"
note "parsed_$platform" "$parsed"
[[ "$parsed" == yes ]]
