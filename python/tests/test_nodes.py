"""`torch.distributed` as a stage on the two-node Slurm that `tests/slurm/cluster.sh` starts.

Runs where `PIPE_TEST_SLURM` is set and `PIPE_TEST_PROGRAM` is the real `pipe`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from fake_pipe import PACKAGE, content
from test_adapters import needs
from test_examples import example
from test_with_pipe import PROGRAM, environ

CLUSTER = PACKAGE.parent / "tests" / "slurm" / "cluster.sh"


@pytest.fixture
def cluster(tmp_path):
    """The environment of a Slurm with two nodes."""
    needs("torch")
    if not PROGRAM or "PIPE_TEST_SLURM" not in os.environ:
        pytest.skip("PIPE_TEST_PROGRAM and PIPE_TEST_SLURM are not both set")
    folder = tmp_path / "slurm"
    subprocess.run(["bash", CLUSTER, "start-two", folder], check=True)
    yield environ() | {"SLURM_CONF": str(folder / "slurm.conf")}
    subprocess.run(["bash", CLUSTER, "stop", folder], check=True)


def losses(folder: Path) -> list[tuple[int, float]]:
    """Step and loss of each step that stands in the log."""
    log = folder / "checkpoints/trainer/run_001/logs/metrics.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    return [(line["step"], line["loss"]) for line in lines if "loss" in line]


def wait_for(what: str, there, folder: Path) -> None:
    deadline = time.monotonic() + 240
    while not there():
        if time.monotonic() > deadline:
            logs = [folder / "log", *folder.glob(".pipe/slurm/*/*.log")]
            said = "\n".join(f"{log}:\n{log.read_text()}" for log in logs if log.exists())
            raise AssertionError(f"no {what} after four minutes\n{said}")
        time.sleep(0.05)


def process_of(rank: int, folder: Path) -> int:
    """The training program with that rank."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes().split(b"\0")
            variables = (path / "environ").read_bytes().split(b"\0")
            if b"train.py" in words and f"RANK={rank}".encode() in variables:
                if (path / "cwd").resolve() == folder.resolve() and b"job" not in words:
                    return int(path.name)
        except OSError:
            continue  # it has ended, or is not ours
    raise AssertionError(f"no process of rank {rank}")


def test_two_nodes_learn_what_one_process_does(tmp_path, cluster):
    one, two = (example("torch_distributed", tmp_path / name) for name in ("one", "two"))
    run = [PROGRAM, "run", "pipeline.yaml", "--set", "base.pause=0.1"]
    subprocess.run([*run, "--executor", "local"], cwd=one, env=cluster, check=True)

    # One process is killed, and later the job is told to stop as by its walltime.
    slurm = [*run, "--executor", "slurm", "--set", "executor.poll=1s"]
    with open(two / "log", "w") as log:
        child = subprocess.Popen(slurm, cwd=two, env=cluster, stdout=log, stderr=log)
    wait_for("steps", lambda: len(losses(two)) > 10, two)
    os.kill(process_of(1, two), signal.SIGKILL)
    wait_for("further steps", lambda: len(losses(two)) > 20, two)
    subprocess.run(["scancel", "--batch", "--signal=TERM", "1"], env=cluster, check=True)
    assert child.wait(180) == 0, (two / "log").read_text()
    said = "".join(path.read_text() for path in two.glob(".pipe/slurm/*/base-1.log"))
    assert said.count("Resumed from") == 2 and "is requeued" in said, said
    assert "task 1: Exited with exit code 137" in said, said

    assert len(losses(one)) == 32 and losses(two) == losses(one)
    left, right = (content(f / "checkpoints/trainer/run_001/checkpoints/last.ckpt") for f in (one, two))
    assert left and left == right
    assert not list((two / "checkpoints/trainer").glob("run_002"))
