"""`load` on a checkpoint that `pipe` wrote, and on those of programs."""

from __future__ import annotations

import importlib.util
import json
import os
import struct
from pathlib import Path

import pytest
from burn_pipe import load
from fake_pipe import PACKAGE

WRITTEN = PACKAGE.parent / "fuzz" / "corpus" / "checkpoint" / "lora_format_2.ckpt"
NAME = "middle.0.block.attn.proj.lora_A.weight"


def safetensors(path: Path, tensors: dict[str, tuple[str, list[int], bytes]], **about: str) -> Path:
    header, data = {"__metadata__": about} if about else {}, b""
    for name, (dtype, shape, values) in tensors.items():
        offsets = [len(data), len(data) + len(values)]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
        data += values
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def frameworks() -> list[str]:
    return [name for name in ("torch", "numpy") if importlib.util.find_spec(name)] + ["memoryview"]


@pytest.mark.parametrize("framework", ["torch", "numpy", "memoryview"])
def test_a_checkpoint_of_pipe_is_the_nested_dictionary(framework):
    if framework not in frameworks():
        pytest.skip(f"{framework} is not installed")
    checkpoint = load(WRITTEN, framework)
    assert checkpoint["epoch"] == 1 and checkpoint["global_step"] == 4 and checkpoint["seed"] == 42
    assert 1.1 < checkpoint["metrics"]["train_loss"] < 1.2
    assert checkpoint["scheduler_state_dict"]["last_step"] == 4
    assert checkpoint["class_names"] == ["circle", "square"]
    assert checkpoint["model_config"]["dim"] == 16
    weight = checkpoint["state_dict"][NAME]
    assert tuple(weight.shape) == (2, 16)
    assert set(checkpoint["optimizer_state_dict"][NAME]) == {"exp_avg", "exp_avg_sq", "step"}
    values = [list(row) for row in weight.tolist()]
    assert values == load(WRITTEN, "memoryview")["state_dict"][NAME].tolist()
    assert any(values[0])


def test_a_change_of_a_tensor_does_not_reach_the_file(tmp_path):
    two = ("F32", [2], struct.pack("<2f", 1, 2))
    path = safetensors(tmp_path / "a.ckpt", {"state_dict.x": two})
    before = path.read_bytes()
    tensor = load(path)["state_dict"]["x"]
    tensor[0] = 9
    assert path.read_bytes() == before and load(path)["state_dict"]["x"].tolist() == [1, 2]


def test_all_types_and_shapes(tmp_path):
    kinds = {
        "F64": struct.pack("<d", 1.5), "F16": struct.pack("<e", 1.5), "BF16": b"\xc0\x3f",
        "I64": struct.pack("<q", 3), "U8": b"\x03", "BOOL": b"\x01",
    }
    path = safetensors(
        tmp_path / "a.ckpt",
        {f"state_dict.{kind}": (kind, [], value) for kind, value in kinds.items()}
        | {"state_dict.empty": ("F32", [0, 3], b""), "loose": ("F32", [1], struct.pack("<f", 2))},
    )
    for framework in frameworks():
        state = load(path, framework)["state_dict"]
        if framework != "memoryview":
            values = {kind: state[kind].item() for kind in kinds}
            assert values == {"F64": 1.5, "F16": 1.5, "BF16": 1.5, "I64": 3, "U8": 3, "BOOL": True}
            assert tuple(state["empty"].shape) == (0, 3)
        assert load(path, framework)["loose"].tolist() == [2]


@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_a_checkpoint_of_a_program_is_what_pipe_notes_of_it(tmp_path, link):
    folder = tmp_path / "run_001" / "checkpoints"
    folder.mkdir(parents=True)
    epoch = folder / "epoch_003.ckpt"
    if link is os.symlink:
        epoch.mkdir()
    else:
        epoch.write_bytes(b"anything")
    header = {"epoch": "3", "global_step": "9", "metrics": '{"loss":0.5}', "model_config": "null"}
    files = [{"path": "", "bytes": 8, "digest": "00"}]
    note = {"header": header, "folder": False, "files": files, "checksum": "crc32c:0"}
    (folder / "epoch_003.ckpt.json").write_text(json.dumps(note))
    link(epoch if link is os.link else epoch.name, folder / "best.ckpt")
    checkpoint = load(epoch)
    assert (checkpoint["epoch"], checkpoint["global_step"]) == (3, 9)
    assert checkpoint["metrics"] == {"loss": 0.5} and checkpoint["model_config"] is None
    assert checkpoint["path"] == epoch and checkpoint["files"] == files
    assert load(folder / "best.ckpt")["epoch"] == 3
    assert load(tmp_path / "run_001")["path"] == folder / "best.ckpt"


def test_what_is_no_checkpoint_is_named(tmp_path):
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "none.ckpt")
    with pytest.raises(ValueError, match="folder without a note"):
        load(tmp_path)
    (tmp_path / "short").write_bytes(b"abc")
    with pytest.raises(ValueError, match="less than 8 bytes"):
        load(tmp_path / "short")
    (tmp_path / "text").write_bytes(b"hello, this is text and no tensors")
    with pytest.raises(ValueError, match="no safetensors file"):
        load(tmp_path / "text")
    whole = WRITTEN.read_bytes()
    (tmp_path / "cut").write_bytes(whole[:-10])
    with pytest.raises(ValueError, match="ends before its tensor"):
        load(tmp_path / "cut", "memoryview")
    with pytest.raises(ValueError, match="torch, numpy or memoryview"):
        load(WRITTEN, "jax")
