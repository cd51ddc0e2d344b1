"""The folder of `pipe ckpt export --hub` as the hub's own package reads it.

`PIPE_TEST_PROGRAM` is the path of a `pipe`; without it nothing here runs.
"""

from __future__ import annotations

import json
import os

import pytest
from test_adapters import needs
from test_diffit import BEST, pipe
from test_pictures import PIPELINE


def test_the_card_and_the_weights_are_read(tmp_path):
    needs("huggingface_hub")
    needs("safetensors")
    needs("torch")
    if "PIPE_TEST_PROGRAM" not in os.environ:
        pytest.skip("PIPE_TEST_PROGRAM is not set")
    from huggingface_hub import ModelCard
    from safetensors.torch import load_file

    (tmp_path / "p.yaml").write_text(PIPELINE)
    pipe(tmp_path, "run", "p.yaml")
    pipe(tmp_path, "ckpt", "export", BEST, "--hub", "hub")
    card = ModelCard.load(tmp_path / "hub/README.md").data
    assert (card.library_name, card.pipeline_tag) == ("burn-pipe", "unconditional-image-generation")
    assert card.tags == ["diffusion", "pixel-space", "diffit"]
    run = json.loads((tmp_path / BEST).parents[1].joinpath("metadata.json").read_text())
    (result,) = card.eval_results
    metrics = run["best_checkpoint"]["metrics"]
    assert (result.metric_type, result.metric_value) == ("train_loss", metrics["train_loss"])
    assert result.dataset_name == "shapes"
    weights = load_file(tmp_path / "hub/model.safetensors")
    assert weights and all(name.startswith("state_dict.") for name in weights)
