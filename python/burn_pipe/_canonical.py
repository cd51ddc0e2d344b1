"""A state that was read, made of the same objects as one that was computed."""

from __future__ import annotations

import sys
from typing import Any, MutableMapping


def canonical(value: Any) -> Any:
    """What a pickle gave back, so that it is pickled again in the bytes of a training in one go.

    A pickle writes an object once and refers to it where the same one comes again. A name that was
    read from a file is another object than that name in a program's text, and so is the type of an
    array. Here names become the interpreter's own and types NumPy's own, in mappings, lists and
    tuples at any depth and in the attributes of `value`. Values do not change. Mappings, lists and
    attributes are changed in place; returns what stands for `value`.

        state = canonical(torch.load(job.start))
    """
    if not isinstance(value, (MutableMapping, list, tuple)) and hasattr(value, "__dict__"):
        _walk(vars(value))
        return value
    return _walk(value)


def _walk(value: Any) -> Any:
    if type(value) is str:
        return sys.intern(value)
    if isinstance(value, MutableMapping):
        items = [(_walk(key), _walk(inner)) for key, inner in value.items()]
        value.clear()
        value.update(items)
    elif type(value) is list:
        value[:] = [_walk(inner) for inner in value]
    elif type(value) is tuple and any(type(inner) is str for inner in value):
        return tuple(_walk(inner) for inner in value)
    elif (numpy := sys.modules.get("numpy")) and type(value) is numpy.ndarray:
        own = None if value.dtype.hasobject else numpy.dtype(value.dtype.str)
        if own == value.dtype and own is not value.dtype:
            return value.view(own)
    return value
