"""The order of a data set, known from the seed and the epoch. Imports PyTorch."""

from __future__ import annotations

from typing import Iterator, Sized

import torch
from torch.utils.data import Sampler

from . import job
from ._seed import number_of, reseed


class EpochSampler(Sampler[int]):
    """Shuffles by (seed, epoch), so that a resumed training sees each epoch in the same order.

    Takes the place of `shuffle=True`: `DataLoader(data, batch_size, sampler=EpochSampler(data))`.
    Lightning and Accelerate call `set_epoch` before each epoch; in a loop of one's own the first
    epoch is the one that the job goes on with, and `set_epoch(epoch - 1)` is to be called.
    A new epoch also seeds the global generators, from which a loader seeds its workers.

    `seed` left out is the job's.
    """

    def __init__(self, data: Sized, seed: int | None = None) -> None:
        self._data = data
        self._seed = job.seed if seed is None else seed
        self._epoch = job.done

    def set_epoch(self, epoch: int) -> None:
        """`epoch` counts from 0, as the frameworks do."""
        if epoch != self._epoch:
            self._epoch = epoch
            reseed(self._seed, epoch)

    def __iter__(self) -> Iterator[int]:
        # Seeded when the first index is asked for: a loader's iterator, which draws a number, is
        # made at another moment after a resume than between two epochs.
        reseed(self._seed, self._epoch)
        generator = torch.Generator()
        generator.manual_seed(number_of(self._seed, self._epoch))
        yield from torch.randperm(len(self._data), generator=generator).tolist()

    def __len__(self) -> int:
        return len(self._data)
