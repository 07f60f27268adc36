# Sourced by what runs in a suite's folder.
# shellcheck shell=bash

readonly build_dir=/build/tree

# note NAME VALUE: for the table of run_portability.sh.
note() { echo "$1=$2" >>/build/portability_result; }

install_packages() {
  deploy/install_deps.sh --tests --no-browser
  # shellcheck disable=SC2016  # The ${...} is dpkg-query's.
  note libtorch "$(dpkg-query -W -f '${Version}' libtorch-dev)"
}

configure_suite() {
  cmake --preset release -B "$build_dir" -DABSTRACT_BUILD_TESTS=ON -DABSTRACT_BUILD_BENCHMARKS=ON
}
