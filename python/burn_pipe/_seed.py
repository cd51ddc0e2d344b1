"""Random numbers that are known from the seed and the position, never from what ran before."""

from __future__ import annotations

import hashlib
import random
import sys
from typing import Any


def number_of(seed: int, *position: int) -> int:
    """A 63-bit number that depends on nothing else, for a generator of one's own."""
    text = ",".join(str(number) for number in (seed, *position))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def reseed(seed: int, *position: int) -> None:
    """Seeds `random`, NumPy's global generator and PyTorch's, each where it is imported.

    The state depends on `seed` and `position` (an epoch, a batch) alone, so that a training that
    was interrupted sees the same numbers as one that was not.
    """
    number = number_of(seed, *position)
    random.seed(number)
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed(number % 2**32)
    if torch := sys.modules.get("torch"):
        _seed_torch(torch, number)


def _seed_torch(torch: Any, number: int) -> None:
    """As `torch.manual_seed`, which without a GPU spends 0.1 ms on what is not there."""
    accelerator = getattr(torch, "accelerator", None)
    if accelerator is not None and not accelerator.is_available():
        torch.default_generator.manual_seed(number)
    else:
        torch.manual_seed(number)
