"""The names in a state that was read are the interpreter's own again.

A pickle writes a string once and refers to it where the same object comes again. Names that were
read from a file are other objects than those in a program's text, so that a resumed training would
write the same state in other bytes.
"""

from __future__ import annotations

import sys
from typing import Any, MutableMapping


def intern_names(value: Any) -> Any:
    """Changes mappings and lists in place, at any depth. Returns what stands for `value`."""
    if type(value) is str:
        return sys.intern(value)
    if isinstance(value, MutableMapping):
        items = [(intern_names(key), intern_names(inner)) for key, inner in value.items()]
        value.clear()
        value.update(items)
    elif type(value) is list:
        value[:] = [intern_names(inner) for inner in value]
    elif type(value) is tuple and any(type(inner) is str for inner in value):
        return tuple(intern_names(inner) for inner in value)
    return value
