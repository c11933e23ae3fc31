#!/usr/bin/env bash
# Moves a mailbox between two mail servers that run on this machine for as long as it takes, and proves that both
# sides are identical then. Everything it makes is in one temporary folder, which goes at the end.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/install.sh demo
scripts/build.sh --demo
built=${CARGO_TARGET_DIR:-target}/release

dir=$(mktemp -d)
servers=
clean_up() {
  # The servers end with their standard input.
  exec 9>&- || true
  [ -z "$servers" ] || wait "$servers" || true
  rm -rf "$dir"
}
trap clean_up EXIT

mkfifo "$dir/stop" "$dir/ready"
"$built/demo_servers" "$dir/ca.crt" <"$dir/stop" >"$dir/ready" &
servers=$!
exec 9>"$dir/stop"
# The servers' first line comes when both are ready and the source is filled; no line when they could not start.
read -r ready <"$dir/ready" || { echo "the demo's servers did not start" >&2; exit 1; }
echo "$ready"

run() {
  echo
  echo "\$ mailferry $*"
  "$built/mailferry" "$@"
}

# Locks of accounts go there, too: the demo leaves nothing behind.
export XDG_STATE_HOME="$dir/state-home"
run run -f examples/demo.yaml --secret "demo-ca/ca.crt=$dir/ca.crt" --state "$dir/state"
run verify -f examples/demo.yaml --secret "demo-ca/ca.crt=$dir/ca.crt"
echo
echo "Both sides are identical: every folder, message, flag and date."
