#!/usr/bin/env bash
# Fetches prometheus and promtool for metrics_test, where they are not installed: from Debian's package, by apt, unpacked
# into the build folder. (Installed as a package it would run as a service, on port 9090.)
#   tests/fetch_prometheus.sh BUILD_DIR
# puts them into BUILD_DIR/prometheus, where the test looks; takes 20 MB of download and 100 MB of disk, once. Without
# apt, or a network, it says so and the test is skipped.
set -euo pipefail

if [[ $# -ne 1 ]]; then
  echo "usage: $0 BUILD_DIR" >&2
  exit 2
fi
mkdir -p "$1/prometheus"
folder=$(cd "$1/prometheus" && pwd)
if command -v prometheus >/dev/null && command -v promtool >/dev/null; then exit 0; fi
if [[ -x "$folder/prometheus" && -x "$folder/promtool" ]]; then exit 0; fi

skipped() {
  echo "$0: $1; metrics_test will be skipped" >&2
  exit 0
}
if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
  skipped 'prometheus and promtool are not installed, and there is no apt to fetch them'
fi
downloads=$(mktemp -d "$folder/download.XXXXXX")
trap 'rm -rf "$downloads"' EXIT
# As the user who calls, not as _apt, who may not write here.
(cd "$downloads" && apt-get -qq -o APT::Sandbox::User= download prometheus >log 2>&1) ||
  skipped "apt-get cannot download prometheus: $(tail -n 1 "$downloads/log")"
dpkg-deb --extract "$downloads"/prometheus_*.deb "$downloads/tree"
mv "$downloads/tree/usr/bin/promtool" "$downloads/tree/usr/bin/prometheus" "$folder/"
