#!/usr/bin/env bash
# Runs a test program, as cargo's runner does, and ends it when one of its tests has no end: prints the test's name and
# what the program's threads were at, and fails. The tests of a program share one process, since they share servers; so
# those that had not ended yet end with it.
# Usage: [TEST_LIMIT=SECONDS] scripts/with-time-limit.sh PROGRAM [ARGUMENT]...      (600; more than 60)
#
# It reads what Rust's test harness prints: "test NAME has been running for over 60 seconds" where tests run beside each
# other, "test NAME ... " where one runs after the other, and "test NAME ... ok" at the end.
set -uo pipefail

limit=${TEST_LIMIT:-600}
exec {output}< <(exec "$@")
program=$!
trap 'kill "$program" 2>/dev/null' TERM HUP

# By test: the second since which it runs.
declare -A since=()

# Learns from a line who runs.
learn() {
  if [[ $1 =~ ^test\ (.+)\ has\ been\ running\ for\ over\ ([0-9]+)\ seconds$ ]]; then
    since[${BASH_REMATCH[1]}]=$((SECONDS - BASH_REMATCH[2]))
  elif [[ $1 =~ ^test\ (.+)\ \.\.\.\ $ ]]; then
    : "${since[${BASH_REMATCH[1]}]:=$SECONDS}"
  elif [[ $1 =~ ^test\ (.+)\ \.\.\.\  ]]; then
    unset "since[${BASH_REMATCH[1]}]"
  elif [[ $1 == "test result: "* ]]; then
    since=(["(none: all have ended, and the program has not)"]=$SECONDS)
  fi
}

# What is known of where the program hangs.
describe() {
  local thread
  echo "its threads (by name, state and what they wait for in the kernel):"
  for thread in "/proc/$program/task"/*; do
    echo "  $(cat "$thread/comm") $(sed -n 's/^State:\s*//p' "$thread/status") $(cat "$thread/wchan")"
  done
  if command -v gdb >/dev/null; then
    timeout 60 gdb --batch --pid "$program" --eval-command 'thread apply all backtrace 40' 2>&1
  else
    echo "(with gdb installed, their stacks would be here)"
  fi
}

end_when_over() {
  local test over=()
  for test in "${!since[@]}"; do
    [ $((SECONDS - since[$test])) -lt "$limit" ] || over+=("$test")
  done
  [ ${#over[@]} -gt 0 ] || return 0
  {
    echo
    for test in "${over[@]}"; do echo "test $test ... FAILED: no end after $limit seconds"; done
    describe
    for test in "${over[@]}"; do echo "test $test ... FAILED: no end after $limit seconds, $1 is ended"; done
  } >&2
  kill -KILL "$program"
  exit 124
}

line=
while true; do
  part=
  IFS= read -r -t 1 -u "$output" part
  status=$?
  line+=$part
  if [ $status = 0 ]; then
    printf '%s\n' "$part"
    learn "$line"
    line=
  else
    printf '%s' "$part"
    # The end of what it prints; or of the program, while something that it started still holds the pipe.
    if [ $status -le 128 ] || ! kill -0 "$program" 2>/dev/null; then break; fi
    learn "$line"
  fi
  end_when_over "$1"
done
wait "$program"
