"""The engine's side of the training contract, as small as the tests of the package need it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parent.parent


class FakePipe:
    """A run's folder, a job file and a socket. `starts` a program on it, again and again.

    Epochs are saved every `every`; all of them are kept. From step `stop_at_step` on each reply
    asks for a stop. `refuse` is a key of a message to refuse. An epoch that is told without its
    step counts as one step.
    """

    def __init__(
        self,
        folder: Path,
        *,
        target: int,
        settings: dict[str, Any] | None = None,
        every: int = 1,
        stop_at_step: int | None = None,
        save_at_step: int | None = None,
        refuse: str | None = None,
        **job: Any,
    ) -> None:
        self.run_dir = folder / "run_001"
        (self.run_dir / "checkpoints").mkdir(parents=True, exist_ok=True)
        self.settings, self.target, self.every = settings or {}, target, every
        self.stop_at_step, self.save_at_step, self.refuse = stop_at_step, save_at_step, refuse
        self.job = job
        self.messages: list[dict[str, Any]] = []
        self.stopping = False
        self.position: dict[str, Any] = {"done": 0, "step": 0, "step_in_epoch": 0, "start": None}
        # A path of a socket is at most about 100 bytes long.
        self._short = tempfile.TemporaryDirectory(prefix="pipe")
        self.socket = Path(self._short.name) / "s"
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(self.socket))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def begin(self) -> dict[str, str]:
        """Writes the job for the next attempt. Returns what stands in the environment."""
        scratch = self.run_dir / "scratch"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        self.stopping = False
        self._step = self.position["step"]
        self._epoch_step = max(0, self._step - self.position["step_in_epoch"])
        path = self.run_dir / "job.json"
        job = {
            "protocol": 1,
            "pipeline": "p",
            "stage": "base",
            "run": 1,
            "run_dir": str(self.run_dir),
            "settings": self.settings,
            "seed": 42,
            "unit": "epoch",
            "target": self.target,
            "init": None,
            "scratch": str(scratch),
            "save_every": {"epochs": self.every, "steps": None},
            "micro_batch_splits": 1,
            "devices": [],
            "inputs": ["train.py"],
            "socket": str(self.socket),
            **self.position,
            **self.job,
        }
        path.write_text(json.dumps(job))
        return {"PIPE_JOB": str(path)}

    def start(self, *argv: str, cwd: Path | None = None) -> "subprocess.CompletedProcess[str]":
        """Runs a Python program to its end."""
        return subprocess.run(
            [sys.executable, *argv], env=environment(self.begin()), cwd=cwd, text=True,
            capture_output=True, timeout=300,
        )

    def of(self, key: str) -> list[dict[str, Any]]:
        """The messages that have a key."""
        return [message for message in self.messages if key in message]

    def checkpoint(self, epoch: int) -> Path:
        return self.run_dir / "checkpoints" / f"epoch_{epoch:03}.ckpt"

    def _accept(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rwb") as lines:
            try:
                for line in lines:
                    message = json.loads(line)
                    self.messages.append(message)
                    lines.write(json.dumps(self._answer(message)).encode() + b"\n")
                    lines.flush()
            except OSError:
                return  # the program was killed

    def _answer(self, message: dict[str, Any]) -> dict[str, Any]:
        if self.refuse in message:
            return {"ok": False, "error": f"no {self.refuse} today"}
        reply: dict[str, Any] = {"ok": True}
        if "checkpoint" in message:
            reply |= self._keep(message)
        elif "sample" in message:
            (self.run_dir / "samples").mkdir(exist_ok=True)
            source = self.run_dir / "scratch" / message["sample"]
            os.replace(source, self.run_dir / "samples" / f"epoch_{message['epoch']:03}.png")
        elif "epoch" in message and "step_in_epoch" not in message:
            step = message.get("step", max(self._step, self._epoch_step + 1))
            if step <= self._epoch_step:
                return {"ok": False, "error": f"step {step} after step {self._epoch_step}"}
            self._step = self._epoch_step = step
            if message["epoch"] % self.every == 0 or message["epoch"] == self.target:
                reply["save"] = True
        step = self._step = message.get("step", self._step)
        self.stopping |= self.stop_at_step is not None and step >= self.stop_at_step
        if step == self.save_at_step and "checkpoint" not in message:
            reply["save"] = True
        # Somebody asks for a picture, until there is one.
        if step >= 2 and not self.of("sample") and self.job.get("asks_sample"):
            reply["sample"] = True
        if self.stopping:
            reply["stop"] = True
        return reply

    def _keep(self, message: dict[str, Any]) -> dict[str, Any]:
        source = self.run_dir / "scratch" / message["checkpoint"]
        inside = message.get("step_in_epoch", 0)
        self._step = message.get("step", self._epoch_step + inside)
        name = f"epoch_{message['epoch']:03}{'_inside' if inside else ''}.ckpt"
        path = self.run_dir / "checkpoints" / name
        shutil.rmtree(path, ignore_errors=True)
        os.replace(source, path)
        self.position = {
            "done": message["epoch"], "step": self._step, "step_in_epoch": inside,
            "start": str(path),
        }
        return {"kept": True, "best": False, "path": str(path)}


def environment(extra: dict[str, str] | None = None) -> dict[str, str]:
    """The environment of a program that finds the package here, on one thread, without `pipe`."""
    left_out = {"PIPE_JOB", "RANK", "LOCAL_RANK", "SLURM_PROCID"}
    kept = {key: value for key, value in os.environ.items() if key not in left_out}
    kept |= {"PYTHONPATH": str(PACKAGE), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return kept | (extra or {})


def content(path: Path) -> dict[str, bytes]:
    """The bytes of a file, or of all files of a folder by name."""
    if path.is_file():
        return {"": path.read_bytes()}
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return {str(file.relative_to(path)): file.read_bytes() for file in files}
