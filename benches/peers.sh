#!/bin/sh
# One training step here and in PyTorch, in turn on the same machine, so that both meet the same load.
#
#   PYTHON=python3 REFERENCE=path/to/diffit_torch.py benches/peers.sh [rounds] [preset] [batch]
#
# Prints each pair, then the medians of the two ratios. Needs torch and numpy in PYTHON's environment.
set -eu
rounds=${1:-5} preset=${2:-diffit_tiny} batch=${3:-16}
: "${PYTHON:=python3}" "${REFERENCE:?set REFERENCE to the path of diffit_torch.py}"
here=$(dirname "$0")
own=$(cd "$here/.." && cargo test --release -q -p pipe-train --bench step --no-run --message-format=json \
    | sed -n 's/.*"executable":"\([^"]*step-[^"]*\)".*/\1/p' | tail -1)
exec "$PYTHON" - "$own" "$REFERENCE" "$rounds" "$preset" "$batch" <<'PY'
import json, statistics, subprocess, sys
own, reference, rounds, preset, batch = sys.argv[1:]
common = ["--preset", preset, "--batch", batch, "--steps", "10"]
# The reference runs under a parent that asks the kernel for its peak memory.
measure = ("import json, resource, subprocess, sys; out = subprocess.run(sys.argv[1:], check=True, "
           "capture_output=True, text=True).stdout; print(json.dumps(json.loads(out) | "
           "{'peak_mib': resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024}))")
def run(command):
    out = subprocess.run([sys.executable, "-c", measure, *command], check=True, capture_output=True, text=True)
    return json.loads(out.stdout)
print(f"{preset}, batch {batch}\n| pipe s | torch s | ratio | pipe MiB | torch MiB | ratio |\n|---|---|---|---|---|---|")
times, peaks = [], []
for _ in range(int(rounds)):
    a, b = run([own, *common]), run([sys.executable, reference, "bench", *common])
    times.append(a["median_step_s"] / b["median_step_s"]); peaks.append(a["peak_mib"] / b["peak_mib"])
    print(f"| {a['median_step_s']:.3f} | {b['median_step_s']:.3f} | {times[-1]:.2f} "
          f"| {a['peak_mib']} | {b['peak_mib']} | {peaks[-1]:.2f} |", flush=True)
print(f"median ratios: time {statistics.median(times):.2f}, memory {statistics.median(peaks):.2f}")
PY
