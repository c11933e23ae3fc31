#!/usr/bin/env bash
# Gives mailferry the names by which kubectl finds its plugin, and what completes it: links to the program beside them.
# Usage: scripts/install-plugin.sh FOLDER         (the folder with the program)
set -euo pipefail
folder=${1:?which folder?}
for name in kubectl-mailferry kubectl_complete-mailferry; do
  ln -sf mailferry "$folder/$name"
done
