#!/usr/bin/env bash
# Runs the quickstart with what is built and checks what it found.
#   whole_study_test.sh BUILD_FOLDER OUTPUT_FOLDER
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
rm -rf "$2"
BUILD_DIR="$1" "$here/../../deploy/quickstart.sh" --no-install --no-build --output-dir "$2"
[[ -s "$2/figures/dashboard.html" ]] || { echo 'no dashboard was written'; exit 1; }
node "$here/check_study.mjs" "$2/results"
