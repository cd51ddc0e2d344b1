"""Transformers' `Trainer`: one callback.

    arguments = TrainingArguments(job.scratch, num_train_epochs=job.target or 3, save_strategy="no")
    trainer = Trainer(model, arguments, train_dataset=data, callbacks=[PipeCallback()])
    trainer.train(resume_from_checkpoint=job.start)

The checkpoints are the Trainer's own folders: weights, optimizer, schedule, generators, state.
They hold no clock and no path, so that the same training has the same bytes.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from transformers import Trainer, TrainerCallback

from . import job
from ._protocol import JobError

__all__ = ["PipeCallback", "job"]


_EPOCH = "pipe_epoch.json"
"""In a checkpoint inside an epoch: what was logged in the epoch, and the losses not logged yet."""


class PipeCallback(TrainerCallback):
    """Reports steps and epochs, saves where the policy wants it, stops where that was asked.

    The Trainer writes into its `output_dir`, which is to be `job.scratch`, and does not save by
    itself (`save_strategy="no"`). A checkpoint inside an epoch is written where the policy or a
    stop asks for it. Metrics of an epoch are what the Trainer logged in it, times left out. Of
    several processes rank 0 decides, and all save and stop together.

    A checkpoint has no `training_args.bin`, which nothing is resumed from and which holds the path
    of the scratch folder, and no times in the log of its `trainer_state.json`. One inside an epoch
    has `pipe_epoch.json` besides. It brings back what was logged in the epoch, and the sum of the
    losses since then, so that the next `loss` is that of one go: to the bit in one process, and up
    to rounding in several, which go on from the mean of their sums.
    """

    def __init__(self) -> None:
        self._metrics: dict[str, float] = {}
        self._pending = False
        self._inside: int | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if Path(args.output_dir).absolute() != job.scratch.absolute():
            raise JobError("the Trainer's output_dir is to be job.scratch")
        if str(args.save_strategy).rpartition(".")[2].lower() != "no":
            raise JobError('pipe says when to save: TrainingArguments(save_strategy="no")')
        if job.unit == "epoch" and job.target not in (None, state.num_train_epochs):
            raise JobError("give the Trainer the job's epochs: num_train_epochs=job.target")
        if state.global_step != job.step:
            raise JobError(
                f"the Trainer is at step {state.global_step} and pipe at {job.step}: "
                "trainer.train(resume_from_checkpoint=job.start)"
            )
        if job.step_in_epoch:
            self._bring_back()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        steps = _steps(args, kwargs["train_dataloader"])
        inside = state.global_step - job.done * steps
        job.report(step=state.global_step, steps=steps, step_in_epoch=inside)
        if inside < steps and job.agreed(job.should_save):
            self._inside = inside
            control.should_save = True
            control.should_training_stop |= job.agreed(job.should_stop)
        return control

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        if state.global_step < (job.done + 1) * _steps(args, kwargs["train_dataloader"]):
            return control  # stopped inside the epoch
        self._pending = True
        if not (control.should_log or control.should_evaluate):
            self._complete(control)
        return control

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> Any:
        for name, value in (logs or {}).items():
            if isinstance(value, (int, float)) and name != "epoch" and not _is_time(name):
                self._metrics[name] = value
        if not control.should_evaluate:
            self._complete(control)
        return control

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        self._complete(control)
        return control

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        kept = self._kept() if self._inside else None
        if state.is_world_process_zero:
            path = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            _leave_clocks_out(path)
            if kept is not None:
                (path / _EPOCH).write_text(json.dumps(kept), encoding="utf-8")
            job.hand_in(path, step_in_epoch=self._inside)
        self._inside = None

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if job.unit == "epoch" and job.done < (job.target or 0) and not job.should_stop:
            job.finish(f"the Trainer stopped the training after epoch {job.done}")

    def _kept(self) -> dict[str, Any] | None:
        """What the epoch has summed up; None where the Trainer keeps it in another way."""
        running = _running()
        if running is None:
            return None
        trainer, losses = running
        return {
            "metrics": self._metrics,
            "losses": _mean_of_all(losses),
            "logged_at": trainer._globalstep_last_logged,
        }

    def _bring_back(self) -> None:
        """What the epoch had summed up before the checkpoint inside it."""
        path, running = Path(job.start or "") / _EPOCH, _running()
        if running is None or not path.exists():
            job.warn(
                f"the loss of epoch {job.done + 1} covers only its steps from "
                f"{job.step_in_epoch + 1} on: the checkpoint has not what was summed up before, or "
                "this version of Transformers keeps it in another way"
            )
            return
        trainer, losses = running
        kept = json.loads(path.read_text(encoding="utf-8"))
        self._metrics = kept["metrics"]
        losses += kept["losses"]
        trainer._globalstep_last_logged = kept["logged_at"]
        # The summary at the end is of the steps of this process.
        trainer._total_loss_scalar -= kept["losses"]

    def _complete(self, control: Any) -> None:
        """An epoch is told when it is logged and evaluated, so that its metrics are whole."""
        if self._pending:
            self._pending = False
            reply = job.complete(self._metrics)
            self._metrics = {}
            control.should_save |= job.agreed(reply.save)
            control.should_training_stop |= job.agreed(reply.stop)


def _running() -> tuple[Any, Any] | None:
    """The Trainer that calls, and its sum of the losses since it last logged.

    A callback is not told of its Trainer. The sum is an attribute from Transformers 5 on, and a
    variable of the training loop before.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        trainer = frame.f_locals.get("self")
        if isinstance(trainer, Trainer):
            losses = getattr(trainer, "_tr_loss", frame.f_locals.get("tr_loss"))
            has_all = hasattr(trainer, "_globalstep_last_logged") and hasattr(
                trainer, "_total_loss_scalar"
            )
            return (trainer, losses) if isinstance(losses, torch.Tensor) and has_all else None
        frame = frame.f_back
    return None


def _mean_of_all(losses: Any) -> float:
    """The mean over all processes: the Trainer logs the mean of their sums."""
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return float(losses)
    mean = losses.detach().clone()
    distributed.all_reduce(mean)
    return float(mean / distributed.get_world_size())


def _is_time(name: str) -> bool:
    return name.endswith(("_runtime", "_per_second", "_model_preparation_time"))


def _leave_clocks_out(checkpoint: Path) -> None:
    (checkpoint / "training_args.bin").unlink(missing_ok=True)
    path = checkpoint / "trainer_state.json"
    state = json.loads(path.read_text(encoding="utf-8"))
    state["log_history"] = [
        {name: value for name, value in entry.items() if not _is_time(name)}
        for entry in state["log_history"]
    ]
    path.write_text(json.dumps(state, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _steps(args: Any, loader: Any) -> int:
    """Optimizer steps an epoch; the last batches of one count as a step where they are fewer."""
    return max(1, -(-len(loader) // int(args.gradient_accumulation_steps)))
