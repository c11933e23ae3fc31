#!/usr/bin/env bash
# Holds what README.md tells people to type against what there is: make targets, files, and mailferry's own commands
# and options. Needs target/debug/mailferry.
set -euo pipefail
cd "$(dirname "$0")/.."

readme=README.md
binary=target/debug/mailferry
failed=0
checked=0
complain() {
  echo "$readme: \`$1\`: $2" >&2
  failed=1
}

check_mailferry() {
  local line=$1 word sub= help= after=
  shift
  for word in "$@"; do
    if [ "$after" = -f ] && [[ $word == examples/* ]] && [ ! -e "$word" ]; then
      complain "$line" "$word does not exist"
    fi
    after=$word
    case $word in
      -h | --help | -V | --version) ;;
      --*)
        grep -qE -- "(^|[ ,])${word%%=*}([ =,]|$)" <<<"$help" || complain "$line" "no option ${word%%=*}"
        ;;
      -*) grep -qE -- "(^|[ ,])${word:0:2}([ =,]|$)" <<<"$help" || complain "$line" "no option $word" ;;
      [a-z]*)
        [ -z "$sub" ] || continue
        sub=$word
        help=$("$binary" "$sub" --help 2>/dev/null) || { complain "$line" "no command $sub"; return; }
        ;;
    esac
  done
}

while IFS= read -r line; do
  command=${line#\$ }
  command=${command%%#*}
  command=${command%%|*}
  read -ra words <<<"$command"
  [ ${#words[@]} -gt 0 ] || continue
  case ${words[0]} in
    make)
      checked=$((checked + 1))
      for target in "${words[@]:1}"; do
        # Variables come last, and their values may be of several words.
        [[ $target != *=* ]] || break
        grep -q "^$target:" Makefile || complain "$line" "no make target $target"
      done
      ;;
    mailferry | ./target/*/mailferry | target/*/mailferry)
      checked=$((checked + 1))
      check_mailferry "$line" "${words[@]:1}"
      ;;
    scripts/* | ./scripts/*)
      checked=$((checked + 1))
      [ -x "${words[0]}" ] || complain "$line" "${words[0]} cannot be run"
      ;;
  esac
done < <(awk '/^ *```(sh|bash|console|shell) *$/ { code = 1; next } /^ *```/ { code = 0 } code' "$readme" |
  sed -e 's/^ *//' -e ':join' -e '/\\$/ { N; s/\\\n */ /; b join' -e '}')

if [ "$checked" = 0 ]; then
  echo "$readme: holds no commands to check" >&2
  exit 1
fi
[ "$failed" = 0 ]
echo "$readme: $checked commands are what they say"
