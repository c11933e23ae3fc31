#!/usr/bin/env bash
# Makes the archive that a release offers for one platform: the program, its names for kubectl, manual pages, completions,
# README, licences and the list of what it is made of; and its SHA-256 sum beside it. `tar -xzf` below /usr/local installs it.
# Usage: scripts/archive.sh FOLDER OUT         (FOLDER: what scripts/dist.sh made, for a program that runs on this machine)
set -euo pipefail
root=$(cd "${1:?which folder?}" && pwd)
mkdir -p "${2:?where to?}"
out=$(cd "$2" && pwd)
cd "$(dirname "$0")/.."

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
case $(uname -m) in
  x86_64) arch=amd64 ;;
  aarch64) arch=arm64 ;;
  *) arch=$(uname -m) ;;
esac
name=mailferry-$version-linux-$arch

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
top=$dir/$name
install -D -m 755 "$root/usr/bin/mailferry" "$top/bin/mailferry"
scripts/install-help.sh "$top/bin/mailferry" "$top/share"
scripts/install-plugin.sh "$top/bin"
papers=$top/share/doc/mailferry
mkdir -p "$papers"
if [ -d "$root/usr/share/doc/mailferry" ]; then cp -R "$root/usr/share/doc/mailferry/." "$papers"; fi
install -m 644 README.md CHANGELOG.md LICENSE "$papers"

# The commit's time for all files, so that the same commit gives the same archive.
epoch=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
tar --create --sort=name --format=ustar --owner=0 --group=0 --numeric-owner --mtime="@$epoch" --mode=u=rwX,go=rX \
  --directory "$dir" "$name" | gzip --no-name -9 >"$out/$name.tar.gz"
(cd "$out" && sha256sum "$name.tar.gz" >"$name.tar.gz.sha256")
echo "$out/$name.tar.gz"
