#!/usr/bin/env bash
# The demo on a Kubernetes: one that runs on this machine for as long as it takes (as root), with the operator from deploy/
# and two mail servers outside of it. The migration is the one of `make demo`. Everything is gone at the end.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/install.sh demo-cluster
PATH=$(scripts/kubernetes.sh):$PATH
scripts/build.sh --demo
built=${CARGO_TARGET_DIR:-target}/release

dir=$(mktemp -d)
servers=
clean_up() {
  # Servers and cluster end with their standard input.
  exec 9>&- || true
  [ -z "$servers" ] || wait "$servers" || true
  rm -rf "$dir"
}
trap clean_up EXIT

mkfifo "$dir/stop" "$dir/ready"
# The image as deploy/ names it.
image=ghcr.io/mailferry/mailferry:$("$built/mailferry" --version | cut -d ' ' -f 2)
"$built/demo_servers" "$dir/ca.crt" "$built/mailferry" "$image" <"$dir/stop" >"$dir/ready" &
servers=$!
exec 9>"$dir/stop"
{ read -r KUBECONFIG && read -r ready; } <"$dir/ready" || { echo "the demo's cluster did not start" >&2; exit 1; }
export KUBECONFIG
echo "$ready"

show() {
  echo
  echo "\$ $*"
  "$@"
}

# deploy/, and the leave to connect to this machine, which is the cluster's node: its own networks are denied otherwise.
show kubectl apply --server-side -k examples/demo-cluster/
show kubectl -n mailferry-system rollout status deployment mailferry --timeout=120s
# Pods reach this machine at another address than it does itself.
sed 's/127\.0\.0\.1/10.213.0.1/' examples/demo.yaml >"$dir/demo.yaml"
show kubectl create secret generic demo-ca --from-file="ca.crt=$dir/ca.crt"
show kubectl apply -f "$dir/demo.yaml"
show kubectl wait --for=condition=Complete --timeout=300s mailmigration demo ||
  { kubectl describe mailmigrations,mailboxsyncs,pods; exit 1; }
show kubectl get mailmigrations,mailboxsyncs,pods
show "$built/mailferry" verify -f "$dir/demo.yaml" --secret "demo-ca/ca.crt=$dir/ca.crt"
echo
echo "Both sides are identical: every folder, message, flag and date."
