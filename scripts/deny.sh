#!/usr/bin/env bash
# Checks licences, sources and duplicates of all dependencies, and known vulnerabilities where the database of them
# (a git repository) can be reached.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo deny --locked check --hide-inclusion-graph licenses bans sources
if timeout 20 git ls-remote --quiet --heads https://github.com/rustsec/advisory-db >/dev/null 2>&1; then
  cargo deny --locked check advisories
else
  echo "advisories: the database cannot be reached from here, not checked"
fi
