"""What the packages of Hugging Face's hub read and write: the folder of `pipe ckpt export --hub`, and
data sets of images.

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


def test_a_data_set_that_datasets_wrote_is_read(tmp_path):
    needs("datasets", "PIL")
    if "PIPE_TEST_PROGRAM" not in os.environ:
        pytest.skip("PIPE_TEST_PROGRAM is not set")
    import datasets
    from PIL import Image

    labels = [2, 0, 2, 1, 2]
    shades = [Image.new("RGB", (9, 12), (40 * n, 0, 0)) for n in range(len(labels))]
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=["zebra", "a/b", "cat"]),
            "note": datasets.Value("string"),
        }
    )
    rows = {"image": shades, "label": labels, "note": ["x"] * len(labels)}
    of_split = datasets.Dataset.from_dict(rows, features=features)
    folder = tmp_path / "beans/data"
    folder.mkdir(parents=True)
    for number, rows in enumerate([range(3), range(3, 5)]):
        name = f"train-{number:05}-of-00002.parquet"
        of_split.select(rows).to_parquet(folder / name)
    of_split.select([0]).to_parquet(folder / "test-00000-of-00001.parquet")
    stages = "data: { kind: dataset, source: image_folder, root: beans, image_size: 8 }"
    (tmp_path / "p.yaml").write_text(f"name: p\nstages:\n  {stages}\n")
    (stage,) = json.loads(pipe(tmp_path, "data", "p.yaml", "--json"))
    classes = {of_class["name"]: of_class["train"] for of_class in stage["classes"]}
    assert classes == {"a/b": 1, "cat": 3, "zebra": 1}
