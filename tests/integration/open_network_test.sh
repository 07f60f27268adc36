#!/usr/bin/env bash
# The model server on a network that is not a friend's: TLS, tokens, certificates that change, hundreds of
# connections that say nothing, a log that nobody reads any longer, SIGTERM with clients connected.
#   open_network_test.sh SERVER_PROGRAM CLIENT_PROGRAM SOURCE_FOLDER
set -uo pipefail
server="$1" client="$2" source="$3"
command -v openssl >/dev/null || exit 77
. "$(dirname "${BASH_SOURCE[0]}")/program_functions.sh"
options=(--model "$source/data/models/tiny-llama-refusal" --metrics-address '')
ask() { "$client" --server "$@" --quiet --max-attempts 1 tokenize hello >"$scratch/log" 2>&1; }

expect 'an open address without TLS ends it' fails "$server" "${options[@]}" --listen-address 0.0.0.0:0
expect '... and tells the way' says '--tls-certificate'
expect 'a missing certificate ends it' fails "$server" "${options[@]}" --listen-address 0.0.0.0:0 --tls-certificate /nowhere --tls-key /nowhere
expect '... and is named' says '--tls-certificate'
expect 'a missing file of tokens ends it' fails "$server" "${options[@]}" --listen-address 127.0.0.1:0 --tokens "$scratch/none"

tls="$scratch/tls"
expect 'certificates are made' bash "$source/deploy/tls/make_certs.sh" "$tls" localhost,127.0.0.1
expect 'and one for a client' bash "$source/deploy/tls/make_certs.sh" "$tls" --client alice
tokens="$scratch/tokens.json"
"$client" --quiet token create alice --tokens "$tokens" >"$scratch/alice.token"
"$client" --quiet token create reader --read-only --tokens "$tokens" >"$scratch/reader.token"
printf 'abstract_%064d\n' 0 >"$scratch/wrong.token"
expect 'a second token of a name is refused' fails "$client" token create alice --tokens "$tokens"

start "$server" "${options[@]}" --listen-address 0.0.0.0:0 --tls-certificate "$tls/server.pem" --tls-key "$tls/server.key" --tokens "$tokens"
address="127.0.0.1:$(port_of serving)"
with_tls=("$address" --tls-ca "$tls/ca.pem")
expect 'it answers over TLS with a token' ask "${with_tls[@]}" --token-file "$scratch/alice.token"
expect '... by its name too' ask "localhost:${address##*:}" --tls-ca "$tls/ca.pem" --token-file "$scratch/alice.token"
expect 'no token, no answer' fails ask "${with_tls[@]}"
expect '... and it is said' says 'UNAUTHENTICATED'
expect 'a wrong token neither' fails ask "${with_tls[@]}" --token-file "$scratch/wrong.token"
expect 'plain text neither' fails ask "$address" --token-file "$scratch/alice.token"
bash "$source/deploy/tls/make_certs.sh" "$scratch/other" localhost,127.0.0.1 >/dev/null
expect 'nor an authority that did not sign' fails ask "$address" --tls-ca "$scratch/other/ca.pem" --token-file "$scratch/alice.token"
expect 'a token is not sent in the clear' fails "$client" --server 192.0.2.1:1 --token-file "$scratch/alice.token" --quiet tokenize hello
cp "$scratch/log" "$scratch/clear" && expect '... and it is said why' says 'in the clear'

"$client" --server "${with_tls[@]}" --token-file "$scratch/alice.token" --quiet generate 'Count to a thousand.' \
  --max-new-tokens 450 --ignore-stop-tokens >/dev/null 2>"$scratch/revoked" &
generating=$!
"$client" --quiet token revoke alice --tokens "$tokens"
sleep 2
wait "$generating"
expect 'a revoked token is refused' fails ask "${with_tls[@]}" --token-file "$scratch/alice.token"
expect 'others are not' ask "${with_tls[@]}" --token-file "$scratch/reader.token"

before=$(openssl s_client -connect "$address" </dev/null 2>/dev/null | openssl x509 -noout -serial)
bash "$source/deploy/tls/make_certs.sh" "$tls" localhost,127.0.0.1 >/dev/null
renewed() {
  for _ in $(seq 20); do
    [[ "$(openssl s_client -connect "$address" </dev/null 2>/dev/null | openssl x509 -noout -serial)" != "$before" ]] && return 0
    sleep 1
  done
  return 1
}
expect 'a renewed certificate is taken without a restart' renewed
expect '... and calls go on' ask "${with_tls[@]}" --token-file "$scratch/reader.token"
expect 'no token is in the log' fails grep -F -f "$scratch/reader.token" "$scratch/server.log"
expect 'nor a prompt' fails grep -F 'Count to a thousand' "$scratch/server.log"
expect 'SIGTERM ends it' stop

start "$server" "${options[@]}" --listen-address 127.0.0.1:0 --tls-certificate "$tls/server.pem" --tls-key "$tls/server.key" --tls-client-ca "$tls/ca.pem" --log-prompts
address="127.0.0.1:$(port_of serving)"
expect 'mutual TLS wants a certificate' fails ask "$address" --tls-ca "$tls/ca.pem"
expect '... and takes one' ask "$address" --tls-ca "$tls/ca.pem" --tls-certificate "$tls/client-alice.pem" --tls-key "$tls/client-alice.key"
"$client" --server "$address" --tls-ca "$tls/ca.pem" --tls-certificate "$tls/client-alice.pem" --tls-key "$tls/client-alice.key" \
  --quiet generate 'Sing a song.' >/dev/null
expect 'prompts are in the log where that was asked for' grep -qF 'Sing a song.' "$scratch/server.log"
expect 'SIGTERM ends it' stop

# 1,200 connections that say nothing, with the usual 1,024 descriptors; held by another process with more.
ulimit -Sn 1024 && ulimit -Hn 4096
crowd() {
  (
    ulimit -Sn 4096
    exec python3 - "${address##*:}" <<'PY'
import socket, sys
held = []
for _ in range(1200):
    try:
        held.append(socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=5))
    except OSError:
        pass
print(len(held), flush=True)
sys.stdin.close()
import time
time.sleep(4)
PY
  ) >"$scratch/crowd" &
  crowding=$!
  for _ in $(seq 200); do [[ -s "$scratch/crowd" ]] && return 0; sleep 0.1; done
  return 1
}
: >"$scratch/server.log"
(ulimit -Hn 1024; exec "$server" "${options[@]}" --listen-address 127.0.0.1:0 >"$scratch/server.log" 2>&1) &
running=$!
wait_until_it_serves
address="127.0.0.1:$(port_of serving)"
expect 'a crowd connects and says nothing' crowd
wait "$crowding"
expect '... and when it has gone a new client is served' ask "$address"
expect 'SIGTERM ends it' stop

# A log whose reader has gone; and a start that is called off.
mkfifo "$scratch/pipe"
"$server" "${options[@]}" --listen-address 127.0.0.1:0 2>"$scratch/pipe" &
running=$!
sed '/serving/q' "$scratch/pipe" >"$scratch/server.log"  # and reads no further
address="127.0.0.1:$(port_of serving)"
expect 'it outlives the reader of its log' ask "$address"
expect '... twice' ask "$address"
"$client" --server "$address" --quiet --max-attempts 1 generate 'Hello' >/dev/null 2>&1
# Clients that stay connected: an idle server ends at once all the same.
python3 - "${address##*:}" <<'PY' &
import socket, sys, time
held = [socket.create_connection(("127.0.0.1", int(sys.argv[1]))) for _ in range(20)]
time.sleep(8)
PY
crowding=$!
sleep 0.5
begin=$(date +%s%N)
expect 'SIGTERM ends it' stop
expect '... within a second, whoever is connected' test $((($(date +%s%N) - begin) / 1000000)) -lt 1000
kill "$crowding" 2>/dev/null
[[ $failures -eq 0 ]]
