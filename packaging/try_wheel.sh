#!/usr/bin/env bash
# Installs a wheel into an empty environment of Python and uses it in an empty folder, as its first user would:
#
#   packaging/try_wheel.sh dist/burn_pipe-….whl                 # until the first picture; says how long that took
#   packaging/try_wheel.sh dist/burn_pipe-….whl --within 480    # the same, and fails where it took more seconds
#   packaging/try_wheel.sh dist/burn_pipe-….whl --short         # one epoch of a few images
set -euo pipefail
wheel=$(realpath "$1")
mode=${2:-}
most=${3:-}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
started=$(date +%s)
python3 -m venv env
env/bin/pip install -q --no-index --no-deps "$wheel"
PATH="$folder/env/bin:$PATH"
pipe --version
python -c 'import burn_pipe; print("burn_pipe", burn_pipe.__all__)'
pipe init my_project
cd my_project
pipe check
pipe plan
if [ "$mode" = --short ]; then
  pipe run --epochs 1 --set data.num_images=64 --set base.batch_size=16 --set picture.n=4 --set picture.steps=4 --device cpu -q
else
  pipe run
fi
test -s samples/base_training.png
took=$(($(date +%s) - started))
echo "from nothing to the first picture: $took s"
if [ "$mode" = --within ] && [ "$took" -gt "$most" ]; then
  echo "more than $most s"
  exit 1
fi
