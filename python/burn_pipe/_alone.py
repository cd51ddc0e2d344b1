"""The policy of a training that was started without `pipe`: newest and best kept, in one folder.

    checkpoints/NAME/state.json      how far it came; rewritten atomically
    checkpoints/NAME/epoch_003.ckpt  a file or a folder, as the program wrote it
    checkpoints/NAME/scratch/        what the program is writing now; emptied at each start
    checkpoints/NAME/samples/        images

A checkpoint is written in `scratch`, synced and renamed; `state.json` names it afterwards; what is
not needed any more goes last. A process that is killed at any instant leaves a state that is true.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
from pathlib import Path
from typing import Any, Mapping

from ._protocol import JobError, Reply, Settings

MONITORS = ("val_loss", "eval_loss", "train_loss", "loss")
"""Which metric tells the best, lower being better: the first of these that was reported."""


class Alone:
    """Answers as `pipe` would."""

    def __init__(self, folder: Path, *, reader: bool = False) -> None:
        """A `reader` takes the state as it is and changes nothing."""
        self._folder = folder.absolute()
        folder = self._folder
        scratch = folder / "scratch"
        if not reader:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = _lock(folder)
            _remove(scratch)
            scratch.mkdir()
        try:
            state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
            self._newest: dict[str, Any] = state["newest"]
            self._best: dict[str, Any] = state["best"]
            settings = Settings(
                scratch=scratch,
                done=self._newest["epoch"],
                step=self._newest["step"],
                step_in_epoch=self._newest["step_in_epoch"],
                start=folder / self._newest["path"],
            )
        except FileNotFoundError:
            self._newest, self._best = {}, {}
            settings = Settings(scratch=scratch)
        except (KeyError, TypeError, ValueError) as error:
            raise JobError(
                f"{folder}/state.json is damaged: remove {folder} to begin anew"
            ) from error
        self.settings = settings
        self._metrics: dict[str, float] = {}
        self._step = settings.step
        self._epoch_step = max(0, settings.step - settings.step_in_epoch)
        if not reader:
            self._remove_unlisted()

    def say(self, message: Mapping[str, Any]) -> Reply:
        if "checkpoint" in message:
            return self._checkpoint(message)
        if "sample" in message:
            source = self.settings.scratch / message["sample"]
            target = self._folder / "samples" / f"epoch_{message['epoch']:03}{source.suffix}"
            target.parent.mkdir(exist_ok=True)
            os.replace(source, target)
        elif "epoch" in message and "step_in_epoch" not in message:
            # An epoch that is told without its step counts as one.
            self._step = message.get("step", max(self._step, self._epoch_step + 1))
            self._epoch_step = self._step
            told = message.get("metrics", {})
            self._metrics = {name: value for name, value in told.items() if value is not None}
            for name in told.keys() - self._metrics.keys():
                say(f"{name} is no finite number: it is left out")
            values = "".join(f", {name} {value:.6g}" for name, value in self._metrics.items())
            say(f"epoch {message['epoch']}{values}")
            return Reply(save=True)
        elif words := message.get("warning") or message.get("message"):
            say(words)
        elif "finished" in message:
            say(f"finished: {message['finished']}")
        return Reply()

    def _checkpoint(self, message: Mapping[str, Any]) -> Reply:
        source = self.settings.scratch / message["checkpoint"]
        inside = message.get("step_in_epoch", 0)
        self._step = message.get("step", self._epoch_step + inside)
        position = f"_step_{self._step:06}" if inside else ""
        path = f"epoch_{message['epoch']:03}{position}.ckpt"
        metrics = message.get("metrics") or self._metrics
        entry = {
            "epoch": message["epoch"],
            "step": self._step,
            "step_in_epoch": inside,
            "path": path,
            "metrics": metrics,
        }
        _sync(source)
        _remove(self._folder / path)
        os.replace(source, self._folder / path)
        _sync_one(self._folder)
        self._newest = entry
        best = not inside and (not self._best or _better(metrics, self._best["metrics"]))
        if best:
            self._best = entry
        temporary = self.settings.scratch / "state.json"
        temporary.write_text(json.dumps({"newest": self._newest, "best": self._best}, indent=1))
        _sync_one(temporary)
        os.replace(temporary, self._folder / "state.json")
        _sync_one(self._folder)
        self._remove_unlisted()
        return Reply(kept=True, best=best, path=self._folder / path)

    def _remove_unlisted(self) -> None:
        kept = {entry["path"] for entry in (self._newest, self._best) if entry}
        for path in self._folder.glob("epoch_*.ckpt"):
            if path.name not in kept:
                _remove(path)


def say(words: str) -> None:
    """A line for people."""
    print(f"burn_pipe: {words}", file=sys.stderr, flush=True)


def _better(new: Mapping[str, float], old: Mapping[str, float]) -> bool:
    """Where nothing was reported to tell by, the newest is the best."""
    name = next((name for name in MONITORS if name in new), None)
    return name is None or new[name] < old.get(name, math.inf)


def _lock(folder: Path) -> Any:
    """Held until the process ends, however it ends."""
    try:
        import fcntl
    except ImportError:  # not a Unix: nothing holds a second process back
        return None
    file = open(folder / "lock", "w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise JobError(f"another process trains in {folder}: wait for it or end it") from error
    return file


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Everything under a path is on the disk when this returns."""
    if path.is_dir():
        for inner in path.iterdir():
            _sync(inner)
    _sync_one(path)


def _sync_one(path: Path) -> None:
    if os.name == "nt":  # opens no folder, and syncs no file that is open for reading
        return
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
