#!/usr/bin/env bash
# Runs in a suite's folder, see ../run_portability.sh: installs what is missing,
# builds everything in /build, and runs the tests whose label matches $TEST_LABEL.
# Leaves what came of it in /build/portability_result.
set -euo pipefail
cd /src
exec </dev/null
. tests/portability/suite_functions.sh

readonly log=/build/ctest.log
install_packages
configure_suite
tests/fetch_tokenizers.sh "$build_dir"

compiled=yes
cmake --build "$build_dir" --parallel "$JOBS" -- -k 0 || compiled=no
note compiled "$compiled"
[[ "$compiled" == yes ]] || exit 1

arguments=()
if [[ -n "$TEST_LABEL" ]]; then arguments=(-L "$TEST_LABEL"); fi
tested=0
ctest --test-dir "$build_dir" --output-on-failure --no-tests=error ${arguments[@]+"${arguments[@]}"} 2>&1 |
  tee "$log" || tested=1
note tests "$(grep 'tests passed' "$log" || true)"
exit "$tested"
