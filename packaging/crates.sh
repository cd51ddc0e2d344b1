#!/usr/bin/env bash
# Packages every crate as `cargo publish --workspace` would, unpacks them in an empty folder, and sees that what was packaged
# is whole: each file that the code includes is there, and the crates find each other by their versions alone.
#
#   packaging/crates.sh                  # seconds
#   packaging/crates.sh --check          # compiles them besides, without machine code
#   packaging/crates.sh --install DIR    # `cargo install burn-pipe` from them, into DIR: as long as a first build
set -euo pipefail
cd "$(dirname "$0")/.."
mode=${1:-}

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
# A folder of its own: the lock of a build that runs is not waited for.
CARGO_TARGET_DIR="$folder/target" cargo package -q --workspace --no-verify --allow-dirty --locked 2>"$folder/said" || {
  cat "$folder/said" >&2
  exit 1
}
mkdir "$folder/crates" "$folder/.cargo"
for crate in "$folder"/target/package/*.crate; do
  tar -C "$folder/crates" -xzf "$crate"
done
{
  echo '[patch.crates-io]'
  for crate in "$folder"/crates/*; do
    name=$(basename "$crate")
    echo "${name%-*} = { path = '$crate' }"
  done
} >"$folder/.cargo/config.toml"

missing=0
while IFS=: read -r file _ included; do
  included=$(echo "$included" | sed -E 's/.*include_(str|bytes)!\("([^"]+)"\).*/\2/')
  if [ ! -e "$(dirname "$file")/$included" ]; then
    echo "$file includes $included, which is not packaged" >&2
    missing=1
  fi
done < <(grep -rnE 'include_(str|bytes)!\("[^"]+"\)' "$folder"/crates/*/ --include='*.rs' | grep -vE '/(tests|benches)/|_tests?\.rs:|/tests\.rs:')
[ "$missing" = 0 ]

program=$(ls -d "$folder"/crates/burn-pipe-[0-9]*)
cd "$program"
# The versions of all else stand in the lock file. Crates for other systems need not be here.
host=$(rustc -vV | sed -n 's/^host: //p')
cargo metadata -q --format-version 1 --offline --filter-platform "$host" >"$folder/metadata.json"
for crate in "$folder"/crates/*; do
  grep -q "\"manifest_path\":\"$crate/" "$folder/metadata.json" || {
    echo "$(basename "$crate") is packaged and not used" >&2
    exit 1
  }
done
case "$mode" in
  --check) cargo check --release --offline --bin pipe ;;
  --install) cargo install --path . --root "$2" ;;
esac
echo "$(ls "$folder/crates" | wc -l) crates are whole"
