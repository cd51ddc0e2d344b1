#!/bin/sh
# How long the program takes to begin, and how large it is: `benches/start.sh`. Needs python3. PIPE names another program.
set -eu
cd "$(dirname "$0")/.."
if [ -z "${PIPE:-}" ]; then
  cargo build --release -q --bin pipe
  PIPE=${CARGO_TARGET_DIR:-target}/release/pipe
fi
exec python3 - "$PIPE" <<'PY'
import os, shutil, statistics, subprocess, sys, tempfile, time
pipe = os.path.abspath(sys.argv[1])
def median(command, rounds=21):
    times = []
    for _ in range(rounds):
        begun = time.perf_counter()
        subprocess.run([pipe, *command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        times.append(time.perf_counter() - begun)
    return statistics.median(times)
print("| command | median of 21, ms |\n|---|---|")
print(f"| `pipe --version` | {1000 * median(['--version']):.1f} |")
for name in sorted(os.listdir("pipelines")):
    print(f"| `pipe plan pipelines/{name}` | {1000 * median(['plan', 'pipelines/' + name]):.1f} |")
with tempfile.TemporaryDirectory() as folder:
    copy = shutil.copy(pipe, folder)
    subprocess.run(["strip", copy], check=True)
    print(f"\nstripped: {os.path.getsize(copy) / 1e6:.1f} MB")
PY
