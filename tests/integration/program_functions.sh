# For tests that start a server as a program; to be sourced. Makes a folder, $scratch, which goes at the end, and the
# server with it: $running, whose log is $scratch/server.log.
scratch=$(mktemp -d)
running=''
cleanup() {
  [[ -z "$running" ]] || kill -KILL "$running" 2>/dev/null
  rm -rf "$scratch"
}
trap cleanup EXIT
failures=0
expect() { # expect WHAT CONDITION...
  local what="$1"
  shift
  if "$@"; then echo "ok: $what"; else echo "FAILED: $what"; failures=$((failures + 1)); fi
}
says() { grep -qF -- "$1" "$scratch/log" || { cat "$scratch/log"; return 1; }; }
fails() { ! "$@" >"$scratch/log" 2>&1; }

# The port that the server says it got, for what the line names.
port_of() { sed -n "s/.*$1.*port \([0-9]*\).*/\1/p" "$scratch/server.log" | head -n 1; }
wait_until_it_serves() {
  for _ in $(seq 150); do
    # The whole line: it may be read while it is written.
    grep -q 'serving mechinterp' "$scratch/server.log" && [[ -z "$(tail -c 1 "$scratch/server.log")" ]] && return 0
    kill -0 "$running" 2>/dev/null || break
    sleep 0.1
  done
  cat "$scratch/server.log"
  echo 'FAILED: the server did not start'
  exit 1
}
start() { # start SERVER_PROGRAM ARGUMENT...
  : >"$scratch/server.log"  # here, not by the child: what the one before it wrote must be gone
  "$@" >"$scratch/server.log" 2>&1 &
  running=$!
  wait_until_it_serves
}
stop() {
  kill -TERM "$running"
  wait "$running"
  local status=$?
  running=''
  return "$status"
}
