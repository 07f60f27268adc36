#!/usr/bin/env bash
# Runs Python where the package of clients/python can be imported, from a copy, so that the source tree stays as it is,
# and a server of this build can be started. Tests in Python go by it, and what is run by hand:
#   run_python.sh SERVER_PROGRAM SOURCE_FOLDER SCRATCH_FOLDER PYTHON_ARGUMENT...
#   run_python.sh build/bin/abstract-model-server . build/soak tests/integration/faults/soak.py --minutes 15
# Exits with 77 (skipped, to ctest) where no Python has gRPC, protobuf, numpy and pytest.
set -euo pipefail
server=$(realpath "$1") source=$(realpath "$2")
mkdir -p "$3"
scratch=$(realpath "$3")
shift 3

python=''
for candidate in python3 /usr/bin/python3; do
  if "$candidate" -c 'import google.protobuf, grpc, numpy, pytest' 2>/dev/null; then
    python="$candidate"
    break
  fi
done
if [[ -z "$python" ]]; then
  echo 'no Python here has grpcio, protobuf, numpy and pytest; deploy/install_deps.sh --tests installs them: skipped'
  exit 77
fi

rm -rf "$scratch/checkout"
mkdir -p "$scratch/checkout/clients"
cp -R "$source/clients/python" "$scratch/checkout/clients/"
ln -s "$source/proto" "$source/data" "$source/deploy" "$scratch/checkout/"
find "$scratch/checkout/clients/python" -name '*_pb2.py*' -delete # what somebody made in the source tree
export PYTHONDONTWRITEBYTECODE=1
"$python" "$scratch/checkout/clients/python/generate.py"

export PYTHONPATH="$scratch/checkout/clients/python" MPLBACKEND=Agg MPLCONFIGDIR="$scratch/matplotlib"
export ABSTRACT_SERVER_PROGRAM="$server" ABSTRACT_CHECKOUT="$scratch/checkout"
# Where a proxy is set, the client has to get past it by itself.
unset ABSTRACT_SERVER ABSTRACT_TOKEN_FILE ABSTRACT_TLS_CA ABSTRACT_TLS_CERTIFICATE ABSTRACT_TLS_KEY no_proxy NO_PROXY
export http_proxy=http://127.0.0.1:9 https_proxy=http://127.0.0.1:9
exec "$python" "$@"
