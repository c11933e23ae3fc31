#!/usr/bin/env bash
# Installs what the project's own commands need, on Debian; does nothing where it is there already.
# Usage: scripts/install.sh [test|lint|mail|servers|cluster|build|demo|demo-cluster|bench|deny|fuzz|dist|image]...
# Without a word: test, which is lint, mail, servers and cluster. Rust itself is expected: https://rustup.rs
set -euo pipefail

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# Installs Debian packages without starting what they bring: the tests start servers of their own.
install_packages() {
  local missing=() package
  for package in "$@"; do
    dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  echo "installing from Debian: ${missing[*]}"
  local policy=/usr/sbin/policy-rc.d ours=
  if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' | as_root tee $policy >/dev/null
    as_root chmod 755 $policy
    ours=yes
  fi
  local status=0
  { as_root apt-get -qq update &&
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends "${missing[@]}"; } || status=$?
  if [ -n "$ours" ]; then as_root rm -f $policy; fi
  if [ -d /run/systemd/system ]; then
    local unit
    for unit in dovecot.service:dovecot-imapd dovecot.socket:dovecot-imapd prometheus.service:prometheus; do
      [[ " ${missing[*]} " != *" ${unit#*:} "* ]] || as_root systemctl disable --quiet "${unit%%:*}" 2>/dev/null || true
    done
  fi
  return $status
}

# What a node needs besides kubelet: the end-to-end tests start one where they run as root.
NODE=(containerd runc containernetworking-plugins nftables iproute2 mount buildah ca-certificates)

find_go() {
  PATH=$PATH:/usr/local/go/bin command -v go >/dev/null || install_packages golang-go
}

# Kubernetes is built from Go modules; one that is too old for it fetches a newer one by itself, from Go 1.21 on.
install_go() {
  [ -z "${KUBEBUILDER_ASSETS:-}" ] || return 0
  find_go
  local version
  version=$(PATH=$PATH:/usr/local/go/bin go env GOVERSION)
  if printf '%s\n' "$version" go1.21 | sort -V | head -n 1 | grep -qvx go1.21; then
    echo "$version is too old to build Kubernetes: install Go 1.21 or later, see https://go.dev/dl" >&2
    return 1
  fi
}

rust_component() {
  cargo "$1" --version >/dev/null 2>&1 || rustup component add "$2"
}

# A program that cargo builds, once.
rust_program() {
  ! cargo install --list | grep -qx "$1 v$2:" || return 0
  echo "building $1, once: this takes some minutes"
  cargo install --quiet --locked "$1@$2" "${@:3}"
}

if ! command -v cargo >/dev/null; then
  echo "Rust is missing: see https://rustup.rs" >&2
  exit 1
fi

for what in "${@:-test}"; do
  case $what in
    test) "$0" lint mail servers cluster ;;
    lint)
      install_packages gcc libc6-dev
      rust_component fmt rustfmt
      rust_component clippy clippy
      ;;
    mail) install_packages gcc libc6-dev dovecot-imapd ;;
    # What scripts/mail-servers.sh and the servers that it fetches need.
    servers)
      install_packages gcc libc6-dev dovecot-imapd util-linux mount
      command -v java >/dev/null || install_packages default-jre-headless
      command -v mvn >/dev/null || install_packages maven
      python3 -m pip --version >/dev/null 2>&1 || install_packages python3 python3-pip
      find_go
      ;;
    # Tests with Kubernetes.
    cluster)
      install_packages gcc libc6-dev dovecot-imapd prometheus
      install_go
      [ "$(id -u)" != 0 ] || install_packages "${NODE[@]}"
      ;;
    build) install_packages gcc libc6-dev ;;
    demo) install_packages gcc libc6-dev dovecot-imapd ;;
    demo-cluster)
      install_packages gcc libc6-dev dovecot-imapd "${NODE[@]}"
      install_go
      ;;
    bench) install_packages gcc libc6-dev dovecot-imapd isync time ;;
    # What scripts/dist.sh needs; the Dockerfile calls this, too.
    dist)
      install_packages gcc libc6-dev ca-certificates
      rust_program cargo-auditable 0.7.7
      rust_program auditable2cdx 0.1.0
      rust_program cargo-about 0.9.3 --features cli
      ;;
    image)
      "$0" dist
      install_packages buildah jq
      ;;
    fuzz)
      install_packages g++ libc6-dev
      rust_program cargo-fuzz 0.13.2
      ;;
    deny)
      if ! cargo deny --version >/dev/null 2>&1; then
        echo "building cargo-deny, once: this takes some minutes"
        cargo install cargo-deny --locked --version '^0.20'
      fi
      ;;
    *) echo "unknown: $what" >&2; exit 2 ;;
  esac
done
