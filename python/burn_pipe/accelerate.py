"""Accelerate, as the training examples of diffusers use it.

    resume(accelerator)
    for epoch in epochs(accelerator, 10):
        for batch in loader: ...
        save(accelerator, {"train_loss": loss})

The checkpoints are the folders of `accelerator.save_state`: what was prepared or registered with
the accelerator, and its generators.
"""

from __future__ import annotations

from typing import Any, Iterator, Mapping, SupportsFloat

from . import job
from ._canonical import canonical
from ._seed import reseed

__all__ = ["epochs", "job", "report", "resume", "save"]


def resume(accelerator: Any) -> None:
    """Loads the state that the job goes on from, if there is one; call it after `prepare`."""
    if job.start is not None:
        accelerator.load_state(str(job.start))
        for optimizer in accelerator._optimizers:
            for state in optimizer.state.values():
                canonical(state)
            canonical(optimizer.param_groups)


def epochs(accelerator: Any, target: int | None = None) -> Iterator[int]:
    """`job.epochs`, with every prepared loader told which epoch it is.

    Each process seeds its generators by (seed, epoch, rank). From them a loader with `shuffle=True`
    takes its order, so that it is the same after a resume. All processes end together.
    """
    for epoch in job.epochs(target, reseed=False):
        for loader in accelerator._dataloaders:
            if hasattr(loader, "set_epoch"):
                loader.set_epoch(epoch - 1)
        reseed(job.seed, epoch, accelerator.process_index)
        yield epoch
        if _any(accelerator, job.should_stop):
            return


def report(accelerator: Any, step: int | None = None, **metrics: SupportsFloat) -> None:
    """`job.report` by the main process, once an optimizer step (`accelerator.sync_gradients`)."""
    if accelerator.sync_gradients:
        values: dict[str, Any] = metrics
        job.report(step, **values)


def save(accelerator: Any, metrics: Mapping[str, SupportsFloat] | None = None) -> None:
    """The epoch is complete; its state is saved if the policy wants it. All processes call it."""
    if _any(accelerator, job.complete(metrics).save):
        path = job.scratch / "checkpoint"
        accelerator.save_state(str(path))
        accelerator.wait_for_everyone()
        job.hand_in(path)
        accelerator.wait_for_everyone()


def _any(accelerator: Any, here: bool) -> bool:
    """Whether it holds in any process."""
    if accelerator.num_processes == 1:
        return here
    import torch

    flag = torch.tensor([float(here)], device=accelerator.device)
    return bool(accelerator.reduce(flag, "sum").item() > 0)
