"""Two processes of one training on this machine: a stop reaches rank 0, and both end together."""

from __future__ import annotations

import contextlib
import random
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from fake_pipe import FakePipe, environment
from test_adapters import ACCELERATE, LIGHTNING, TRANSFORMERS, needs
from test_job import script

LOOP = """
import torch, torch.distributed as dist
from burn_pipe import job

dist.init_process_group("gloo")
state = torch.zeros(1)
for epoch in job.epochs():
    for step in range(8):
        state += 1
        dist.all_reduce(state)
        job.report(steps=8, loss=state)
        if step < 7 and job.agreed(job.should_save):
            job.save(lambda path: torch.save(state, path), step_in_epoch=step + 1)
            if job.agreed(job.should_stop):
                break
    else:
        job.save(lambda path: torch.save(state, path))
"""

# Threads of gloo outlive the group where a trainer holds it, and can end the process by a signal
# while the interpreter is taken down: that is not done.
END = """
import os, sys, torch.distributed
if torch.distributed.is_initialized():
    torch.distributed.destroy_process_group()
sys.stdout.flush()
sys.stderr.flush()
os._exit(0)
"""

ON_TWO = 'accelerator="cpu", devices=2, strategy="ddp"'


def free_port() -> str:
    """Below those that systems give to connections: none of these takes it before it is bound."""
    for port in random.sample(range(13_000, 32_000), 50):
        with socket.socket() as free, contextlib.suppress(OSError):
            free.bind(("127.0.0.1", port))
            return str(port)
    raise AssertionError("fifty ports are taken")


def run(pipe: FakePipe, program: str) -> None:
    """Both processes to their end."""
    port = free_port()
    job = pipe.begin()
    children = []
    for rank in ("0", "1"):
        place = {"RANK": rank, "LOCAL_RANK": rank, "NODE_RANK": "0", "WORLD_SIZE": "2"}
        place |= {"LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        with open(Path(program).parent / f"log_{rank}", "w") as log:
            children.append(subprocess.Popen(
                [sys.executable, program], env=environment(job | place), stdout=log, stderr=log
            ))
    try:
        for rank, child in enumerate(children):
            said = Path(program).parent / f"log_{rank}"
            assert child.wait(200) == 0, said.read_text()
    finally:
        for child in children:
            child.kill()


@pytest.mark.parametrize(
    ("text", "packages"),
    [
        (LOOP, ("torch",)),
        (ACCELERATE, ("torch", "accelerate")),
        (TRANSFORMERS, ("torch", "transformers", "accelerate")),
        (
            LIGHTNING.replace("FRAMEWORK", "lightning").replace('accelerator="cpu"', ON_TWO),
            ("torch", "lightning"),
        ),
    ],
    ids=["loop", "accelerate", "transformers", "lightning"],
)
def test_a_stop_ends_both_and_both_go_on(tmp_path, text, packages):
    needs(*packages)
    program = script(tmp_path, text + END)
    pipe = FakePipe(tmp_path, target=3, stop_at_step=6)
    run(pipe, program)
    assert pipe.position["done"] < 3 and pipe.of("checkpoint"), pipe.messages
    pipe.stop_at_step = None
    run(pipe, program)
    assert pipe.position["done"] == 3 and pipe.checkpoint(3).exists()
    assert not pipe.of("failure"), pipe.of("failure")
