"""The PyTorch module against `pipe`'s own network, and the page about Python as it is written.

`PIPE_TEST_PROGRAM` is the path of a `pipe`; without it only the module's own tests run.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from fake_pipe import PACKAGE, environment
from test_adapters import good, needs

MODEL = "{dim: 16, mults: [1, 2], depths: [1, 1], heads: 2, window: 4}"
PIPELINE = f"""
name: tiny
stages:
  data: {{ kind: dataset, source: shapes, image_size: 8, num_images: 16 }}
  trees: {{ kind: dataset, source: trees, image_size: 8, num_images: 16 }}
  base: {{ kind: train, dataset: data, epochs: 2, batch_size: 8, device: cpu, model: {MODEL} }}
  best: {{ kind: copy_best, from: base, to: checkpoints/base/base_model_last.ckpt }}
  lora: {{ kind: lora, base: best, dataset: trees, epochs: 1, batch_size: 8, device: cpu }}
"""
BEST = "checkpoints/base_training/run_001/checkpoints/best.ckpt"


def pipe(folder: Path, *arguments: str) -> str:
    program = os.environ["PIPE_TEST_PROGRAM"]
    done = subprocess.run([program, *arguments], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A folder in which `pipe` has trained a base model and LoRA on other classes."""
    needs("torch")
    if "PIPE_TEST_PROGRAM" not in os.environ:
        pytest.skip("PIPE_TEST_PROGRAM is not set")
    folder = tmp_path_factory.mktemp("project")
    (folder / "p.yaml").write_text(PIPELINE)
    pipe(folder, "run", "p.yaml")
    return folder


def test_shapes_and_gradients():
    needs("torch")
    import torch
    from burn_pipe import diffit

    net = diffit.Diffit(16, [1, 2], [1, 1], heads=2, window=4, image_size=8, num_classes=3)
    images = torch.randn(2, 3, 8, 8)
    sigma = torch.tensor([0.5, 1.0])
    assert diffit.denoise(net, images, sigma).shape == images.shape
    none = diffit.denoise(net, images, sigma, torch.tensor([3, 3]))
    assert torch.equal(none, diffit.denoise(net, images, sigma)), "class 3 of 3 is no class"
    diffit.loss(net, images, sigma, torch.randn_like(images), torch.tensor([0, 1])).backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


@pytest.mark.parametrize("weights", ["ema_state_dict", "state_dict"])
def test_it_computes_what_pipe_computes(project, weights):
    import torch
    from burn_pipe import diffit

    net = diffit.load(project / BEST, weights)
    size = 2 * 3 * 8 * 8
    images = torch.sin(0.37 * torch.arange(size, dtype=torch.float64)).float().view(2, 3, 8, 8)
    with torch.no_grad():
        outputs = diffit.denoise(net, images, torch.tensor([0.5, 1.0]))
    probes = json.loads(pipe(project, "ckpt", "probe", BEST, "--prefix", f"{weights}."))
    assert outputs.flatten()[:8].tolist() == pytest.approx(probes["first"], abs=1e-5)
    assert outputs.mean().item() == pytest.approx(probes["mean"], abs=1e-5)


def test_the_page_runs_as_it_is_written(project):
    needs("peft", "safetensors")
    page = (PACKAGE.parent / "docs" / "python.md").read_text()
    blocks = re.findall(r"<!-- not run: needs PyTorch[^>]*-->\n```python\n(.*?)```", page, re.S)
    assert len(blocks) >= 2
    text = "\n".join(blocks)
    done = subprocess.run(
        [sys.executable, "-c", text], cwd=project, env=environment(), capture_output=True, text=True
    )
    good(done)


def test_what_is_no_diffit_is_named(tmp_path):
    needs("torch")
    from burn_pipe import diffit
    from test_load import safetensors

    path = safetensors(tmp_path / "a.ckpt", {}, model_config='{"arch": "unet"}')
    with pytest.raises(ValueError, match="no checkpoint of a DiffiT"):
        diffit.load(path)
    path = safetensors(tmp_path / "b.ckpt", {}, model_config='{"dim": 16}')
    with pytest.raises(ValueError, match="has no ema_state_dict"):
        diffit.load(path)
