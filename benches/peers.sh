#!/bin/sh
# One training step here and in PyTorch, in turn on the same machine, so that both meet the same load.
#
#   PYTHON=python3 REFERENCE=path/to/diffit_torch.py benches/peers.sh [rounds] [preset] [batch]
#
# Prints each pair, then the median ratios. Processor time holds on a busy machine too, where a step's time says little. Needs torch and numpy in PYTHON's environment.
set -eu
rounds=${1:-5} preset=${2:-diffit_tiny} batch=${3:-16}
: "${PYTHON:=python3}" "${REFERENCE:?set REFERENCE to the path of diffit_torch.py}"
here=$(dirname "$0")
own=$(cd "$here/.." && cargo test --release -q -p pipe-train --bench step --no-run --message-format=json \
    | sed -n 's/.*"executable":"\([^"]*step-[^"]*\)".*/\1/p' | tail -1)
exec "$PYTHON" - "$own" "$REFERENCE" "$rounds" "$preset" "$batch" <<'PY'
import json, statistics, subprocess, sys
own, reference, rounds, preset, batch = sys.argv[1:]
# Each program runs under a parent that asks the kernel what it used.
measure = ("import json, resource, subprocess, sys; out = subprocess.run(sys.argv[1:], check=True, "
           "capture_output=True, text=True).stdout; used = resource.getrusage(resource.RUSAGE_CHILDREN); "
           "print(json.dumps(json.loads(out) | {'peak_mib': used.ru_maxrss // 1024, "
           "'cpu_s': used.ru_utime + used.ru_stime}))")
def run(command, steps):
    command = [*command, "--preset", preset, "--batch", batch, "--steps", str(steps)]
    out = subprocess.run([sys.executable, "-c", measure, *command], check=True, capture_output=True, text=True)
    return json.loads(out.stdout)
def step(command):
    """Seconds a step, processor seconds a step (a long run less a short one), peak memory."""
    short, long = run(command, 1), run(command, 11)
    return long["median_step_s"], (long["cpu_s"] - short["cpu_s"]) / 10, long["peak_mib"]
print(f"{preset}, batch {batch}: pipe / torch")
print("| step, s | ratio | processor, s a step | ratio | peak MiB | ratio |\n|---|---|---|---|---|---|")
ratios = []
for _ in range(int(rounds)):
    pairs = list(zip(step([own]), step([sys.executable, reference, "bench"])))
    ratios.append([a / b for a, b in pairs])
    cells = [f"{a:.4g} / {b:.4g} | {a / b:.2f}" for a, b in pairs]
    print("| " + " | ".join(cells) + " |", flush=True)
print("median ratios: time {:.2f}, processor {:.2f}, memory {:.2f}".format(*map(statistics.median, zip(*ratios))))
PY
