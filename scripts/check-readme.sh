#!/usr/bin/env bash
# Holds what the Markdown files tell people against what there is: make targets, files, mailferry's own commands and
# options, links from one file to another, and tests that are named. Needs target/debug/mailferry.
set -euo pipefail
cd "$(dirname "$0")/.."

binary=target/debug/mailferry
pages=(README.md SECURITY.md CHANGELOG.md CONTRIBUTING.md docs/*.md docs/development/*.md)
[ ! -e charts/mailferry/README.md ] || pages+=(charts/mailferry/README.md)
failed=0
checked=0
page=
complain() {
  echo "$page: \`$1\`: $2" >&2
  failed=1
}

declare -A helps
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
      -) ;;
      --*)
        grep -qE -- "(^|[ ,])${word%%=*}([ =,]|$)" <<<"$help" || complain "$line" "no option ${word%%=*}"
        ;;
      -*) grep -qE -- "(^|[ ,])${word:0:2}([ =,]|$)" <<<"$help" || complain "$line" "no option $word" ;;
      [a-z]*)
        # A command, or one of a command that has some.
        if [ -z "$sub" ]; then
          sub=$word
        elif grep -qE "^  $word( |$)" <<<"$help"; then
          sub+=" $word"
        else
          continue
        fi
        if [ -z "${helps[$sub]+known}" ]; then
          # shellcheck disable=SC2086 # words
          helps[$sub]=$("$binary" $sub --help 2>/dev/null) || { complain "$line" "no command $sub"; return; }
        fi
        help=${helps[$sub]}
        ;;
    esac
  done
}

check_commands() {
  local line command words target after
  while IFS= read -r line; do
    command=${line#\$ }
    command=${command%%#*}
    # Of a pipe, the part that is ours.
    if [[ $command == *'| mailferry '* ]]; then command="mailferry ${command##*| mailferry }"; fi
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
      kubectl)
        # deploy/mailferry is a file behind -f and -k only; elsewhere it is a Deployment.
        after=
        for target in "${words[@]:1}"; do
          if [[ $after =~ ^(-f|-k|--patch-file)$ && $target =~ ^(deploy|examples)/ ]] && [ ! -e "$target" ]; then
            complain "$line" "$target does not exist"
          fi
          after=$target
        done
        ;;
    esac
  done < <(awk '/^ *```(sh|bash|console|shell) *$/ { code = 1; next } /^ *```/ { code = 0 } code' "$page" |
    sed -e 's/^ *//' -e ':join' -e '/\\$/ { N; s/\\\n */ /; b join' -e '}')
}

# The anchors of a page's headings, as GitHub makes them.
anchors() {
  awk '/^ *```/ { code = !code } !code && /^#+ /' "$1" | sed -e 's/^#* *//' -e 's/\[\([^]]*\)\]([^)]*)/\1/g' |
    tr '[:upper:]' '[:lower:]' | sed -e 's/[^a-z0-9 _-]//g' -e 's/ /-/g'
}

links=0
check_links() {
  local link path anchor
  while IFS= read -r link; do
    case $link in *://* | mailto:*) continue ;; esac
    links=$((links + 1))
    path=${link%%#*}
    anchor=
    [[ $link != *#* ]] || anchor=${link#*#}
    if [ -n "$path" ]; then path=$(dirname "$page")/$path; else path=$page; fi
    if [ ! -e "$path" ]; then
      complain "$link" "there is no such file"
    elif [ -n "$anchor" ] && [[ $path == *.md ]] && ! anchors "$path" | grep -qxF -- "$anchor"; then
      complain "$link" "$path has no such heading"
    fi
  done < <(awk '/^ *```/ { code = !code } !code' "$page" | sed -e 's/`[^`]*`//g' | grep -oE '\]\([^) ]+\)' | sed -e 's/^](//' -e 's/)$//')
}

# Tests that a page names as guards, each behind a link to the file that holds it.
tests=0
check_tests() {
  local word file=
  while IFS= read -r word; do
    if [[ $word == ']('* ]]; then
      file=${word#](}
      file=$(dirname "$page")/${file%)}
      continue
    fi
    word=${word//\`/}
    tests=$((tests + 1))
    grep -qE "fn $word\(" "$file" || complain "$word" "there is no such test in $file"
  done < <(grep '^- Guarded by:' "$page" | grep -oE '\]\([^) ]+\)|`[^`]+`')
}

for page in "${pages[@]}"; do
  check_commands
  check_links
  check_tests
done

page=docs/runbook.md
for class in $(sed -n '/pub const ALL/,/];/s/^ *Self::\([A-Za-z]*\),$/\1/p' src/error.rs); do
  grep -qx "## $class" $page || complain "## $class" "there is no such heading"
done
for rules in charts/mailferry/files/rules/*.yaml; do
  [ -e "$rules" ] || continue
  for alert in $(sed -n 's/^ *- alert: *//p' "$rules"); do
    grep -qx "## Alert $alert" $page || complain "## Alert $alert" "there is no such heading"
  done
done

page=docs/comparison.md
diff <(grep '^|' docs/benchmarks.md) <(sed -n '/^## Measured/,$p' $page | grep '^|') >&2 ||
  complain "## Measured" "its table is another than that of docs/benchmarks.md"

if [ "$checked" = 0 ] || [ "$links" = 0 ] || [ "$tests" = 0 ]; then
  echo "no commands, links or tests to check" >&2
  exit 1
fi
[ "$failed" = 0 ]
echo "$checked commands, $links links and $tests tests are what they say"
