#!/usr/bin/env bash
# Installs what is missing to build and run Abstract; quick when nothing is.
#   deploy/install_deps.sh [--tests] [--no-browser]
# Debian and Ubuntu by apt, macOS by Homebrew. A tool that is found in $PATH
# counts as installed, whoever installed it; libraries are looked up as packages.
set -euo pipefail

usage() {
  cat <<'USAGE'
usage: deploy/install_deps.sh [--tests] [--no-browser]
  --tests        also what only the tests and benchmarks need (GoogleTest, Google Benchmark,
                 clang-format, clang-tidy, Chromium, what the Python client uses)
  --no-browser   no Chromium: the tests that open the dashboard are skipped without it
USAGE
}

# Lines of "COMMAND PACKAGE": the package is installed when the command is not found.
readonly debian_tools='
c++ g++
ccache ccache
cmake cmake
git git
grpc_cpp_plugin protobuf-compiler-grpc
ninja ninja-build
node nodejs
npm npm
pkg-config pkg-config
protoc protobuf-compiler
'
# "A|B": one of them; A is installed when there is none. libtorch computes
# matrix products by whatever libblas.so.3 is; OpenBLAS on OpenMP shares
# libtorch's threads, Debian's own default is the slow reference BLAS.
readonly debian_libraries='
ca-certificates
libabsl-dev
libcli11-dev
libcurl4-openssl-dev
libdeflate-dev
libgrpc++-dev
libhwy-dev
libmicrohttpd-dev
libopenblas0-openmp|libopenblas0-pthread|libopenblas0-serial
libpcre2-dev
libprotobuf-dev
libspdlog-dev
libsqlite3-dev
libsqlitecpp-dev
libssl-dev
libtorch-dev
libutf8proc-dev
libyaml-cpp-dev
nlohmann-json3-dev
prometheus-cpp-dev
python3-jinja2
zlib1g-dev
'
# Ubuntu's own chromium package only installs a snap, so a browser from
# elsewhere counts too.
readonly debian_browser='
chromium|chromium-browser|google-chrome|chrome chromium
'
readonly debian_test_tools='
clang-format-14|clang-format clang-format
clang-tidy-14|clang-tidy clang-tidy
openssl openssl
'
readonly debian_test_libraries='
fonts-dejavu-core
libbenchmark-dev
libcpp-httplib-dev
libgmock-dev
libgtest-dev
python3-grpcio
python3-matplotlib
python3-numpy
python3-pandas
python3-protobuf
python3-pytest
'
readonly brew_tools='
ccache ccache
cmake cmake
ninja ninja
node node
pkg-config pkgconf
'
readonly brew_libraries='
abseil
cli11
grpc
highway
libdeflate
libmicrohttpd
nlohmann-json
openssl@3
pcre2
prometheus-cpp
protobuf
pytorch
spdlog
sqlitecpp
utf8proc
yaml-cpp
'
readonly brew_test_libraries='
cpp-httplib
google-benchmark
googletest
'

say() { echo "install_deps: $*" >&2; }
fail() { say "$*"; exit 1; }

# Packages of those lines of "COMMAND[|COMMAND]... PACKAGE" none of whose
# commands is found.
missing_tools() {
  local commands package command found
  while read -r commands package; do
    [[ -n "$commands" ]] || continue
    found=''
    for command in ${commands//|/ }; do
      if command -v "$command" >/dev/null 2>&1; then found=yes; fi
    done
    if [[ -z "$found" ]]; then echo "$package"; fi
  done <<<"$1"
}

# Those of "A|B" lines none of which is in the list of installed packages $2.
missing_libraries() {
  local line name found
  for line in $1; do
    found=''
    for name in ${line//|/ }; do
      case $'\n'"$2"$'\n' in *$'\n'"$name"$'\n'*) found=yes ;; esac
    done
    if [[ -z "$found" ]]; then echo "${line%%|*}"; fi
  done
}

install_by_apt() {
  local tools="$debian_tools" libraries="$debian_libraries"
  if [[ -n "$with_tests" ]]; then
    tools="$tools$debian_test_tools"
    if [[ -n "$with_browser" ]]; then tools="$tools$debian_browser"; fi
    libraries="$libraries$debian_test_libraries"
  fi
  local installed
  # shellcheck disable=SC2016  # The ${...} are dpkg-query's.
  installed=$(dpkg-query -W -f '${db:Status-Abbrev}${Package}\n' | sed -n 's/^ii *//p')
  local missing=()
  local package
  for package in $(missing_tools "$tools"; missing_libraries "$libraries" "$installed"); do
    missing+=("$package")
  done
  if [[ ${#missing[@]} -eq 0 ]]; then
    say 'everything is installed'
    return
  fi

  local as_root=()
  if [[ "$(id -u)" -ne 0 ]]; then
    command -v sudo >/dev/null 2>&1 ||
      fail "no sudo here; as root, run: apt-get install --no-install-recommends ${missing[*]}"
    as_root=(sudo)
  fi
  # Waits for another apt; never asks.
  local apt=(${as_root[@]+"${as_root[@]}"} env DEBIAN_FRONTEND=noninteractive apt-get -y -qq
    -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0)
  say "apt-get installs ${missing[*]}"
  "${apt[@]}" update </dev/null >&2 || fail 'apt-get update failed, see above'
  "${apt[@]}" install --no-install-recommends "${missing[@]}" </dev/null >"$log" 2>&1 || {
    tail -n 30 "$log" >&2
    fail 'apt-get install failed, see above'
  }
}

install_by_brew() {
  xcode-select -p >/dev/null 2>&1 || fail 'no C++ compiler; run: xcode-select --install'
  local libraries="$brew_libraries"
  if [[ -n "$with_tests" ]]; then libraries="$libraries$brew_test_libraries"; fi
  local installed
  installed=$(brew list --formula -1)
  local missing=()
  local package
  for package in $(missing_tools "$brew_tools"; missing_libraries "$libraries" "$installed"); do
    missing+=("$package")
  done
  if [[ -n "$with_tests" && -n "$with_browser" && ! -d '/Applications/Google Chrome.app' && ! -d /Applications/Chromium.app ]]; then
    say 'the tests open the dashboard in Chrome or Chromium when it is in /Applications; there is none'
  fi
  if [[ ${#missing[@]} -eq 0 ]]; then
    say 'everything is installed'
    return
  fi
  say "brew installs ${missing[*]}"
  brew install --quiet "${missing[@]}" </dev/null >&2 || fail 'brew install failed, see above'
}

with_tests=''
with_browser=yes
for argument in "$@"; do
  case "$argument" in
    --tests) with_tests=yes ;;
    --no-browser) with_browser='' ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; fail "unknown argument $argument" ;;
  esac
done

log=$(mktemp "${TMPDIR:-/tmp}/abstract-install.XXXXXX")
trap 'rm -f "$log"' EXIT
begin=$SECONDS
if [[ "$(uname -s)" == Darwin ]]; then
  command -v brew >/dev/null 2>&1 || fail 'Homebrew is needed: see brew.sh, then run this again'
  install_by_brew
elif command -v apt-get >/dev/null 2>&1; then
  install_by_apt
else
  fail "neither apt-get nor Homebrew here. Install what this script lists by your system's own package manager, then \
run quickstart.sh with --no-install"
fi
if [[ $((SECONDS - begin)) -gt 2 ]]; then say "took $((SECONDS - begin)) s"; fi
