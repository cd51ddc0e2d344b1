#!/bin/sh
# One training step here and in PyTorch, each in all of its ways, and a checkpoint here and by safetensors.torch, in turn on the same
# machine, so that all meet the same load.
#
#   REFERENCE=path/to/diffit_torch.py benches/peers.sh [rounds] [preset,…] [image size,…] [batch,…] [steps]
#
# Prints the tables of docs/performance.md: medians of the rounds, and medians of the rounds' ratios. All three presets at 16 and 32 px with
# batches of 16 and 64 take an hour and a half a round on two cores. WAYS names the ways of PyTorch that are measured (benches/peer_step.py
# has the words); those with `compile` are left out where there is no C++ compiler. PYTHON names an interpreter with torch, numpy and
# safetensors; without it an environment of its own is made once, under the folder for temporary files.
set -eu
rounds=${1:-3} presets=${2:-diffit_tiny,diffit_small,diffit_cifar10} sizes=${3:-16,32} batches=${4:-16,64} steps=${5:-3}
: "${REFERENCE:?set REFERENCE to the path of diffit_torch.py}"
: "${WAYS:=eager,channels_last+fused,compile+fused,bf16+channels_last+fused,compile+bf16+fused,compile+bf16+channels_last+fused}"
if ! command -v "${CXX:-g++}" >/dev/null; then
    WAYS=$(printf %s "$WAYS" | tr , '\n' | grep -v compile | paste -sd, -)
    echo "no C++ compiler (${CXX:-g++}): nothing is compiled" >&2
fi
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
    "$rounds" "$presets" "$sizes" "$batches" "$steps" "$WAYS" <<'PY'
import itertools, json, os, statistics, subprocess, sys, tempfile, time
step, checkpoint, reference, rounds, presets, sizes, batches, steps, ways = sys.argv[1:]
rounds, lists = int(rounds), [x.split(",") for x in (presets, sizes, batches)]
ours = {f"pipe, {precision}": [step, "--precision", precision] for precision in ("f32", "bf16")}
peers = {f"PyTorch, {way}": [sys.executable, "benches/peer_step.py", reference, way] for way in ways.split(",")}
# (wall, memory) of each round of each program
def measure(preset, size, batch):
    found = {name: [] for name in {**ours, **peers}}
    for _ in range(rounds):
        for name, command in {**ours, **peers}.items():
            command = [*command, "--preset", preset, "--image-size", size, "--batch", batch, "--steps", steps]
            out = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
            found[name].append((out["median_step_s"], out["median_cpu_s"], out["peak_mib"]))
    return {name: list(zip(*values)) for name, values in found.items()}
def ratio(a, b):
    return f"{statistics.median(x / y for x, y in zip(a, b)):.2f}"
print(f"A training step, median of {rounds} rounds of {steps} steps, in turn. Ratios: pipe over the row, of time and (of processor time).\n")
print("| preset | pixels | batch | program | step, s | processor, s | peak MiB | " + " | ".join(ours) + " |")
print("|---|---|---|---|---|---|---|" + "---|" * len(ours))
for case in itertools.product(*lists):
    found = measure(*case)
    for name, (wall, cpu, memory) in found.items():
        cells = [f"{ratio(found[we][0], wall)} ({ratio(found[we][1], cpu)})" for we in ours]
        values = [f"{statistics.median(wall):.4g}", f"{statistics.median(cpu):.4g}", f"{statistics.median(memory):.0f}"]
        print("| " + " | ".join([*case, name, *values, *cells]) + " |", flush=True)

import torch
from safetensors.torch import save_file
def cell(pairs):
    ours, theirs, ratio = (statistics.median(v) for v in zip(*[(a, b, a / b) for a, b in pairs]))
    return f"{ours:.4g} / {theirs:.4g} | {ratio:.2f}"
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
