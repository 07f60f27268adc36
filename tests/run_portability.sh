#!/usr/bin/env bash
# Builds and tests the tree against the libraries of other systems. See --help.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec </dev/null
. deploy/build_functions.sh

usage() {
  cat <<'USAGE'
usage: tests/run_portability.sh [options]
Builds the whole tree on newer Debians, each in a debootstrap folder of its own,
and runs the engine's tests there; parses every source with clang and libc++, as
on Linux and as on macOS; runs the CPU kernels' tests for arm64. Ends with a
table. On Debian, as root (folders are entered by chroot).

  --suite NAME      only this Debian; may be repeated [trixie, forky]
  --libcxx          only the libc++ check, in forky's folder
  --arm64           only tests/run_arm64.sh
  --all-tests       every test in the suites, not only the engine's
  --cache-dir DIR   folders, builds and compiler cache, kept for the next run
                    [$XDG_CACHE_HOME/abstract/portability, or under ~/.cache]
  --help            this text

Environment:
  JOBS           compilers at a time; default: one per core
  DEBIAN_MIRROR  where packages come from; default: as the system's own apt
A suite takes 2 GB of packages; its first build is as long as any, later ones
compile only what has changed. A folder that is removed is made anew.
USAGE
}

say() { echo "run_portability: $*" >&2; }
fail() { say "$*"; exit 1; }
step() { echo "== $* ($((SECONDS - begin)) s)" >&2; }

suites=()
with_libcxx=''
with_arm64=''
test_label='^services/engine'
cache_dir="${XDG_CACHE_HOME:-$HOME/.cache}/abstract/portability"
while [[ $# -gt 0 ]]; do
  case "$1" in
    --suite | --cache-dir)
      [[ $# -ge 2 && -n "$2" ]] || { usage >&2; fail "$1 needs an argument"; }
      if [[ "$1" == --suite ]]; then suites+=("$2"); else cache_dir="$2"; fi
      shift
      ;;
    --libcxx) with_libcxx=yes ;;
    --arm64) with_arm64=yes ;;
    --all-tests) test_label='' ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; fail "unknown argument $1" ;;
  esac
  shift
done
if [[ ${#suites[@]} -eq 0 && -z "$with_libcxx$with_arm64" ]]; then
  suites=(trixie forky)
  with_libcxx=yes
  with_arm64=yes
fi
readonly libcxx_suite=forky
command -v apt-get >/dev/null 2>&1 || fail 'needs Debian: there is no apt-get here'
[[ "$(id -u)" -eq 0 ]] || fail 'needs root, for debootstrap and chroot'

begin=$SECONDS
mkdir -p "$cache_dir/ccache"
cache_dir=$(cd "$cache_dir" && pwd)
JOBS=${JOBS:-$(default_jobs)}
rows=()
failures=0

# ---------------------------------------------------------------- folders

# Where the system's own apt gets Debian from. No hosts are named here, so
# mirrors stay what the user set.
mirror() {
  if [[ -n "${DEBIAN_MIRROR:-}" ]]; then echo "$DEBIAN_MIRROR"; return; fi
  # shellcheck disable=SC2016  # The $(...) is apt-get's.
  apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' \
    'Component: main' | sed -n 1p
}

# Makes $cache_dir/SUITE/root, unless it is there.
make_root() {
  local suite="$1" root="$cache_dir/$1/root"
  if [[ -e "$root/etc/debian_version" && ! -e "$root/debootstrap" ]]; then return; fi
  if ! command -v debootstrap >/dev/null 2>&1; then
    say 'apt-get installs debootstrap'
    DEBIAN_FRONTEND=noninteractive apt-get -y -qq install --no-install-recommends debootstrap >&2
  fi
  local from script
  from=$(mirror)
  [[ -n "$from" ]] || fail 'apt knows no Debian repository; run apt-get update, or set DEBIAN_MIRROR'
  # An older debootstrap has no script for a suite to come; all are like sid's.
  script="/usr/share/debootstrap/scripts/$suite"
  if [[ ! -e "$script" ]]; then script="${script%/*}/sid"; fi
  rm -rf "$root"
  mkdir -p "$root"
  debootstrap --variant=minbase "$suite" "$root" "$from" "$script" >"$cache_dir/$suite/debootstrap.log" 2>&1 || {
    tail -n 20 "$cache_dir/$suite/debootstrap.log" >&2
    rm -rf "$root"
    fail "debootstrap failed for $suite"
  }
}

# in_root SUITE COMMAND [ARGUMENT]...: runs it in the suite's folder, with the
# sources (read-only) as /src, the suite's build folder as /build and the
# compiler cache as /ccache. The mounts are in a namespace that ends with it.
in_root() {
  local folder="$cache_dir/$1" root="$cache_dir/$1/root" name
  shift
  mkdir -p "$folder/build" "$root"/{src,build,ccache}
  # A mirror may be a snapshot, and a folder that a crash spoils is made anew.
  echo 'Acquire::Check-Valid-Until "false";' >"$root/etc/apt/apt.conf.d/90abstract"
  echo 'force-unsafe-io' >"$root/etc/dpkg/dpkg.cfg.d/abstract"
  # Names and certificates as here, a proxy's among them.
  cp /etc/resolv.conf /etc/hosts "$root/etc/"
  local certificates=/etc/ssl/certs/ca-certificates.crt inside=/etc/ssl/outer-certificates.crt
  mkdir -p "$root/etc/ssl"
  if [[ -e "$certificates" ]]; then cp "$certificates" "$root$inside"; fi
  local environment=(PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
    CCACHE_DIR=/ccache CCACHE_MAXSIZE=5G NODE_EXTRA_CA_CERTS="$inside" JOBS="$JOBS"
    TEST_LABEL="$test_label")
  for name in http_proxy https_proxy no_proxy npm_config_registry; do
    if [[ -n "${!name:-}" ]]; then environment+=("$name=${!name}"); fi
  done
  # shellcheck disable=SC2016  # Expanded by the inner bash.
  unshare --mount --propagation private bash -euc '
    source_dir="$1" folder="$2"
    root="$folder/root"
    shift 2
    mount --rbind /dev "$root/dev"
    mount -t proc proc "$root/proc"
    mount --bind "$source_dir" "$root/src"
    mount -o remount,bind,ro "$root/src"
    mount --bind "$folder/build" "$root/build"
    mount --bind "${folder%/*}/ccache" "$root/ccache"
    exec chroot "$root" env -i "$@"' in_root "$PWD" "$folder" "${environment[@]}" "$@"
}

# ---------------------------------------------------------------- parts

# report NAME VERSION COMPILED TESTED: a row of the table.
report() { rows+=("$(printf '%-16s %-28s %-10s %s' "$@")"); }

# result_of SUITE NAME: what the suite's run noted; nothing when it did not get there.
result_of() { sed -n "s/^$2=//p" "$cache_dir/$1/build/portability_result" 2>/dev/null | tail -n 1 || true; }

run_suite() {
  local suite="$1"
  step "$suite: folder"
  make_root "$suite"
  rm -f "$cache_dir/$suite/build/portability_result"
  step "$suite: packages, build, tests"
  in_root "$suite" /src/tests/portability/build_and_test.sh || failures=$((failures + 1))
  report "$suite" "libtorch $(result_of "$suite" libtorch)" "$(result_of "$suite" compiled)" \
    "$(result_of "$suite" tests)"
}

run_libcxx() {
  step "libc++: folder of $libcxx_suite"
  make_root "$libcxx_suite"
  rm -f "$cache_dir/$libcxx_suite/build/portability_result"
  local platform
  for platform in linux macos; do
    step "libc++: every source as on $platform"
    in_root "$libcxx_suite" /src/tests/portability/check_libcxx.sh "$platform" || failures=$((failures + 1))
    report "libc++, $platform" "libtorch $(result_of "$libcxx_suite" libtorch)" \
      "$(result_of "$libcxx_suite" "parsed_$platform")" "$(result_of "$libcxx_suite" "sources_$platform")"
  done
}

run_arm64() {
  step 'arm64'
  local log="$cache_dir/arm64.log" compiled=no
  BUILD_DIR="$cache_dir/arm64" tests/run_arm64.sh 2>&1 | tee "$log" >&2 || failures=$((failures + 1))
  if grep -q 'tests passed' "$log"; then compiled=yes; fi
  report 'arm64 kernels' 'no libtorch; QEMU' "$compiled" "$(grep 'tests passed' "$log" || true)"
}

for suite in ${suites[@]+"${suites[@]}"}; do run_suite "$suite"; done
if [[ -n "$with_libcxx" ]]; then run_libcxx; fi
if [[ -n "$with_arm64" ]]; then run_arm64; fi

step 'done'
echo
printf '%-16s %-28s %-10s %s\n' suite against compiled tests
printf '%s\n' "${rows[@]}"
[[ $failures -eq 0 ]] || fail "$failures of ${#rows[@]} failed"
