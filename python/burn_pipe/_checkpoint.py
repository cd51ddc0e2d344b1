"""Reads checkpoints: those that `pipe` wrote, and what it knows of those that a program wrote."""

from __future__ import annotations

import importlib.util
import json
import mmap
import os
import struct
from pathlib import Path
from typing import Any, Union

_PARTS = ("state_dict", "ema_state_dict", "optimizer_state_dict")
_NUMBERS = ("epoch", "global_step", "step_in_epoch", "seed", "version")
_JSON = ("metrics", "scheduler_state_dict", "loop_state", "model_config", "class_names", "lora")


def load(path: Union["os.PathLike[str]", str], framework: str | None = None) -> dict[str, Any]:
    """A checkpoint as a nested dictionary.

    Of a `.ckpt` that `pipe` wrote: `state_dict`, `ema_state_dict` (tensors by name),
    `optimizer_state_dict` (`exp_avg`, `exp_avg_sq`, `step` by the parameter's name),
    `scheduler_state_dict`, `epoch`, `global_step`, `metrics`, `model_config`, `class_names` and
    what else its header holds.

    Of a program's own checkpoint, a file or a folder: `path`, where it is, and what `pipe` noted
    beside it in `NAME.ckpt.json`: `epoch`, `global_step`, `step_in_epoch`, `metrics`, `seed`,
    `files` with their digests. A run's folder stands for its best checkpoint.

    `framework` says what a tensor is: "torch", "numpy", or "memoryview" (a `memoryview` of the
    tensor's bytes, cast to its type and shape where Python has that type). None takes the first of
    these that is installed. The file is mapped into memory: what is not touched is not read, and a
    change of a tensor does not reach the file. NumPy has no bfloat16: such tensors become float32.

    Raises `FileNotFoundError`, and `ValueError` where the file is no checkpoint.
    """
    path = Path(path)
    if path.is_dir() and (path / "checkpoints" / "best.ckpt").exists():
        path = path / "checkpoints" / "best.ckpt"
    if (note := _note(path)) is not None:
        header = note.pop("header", {})
        return {**_parsed(header), **note, "path": path}
    if path.is_dir():
        raise ValueError(
            f"{path} is a folder without a note of pipe's beside it ({path.name}.json)"
        )
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size < 8:
            raise ValueError(f"{path} is no checkpoint: it has less than 8 bytes")
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    header, begin = _header(path, data)
    checkpoint = _parsed(header.pop("__metadata__", {}))
    as_tensor = _maker(framework)
    for name, entry in header.items():
        first, last = (begin + offset for offset in entry["data_offsets"])
        if not begin <= first <= last <= len(data):
            raise ValueError(f"{path} ends before its tensor {name} does")
        tensor = as_tensor(data, first, last - first, entry["dtype"], entry["shape"])
        part, dot, rest = name.partition(".")
        if not dot or part not in _PARTS:
            checkpoint[name] = tensor
        elif part == "optimizer_state_dict":
            parameter, _, moment = rest.rpartition(".")
            checkpoint.setdefault(part, {}).setdefault(parameter, {})[moment] = tensor
        else:
            checkpoint.setdefault(part, {})[rest] = tensor
    return checkpoint


def _parsed(about: dict[str, str]) -> dict[str, Any]:
    """A header's texts as what they stand for."""
    return {
        key: int(value) if key in _NUMBERS else json.loads(value) if key in _JSON else value
        for key, value in about.items()
    }


def _note(path: Path) -> dict[str, Any] | None:
    """What `pipe` noted of a program's own checkpoint. `best` and `last` are links of an epoch."""
    resolved = path.resolve(strict=True)
    candidates = [path, resolved]
    if path.name in ("best.ckpt", "last.ckpt") and resolved.is_file():
        candidates += [other for other in path.parent.glob("epoch_*.ckpt") if other.samefile(path)]
    for candidate in candidates:
        note = candidate.with_name(candidate.name + ".json")
        if note.is_file():
            found: dict[str, Any] = json.loads(note.read_text(encoding="utf-8"))
            return found
    return None


def _header(path: Path, data: mmap.mmap) -> tuple[dict[str, Any], int]:
    """The header of a safetensors file, and where the tensors' bytes begin."""
    (length,) = struct.unpack("<Q", data[:8])
    if length > len(data) - 8:
        raise ValueError(f"{path} is no safetensors file, or its end is missing")
    try:
        header: dict[str, Any] = json.loads(data[8 : 8 + length])
    except ValueError as error:
        raise ValueError(f"{path} is no safetensors file") from error
    return header, 8 + length


_FORMATS = {"F64": "d", "F32": "f", "I64": "q", "I32": "i", "I16": "h", "I8": "b"}
_FORMATS |= {"U64": "Q", "U32": "I", "U16": "H", "U8": "B", "BOOL": "?"}
_NUMPY = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4"}
_NUMPY |= {"I16": "<i2", "I8": "i1", "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1"}
_NUMPY |= {"BOOL": "?"}
_TORCH = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_TORCH |= {"I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8"}
_TORCH |= {"BOOL": "bool"}


def _maker(framework: str | None) -> Any:
    if framework is None:
        found = (name for name in ("torch", "numpy") if importlib.util.find_spec(name))
        framework = next(found, "memoryview")
    makers = {"torch": _torch, "numpy": _numpy, "memoryview": _memoryview}
    if framework not in makers:
        raise ValueError(f"framework is {framework!r}: it can be torch, numpy or memoryview")
    return makers[framework]


def _torch(data: mmap.mmap, first: int, size: int, dtype: str, shape: list[int]) -> Any:
    import torch

    kind = getattr(torch, _TORCH[dtype])
    if size == 0:
        return torch.empty(shape, dtype=kind)
    return torch.frombuffer(memoryview(data)[first : first + size], dtype=kind).reshape(shape)


def _numpy(data: mmap.mmap, first: int, size: int, dtype: str, shape: list[int]) -> Any:
    import numpy

    array = numpy.frombuffer(memoryview(data)[first : first + size], dtype=_NUMPY[dtype])
    if dtype == "BF16":
        array = (array.astype("<u4") << 16).view("<f4")
    return array.reshape(shape)


def _memoryview(data: mmap.mmap, first: int, size: int, dtype: str, shape: list[int]) -> Any:
    view: Any = memoryview(data)[first : first + size]
    if dtype not in _FORMATS:
        return view
    return view.cast(_FORMATS[dtype], shape) if shape and size else view.cast(_FORMATS[dtype])
