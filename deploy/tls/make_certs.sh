#!/usr/bin/env bash
# Makes an authority and certificates that it signs, for a server that other machines reach and for
# clients that must show one. For a lab's network or a trial; an organisation has its own authority.
#   deploy/tls/make_certs.sh FOLDER NAME[,NAME]...        names and addresses by which clients reach the server
#   deploy/tls/make_certs.sh FOLDER --client NAME         one more certificate for a client
# FOLDER gets ca.pem (give it to clients: --tls-ca), ca.key (keep it off the server), server.pem and server.key
# (--tls-certificate, --tls-key), client-NAME.pem and .key. What is there is kept, but for the server's pair, which
# is renewed: a running server takes it within seconds.
set -euo pipefail

usage() { sed -n '2,8s/^# \{0,1\}//p' "$0"; }
fail() { echo "make_certs: $*" >&2; exit 1; }

case "${1:-}" in -h | --help | '') usage; exit 0 ;; esac
command -v openssl >/dev/null || fail 'openssl is missing'
folder=$1
shift
[[ $# -ge 1 ]] || fail 'a name is missing; --help tells more'
readonly days=${DAYS:-825}
umask 077
mkdir -p "$folder"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# new_key FILE
new_key() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1" 2>"$scratch/log" || fail "$(cat "$scratch/log")"; }

# sign STEM COMMON_NAME EXTENSIONS: makes STEM.pem and STEM.key, both at once as far as files can.
sign() {
  new_key "$scratch/key"
  openssl req -new -key "$scratch/key" -subj "/CN=$2" -out "$scratch/request" 2>"$scratch/log" || fail "$(cat "$scratch/log")"
  printf '%b' "$3" >"$scratch/extensions"
  openssl x509 -req -in "$scratch/request" -CA "$folder/ca.pem" -CAkey "$folder/ca.key" -CAcreateserial -sha256 \
    -CAserial "$scratch/serial" -days "$days" -extfile "$scratch/extensions" -out "$scratch/certificate" \
    2>"$scratch/log" || fail "$(cat "$scratch/log")"
  mv "$scratch/key" "$1.key"
  mv "$scratch/certificate" "$1.pem"
  chmod 644 "$1.pem"
}

if [[ ! -e "$folder/ca.pem" ]]; then
  new_key "$folder/ca.key"
  openssl req -x509 -new -key "$folder/ca.key" -sha256 -days 3650 -subj '/CN=Abstract test authority' \
    -addext 'basicConstraints=critical,CA:TRUE' -addext 'keyUsage=critical,keyCertSign,cRLSign' \
    -out "$folder/ca.pem" 2>"$scratch/log" || fail "$(cat "$scratch/log")"
  chmod 644 "$folder/ca.pem"
fi

if [[ "$1" == --client ]]; then
  [[ "${2:-}" =~ ^[A-Za-z0-9._-]+$ ]] || fail 'a client is named by letters, digits, dots and dashes'
  sign "$folder/client-$2" "$2" 'extendedKeyUsage=clientAuth\n'
  echo "$folder/client-$2.pem"
  exit 0
fi

alternatives=''
IFS=, read -ra names <<<"$1"
for name in "${names[@]}"; do
  if [[ "$name" =~ ^[0-9.]+$ || "$name" == *:* ]]; then kind=IP; else kind=DNS; fi
  [[ "$name" =~ ^[A-Za-z0-9.:*_-]+$ ]] || fail "$name is neither a name nor an address"
  alternatives+="${alternatives:+,}$kind:$name"
done
sign "$folder/server" "${names[0]}" "extendedKeyUsage=serverAuth\nsubjectAltName=$alternatives\n"
echo "$folder/server.pem for $1; clients trust $folder/ca.pem"
