#!/bin/sh
# A pipeline of many stages with nothing to do: pipe, Snakemake and DVC in turn on the same machine.
#
#   PIPE=target/release/pipe PEERS=path/to/venv/bin benches/engines.sh [stages] [rounds]
#
# Each stage writes one small file and reads that of an earlier stage. Every program runs the pipeline once (DVC takes
# minutes for that), then says in each round that nothing is to be done. Prints seconds, then the median ratios. Needs git,
# and `dvc` and `snakemake` in PEERS.
set -eu
stages=${1:-200} rounds=${2:-5}
: "${PIPE:?set PIPE to the program}" "${PEERS:?set PEERS to the folder of dvc and snakemake}"
pipe=$(realpath "$PIPE")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
exec_python=${PYTHON:-python3}
"$exec_python" - "$pipe" "$PEERS" "$stages" "$rounds" "$work" <<'PY'
import os, statistics, subprocess, sys, time
pipe, peers, stages, rounds, work = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
def folder(name, file, text):
    path = f"{work}/{name}"
    os.mkdir(path)
    open(f"{path}/{file}", "w").write(text)
    return path
before = lambda i: i // 2
own = "name: many\nstages:\n" + "".join(
    f"  s{i}:\n    kind: command\n    run: echo {i} > o{i}\n" + (f"    inputs: [o{before(i)}]\n" if i else "") +
    f"    outputs: [o{i}]\n" for i in range(stages))
dvc = "stages:\n" + "".join(
    f"  s{i}:\n    cmd: echo {i} > o{i}\n" + (f"    deps: [o{before(i)}]\n" if i else "") + f"    outs: [o{i}]\n"
    for i in range(stages))
snake = "rule all:\n    input: " + ", ".join(f"'o{i}'" for i in range(stages)) + "\n" + "".join(
    f"rule s{i}:\n" + (f"    input: 'o{before(i)}'\n" if i else "") + f"    output: 'o{i}'\n    shell: 'echo {i} > o{i}'\n"
    for i in range(stages))
programs = {
    "pipe": (folder("pipe", "p.yaml", own), [pipe, "-q", "run", "p.yaml"]),
    "snakemake": (folder("snakemake", "Snakefile", snake), [f"{peers}/snakemake", "--cores", "1", "-q", "all"]),
    "dvc": (folder("dvc", "dvc.yaml", dvc), [f"{peers}/dvc", "repro", "-q"]),
}
for command in (["git", "init", "-q"], [f"{peers}/dvc", "init", "-q"]):
    subprocess.run(command, cwd=programs["dvc"][0], check=True)
def run(name):
    path, command = programs[name]
    begun = time.perf_counter()
    subprocess.run(command, cwd=path, check=True, capture_output=True)
    return time.perf_counter() - begun
print(f"{stages} stages, first run: " + ", ".join(f"{name} {run(name):.1f} s" for name in programs), flush=True)
taken = {name: [] for name in programs}
for _ in range(rounds):
    for name in programs:
        taken[name].append(run(name))
    print("nothing to do: " + ", ".join(f"{name} {taken[name][-1]:.3f} s" for name in programs), flush=True)
for name in ("snakemake", "dvc"):
    ratio = statistics.median(a / b for a, b in zip(taken[name], taken["pipe"]))
    print(f"median ratio {name} / pipe: {ratio:.0f}")
PY
