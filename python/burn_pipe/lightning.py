"""Lightning 2 (`lightning` or `pytorch_lightning`): one callback.

    trainer = Trainer(max_epochs=20, callbacks=[PipeCallback()])
    trainer.fit(model, data, ckpt_path=job.start)

The checkpoints are Lightning's own, whole: weights, optimizers, schedules, loops, callbacks.
"""

from __future__ import annotations

import importlib
import importlib.util
import signal
import sys
import threading
from typing import Any

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

_Checkpoint: Any = _framework().Checkpoint


class PipeCallback(_Checkpoint):
    """Reports steps and epochs, saves where the policy wants it, stops where that was asked.

    It takes `max_epochs` from the job, and stands in the place of `ModelCheckpoint`. Before each
    batch it seeds the generators by (seed, epoch, batch), so that dropout and augmentation repeat
    after a resume; the order of the data is `EpochSampler`'s to repeat, and a loader that shuffles
    in an order of its own is warned of. A metric of the epoch is whatever the module logged.

    A stop saves at once, inside the epoch too, and ends the program with exit code 0. Lightning's
    own answer to SIGTERM, which saves nothing, is out of the way while it trains. What an epoch has
    behind it when it is gone on with is read again and dropped, and its metrics cover the rest.
    """

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        if stage != "fit":
            return
        if job.unit == "epoch" and job.target is not None:
            trainer.fit_loop.max_epochs = job.target

    def on_load_checkpoint(
        self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]
    ) -> None:
        canonical(checkpoint)

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
        trainer.save_checkpoint(path)
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


def _warn_of_order(loader: Any) -> None:
    sampler = getattr(loader, "sampler", None)
    if "RandomSampler" in {base.__name__ for base in type(sampler).__mro__}:
        job.warn(
            "the training's loader shuffles in an order of its own, so that a resumed training "
            "differs: in its DataLoader, sampler=EpochSampler(dataset) instead of shuffle=True"
        )
