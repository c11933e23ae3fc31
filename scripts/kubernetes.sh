#!/usr/bin/env bash
# Builds the Kubernetes that the tests run against, once, and prints the folder with its programs.
# Usage: scripts/kubernetes.sh          (about 8 minutes and 3 GB of Go's build cache at first, nothing afterwards)
#
# Where KUBEBUILDER_ASSETS names a folder with etcd and kube-apiserver, that folder is printed and nothing is built:
# the tests that need a node (kubelet and so on) then say that they can't run.
set -euo pipefail

if [ -n "${KUBEBUILDER_ASSETS:-}" ]; then
  for program in etcd kube-apiserver; do
    if [ ! -x "$KUBEBUILDER_ASSETS/$program" ]; then
      echo "KUBEBUILDER_ASSETS names $KUBEBUILDER_ASSETS, but there is no $program in it" >&2
      exit 1
    fi
  done
  echo "$KUBEBUILDER_ASSETS"
  exit 0
fi

sources=$(cd "$(dirname "$0")/../tests/cluster" && pwd)
release=$(awk '$1 == "k8s.io/kubernetes" { print $2; exit }' "$sources/go.mod")
sum=$(cat "$sources/go.mod" "$sources/go.sum" "$sources"/*.go | sha256sum | cut -c1-12)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/mailferry
folder=$cache/kubernetes-$release-$sum
programs="etcd kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubelet kubectl helm kstatus argocd-health"

if [ ! -e "$folder/complete" ]; then
  mkdir -p "$cache"
  exec 9>"$cache/kubernetes.lock"
  flock 9
fi
# Looked at again: while this waited for the lock, another may have built it.
if [ ! -e "$folder/complete" ]; then
  PATH=$PATH:/usr/local/go/bin
  if ! command -v go >/dev/null; then
    echo "Go is missing: install golang (Debian 13 or later) or see https://go.dev/dl" >&2
    exit 1
  fi
  echo "building Kubernetes $release for the tests, once: this takes about 8 minutes" >&2
  rm -rf "$folder"
  mkdir -p "$folder/bin"
  # Without its version a program says v0.0.0-master, and checks of version skew go astray.
  version=k8s.io/component-base/version
  number=${release#v}
  minor=${number#*.}
  minor=${minor%%.*}
  # auto: a Go older than go.mod asks for fetches that one as a module.
  (cd "$sources" && CGO_ENABLED=0 GOTOOLCHAIN=auto GOFLAGS=-buildvcs=false nice go build -trimpath -ldflags \
    "-s -w -X $version.gitVersion=$release -X $version.gitMajor=${number%%.*} -X $version.gitMinor=$minor -X $version.gitTreeState=clean" \
    -o "$folder/bin/kubernetes" .) >&2
  for program in $programs; do ln -s kubernetes "$folder/bin/$program"; done
  touch "$folder/complete"
fi
echo "$folder/bin"
