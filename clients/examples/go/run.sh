#!/usr/bin/env bash
# Builds main.go with Debian's Go packages, without a network, and runs it; arguments are main.go's.
#   apt-get install golang-go golang-google-grpc-dev golang-github-golang-protobuf-1-5-dev protoc-gen-go-1-5 \
#     protoc-gen-go-grpc protobuf-compiler
# Elsewhere: the same protoc command in a module of your own.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../../.." && pwd)
out="${BUILD_DIR:-$root/build}/examples/go"
mkdir -p "$out/src"
protoc -I"$root/proto" --go_out="$out/src" --go-grpc_out="$out/src" \
  "$root"/proto/mechinterp/v1/{tensor,prompt,hook,model_service}.proto
GO111MODULE=off GOPATH="$out:/usr/share/gocode" go build -o "$out/patch" "$here/main.go"
exec "$out/patch" "$@"
