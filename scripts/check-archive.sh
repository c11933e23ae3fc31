#!/usr/bin/env bash
# Checks what an archive must be: its sum, all of its parts and nothing else, and that the program starts where nothing but
# the archive is, under each of its names: in a root of its own, in namespaces of its own, without rights.
# Usage: scripts/check-archive.sh ARCHIVE
set -euo pipefail
archive=$(realpath "${1:?which archive?}")
cd "$(dirname "$0")/.."

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
failed=0
# is WHAT EXPECTED FOUND
is() { [ "$2" = "$3" ] || { echo "archive: $1 should be $2, and is $3" >&2; failed=1; }; }

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
name=$(basename "$archive" .tar.gz)
(cd "$(dirname "$archive")" && sha256sum --check --quiet "$name.tar.gz.sha256") || failed=1
is "what stands beside its top folder" "" "$(tar -tzf "$archive" | grep -v "^$name/" || true)"
tar -xzf "$archive" -C "$dir" --no-same-owner
root=$dir/$name

is "the list of its programs" "bin/kubectl-mailferry bin/kubectl_complete-mailferry bin/mailferry" \
  "$(cd "$root" && find bin ! -type d | sort | xargs)"
share=(bash-completion/completions/mailferry fish/vendor_completions.d/mailferry.fish zsh/site-functions/_mailferry
  doc/mailferry/README.md doc/mailferry/LICENSE doc/mailferry/CHANGELOG.md
  man/man1/mailferry.1 man/man1/mailferry-copy.1 man/man1/mailferry-kubectl-status.1)
for file in "${share[@]}"; do
  [ -s "$root/share/$file" ] || is "share/$file" there missing
done
bash -n "$root/share/bash-completion/completions/mailferry" || failed=1
is "what others may write" "" "$(cd "$root" && find . ! -type l -perm /022)"

# Nothing of this machine: no library, no /proc, no network.
clean=(unshare --net --pid --fork --ipc --uts)
if [ "$(id -u)" = 0 ]; then
  clean+=(chroot --userspec=65532:65532)
else
  clean=(unshare --user --map-root-user --net --pid --fork --ipc --uts chroot)
fi
chmod 755 "$dir"
is "its version" "mailferry $version" "$("${clean[@]}" "$root" /bin/mailferry --version)"
is "its version as a plugin" "kubectl-mailferry $version" "$("${clean[@]}" "$root" /bin/kubectl-mailferry --version)"
is "the plugin's completion of a word" "suspend" \
  "$("${clean[@]}" "$root" /bin/kubectl_complete-mailferry sus | head -n 1)"

[ "$failed" = 0 ]
echo "archive: $(($(stat -c %s "$archive") >> 10)) KiB, $(find "$root" -type f | wc -l) files"
