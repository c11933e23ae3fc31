#!/usr/bin/env bash
# Builds the program for use, target/release/mailferry, and says beforehand what that takes.
# Usage: scripts/build.sh [--demo]         (with the mail servers of the demo)
#
# What the demo built is the program that `make install` installs: one profile, and the same features of all packages. So
# the servers are no example, which would add the features that mailferry's tests need, and have none that mailferry lacks.
set -euo pipefail
cd "$(dirname "$0")/.."

what="mailferry"
packages=(-p mailferry)
targets=(--bin mailferry)
if [ "${1:-}" = --demo ]; then
  what="mailferry and the demo's mail servers"
  packages+=(-p mailferry-testkit)
  targets+=(--bin demo_servers)
fi
if [ ! -e "${CARGO_TARGET_DIR:-target}/release/mailferry" ]; then
  count=$(cargo tree --locked --edges normal,build --prefix none --format '{p}' "${packages[@]}" | sed 's/ (.*//' | sort -u | grep -c .)
  echo "building $what: $count packages, which takes some minutes the first time" >&2
fi
# Which build it is, for `mailferry version`; sources without git do not say.
# shellcheck source=scripts/commit.sh
. scripts/commit.sh
cargo build --locked --release "${packages[@]}" "${targets[@]}"
