"""Lightning 2 (`lightning` or `pytorch_lightning`): one callback.

    trainer = Trainer(max_epochs=20, callbacks=[PipeCallback()])
    trainer.fit(model, data, ckpt_path=job.start)

The checkpoints are Lightning's own, whole: weights, optimizers, schedules, loops, callbacks.
"""

from __future__ import annotations

import builtins
import contextlib
import importlib
import importlib.util
import signal
import sys
import threading
from typing import Any

import torch

from . import job
from ._canonical import canonical
from ._protocol import JobError
from ._seed import reseed
from .sampler import EpochSampler

__all__ = ["EpochSampler", "PipeCallback", "job"]


def _framework() -> Any:
    """The package that the program uses: the one it has imported, else the one installed."""
    names = ("lightning.pytorch", "pytorch_lightning")
    for name in names:
        if name in sys.modules:
            return importlib.import_module(name + ".callbacks")
    found = (name for name in names if importlib.util.find_spec(name.partition(".")[0]))
    return importlib.import_module(next(found, names[0]) + ".callbacks")


_FETCH = 1
"""Tells the seed of what is read for a batch from that of what is computed with it."""

_EPOCH = "burn_pipe_epoch"
"""The key under which a checkpoint inside an epoch has what was logged in it, process by process."""

_OTHER = (AttributeError, KeyError, TypeError)
"""What is raised where Lightning keeps what was logged in another way than here."""

_Checkpoint: Any = _framework().Checkpoint


class PipeCallback(_Checkpoint):
    """Reports steps and epochs, saves where the policy wants it, stops where that was asked.

    It takes `max_epochs` from the job, and stands in the place of `ModelCheckpoint`. Before each
    batch it seeds the generators by (seed, epoch, batch), so that dropout and augmentation repeat
    after a resume; the order of the data is `EpochSampler`'s to repeat, and a loader that shuffles
    in an order of its own is warned of. A metric of the epoch is whatever the module logged.

    A stop saves at once, inside the epoch too, and ends the program with exit code 0. Lightning's
    own answer to SIGTERM, which saves nothing, is out of the way while it trains. What an epoch has
    behind it when it is gone on with is read again and dropped. What was logged in it comes back
    with the checkpoint, to the bit. Two things do not: a metric that is an object of torchmetrics,
    and one with a `sync_dist_group`; these then cover the rest of the epoch. Such an object is the
    module's own, which keeps it with `metric.persistent(True)`.
    """

    _inside: int | None = None
    _logged: Any = None

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        if stage != "fit":
            return
        if job.unit == "epoch" and job.target is not None:
            trainer.fit_loop.max_epochs = job.target

    def on_load_checkpoint(
        self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]
    ) -> None:
        canonical(checkpoint)
        self._logged = checkpoint.get(_EPOCH)

    def on_save_checkpoint(
        self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]
    ) -> None:
        if self._inside:
            checkpoint[_EPOCH] = _of_all(trainer, _logged(trainer))

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        if job.start is not None and not trainer.ckpt_path:
            raise JobError(
                f"there is {job.start} to go on from: trainer.fit(…, ckpt_path=job.start)"
            )
        reseed(job.seed, job.done)

    def on_sanity_check_end(self, trainer: Any, pl_module: Any) -> None:
        reseed(job.seed, job.done)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        if trainer.current_epoch != job.done:
            raise JobError(f"Lightning is at epoch {trainer.current_epoch} and pipe at {job.done}")
        for loader in trainer.fit_loop._combined_loader.flattened:
            _warn_of_order(loader)
        # Lightning goes on counting where it was, and leaves it to the loader to do so as well.
        for _ in range(job.step_in_epoch):
            next(trainer.fit_loop._data_fetcher.iterator)
        if job.step_in_epoch:
            reseed(job.seed, job.done, job.step_in_epoch, _FETCH)
            _log_again(trainer, self._logged)
        self._lightning_handler = signal.getsignal(signal.SIGTERM)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, lambda number, frame: job.ask_stop())

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        if hasattr(self, "_lightning_handler") and (
            threading.current_thread() is threading.main_thread()
        ):
            signal.signal(signal.SIGTERM, self._lightning_handler)
            del self._lightning_handler

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        reseed(job.seed, trainer.current_epoch, batch_idx)

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        metrics = {} if loss is None else {"loss": loss}
        steps, inside = trainer.num_training_batches, batch_idx + 1
        known = {"steps": int(steps)} if steps != float("inf") else {}
        job.report(step=trainer.global_step, step_in_epoch=inside, **known, **metrics)
        reseed(job.seed, trainer.current_epoch, inside, _FETCH)
        whole_step = inside % trainer.accumulate_grad_batches == 0
        if whole_step and inside < steps and _all(trainer, job.should_save):
            self._save(trainer, inside)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        if _all(trainer, job.complete(_metrics(trainer)).save):
            self._save(trainer, None)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        if job.unit == "epoch" and job.done < (job.target or 0):
            job.finish(f"Lightning stopped the training after epoch {job.done}")

    def _save(self, trainer: Any, inside: int | None) -> None:
        path = job.scratch / "checkpoint"
        self._inside = inside
        trainer.save_checkpoint(path)
        self._inside = None
        job.hand_in(path, step_in_epoch=inside)
        if _all(trainer, job.should_stop):
            raise SystemExit(0)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        job.fail_with(exception)


def _all(trainer: Any, word: bool) -> bool:
    """What rank 0 says, in every process."""
    return word if trainer.world_size == 1 else bool(trainer.strategy.broadcast(word))


def _metrics(trainer: Any) -> dict[str, float]:
    """What was logged over the epoch. Of a metric logged by step and epoch, the epoch's."""
    return {
        name: float(value)
        for name, value in trainer.callback_metrics.items()
        if not name.endswith("_step")
    }


def _of_all(trainer: Any, here: Any) -> list[Any]:
    """What each process has."""
    if trainer.world_size == 1:
        return [here]
    everywhere = [None] * trainer.world_size
    torch.distributed.all_gather_object(everywhere, here)
    return everywhere


def _results(trainer: Any) -> Any:
    """What was logged in the training epoch under way, by the function that logged it and name."""
    return trainer.fit_loop.epoch_loop._results


_SUMS = ("value", "cumulated_batch_size", "_forward_cache")
"""The tensors of a logged metric: what is reduced so far, of how many, and the newest value."""

_ARGUMENTS = (
    "fx", "name", "prog_bar", "logger", "on_step", "on_epoch", "enable_graph", "add_dataloader_idx",
    "metric_attribute",
)


def _logged(trainer: Any) -> dict[str, Any] | None:
    """What was logged in the epoch under way; None where Lightning keeps it in another way."""
    try:
        metrics = {}
        for key, metric in _results(trainer).items():
            meta, sync = metric.meta, metric.meta.sync
            if metric.has_reset or not metric.is_tensor or sync._group is not None:
                continue
            reduce = meta.reduce_fx
            sums = {name: getattr(metric, name, None) for name in _SUMS}
            metrics[key] = {
                "arguments": {name: getattr(meta, name) for name in _ARGUMENTS}
                | {"sync_dist": sync.should, "rank_zero_only": sync.rank_zero_only},
                "reduce": reduce.__name__,
                "is_builtin": getattr(builtins, reduce.__name__, None) is reduce,
                "sums": {name: _on_cpu(sum) for name, sum in sums.items() if sum is not None},
            }
        newest = {name: _on_cpu(value) for name, value in trainer.callback_metrics.items()}
        return {"metrics": metrics, "newest": newest}
    except _OTHER:
        return None


def _log_again(trainer: Any, of_all: Any) -> None:
    """Logs what was logged before the checkpoint in the epoch that it lies in."""
    device = trainer.strategy.root_device
    try:
        if len(of_all) != trainer.world_size:
            raise KeyError("another number of processes")
        logged, results = of_all[trainer.global_rank], _results(trainer)
        for key, metric in logged["metrics"].items():
            sums = {name: sum.to(device) for name, sum in metric["sums"].items()}
            functions = builtins if metric["is_builtin"] else torch
            results.log(
                **metric["arguments"], reduce_fx=getattr(functions, metric["reduce"]),
                sync_dist_fn=trainer.strategy.reduce, value=sums["value"], batch_size=1,
            )
            for name, sum in sums.items():
                setattr(results[key], name, sum)
        trainer._logger_connector._callback_metrics.update(logged["newest"])
        # At the first batch of an epoch Lightning forgets what was logged before.
        trainer._logger_connector._first_loop_iter = False
    except _OTHER:
        with contextlib.suppress(*_OTHER):
            _results(trainer).clear()
        job.warn(
            f"the metrics of epoch {job.done + 1} cover only its steps from "
            f"{job.step_in_epoch + 1} on: the checkpoint has not what was logged before, or "
            "another version of Lightning or number of processes wrote it"
        )


def _on_cpu(tensor: Any) -> Any:
    return tensor.detach().cpu()


def _warn_of_order(loader: Any) -> None:
    sampler = getattr(loader, "sampler", None)
    if "RandomSampler" in {base.__name__ for base in type(sampler).__mro__}:
        job.warn(
            "the training's loader shuffles in an order of its own, so that a resumed training "
            "differs: in its DataLoader, sampler=EpochSampler(dataset) instead of shuffle=True"
        )
