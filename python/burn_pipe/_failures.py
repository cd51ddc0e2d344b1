"""What kind of failure an exception is, in the words by which `pipe` tries again.

Knows the frameworks' exceptions by their names, so that none of them is imported here.
"""

from __future__ import annotations

_DEVICE = ("cuda error", "cudnn", "cublas", "nccl", "hip error", "xpu", "device-side assert")


def kind_of(error: BaseException) -> str | None:
    """The kind of a failure, or None where it is no failure (the program was asked to end)."""
    if isinstance(error, (KeyboardInterrupt, SystemExit, GeneratorExit)):
        return None
    names = {base.__name__ for base in type(error).__mro__}
    text = str(error).lower()
    if isinstance(error, MemoryError) or "OutOfMemoryError" in names:
        return "out_of_memory"
    if isinstance(error, RuntimeError) and "out of memory" in text:
        return "out_of_memory"
    if "AcceleratorError" in names:
        return "device_lost"
    if isinstance(error, RuntimeError) and any(word in text for word in _DEVICE):
        return "device_lost"
    if isinstance(error, FloatingPointError):
        return "not_finite"
    if isinstance(error, (FileNotFoundError, IsADirectoryError, NotADirectoryError)):
        return "input"
    return "command"
