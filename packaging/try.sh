#!/usr/bin/env bash
# Unpacks an archive into an empty folder and uses what is in it, as its first user would.
set -euo pipefail
archive=$(realpath "$1")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
tar -xzf "$archive"
cd pipe-*
PATH="$PWD:$PATH"
pipe --version
pipe check pipelines/*.yaml
test -s man/pipe-run.1
test -s completions/pipe.zsh
pipe run pipelines/base_training.yaml --epochs 1 --set data.num_images=64 --set base.batch_size=16 --device cpu -q
pipe sample checkpoints/base_training/run_001/checkpoints/best.ckpt --n 4 --device cpu -o samples.png
test -s samples.png
