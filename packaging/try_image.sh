#!/usr/bin/env bash
# Tries a wheel in an empty system: Debian's smallest one with Python in it and nothing else, as a root of its own. What the
# program takes from the machine that it was built on, and no user has, shows here:
#
#   packaging/try_image.sh dist/burn_pipe-….whl FOLDER [SUITE]
#
# FOLDER keeps the root, which is made once (`debootstrap`, 2 minutes); SUITE is that of the system here if none is
# given. Needs root, and a mirror of Debian: the exit code is 75 where no root can be made.
set -euo pipefail
wheel=$(realpath "$1")
suite=${3:-$(. /etc/os-release && echo "${VERSION_CODENAME:-bookworm}")}
root=$2/$suite
scripts=$(cd "$(dirname "$0")" && pwd)

if [ ! -e "$root/made" ]; then
  rm -rf "$root"
  mkdir -p "$root"
  debootstrap --variant=minbase --include=python3-venv "$suite" "$root" >"$2/$suite.log" 2>&1 || { tail -5 "$2/$suite.log"; exit 75; }
  rm -rf "$root"/var/cache/apt/archives/*.deb
  touch "$root/made"
fi
rm -rf "$root/try"
mkdir "$root/try"
trap 'rm -rf "$root/try"' EXIT
cp "$wheel" "$scripts/try_wheel.sh" "$root/try/"
# Nothing of this machine's environment either.
chroot "$root" env -i PATH=/usr/bin:/bin HOME=/root bash /try/try_wheel.sh "/try/$(basename "$wheel")" --short
