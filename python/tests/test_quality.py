"""FID and KID of an `evaluate` stage beside those of pytorch-fid and clean-fid, of the same pictures and weights.

The weights are a formula, so that none have to be fetched. `PIPE_TEST_PROGRAM` is the path of a `pipe`; without it, or
without these packages, nothing here runs.
"""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import pytest
from test_adapters import needs
from test_diffit import MODEL, pipe

REFERENCE = Path(__file__).parents[2] / "src/train/tests/quality/reference.py"
PIPELINE = f"""
name: tiny
stages:
  data: {{ kind: dataset, source: image_folder, root: real, image_size: 16 }}
  base: {{ kind: train, dataset: data, epochs: 1, batch_size: 8, device: cpu, model: {MODEL} }}
  clean:
    kind: evaluate
    from: base
    dataset: data
    to: clean
    metrics: [fid, kid, precision, recall]
    seeds: 0-23
    steps: 2
    features: weights.pth
    device: cpu
  legacy:
    {{ kind: evaluate, from: base, dataset: data, to: legacy, metrics: [fid], seeds: 0-23, steps: 2,
       features: weights.pth, resize: legacy, device: cpu }}
  published:
    {{ kind: evaluate, from: base, dataset: data, to: published, metrics: [fid], seeds: 0-23, steps: 2,
       features: weights.pth, statistics: real.npz, device: cpu }}
"""


def reference() -> Any:
    spec = importlib.util.spec_from_file_location("reference", REFERENCE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_figures_are_those_of_pytorch_fid_and_clean_fid(tmp_path):
    for package in ("numpy", "PIL", "scipy", "torch", "torchvision", "pytorch_fid", "cleanfid"):
        needs(package)
    if "PIPE_TEST_PROGRAM" not in os.environ:
        pytest.skip("PIPE_TEST_PROGRAM is not set")
    import numpy
    import torch
    from cleanfid.fid import frechet_distance, kernel_distance
    from PIL import Image

    other = reference()
    net, state = other.network()
    torch.save(state, tmp_path / "weights.pth")
    (tmp_path / "real/all").mkdir(parents=True)
    for index in range(24):
        Image.fromarray(other.picture(index, 16, 16)).save(tmp_path / f"real/all/{index:02}.png")

    def features(folder: str, way: str) -> Any:
        files = sorted((tmp_path / folder).glob("**/*.png"))
        assert len(files) == 24
        pixels = [other.resized(numpy.asarray(Image.open(file)), way) for file in files]
        with torch.no_grad():
            found = [net(each[None])[0].reshape(-1).numpy() for each in pixels]
        return numpy.stack(found).astype(numpy.float64)

    def statistics(found: Any) -> tuple[Any, Any]:
        return found.mean(0), numpy.cov(found, rowvar=False)

    real = features("real", "clean")
    mu, sigma = statistics(real)
    numpy.savez(tmp_path / "real.npz", mu=mu, sigma=sigma)
    (tmp_path / "p.yaml").write_text(PIPELINE)
    pipe(tmp_path, "run", "p.yaml")

    def said(stage: str) -> dict[str, float]:
        return json.loads((tmp_path / stage / "metrics.json").read_text())

    sampled = features("clean/pictures", "clean")
    clean = said("clean")
    assert clean["fid"] == pytest.approx(frechet_distance(*statistics(sampled), mu, sigma), rel=1e-3)
    assert clean["kid"] == pytest.approx(kernel_distance(real, sampled, 1, 24), rel=1e-3)
    assert clean["precision"] == pytest.approx(other.near(sampled, real))
    assert clean["recall"] == pytest.approx(other.near(real, sampled))
    assert said("published")["fid"] == pytest.approx(clean["fid"], rel=1e-6)
    # Of few pictures the root's trace is the nuclear norm of a small matrix; SciPy takes a minute for it.
    both = [features(folder, "legacy") for folder in ("legacy/pictures", "real")]
    centred = [(found - found.mean(0)) / 23**0.5 for found in both]
    traces = sum(float((rows**2).sum()) for rows in centred)
    root = float(numpy.linalg.svd(centred[0] @ centred[1].T, compute_uv=False).sum())
    expected = float(((both[0].mean(0) - both[1].mean(0)) ** 2).sum()) + traces - 2 * root
    assert said("legacy")["fid"] == pytest.approx(expected, rel=1e-3)
    assert abs(expected / clean["fid"] - 1) > 1e-3, "the ways to resize differ"
    print("fid", clean["fid"], frechet_distance(*statistics(sampled), mu, sigma))
    print("kid", clean["kid"], kernel_distance(real, sampled, 1, 24))
    print("legacy", said("legacy")["fid"], expected)
