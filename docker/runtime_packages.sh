#!/usr/bin/env bash
# Prints the Debian packages whose libraries the given programs load, one a line.
#   docker/runtime_packages.sh PROGRAM...
# So the images that only run the programs need no list of their own.
set -euo pipefail

for library in $(ldd "$@" | awk '$2 == "=>" && $3 ~ /^\// {print $3}' | sort -u); do
  # dpkg knows some files of /usr/lib by their old place in /lib.
  path=$(realpath "$library")
  dpkg-query -S "$path" 2>/dev/null || dpkg-query -S "${path#/usr}" 2>/dev/null || {
    echo "$0: no package owns $library" >&2
    exit 1
  }
done | sed 's/:.*//' | sort -u
