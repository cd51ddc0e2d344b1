"""What a training program calls. Knows no framework."""

from __future__ import annotations

import atexit
import contextlib
import json
import math
import os
import signal
import sys
import threading
from functools import cached_property
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Callable, Iterator, Mapping, SupportsFloat, Union

from ._alone import Alone, say
from ._failures import kind_of
from ._protocol import Connection, JobError, Reply, Settings, read_job
from ._seed import reseed as seed_everything

_FAILURE = ".pipe-failure.json"
"""The file beside the job's in which a process above rank 0 leaves why it is about to fail."""

Write = Union[Callable[[Path], object], "os.PathLike[str]", str]
"""A function that writes a file or a folder to the path it gets, or a path that was written."""


class Job:
    """The training that this process does.

    With `PIPE_JOB` in the environment it talks to `pipe`. Without, it keeps its checkpoints in
    `checkpoints/NAME/`, NAME being the script's, goes on from the newest when it is started again,
    and says so on stderr. In a process of a distributed training with a rank above 0 it says and
    saves nothing: rank 0 does.

    Every method raises `JobError` where `pipe` refuses or is gone; the program should then end.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ, folder: Path | None = None) -> None:
        self._environ = environ
        self._folder = folder
        self._stop = False
        self._finished = False
        self._save_asked = False
        self._sample_asked = False
        self._ended_inside = False
        self._under_way = 0
        self._reported = 0  # the epoch of the last report
        self._warned: set[str] = set()
        self._init_read = False

    # What is to be done.

    @cached_property
    def _begun(self) -> tuple[Settings, Callable[[Mapping[str, Any]], Reply]]:
        follower = self.rank > 0
        speak: Callable[[Mapping[str, Any]], Reply]
        if path := self._environ.get("PIPE_JOB"):
            settings, socket = read_job(path)
            speak = Connection(socket).say
        else:
            alone = Alone(self._folder or _own_folder(), reader=follower)
            settings, speak = alone.settings, alone.say
            if not follower:
                kept = _relative(settings.scratch.parent)
                going_on = f", going on after epoch {settings.done}" if settings.start else ""
                say(f"no PIPE_JOB: the newest and best checkpoints are kept in {kept}{going_on}")
        if follower:
            speak = self._follow
        elif path:
            atexit.register(self._tell_unread)
        self._done, self._step = settings.done, settings.step
        self._inside = settings.step_in_epoch
        self._epoch_step = max(0, settings.step - settings.step_in_epoch)
        self._on_signal()
        self._on_exception()
        return settings, speak

    @property
    def _settings(self) -> Settings:
        return self._begun[0]

    @property
    def settings(self) -> dict[str, Any]:
        """The stage's `settings:`; empty without `pipe`."""
        return self._settings.settings

    @property
    def seed(self) -> int:
        """42 without `pipe`."""
        return self._settings.seed

    @property
    def target(self) -> int | None:
        """Epochs in all (steps, where `unit` is "step"); None without `pipe`."""
        return self._settings.target

    @property
    def unit(self) -> str:
        """What `target` counts: "epoch" or "step"."""
        return self._settings.unit

    @property
    def done(self) -> int:
        """Epochs complete by now, those before `start` included."""
        self._begun
        return self._done

    @property
    def step(self) -> int:
        """Steps done by now over all epochs, those before `start` included.

        An epoch without a report counts as one step, and a checkpoint inside it as `step_in_epoch`.
        """
        self._begun
        return self._step

    @property
    def step_in_epoch(self) -> int:
        """Above 0, `start` lies inside epoch `done` + 1, after so many of its steps."""
        return self._settings.step_in_epoch

    @property
    def start(self) -> Path | None:
        """The checkpoint to go on from, a file or a folder as the program wrote it, or None."""
        return self._settings.start

    @property
    def init(self) -> Path | None:
        """Weights to begin a new training with, or None."""
        self._init_read = True
        return self._settings.init

    @property
    def scratch(self) -> Path:
        """A folder of the program's own, on the file system of the checkpoints; empty at start."""
        return self._settings.scratch

    @property
    def save_every_steps(self) -> int | None:
        """How often checkpoints inside an epoch are wanted; `should_save` tells when."""
        return self._settings.save_every_steps

    @property
    def micro_batch_splits(self) -> int:
        """Into how many pieces to cut each batch: more than 1 after memory ran out."""
        return self._settings.micro_batch_splits

    @cached_property
    def rank(self) -> int:
        """This process's number in a distributed training; 0 where there is one process."""
        return _rank(self._environ)

    @property
    def devices(self) -> tuple[int, ...]:
        """GPUs that are the stage's own, counted from 0; empty where nothing was said of it."""
        return self._settings.devices

    @property
    def inputs(self) -> tuple[str, ...]:
        """The stage's `inputs:`; empty without `pipe`."""
        return self._settings.inputs

    @property
    def should_stop(self) -> bool:
        """The end was asked for: save, and end with exit code 0."""
        return self._stop

    @property
    def should_save(self) -> bool:
        """A checkpoint inside the epoch is wanted now: `save(write, step_in_epoch=…)`."""
        return self._save_asked or self._stop

    @property
    def should_sample(self) -> bool:
        """Somebody asks for a picture of now: `sample(path)`."""
        return self._sample_asked

    def agreed(self, word: bool) -> bool:
        """What rank 0 says, in every process of a training with `torch.distributed`.

        A wish to stop or to save reaches rank 0 alone, and processes that differ about it wait for
        each other for ever: `if job.agreed(job.should_save)`. Every process calls it, as often as
        the others. In a training of one process it is the word itself.
        """
        distributed: Any = sys.modules.get("torch.distributed")
        if distributed is None or not (distributed.is_available() and distributed.is_initialized()):
            return word
        words = [word]
        distributed.broadcast_object_list(words, src=0)
        return words[0]

    # What is done and said.

    def epochs(self, target: int | None = None, *, reseed: bool = True) -> Iterator[int]:
        """The epochs yet to do, counted from 1.

        Ends at the target, after `finish`, and where a stop was asked: once the epoch under way is
        saved. With `torch.distributed` all processes end together, where rank 0 does. `target` is
        how many there are in all where `pipe` does not say it. With `reseed`, each epoch begins
        with the generators of `random`, NumPy and PyTorch seeded by (seed, epoch), so that an
        interrupted training sees the same numbers.
        """
        target = self._settings.target or target
        if target is None:
            raise JobError("without pipe, say how many epochs there are in all: job.epochs(20)")
        while self.agreed(not (self._stop or self._finished or self._reached(target))):
            epoch = self._under_way = self._done + 1
            if reseed:
                seed_everything(self.seed, epoch)
            yield epoch
            if self.agreed(self._ended_inside):
                return
            if self._done < epoch and self.complete().save:
                self._warn_once("save", f"epoch {epoch} ended without job.save(): it is not kept")

    def report(
        self,
        step: int | None = None,
        *,
        steps: int | None = None,
        step_in_epoch: int | None = None,
        **metrics: SupportsFloat,
    ) -> None:
        """A step was done. `step` counts over all epochs; left out, one more than before.

        `steps` is how many an epoch has, `step_in_epoch` how many of this one are done, counted by
        the reports where it is left out. A metric is anything that `float()` takes; a tensor on a
        GPU is waited for. Above rank 0 it counts, and does nothing else.
        """
        self._begun
        self._step = self._step + 1 if step is None else step
        self._inside = self._inside + 1 if step_in_epoch is None else step_in_epoch
        self._reported = self._done + 1
        if self.rank > 0:
            return
        # A message with `epoch` and without `step_in_epoch` would say that the epoch is complete.
        message: dict[str, Any] = {"step": self._step, "epoch": self._done + 1}
        if metrics:
            message["metrics"] = self._numbers(metrics)
        if steps is not None:
            message["steps"] = steps
        message["step_in_epoch"] = self._inside
        self._save_asked |= self._say(message).save

    def save(
        self,
        write: Write,
        metrics: Mapping[str, SupportsFloat] | None = None,
        *,
        step_in_epoch: int | None = None,
    ) -> Path | None:
        """The epoch under way is complete, with these metrics; its state is saved if it is wanted.

        `write` is a function that writes a file or a folder to the path that it gets, and is
        called only where the policy wants this checkpoint; or the path of what was written, inside
        `scratch`. With `step_in_epoch` the state lies inside the epoch instead, after so many of
        its steps. Returns where the checkpoint now is, or None where it is not kept. Above rank 0
        nothing is written.
        """
        self._begun
        if self._ended_inside:
            return None
        if self.rank > 0:
            if step_in_epoch is None:
                self.complete()
            return None
        if step_in_epoch is None:
            if self._under_way and self._done >= self._under_way:
                raise JobError(f"epoch {self._done} was saved already: call job.save once an epoch")
            wanted = self.complete(metrics).save or not callable(write)
            if not wanted:
                return None
        path = self.hand_in(self.written(write), step_in_epoch=step_in_epoch)
        self._ended_inside = step_in_epoch is not None and self._stop
        return path

    def complete(self, metrics: Mapping[str, SupportsFloat] | None = None) -> Reply:
        """The epoch under way is complete; `save` of the reply: `hand_in` its state.

        For adapters, where writing is the framework's work: a program calls `save`.
        """
        self._begun
        self._done += 1
        self._inside = 0
        message: dict[str, Any] = {"epoch": self._done}
        if self._reported == self._done:
            message["step"] = self._step
        else:  # as `pipe` counts
            self._step = max(self._step, self._epoch_step + 1)
        self._epoch_step = self._step
        if metrics:
            # One that is not finite is there all the same: `pipe` says that it leaves it out.
            numbers = {name: _number(value) for name, value in metrics.items()}
            message["metrics"] = {
                name: value if math.isfinite(value) else None for name, value in numbers.items()
            }
        reply = self._say(message)
        return Reply(save=reply.save or self._stop, stop=self._stop)

    def hand_in(self, path: Path, *, step_in_epoch: int | None = None) -> Path | None:
        """Hands over a checkpoint inside `scratch`, after `complete` or inside an epoch."""
        message: dict[str, Any] = {"checkpoint": self._in_scratch(path), "epoch": self._done}
        if self._reported == self._done + bool(step_in_epoch):
            message["step"] = self._step
        elif step_in_epoch:  # as `pipe` counts
            self._step = self._epoch_step + step_in_epoch
        if step_in_epoch:
            message["step_in_epoch"] = step_in_epoch
        self._save_asked = False
        reply = self._say(message)
        return reply.path if reply.kept else None

    def written(self, write: Write) -> Path:
        """Where `write` wrote to."""
        if not callable(write):
            return Path(write)
        path = self.scratch / "checkpoint"
        write(path)
        if not path.exists():
            raise JobError(f"the function given to job.save wrote nothing to {path}")
        return path

    def sample(self, path: Union["os.PathLike[str]", str]) -> None:
        """Hands over a PNG or JPEG inside `scratch` as the sample of the epoch under way."""
        name = self._in_scratch(Path(path))
        self._sample_asked = False
        self._say({"sample": name, "epoch": max(self._under_way, self._done, 1)})

    def finish(self, reason: str) -> None:
        """The training ends before its target on purpose, which is a success."""
        self._say({"finished": reason})
        self._finished = True

    def ask_stop(self) -> None:
        """Asks this training to save and end, as SIGTERM does."""
        self._stop = True

    def fail(self, kind: str, message: str) -> None:
        """Why the program is about to fail: retries go by `kind`.

        Kinds: `out_of_memory`, `device_lost`, `not_finite`, `input`, `command`. An exception that
        ends the program is reported by itself.
        """
        self._say({"failure": kind, "message": message})

    def message(self, words: str) -> None:
        """A line for people."""
        self._say({"message": words})

    def warn(self, words: str) -> None:
        """A line for people who should change something."""
        self._say({"warning": words})

    # Within.

    def _follow(self, message: Mapping[str, Any]) -> Reply:
        """Above rank 0 nothing is said but why the program is about to fail."""
        path = self._environ.get("PIPE_JOB")
        if path and message.get("failure", "command") != "command":
            with contextlib.suppress(OSError), open(Path(path).parent / _FAILURE, "x") as file:
                json.dump(message, file)
        return Reply()

    def _say(self, message: Mapping[str, Any]) -> Reply:
        reply = self._begun[1](message)
        self._stop |= reply.stop
        self._sample_asked |= reply.sample
        return reply

    def _reached(self, target: int) -> bool:
        return (self._step if self.unit == "step" else self._done) >= target

    def _tell_unread(self) -> None:
        """Warns of weights to begin with that the program never asked for, once it has ended."""
        settings, _ = self._begun
        is_wanted = settings.init is not None and settings.start is None
        is_over = settings.target is not None and self._reached(settings.target)
        if is_wanted and is_over and not self._init_read:
            with contextlib.suppress(JobError, OSError):
                self.warn("`init` is in the pipeline file, and the program never read job.init")

    def _numbers(self, metrics: Mapping[str, SupportsFloat]) -> dict[str, float]:
        numbers = {name: _number(value) for name, value in metrics.items()}
        for name, value in numbers.items():
            if not math.isfinite(value):
                self._warn_once(name, f"{name} is {value} at step {self._step}: it is left out")
        return {name: value for name, value in numbers.items() if math.isfinite(value)}

    def _warn_once(self, about: str, words: str) -> None:
        if about not in self._warned:
            self._warned.add(about)
            self.warn(words)

    def _in_scratch(self, path: Path) -> str:
        try:
            return str((self.scratch / path).absolute().relative_to(self.scratch.absolute()))
        except ValueError:
            raise JobError(f"{path} is not inside job.scratch, {self.scratch}") from None

    def _on_signal(self) -> None:
        """SIGTERM sets a flag; a handler that was there before is called as well.

        Above rank 0 the flag stays: rank 0 hears of the stop, and `agreed` tells the others.
        """
        if threading.current_thread() is not threading.main_thread():
            return
        previous = signal.getsignal(signal.SIGTERM)
        process = os.getpid()

        def handler(number: int, frame: FrameType | None) -> None:
            if os.getpid() != process:  # a forked worker is to end as it would have
                signal.signal(number, previous or signal.SIG_DFL)
                os.kill(os.getpid(), number)
                return
            self._stop |= self.rank == 0
            if callable(previous):
                previous(number, frame)

        signal.signal(signal.SIGTERM, handler)

    def _on_exception(self) -> None:
        """An exception that ends the program is reported as the failure it is."""
        previous = sys.excepthook
        process = os.getpid()

        def hook(
            kind: type[BaseException], error: BaseException, traceback: TracebackType | None
        ) -> None:
            if os.getpid() == process:
                self.fail_with(error)
            previous(kind, error, traceback)

        sys.excepthook = hook

    def fail_with(self, error: BaseException) -> None:
        """Reports an exception by its kind, once; says nothing where `pipe` is the reason."""
        kind = kind_of(error)
        if kind is None or isinstance(error, JobError) or "failure" in self._warned:
            return
        self._warned.add("failure")
        try:
            self.fail(kind, f"{type(error).__name__}: {error}")
        except JobError:
            pass  # the exception itself is what people should see


def _rank(environ: Mapping[str, str]) -> int:
    """The process's number in a distributed training: torchrun's, Slurm's or Lightning's."""

    def number(name: str) -> int | None:
        return int(environ[name]) if environ.get(name, "").isdigit() else None

    for name in ("RANK", "SLURM_PROCID"):
        if (rank := number(name)) is not None:
            return rank
    return (number("NODE_RANK") or 0) + (number("LOCAL_RANK") or 0)


def _own_folder() -> Path:
    main = getattr(sys.modules.get("__main__"), "__file__", None)
    return Path("checkpoints") / (Path(main).stem if main else "training")


def _relative(path: Path) -> Path:
    try:
        return path.relative_to(Path.cwd())
    except ValueError:
        return path


def _number(value: SupportsFloat) -> float:
    # PyTorch warns where a tensor with a gradient becomes a number.
    detach = getattr(value, "detach", None)
    return float(value if detach is None else detach())
