#!/usr/bin/env bash
# Makes the wheel of this platform in the folder given (dist/ if none): the program and the Python package. What was built
# for packaging/archive.sh with the same profile and features is taken and not built again. Needs cargo and maturin
# (`pip install maturin`, or MATURIN names it); `--target`, `--features`, `--profile` (dist if none) and `--zig` go there.
#
# The name of the wheel says which Linux it is for: that of the newest symbol of glibc in the program. On a
# system newer than the oldest that it is to run on, `--zig --compatibility manylinux_2_28` links it for that one
# (`pip install ziglang cargo-zigbuild`), or it is made in the container quay.io/pypa/manylinux_2_28_x86_64.
# packaging/glibc.sh says what a program needs.
set -euo pipefail
cd "$(dirname "$0")/.."

out=dist
profile=dist
options=()
while [ $# -gt 0 ]; do
  case "$1" in
    --profile) profile=$2; shift 2 ;;
    --target | --features | --compatibility | --config) options+=("$1" "$2"); shift 2 ;;
    --zig) options+=(--zig); shift ;;
    *) out=$1; shift ;;
  esac
done

"${MATURIN:-maturin}" build --profile "$profile" --locked --strip --out "$out" "${options[@]}" >&2
ls -t "$out"/burn_pipe-*.whl | head -1
