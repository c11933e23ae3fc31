#!/usr/bin/env bash
# Checks what an image must be: small, for a user without rights, labelled, nothing in it but the one program and papers,
# which name every dependency; and that the program starts in it.
# Usage: scripts/check-image.sh ARCHIVE
set -euo pipefail
archive=$(realpath "${1:?which archive?}")
cd "$(dirname "$0")/.."

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
failed=0
# is WHAT EXPECTED FOUND
is() { [ "$2" = "$3" ] || { echo "image: $1 should be $2, and is $3" >&2; failed=1; }; }

export BUILDAH_ISOLATION=chroot
buildah=(buildah --storage-driver vfs --root "$dir/store" --runroot "$dir/run")
container=$("${buildah[@]}" from --quiet "oci-archive:$archive")
root=$("${buildah[@]}" mount "$container")
config=$("${buildah[@]}" inspect --type container "$container")
of() { jq -r ".OCIv1.config | $1 // \"missing\"" <<<"$config"; }
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)

# What is pulled, which is compressed; and what it takes on a node.
size=$(stat -c %s "$archive")
[ "$size" -le $((20 * 1000 * 1000)) ] || is "its size" "at most 20 MB" "$size bytes"
unpacked=$(du -sb "$root" | cut -f 1)
[ "$unpacked" -le $((24 * 1000 * 1000)) ] || is "its unpacked size" "at most 24 MB" "$unpacked bytes"

is "its user" 65532:65532 "$(of .User)"
is "its entry point" /usr/bin/mailferry "$(of '.Entrypoint | join(" ")')"
label=org.opencontainers.image
is "label version" "$version" "$(of ".Labels[\"$label.version\"]")"
is "label licenses" Apache-2.0 "$(of ".Labels[\"$label.licenses\"]")"
is "label source" https://github.com/mailferry/mailferry "$(of ".Labels[\"$label.source\"]")"
is "label revision" "$(git rev-parse HEAD 2>/dev/null || echo unknown)" "$(of ".Labels[\"$label.revision\"]")"
for name in title description created; do
  [ "$(of ".Labels[\"$label.$name\"]")" != missing ] || is "label $name" there missing
done

# No shell, no library, nothing to write to.
papers=$root/usr/share/doc/mailferry
is "the list of its programs" usr/bin/mailferry "$(cd "$root" && find . -type f -perm /111 | sed 's#^\./##' | sort | xargs)"
is "the list of its other files" etc/ssl/certs/ca-certificates.crt \
  "$(cd "$root" && find . -type f ! -perm /111 ! -path './usr/share/doc/*' ! -path './run/*' | sed 's#^\./##' | xargs)"
is "what others may write" "" "$(cd "$root" && find . ! -type l -perm /022 ! -path "./run*" | sort)"
grep -q 'BEGIN CERTIFICATE' "$root/etc/ssl/certs/ca-certificates.crt" || is "certificate authorities" there missing
# As the image's user, with nothing but its files.
is "its version" "mailferry $version" "$(chroot --userspec=65532:65532 "$root" /usr/bin/mailferry --version)"

# The list in the program is what cargo built it from.
target=$(rustc -vV | sed -n 's/^host: //p')
cargo tree --locked --edges normal --prefix none --target "$target" --format '{p}' |
  sed 's/^\([^ ]*\) v\([^ ]*\).*/\1 \2/' | sort -u >"$dir/cargo"
jq -r '(.components + [.metadata.component])[] | "\(.name) \(.version)"' "$papers/sbom.cdx.json" | sort -u >"$dir/sbom"
missing=$(comm -23 "$dir/cargo" "$dir/sbom")
is "the list of dependencies that its SBOM leaves out" "" "$missing"
unknown=$(comm -13 <(sed -n 's/^name = "\(.*\)"/\1/p' Cargo.lock | sort -u) <(cut -d' ' -f1 "$dir/sbom" | sort -u))
is "the list of what is in its SBOM and not in Cargo.lock" "" "$unknown"
while read -r name version; do
  [ "$name" = mailferry ] || grep -qF "  $name $version " "$papers/THIRD-PARTY-LICENSES.txt" ||
    is "the licence of $name $version" there missing
done <"$dir/cargo"

[ "$failed" = 0 ]
echo "image: $((size >> 10)) KiB, $((unpacked >> 10)) KiB unpacked, $(wc -l <"$dir/sbom") packages in its SBOM"
