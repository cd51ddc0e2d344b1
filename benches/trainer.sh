#!/bin/sh
# What the training contract costs a program: a step's report, and a folder of MEGABYTES as a checkpoint beside the same
# bytes written and synced alone, in turn. `benches/trainer.sh 2048 5`. Needs python3; PIPE names another program, DIR another disk.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
if [ -z "${PIPE:-}" ]; then
  cargo build --release -q --bin pipe
  PIPE=${CARGO_TARGET_DIR:-target}/release/pipe
fi
PYTHONPATH="$here/python" exec python3 - "$PIPE" "${1:-2048}" "${2:-5}" "${DIR:-.}" <<'PY'
import json, os, pathlib, statistics, subprocess, sys, tempfile
pipe, megabytes, rounds = os.path.abspath(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
PROGRAM = '''
import json, os, shutil, statistics, sys, time
from burn_pipe import job
megabytes, rounds = job.settings["megabytes"], job.settings["rounds"]
piece = os.urandom(1 << 20)
found = {"step": [], "write": [], "taken in": [], "plain": [], "memory": []}

def memory():
    status = open(f"/proc/{os.getppid()}/status").read()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024

def write(folder, sync):
    os.makedirs(folder)
    for part in range(4):
        with open(f"{folder}/shard_{part}.bin", "wb", buffering=0) as out:
            for number in range(megabytes // 4):
                out.write(number.to_bytes(8, "little") + piece[8:])
            if sync:
                os.fsync(out.fileno())

def timed(work):
    os.sync()
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun

for step in range(1, 2001):
    begun = time.perf_counter()
    job.report(loss=0.5)
    found["step"].append(time.perf_counter() - begun)
found["memory"].append(memory())
for epoch in job.epochs():
    mine = job.scratch / "mine"
    job.report(loss=0.5)
    def plain():
        write(job.scratch / "plain", True)
    def contract():
        write(mine, False)
        begun = time.perf_counter()
        job.save(mine, {"train_loss": 1 / epoch})
        found["taken in"].append(time.perf_counter() - begun)
    for name, work in [("plain", plain), ("write", contract)][:: 1 if epoch % 2 else -1]:
        found[name].append(timed(work))
    shutil.rmtree(job.scratch / "plain")
    found["memory"].append(memory())
json.dump(found, open(job.settings["to"], "w"))
'''
with tempfile.TemporaryDirectory(dir=sys.argv[4]) as folder:
    folder = pathlib.Path(folder).resolve()
    (folder / "train.py").write_text(PROGRAM)
    settings = json.dumps({"megabytes": megabytes, "rounds": rounds, "to": str(folder / "found.json")})
    (folder / "p.yaml").write_text(f"""
name: cost
stages:
  base:
    kind: trainer
    run: [{sys.executable}, train.py]
    epochs: {rounds}
    checkpoint: {{ keep_last_n: 1 }}
    settings: {settings}
""")
    done = subprocess.run([pipe, "run", "p.yaml"], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    found = json.loads((folder / "found.json").read_text())
steps = sorted(found["step"])
print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} processors")
print(f"a step's report: median {1e3 * statistics.median(steps):.3f} ms, 99 of 100 below {1e3 * steps[-len(steps) // 100]:.3f} ms")
print("| round | written and synced alone, s | written and handed over, s | of that handing over, s | ratio |\n|---|---|---|---|---|")
pairs = list(zip(found["plain"], found["write"], found["taken in"]))
for number, (plain, mine, taken) in enumerate(pairs, 1):
    print(f"| {number} | {plain:.2f} | {mine:.2f} | {taken:.2f} | {plain / mine:.2f} |")
print(f"median ratio {statistics.median(plain / mine for plain, mine, _ in pairs):.2f}")
print("memory of pipe, its most, MB: " + ", ".join(f"{most:.0f}" for most in found["memory"]))
PY
