#!/usr/bin/env bash
# Says the oldest glibc that can start a program, and which of its symbols need more than the version given, if one is.
# The exit code is 1 if some do:
#
#   packaging/glibc.sh target/dist/pipe 2.28
set -euo pipefail
program=$1
limit=${2:-}

needed=$(objdump -T "$program" | sed -nE 's/.*\(?GLIBC_([0-9.]+)\)? +([^ ]+)$/\1 \2/p' | sort -Vu)
newest=$(printf '%s\n' "$needed" | tail -1 | cut -d' ' -f1)
echo "$program: glibc $newest"
[ -n "$limit" ] || exit 0
older() { [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | tail -1)" = "$2" ]; }
if older "$newest" "$limit"; then
  exit 0
fi
printf '%s\n' "$needed" | while read -r version symbol; do
  older "$version" "$limit" || echo "  $symbol needs $version"
done
exit 1
