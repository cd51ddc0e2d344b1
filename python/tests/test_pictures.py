"""Sampled pictures as other programs read them: Pillow, NumPy, and EDM's way with a zip file.

`PIPE_TEST_PROGRAM` is the path of a `pipe`; without it nothing here runs.
"""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path

import pytest
from test_adapters import needs
from test_diffit import BEST, MODEL, pipe

PIPELINE = f"""
name: tiny
stages:
  data:
    {{ kind: dataset, source: shapes, classes: [circle, square], image_size: 8, num_images: 16 }}
  base: {{ kind: train, dataset: data, epochs: 1, batch_size: 8, device: cpu, model: {MODEL} }}
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    needs("numpy")
    needs("PIL")
    if "PIPE_TEST_PROGRAM" not in os.environ:
        pytest.skip("PIPE_TEST_PROGRAM is not set")
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "p.yaml").write_text(PIPELINE)
    pipe(folder, "run", "p.yaml")
    return folder


def test_pillow_reads_pictures_and_how_they_were_made(project):
    from PIL import Image

    pipe(project, "sample", BEST, "--seeds", "0-3", "--steps", "2", "-o", "drawn")
    names = sorted(str(file.relative_to(project / "drawn")) for file in project.glob("drawn/*/*"))
    expected = ["circle/000000.png", "circle/000002.png", "square/000001.png", "square/000003.png"]
    assert names == expected
    picture = Image.open(project / "drawn/square/000003.png")
    assert (picture.size, picture.mode) == ((8, 8), "RGB")
    said = {key: picture.text[key] for key in ("seed", "class", "guidance", "steps", "weights")}
    assert said == {
        "seed": "3", "class": "square", "guidance": "1", "steps": "2", "weights": "ema",
    }
    assert picture.text["checkpoint"].startswith("blake3-head:")


def test_numpy_and_a_reader_of_zip_files_find_the_same_pixels(project):
    import numpy
    from PIL import Image

    for name in ("drawn", "drawn.zip", "drawn.npz"):
        pipe(project, "sample", BEST, "--seeds", "0-3", "--steps", "2", "-o", name)
    arrays = numpy.load(project / "drawn.npz")
    assert (arrays["arr_0"].shape, arrays["arr_0"].dtype) == ((4, 8, 8, 3), numpy.uint8)
    assert arrays["arr_1"].tolist() == [0, 1, 0, 1]
    with zipfile.ZipFile(project / "drawn.zip") as archive:
        labels = dict(json.loads(archive.read("dataset.json"))["labels"])
        names = [name for name in archive.namelist() if name.endswith(".png")]
        assert [labels[name] for name in names] == [0, 1, 0, 1]
        for name, pixels in zip(names, arrays["arr_0"], strict=True):
            with archive.open(name) as file:
                assert (numpy.asarray(Image.open(file)) == pixels).all()
            assert archive.read(name) == (project / "drawn" / name).read_bytes()
