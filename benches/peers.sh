#!/bin/sh
# One training step here and in PyTorch, and a checkpoint here and by safetensors.torch, in turn on the same machine, so that both
# meet the same load.
#
#   REFERENCE=path/to/diffit_torch.py benches/peers.sh [rounds] [preset,…] [image size,…] [batch,…] [steps]
#
# Prints the tables of docs/performance.md: medians of the rounds, and medians of the rounds' ratios. All three presets at 16 and 32 px with
# batches of 16 and 64 take 20 minutes a round on two cores. PYTHON names an interpreter with torch, numpy and safetensors; without
# it an environment of its own is made once, under the folder for temporary files.
set -eu
rounds=${1:-3} presets=${2:-diffit_tiny,diffit_small,diffit_cifar10} sizes=${3:-16,32} batches=${4:-16,64} steps=${5:-3}
: "${REFERENCE:?set REFERENCE to the path of diffit_torch.py}"
if [ -z "${PYTHON:-}" ]; then
    environment=${TMPDIR:-/tmp}/pipe-peers
    [ -x "$environment/bin/python" ] || python3 -m venv "$environment"
    "$environment/bin/pip" install --quiet torch numpy safetensors packaging
    PYTHON=$environment/bin/python
fi
cd "$(dirname "$0")/.."
bench() { # the program of a bench, built as the program itself is
    cargo bench -q --workspace --bench "$1" --no-run --message-format=json \
        | sed -n 's/.*"executable":"\([^"]*'"$1"'-[^"]*\)".*/\1/p' | tail -1
}
exec "$PYTHON" - "$(bench step)" "$(bench checkpoint)" "$REFERENCE" \
    "$rounds" "$presets" "$sizes" "$batches" "$steps" <<'PY'
import itertools, json, os, statistics, subprocess, sys, tempfile, time
step, checkpoint, reference, rounds, presets, sizes, batches, steps = sys.argv[1:]
rounds, lists = int(rounds), [x.split(",") for x in (presets, sizes, batches)]
# Each program runs under a parent that asks the kernel what it used.
measure = ("import json, resource, subprocess, sys; out = subprocess.run(sys.argv[1:], check=True, "
           "capture_output=True, text=True).stdout; used = resource.getrusage(resource.RUSAGE_CHILDREN); "
           "print(json.dumps([json.loads(out)['median_step_s'], used.ru_maxrss // 1024]))")
def run(command, preset, size, batch):
    command = [*command, "--preset", preset, "--image-size", size, "--batch", batch, "--steps", steps]
    out = subprocess.run([sys.executable, "-c", measure, *command], check=True, capture_output=True, text=True)
    return json.loads(out.stdout)
def cell(pairs):
    ours, theirs, ratio = (statistics.median(v) for v in zip(*[(a, b, a / b) for a, b in pairs]))
    return f"{ours:.4g} / {theirs:.4g} | {ratio:.2f}"
print(f"pipe / PyTorch, median of {rounds} rounds of {steps} steps\n")
print("| preset | pixels | batch | step, s | ratio | peak MiB | ratio |\n|---|---|---|---|---|---|---|")
for case in itertools.product(*lists):
    pairs = [list(zip(run([step], *case), run([sys.executable, reference, "bench"], *case))) for _ in range(rounds)]
    times, memory = zip(*pairs)
    print("| " + " | ".join([*case, cell(times), cell(memory)]) + " |", flush=True)

import torch
from safetensors.torch import save_file
print("\n| checkpoint, written and synced | MB/s, pipe / safetensors.torch | ratio |\n|---|---|---|")
with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as folder:
    ours, theirs = os.path.join(folder, "a.ckpt"), os.path.join(folder, "a.safetensors")
    for megabytes in 32, 256:
        tensors = {f"model_state_dict.blocks.{i}.weight": torch.rand(megabytes * 2**20 // 96 // 4) for i in range(96)}
        pairs = []
        for _ in range(3 * rounds):
            for path in ours, theirs:
                if os.path.exists(path):
                    os.remove(path)
            out = subprocess.run([checkpoint, str(megabytes), "--pair", ours], check=True, capture_output=True, text=True)
            start = time.perf_counter()
            save_file(tensors, theirs)
            with open(theirs, "rb+") as file:
                os.fsync(file.fileno())
            pairs.append((megabytes / float(out.stdout), megabytes / (time.perf_counter() - start)))
        print(f"| {megabytes} MB | {cell(pairs)} |", flush=True)
PY
