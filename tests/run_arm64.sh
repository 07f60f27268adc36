#!/usr/bin/env bash
# Builds the CPU kernels and their tests for arm64 and runs them under QEMU.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec </dev/null
. deploy/build_functions.sh

usage() {
  cat <<'USAGE'
usage: tests/run_arm64.sh [CTEST_ARGUMENT]...
Cross-compiles the CPU kernels' tests for arm64 and runs them under QEMU; on Debian.
The arm64 libraries are unpacked under the build folder by an
apt of their own; the system gets only the cross compiler and QEMU, if missing.
Environment:
  BUILD_DIR   default: build/arm64
  JOBS        compilers at a time; default: one per core
  NO_INSTALL  when not empty, installs no system packages
USAGE
}

say() { echo "run_arm64: $*" >&2; }
fail() { say "$*"; exit 1; }
step() { echo "== $* ($((SECONDS - begin)) s)" >&2; }

# "COMMAND PACKAGE"
readonly tools='
aarch64-linux-gnu-g++ g++-aarch64-linux-gnu
cmake cmake
ninja ninja-build
qemu-aarch64 qemu-user
'
readonly libraries=(libgmock-dev libgtest-dev libhwy-dev)

install_tools() {
  local command package missing=()
  while read -r command package; do
    [[ -n "$command" ]] || continue
    command -v "$command" >/dev/null 2>&1 || missing+=("$package")
  done <<<"$tools"
  if [[ ${#missing[@]} -eq 0 ]]; then return; fi
  [[ -z "${NO_INSTALL:-}" ]] || fail "missing: ${missing[*]}"
  local as_root=()
  if [[ "$(id -u)" -ne 0 ]]; then as_root=(sudo); fi
  local apt=(${as_root[@]+"${as_root[@]}"} env DEBIAN_FRONTEND=noninteractive apt-get -y -qq
    -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0)
  say "apt-get installs ${missing[*]}"
  "${apt[@]}" update >&2
  "${apt[@]}" install --no-install-recommends "${missing[@]}" >&2
}

# The system's own Debian repositories, as apt's one-line sources. No hosts are
# named here, so mirrors stay what the user set.
debian_sources() {
  # shellcheck disable=SC2016  # The $(...) are apt-get's.
  apt-get indextargets --format 'deb $(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' \
    'Origin: Debian' | sort -u
}

# Unpacks the libraries and all that they need into $sysroot. An apt of its own
# state and a dpkg that has nothing installed: the system is neither read nor changed.
make_sysroot() {
  local private="$BUILD_DIR/apt" wanted="${libraries[*]}"
  if [[ "$(cat "$sysroot/packages" 2>/dev/null)" == "$wanted" ]]; then return; fi
  rm -rf "$sysroot"
  mkdir -p "$sysroot" "$private/state/lists/partial" "$private/cache/archives/partial"
  : >"$private/status"
  debian_sources >"$private/sources.list"
  [[ -s "$private/sources.list" ]] || fail 'apt knows no Debian repository; run apt-get update'
  local apt=(apt-get -y -qq -o APT::Architecture=arm64 -o APT::Architectures::=arm64
    -o Dir::State="$private/state" -o Dir::State::status="$private/status" -o Dir::Cache="$private/cache"
    -o Dir::Etc::sourcelist="$private/sources.list" -o Dir::Etc::sourceparts=/dev/null
    -o APT::Sandbox::User="$(id -un)")
  "${apt[@]}" update >&2
  "${apt[@]}" install --no-install-recommends --download-only "${libraries[@]}" >&2
  local package
  for package in "$private"/cache/archives/*.deb; do
    # No package is configured, so programs and data are of no use.
    dpkg-deb --fsys-tarfile "$package" |
      tar -x -C "$sysroot" --no-same-owner --exclude='./[!lu]*' --exclude='./usr/[!il]*'
  done
  rm -rf "$private/cache"
  echo "$wanted" >"$sysroot/packages"
}

case "${1:-}" in -h | --help) usage; exit 0 ;; esac
command -v apt-get >/dev/null 2>&1 || fail 'needs Debian: there is no apt-get here'

begin=$SECONDS
BUILD_DIR=${BUILD_DIR:-build/arm64}
mkdir -p "$BUILD_DIR"
BUILD_DIR=$(cd "$BUILD_DIR" && pwd)
sysroot="$BUILD_DIR/sysroot"

step 'cross compiler and QEMU'
install_tools
step "arm64 libraries in $sysroot"
make_sysroot
step 'build'
cmake -G Ninja -S tests/arm64 -B "$BUILD_DIR/cmake" -DCMAKE_TOOLCHAIN_FILE="$PWD/tests/arm64/toolchain.cmake" \
  -DARM64_SYSROOT="$sysroot"
cmake --build "$BUILD_DIR/cmake" --parallel "${JOBS:-$(default_jobs)}"
step 'tests'
ctest --test-dir "$BUILD_DIR/cmake" --output-on-failure --no-tests=error "$@"
step 'done'
