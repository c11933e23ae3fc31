#!/usr/bin/env bash
# Puts manual pages, and completions for bash, zsh and fish, where these look for them.
# Usage: scripts/install-help.sh PROGRAM FOLDER         (a program to ask, and the share/ that belongs to its bin/)
set -euo pipefail

program=${1:?which program?}
share=${2:?which folder?}
"$program" man --write "$share/man/man1" >/dev/null
put() {
  mkdir -p "$(dirname "$share/$2")"
  "$program" completions "$1" >"$share/$2"
}
put bash bash-completion/completions/mailferry
put zsh zsh/site-functions/_mailferry
put fish fish/vendor_completions.d/mailferry.fish
