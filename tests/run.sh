#!/usr/bin/env bash
# Installs what is missing, builds, and runs every test.
#   tests/run.sh [CTEST_ARGUMENT]...       as in: tests/run.sh -R tokenizer
# Environment:
#   PRESET      release (default), debug, asan-ubsan or tsan
#   BUILD_DIR   default: build for release, build/PRESET otherwise
#   JOBS        compilers and tests at a time; default: one per core
#   NO_INSTALL  when not empty, installs no system packages
#   FUZZ_SECONDS  runs each fuzz target for so long as a test; default: 0, none (see tests/README.md)
#   TIDY        ON: clang-tidy over recent changes is a test too (see tests/README.md)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec </dev/null
. deploy/build_functions.sh

PRESET=${PRESET:-release}
BUILD_DIR=${BUILD_DIR:-$(build_dir_of_preset "$PRESET")}
begin=$SECONDS
step() { echo "== $* ($((SECONDS - begin)) s)" >&2; }

if [[ -z "${NO_INSTALL:-}" ]]; then
  step 'dependencies'
  ./deploy/install_deps.sh --tests
fi
JOBS=${JOBS:-$(default_jobs)}
mkdir -p "$BUILD_DIR"
BUILD_DIR=$(cd "$BUILD_DIR" && pwd)

step "configure: preset $PRESET in $BUILD_DIR"
# GCC's manual advises against errors for warnings in sanitized builds: they have false ones.
warnings_are_errors=ON
if [[ "$PRESET" == *san* ]]; then warnings_are_errors=OFF; fi
configure "$PRESET" "$BUILD_DIR" -DABSTRACT_BUILD_TESTS=ON "-DABSTRACT_WERROR=$warnings_are_errors" \
  "-DABSTRACT_TIDY_TEST=${TIDY:-OFF}" "-DABSTRACT_FUZZ_SECONDS=${FUZZ_SECONDS:-0}"
step 'tokenizers of published models, for their tests'
tests/fetch_tokenizers.sh "$BUILD_DIR"
step 'Prometheus, for the test of metrics'
tests/fetch_prometheus.sh "$BUILD_DIR"
step "build with $JOBS jobs"
cmake --build "$BUILD_DIR" --parallel "$JOBS"

# gRPC connects to loopback through a proxy when it is told to use one.
export no_proxy="127.0.0.1,localhost,::1${no_proxy:+,$no_proxy}"
# libtorch, OpenMP and gRPC come without instrumentation.
export ASAN_OPTIONS="${ASAN_OPTIONS:-detect_leaks=0:detect_odr_violation=0}"
export UBSAN_OPTIONS="${UBSAN_OPTIONS:-print_stacktrace=1:halt_on_error=1}"
export TSAN_OPTIONS="${TSAN_OPTIONS:-ignore_noninstrumented_modules=1:halt_on_error=1}"
step 'tests'
exec ctest --test-dir "$BUILD_DIR" --output-on-failure --no-tests=error --parallel "$JOBS" "$@"
