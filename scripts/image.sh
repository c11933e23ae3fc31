#!/usr/bin/env bash
# Builds the image without a registry, with buildah and as root: the Dockerfile's last stage, from what scripts/dist.sh
# makes on this machine, as an OCI archive, which `ctr images import`, `skopeo` and `podman load` take.
# Usage: scripts/image.sh [--program FILE] NAME:TAG ARCHIVE
#
# With --program the image holds that program instead, with the libraries that it was linked with: a debug build for tests.
set -euo pipefail
usage() { sed -n 's/^# Usage: /usage: /p' "$0" >&2; exit 2; }

program=
if [ "${1:-}" = --program ]; then
  [ -n "${2:-}" ] || usage
  program=$(realpath "$2")
  shift 2
fi
[ $# = 2 ] || usage
name=$1
archive=$(realpath -m "$2")
cd "$(dirname "$0")/.."
command -v buildah >/dev/null || { echo "buildah is missing: scripts/install.sh image installs it" >&2; exit 1; }

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
if [ -z "$program" ]; then
  scripts/dist.sh "$dir/build/out"
else
  install -D -m 755 "$program" "$dir/build/out/usr/bin/mailferry"
  for library in $(ldd "$program" | grep -o '/[^ ]*' || true); do install -D "$library" "$dir/build/out$library"; done
  install -D -m 644 /etc/ssl/certs/ca-certificates.crt "$dir/build/out/etc/ssl/certs/ca-certificates.crt"
fi

# The commit's time for all files, so that the same commit gives the same image.
epoch=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
# A store for this build alone, on any file system; the last stage runs nothing, so nothing need be isolated.
export BUILDAH_ISOLATION=chroot
buildah=(buildah --storage-driver vfs --root "$dir/store" --runroot "$dir/run")
"${buildah[@]}" build --quiet --pull=never --build-context "build=$dir/build" --timestamp "$epoch" \
  --build-arg "VERSION=$version" \
  --build-arg "REVISION=$(git rev-parse HEAD 2>/dev/null || echo unknown)" \
  --build-arg "CREATED=$(date -u -d "@$epoch" +%Y-%m-%dT%H:%M:%SZ)" \
  --tag "$name" --file Dockerfile . >/dev/null
mkdir -p "$(dirname "$archive")"
rm -f "$archive"
"${buildah[@]}" push --quiet "$name" "oci-archive:$archive:$name"
