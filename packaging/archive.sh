#!/usr/bin/env bash
# Makes pipe-VERSION-TARGET.tar.gz in the folder given (dist/ if none): the program, its manual, completions, the
# shipped pipelines with their configs and schemas. Needs cargo and tar; `--target`, `--features` and `--profile` (release
# if none; dist is what is shipped, smaller and slower to build) go to cargo.
set -euo pipefail
cd "$(dirname "$0")/.."

out=dist
options=()
target=$(rustc -vV | sed -n 's/^host: //p')
triple=
profile=release
while [ $# -gt 0 ]; do
  case "$1" in
    --target) target=$2; triple=$2/; options+=(--target "$2"); shift 2 ;;
    --profile) profile=$2; shift 2 ;;
    --features) options+=(--features "$2"); shift 2 ;;
    *) out=$1; shift ;;
  esac
done

cargo build --profile "$profile" --locked --bin pipe "${options[@]}"
built="${CARGO_TARGET_DIR:-target}/$triple$profile/pipe"
[ -e "$built" ] || built="$built.exe"
version=$("$built" -V | cut -d' ' -f2)
name="pipe-$version-$target"
mkdir -p "$out"
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
mkdir -p "$stage/$name/completions"

cp "$built" "$stage/$name/"
# Symbols are a quarter of the file. A binary for another system may need another strip: then they stay.
strip "$stage/$name/$(basename "$built")" 2>/dev/null || true
"$built" man --dir "$stage/$name/man" >/dev/null
for shell in bash zsh fish powershell elvish; do
  "$built" completions "$shell" >"$stage/$name/completions/pipe.$shell"
done
cp -R README.md CHANGELOG.md LICENSE-MIT LICENSE-APACHE docs pipelines configs schemas "$stage/$name/"
cp src/train/sampling/font/LICENSE "$stage/$name/LICENSE-UNIFONT"
tar -C "$stage" -czf "$out/$name.tar.gz" "$name"
if command -v sha256sum >/dev/null; then
  (cd "$out" && sha256sum "$name.tar.gz" >"$name.tar.gz.sha256")
fi
echo "$out/$name.tar.gz"
