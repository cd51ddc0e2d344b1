"""The training contract, protocol 1: a job file, and JSON lines over a Unix socket.

Knows what is said and nothing of when a training says it.
"""

from __future__ import annotations

import json
import os
import socket
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Mapping

PROTOCOL = 1


class JobError(RuntimeError):
    """`pipe` refused what was said, or cannot be reached. The program should end."""


@dataclass(frozen=True)
class Reply:
    """What came back. `save`, `sample`: one is wanted now. `stop`: save and end soon."""

    save: bool = False
    stop: bool = False
    sample: bool = False
    kept: bool = False
    best: bool = False
    path: Path | None = None


@dataclass(frozen=True)
class Settings:
    """What a training is to do. Paths are absolute."""

    scratch: Path
    settings: dict[str, Any] = field(default_factory=dict)
    seed: int = 42
    unit: str = "epoch"
    target: int | None = None
    done: int = 0
    step: int = 0
    step_in_epoch: int = 0
    start: Path | None = None
    init: Path | None = None
    save_every_steps: int | None = None
    micro_batch_splits: int = 1
    devices: tuple[int, ...] = ()
    inputs: tuple[str, ...] = ()
    stage: str = ""
    run_dir: Path | None = None


def read_job(path: str) -> tuple[Settings, str]:
    """The job file's content, and the path of its socket."""
    try:
        job = json.loads(Path(path).read_text(encoding="utf-8"))
        if job["protocol"] != PROTOCOL:
            raise JobError(
                f"{path}: pipe speaks protocol {job['protocol']} and this package {PROTOCOL}: "
                "install the burn-pipe of the same version as pipe"
            )
        every = job.get("save_every") or {}
        return (
            Settings(
                scratch=Path(job["scratch"]),
                settings=dict(job.get("settings") or {}),
                seed=int(job["seed"]),
                unit=job.get("unit", "epoch"),
                target=int(job["target"]),
                done=int(job.get("done", 0)),
                step=int(job.get("step", 0)),
                step_in_epoch=int(job.get("step_in_epoch", 0)),
                start=_path(job.get("start")),
                init=_path(job.get("init")),
                save_every_steps=every.get("steps"),
                micro_batch_splits=int(job.get("micro_batch_splits", 1)),
                devices=tuple(job.get("devices") or ()),
                inputs=tuple(job.get("inputs") or ()),
                stage=job.get("stage", ""),
                run_dir=_path(job.get("run_dir")),
            ),
            str(job["socket"]),
        )
    except OSError as error:
        raise JobError(
            f"failed to read the job of PIPE_JOB, {path}: {error.strerror}; "
            "unset PIPE_JOB to train without pipe"
        ) from error
    except (KeyError, TypeError, ValueError) as error:
        raise JobError(f"{path} (of PIPE_JOB) is no job of pipe: {error!r}") from error


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


class Connection:
    """Says one message at a time and waits for its reply. Threads take turns.

    A forked process has a connection of its own, made when it first speaks.
    """

    def __init__(self, path: str) -> None:
        if not hasattr(socket, "AF_UNIX"):
            raise JobError("this Python has no Unix sockets, by which a program talks to pipe")
        self._path = path
        self._lock = threading.Lock()
        self._process = -1

    def say(self, message: Mapping[str, Any]) -> Reply:
        """Raises JobError where `pipe` refuses the message or is gone."""
        line = json.dumps(message, allow_nan=False).encode() + b"\n"
        try:
            with self._lock:
                if self._process != os.getpid():
                    self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                    self._socket.connect(self._path)
                    self._replies = self._socket.makefile("rb")
                    self._process = os.getpid()
                self._socket.sendall(line)
                answer = self._replies.readline()
        except OSError as error:
            raise JobError(f"failed to reach pipe at {self._path}: {error}") from error
        if not answer.endswith(b"\n"):
            raise JobError(f"pipe closed the connection at {self._path}: it was ended or killed")
        reply = json.loads(answer)
        if not reply.get("ok"):
            raise JobError(f"pipe refused {line.decode().strip()}: {reply.get('error')}")
        return Reply(
            save=bool(reply.get("save")),
            stop=bool(reply.get("stop")),
            sample=bool(reply.get("sample")),
            kept=bool(reply.get("kept")),
            best=bool(reply.get("best")),
            path=_path(reply.get("path")),
        )
