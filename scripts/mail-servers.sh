#!/usr/bin/env bash
# Fetches the IMAP servers beside Dovecot that tests/servers runs, once, into target/mail-servers, and prints that folder.
# Usage: scripts/mail-servers.sh        (about a minute at first, nothing afterwards)
#
# scripts/install.sh servers installs what this needs. Cyrus and Courier are Debian's packages, unpacked and not
# installed: they conflict with dovecot-imapd. apt checks their signatures; what comes from elsewhere has its checksum
# here or beside the tests.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
sources=$root/tests/servers
target=${CARGO_TARGET_DIR:-$root/target}
case $target in /*) ;; *) target=$root/$target ;; esac
folder=$target/mail-servers
mkdir -p "$folder"
exec 9>"$folder/lock"
flock 9

# What Debian's package needs and this machine does not have, without what only an installed one needs: a program to
# send mail, and tools of its maintainer scripts.
needed_packages() {
  apt-get -s -qq --no-install-recommends install "$@" |
    awk '$1 == "Inst" && $3 !~ /^\[/ && $2 !~ /^(exim4|gawk|libsigsegv|db-util|db[0-9.]*-util|gnutls-bin)/ { print $2 }'
}

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# Unpacks Debian packages and what they depend on into a folder: unpack_debian FOLDER PACKAGE...
unpack_debian() {
  local into=$1 names package
  shift
  mkdir -p "$into/packages"
  names=$({ printf '%s\n' "$@"; needed_packages "$1"; } | sort -u)
  # shellcheck disable=SC2086 # one word each
  (cd "$into/packages" && apt-get -qq -o APT::Sandbox::User=root download $names >&2) || return
  for package in "$into"/packages/*.deb; do dpkg -x "$package" "$into" || return; done
  # On a machine all of this is one folder with /usr.
  if [ -d "$into/lib" ]; then
    cp -a "$into/lib/." "$into/usr/lib/"
    rm -rf "$into/lib"
  fi
  rm -rf "$into/packages"
}

# Makes a server by a function, unless it is there: fetch NAME VERSION FUNCTION [ARGUMENT]...
fetch() {
  local into=$folder/$1 version=$2
  if [ "$(cat "$into/complete" 2>/dev/null)" = "$version" ]; then return; fi
  echo "fetching $1 for the tests, once" >&2
  rm -rf "$into"
  mkdir -p "$into"
  "$3" "$into" "${@:4}"
  echo "$version" >"$into/complete"
}

# Old lists name packages that are gone.
debian() {
  unpack_debian "$@" || {
    as_root apt-get -qq update >&2
    unpack_debian "$@"
  }
}

greenmail=2.1.3
greenmail_sum=9457fdaf45ded6c87bf84a321a5ced4b4b5e72b1d03686b778df381378afc4c8
get_greenmail() {
  mvn -q -B org.apache.maven.plugins:maven-dependency-plugin:2.8:copy \
    "-Dartifact=com.icegreen:greenmail-standalone:$greenmail" "-DoutputDirectory=$1" >&2
  mv "$1/greenmail-standalone-$greenmail.jar" "$1/greenmail.jar"
  echo "$greenmail_sum  $1/greenmail.jar" | sha256sum --quiet -c >&2
}

build_goimap() {
  (cd "$sources/goimap" && PATH=$PATH:/usr/local/go/bin CGO_ENABLED=0 GOTOOLCHAIN=auto GOFLAGS=-buildvcs=false \
    nice go build -trimpath -o "$1/goimap" .) >&2
}

get_pymap() {
  python3 -m pip -q --disable-pip-version-check install --only-binary :all: --require-hashes --no-deps \
    --target "$1/packages" -r "$sources/pymap.txt" >&2
}

fetch cyrus 1 debian cyrus-imapd cyrus-common libsasl2-modules
fetch courier 2 debian courier-imap courier-base courier-authlib
fetch greenmail "$greenmail" get_greenmail
fetch goimap "$(cat "$sources"/goimap/* | sha256sum)" build_goimap
fetch pymap "$(sha256sum <"$sources/pymap.txt")" get_pymap
echo "$folder"
