"""The pipelines of examples/trainers with the real `pipe`, whose path is `PIPE_TEST_PROGRAM`."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from burn_pipe import load
from fake_pipe import content, environment
from test_adapters import needs
from test_examples import EXAMPLES, example

PROGRAM = os.environ.get("PIPE_TEST_PROGRAM", "")


def environ() -> dict[str, str]:
    folders = [Path(PROGRAM).parent, Path(sys.executable).parent, os.environ["PATH"]]
    return environment({"PATH": os.pathsep.join(map(str, folders))})


def pipe(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [PROGRAM, *arguments], cwd=folder, env=environ(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def kill_at_random(folder: Path, seconds: float, epochs: int) -> bool:
    """Whether `pipe` was still at work when it was killed."""
    child = subprocess.Popen(
        [PROGRAM, "run", "pipeline.yaml", "--epochs", str(epochs)], cwd=folder, env=environ(),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )
    try:
        child.wait(seconds)
        return False
    except subprocess.TimeoutExpired:
        child.kill()
        return True
    finally:
        child.wait()


def go_on(folder: Path, epochs: int) -> None:
    """Runs to the end. A program whose `pipe` was killed lives until it next says something."""
    for _ in range(60):
        done = subprocess.run(
            [PROGRAM, "run", "pipeline.yaml", "--epochs", str(epochs)], cwd=folder, env=environ(),
            capture_output=True, text=True,
        )
        if done.returncode == 0:
            return
        time.sleep(1)
    raise AssertionError(done.stdout + done.stderr)


@pytest.mark.parametrize(
    ("name", "packages", "seconds"),
    [
        ("shell", (), 0.5),
        ("sklearn_partial_fit", ("sklearn",), 4),
        ("lightning_diffit", ("torch", "lightning", "peft", "PIL"), 20),
        ("diffusers_unconditional", ("torch", "diffusers", "accelerate", "PIL"), 15),
        ("transformers_trainer", ("torch", "transformers", "accelerate"), 15),
        ("torch_distributed", ("torch",), 6),
    ],
)
def test_killed_and_extended_it_ends_in_the_bytes_of_one_go(tmp_path, name, packages, seconds):
    needs(*packages)
    known = PROGRAM and subprocess.run([PROGRAM, "schema", "trainer"], capture_output=True)
    if not known or known.returncode:
        pytest.skip("PIPE_TEST_PROGRAM is no pipe that has `kind: trainer`")
    whole, pieces = example(name, tmp_path / "whole"), example(name, tmp_path / "pieces")
    pipe(whole, "run", "pipeline.yaml", "--epochs", "4")
    chance = random.Random(name)
    kills = sum(kill_at_random(pieces, chance.uniform(0.2, 1) * seconds, 3) for _ in range(3))
    go_on(pieces, 3)
    go_on(pieces, 4)
    assert "skip" in pipe(pieces, "plan", "pipeline.yaml", "--epochs", "4")
    print(f"{name}: killed {kills} times")
    runs, others = (sorted((f / "checkpoints/trainer").glob("run_*")) for f in (whole, pieces))
    # LoRA is trained anew, in another run, where the extension has brought a better base.
    assert runs and len(runs) <= len(others)
    assert load(runs[0])["epoch"] in (1, 2, 3, 4) and load(runs[0])["metrics"]
    for run, other in zip(runs, others[: len(runs) - 1] + others[-1:]):
        left, right = (content(run / "checkpoints/last.ckpt") for run in (run, other))
        assert {n for n in left | right if left.get(n) != right.get(n)} == set(), run.name


def test_every_example_is_here():
    folders = {path.name for path in EXAMPLES.iterdir() if path.is_dir()}
    assert folders == {
        "shell", "sklearn_partial_fit", "lightning_diffit", "diffusers_unconditional",
        "transformers_trainer", "torch_distributed",
    }
