# Sourced by quickstart.sh and tests/run.sh: the parts of a build that they share.
# shellcheck shell=bash

# One compiler per core, but no more than memory allows: the files that include
# libtorch take 1.5 GB each.
default_jobs() {
  local cores gigabytes
  if [[ "$(uname -s)" == Darwin ]]; then
    cores=$(sysctl -n hw.ncpu)
    gigabytes=$(($(sysctl -n hw.memsize) >> 30))
  else
    cores=$(nproc)
    gigabytes=$(($(awk '/^MemTotal:/ {print $2}' /proc/meminfo) >> 20))
  fi
  local most=$((gigabytes * 2 / 3))
  if [[ $most -lt 1 ]]; then most=1; fi
  if [[ $cores -gt $most ]]; then cores=$most; fi
  echo "$cores"
}

# Where a preset of CMakePresets.json builds.
build_dir_of_preset() {
  if [[ "$1" == release ]]; then echo build; else echo "build/$1"; fi
}

# configure PRESET BUILD_DIR [CMAKE_ARGUMENT]...
configure() {
  local preset="$1" build_dir="$2"
  shift 2
  if [[ "$(uname -s)" == Darwin ]] && command -v brew >/dev/null 2>&1; then
    # Homebrew does not link it, in favour of the system's LibreSSL.
    OPENSSL_ROOT_DIR="${OPENSSL_ROOT_DIR:-$(brew --prefix openssl@3)}"
    export OPENSSL_ROOT_DIR
  fi
  cmake --preset "$preset" -B "$build_dir" "$@"
}
