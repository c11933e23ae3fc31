#!/usr/bin/env bash
# Makes all that the image holds, in a folder: the program, which needs no library, with the list of its dependencies in
# it; the same list as a CycloneDX file; the licences of these; and the certificate authorities that this machine trusts.
# Usage: scripts/dist.sh FOLDER         (for the machine that it runs on; scripts/install.sh dist brings what it needs)
set -euo pipefail
mkdir -p "${1:?which folder?}"
out=$(cd "$1" && pwd)
cd "$(dirname "$0")/.."

cargo_home=${CARGO_HOME:-$HOME/.cargo}
export PATH=$cargo_home/bin:$PATH
target=$(rustc -vV | sed -n 's/^host: //p')
# Two builds give the same program, wherever they are: no path of the machine stays in it.
export RUSTFLAGS="-C target-feature=+crt-static --remap-path-prefix=$cargo_home=/cargo --remap-path-prefix=$PWD=/mailferry"
export CFLAGS="-ffile-prefix-map=$cargo_home=/cargo -ffile-prefix-map=$PWD=/mailferry"
# Which build it is, for `mailferry version`; sources without git do not say.
# shellcheck source=scripts/commit.sh
. scripts/commit.sh
# --target: what runs while it is built, is not static.
cargo auditable build --locked --profile dist --bin mailferry --target "$target"
program=${CARGO_TARGET_DIR:-target}/$target/dist/mailferry

install -D -m 755 "$program" "$out/usr/bin/mailferry"
install -D -m 644 /etc/ssl/certs/ca-certificates.crt "$out/etc/ssl/certs/ca-certificates.crt"
notices=$out/usr/share/doc/mailferry
mkdir -p "$notices"
auditable2cdx "$program" >"$notices/sbom.cdx.json"
# All files of all dependencies are looked at, which takes a minute or two: once for each Cargo.lock.
licenses=${CARGO_TARGET_DIR:-target}/licenses-$(cat Cargo.lock about.toml about.hbs | sha256sum | cut -c1-12).txt
if [ ! -e "$licenses" ]; then
  cargo about generate --locked --fail about.hbs >"$licenses.new"
  mv "$licenses.new" "$licenses"
fi
install -m 644 "$licenses" "$notices/THIRD-PARTY-LICENSES.txt"
[ ! -e LICENSE ] || install -m 644 LICENSE "$notices/LICENSE"
