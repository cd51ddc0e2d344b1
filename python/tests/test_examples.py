"""The programs of examples/trainers: killed and extended, they end in the bytes of one go."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fake_pipe import PACKAGE, FakePipe, content, environment
from test_adapters import good, needs

EXAMPLES = PACKAGE.parent / "examples" / "trainers"

PIPE = f"""#!{sys.executable}
import json, os, socket, sys
job = json.load(open(os.environ["PIPE_JOB"]))
command, options = sys.argv[2], sys.argv[3:]
if command == "get":
    value = job
    for key in options[0].split("."):
        value = value[key]
    print("" if value is None else value)
    sys.exit()
if command == "epochs":
    print(*range(job["done"] + 1, job["target"] + 1), sep="\\n")
    sys.exit()
message = {{"epoch": int(options[0]), "step": int(options[0]), "metrics": {{}}}}
for name, value in zip(options[1::2], options[2::2]):
    if name == "--metric":
        key, _, number = value.partition("=")
        message["metrics"][key] = float(number)
    elif name == "--checkpoint":
        message["checkpoint"] = value
with socket.socket(socket.AF_UNIX) as s:
    s.connect(job["socket"])
    s.sendall(json.dumps(message).encode() + b"\\n")
    reply = json.loads(s.makefile().readline())
sys.exit(1 if not reply["ok"] else 75 if reply.get("stop") else 0)
"""
"""The part of `pipe job` that the example in a shell uses."""


def example(name: str, tmp_path: Path) -> Path:
    """A copy of an example's folder, with its pictures drawn."""
    folder = tmp_path / name
    shutil.copytree(EXAMPLES / name, folder)
    if (folder / "images.py").exists():
        for shape in ("rectangle", "ellipse"):
            draw = [sys.executable, "images.py", f"data/{shape}s", "16", shape]
            subprocess.run(draw, cwd=folder, check=True)
    return folder


def run(pipe: FakePipe, folder: Path, argv: list[str], kill_after: int | None = None) -> None:
    """Runs a program to its end, or kills it once so many checkpoints stand."""
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    log = folder / "log"
    with open(log, "w") as output:
        child = subprocess.Popen(
            argv, cwd=folder, env=environment(pipe.begin()) | {"PATH": path}, stderr=output,
            stdout=output,
        )
        if kill_after is None:
            assert child.wait(400) == 0, log.read_text()
            return
        while len(pipe.of("checkpoint")) < kill_after:
            assert child.poll() is None, log.read_text()
            time.sleep(0.005)
        child.kill()
        child.wait()


def killed_and_extended(folder: Path, argv: list[str], **job) -> tuple[FakePipe, FakePipe]:
    """Three epochs in one go; and two, of which the second is killed, and then one more."""
    whole = FakePipe(folder / "whole", target=3, **job)
    run(whole, folder, argv)
    pieces = FakePipe(folder / "pieces", target=2, **job)
    run(pieces, folder, argv, kill_after=1)
    run(pieces, folder, argv)
    pieces.target = 3
    run(pieces, folder, argv)
    assert len(whole.of("checkpoint")) == 3 and not whole.of("failure")
    for pipe in (whole, pieces):
        pipe.target = 3
    return whole, pieces


def same(whole: FakePipe, pieces: FakePipe) -> set[str]:
    left, right = content(whole.checkpoint(3)), content(pieces.checkpoint(3))
    assert left.keys() == right.keys() and left
    return {name for name in left if left[name] != right[name]}


def test_lightning_diffit_and_its_lora(tmp_path):
    needs("torch", "lightning", "peft", "PIL")
    folder = example("lightning_diffit", tmp_path)
    whole, pieces = killed_and_extended(folder, [sys.executable, "train.py"])
    assert same(whole, pieces) == set()
    lora = FakePipe(
        folder / "lora", target=1, init=str(whole.checkpoint(3)), settings={"r": 2}
    )
    run(lora, folder, [sys.executable, "lora.py"])
    import torch

    tuned = torch.load(lora.checkpoint(1), weights_only=True)["state_dict"]
    base = torch.load(whole.checkpoint(3), weights_only=True)["state_dict"]
    prefix, name = "net.base_model.model.", "middle.0.block.attn.proj"
    frozen = tuned[f"{prefix}{name}.base_layer.weight"]
    assert torch.equal(frozen, base[f"net.{name}.weight"])
    assert tuned[f"{prefix}{name}.lora_B.default.weight"].any()


def test_diffusers_unconditional(tmp_path):
    needs("torch", "diffusers", "accelerate", "PIL")
    folder = example("diffusers_unconditional", tmp_path)
    assert same(*killed_and_extended(folder, [sys.executable, "train.py"])) == set()


def test_transformers_trainer(tmp_path):
    needs("torch", "transformers", "accelerate")
    folder = example("transformers_trainer", tmp_path)
    assert same(*killed_and_extended(folder, [sys.executable, "train.py"])) == set()


def test_sklearn_partial_fit(tmp_path):
    needs("sklearn")
    folder = example("sklearn_partial_fit", tmp_path)
    argv = [sys.executable, "train.py"]
    whole, pieces = killed_and_extended(folder, argv)
    assert same(whole, pieces) == set()
    other = FakePipe(folder / "other", target=3, settings={"alpha": 0.1})
    run(other, folder, argv)
    assert same(whole, other) != set()


def test_shell(tmp_path):
    folder = example("shell", tmp_path)
    (folder / "pipe").write_text(PIPE)
    (folder / "pipe").chmod(0o755)
    whole, pieces = killed_and_extended(folder, ["sh", "train.sh"], settings={"rate": 0.1})
    assert same(whole, pieces) == set()
    losses = [message["metrics"]["loss"] for message in whole.of("checkpoint")]
    assert losses == sorted(losses, reverse=True)
    stopped = FakePipe(folder / "stopped", target=9, settings={"rate": 0.1}, stop_at_step=2)
    run(stopped, folder, ["sh", "train.sh"])
    assert stopped.position["done"] == 2


def test_an_example_works_without_pipe(tmp_path):
    needs("sklearn")
    folder = example("sklearn_partial_fit", tmp_path)
    done = subprocess.run(
        [sys.executable, "train.py"], cwd=folder, env=environment(), capture_output=True, text=True
    )
    good(done)
    assert (folder / "checkpoints/train/epoch_005.ckpt").exists()
    assert "epoch 5, train_accuracy 0.9" in done.stderr
