"""A Lightning checkpoint with names of its own, taken over by `pipe ckpt import --map`.

`PIPE_TEST_PROGRAM` is the path of a `pipe`; without it nothing here runs.
"""

from __future__ import annotations

import copy
import json
import os
import subprocess
from pathlib import Path

import pytest
from test_adapters import needs
from test_diffit import pipe

MODEL = {"dim": 16, "mults": [1, 2], "depths": [1, 1], "heads": 2, "window": 4}
BETAS, EPS, DECAY, RATE = (0.9, 0.99), 1e-8, 0.02, 1e-2

MAPPING = """
weights:
  "{x*}.block.attn.qkv_s.weight":
    - "net.{x*}.transformer.attention.images.q.weight"
    - "net.{x*}.transformer.attention.images.k.weight"
    - "net.{x*}.transformer.attention.images.v.weight"
  "{x*}.block.attn.qkv_t.weight": "net.{x*}.transformer.attention.time.weight"
  "{x*}.block.attn.proj.{kind}": "net.{x*}.transformer.attention.out.{kind}"
  "{x*}.block.attn.bias_table": "net.{x*}.transformer.attention.bias_table"
  "{x*}.block.{layer}.{kind}": "net.{x*}.transformer.{layer}.{kind}"
  "time.{x*}": "net.clock.{x*}"
  "{x*}": "net.{x*}"
ema: { "net.": "ema." }
ignore: [counter]
"""

PIPELINE = f"""
name: goes_on
stages:
  data: {{ kind: dataset, source: shapes, classes: [circle, square], image_size: 8, num_images: 8 }}
  base:
    kind: train
    dataset: data
    epochs: 3
    batch_size: 8
    device: cpu
    learning_rate: {RATE}
    gradient_clip_val: null
    schedule: {{ kind: constant }}
    optimizer: {{ kind: adamw, betas: [{BETAS[0]}, {BETAS[1]}], eps: {EPS}, weight_decay: {DECAY} }}
    model: {{ dim: 16, mults: [1, 2], depths: [1, 1], heads: 2, window: 4 }}
    checkpoint: {{ resume_checkpoint: model.ckpt }}
"""
RUN = "checkpoints/base_training/run_001"


def renamed(net):
    """The network under other names, with one layer in three parts."""
    import torch
    from burn_pipe import diffit

    class Images(torch.nn.Module):
        def __init__(self, whole):
            super().__init__()
            for name, part in zip("qkv", whole.weight.detach().chunk(3)):
                linear = torch.nn.Linear(part.shape[1], part.shape[0], bias=False)
                linear.weight = torch.nn.Parameter(part.clone())
                setattr(self, name, linear)

        def forward(self, x):
            return torch.cat([self.q(x), self.k(x), self.v(x)], dim=-1)

    def rename(module, names):
        children = dict(module._modules)
        module._modules.clear()
        for name, child in children.items():
            module._modules[names.get(name, name)] = child
        of = {old: property(lambda self, new=new: self._modules[new]) for old, new in names.items()}
        module.__class__ = type(type(module).__name__, (type(module),), of)

    for module in list(net.modules()):
        if isinstance(module, diffit.Tmsa):
            module.qkv_s = Images(module.qkv_s)
            rename(module, {"qkv_s": "images", "qkv_t": "time", "proj": "out"})
        elif isinstance(module, diffit.DiffitBlock):
            rename(module, {"attn": "attention"})
        elif isinstance(module, diffit.ResBlock):
            rename(module, {"block": "transformer"})
    rename(net, {"time": "clock"})
    return net


def train(folder: Path, all_parameters: bool):
    """Two epochs of two steps each; the file that Lightning wrote, and the module."""
    import lightning
    import torch
    from burn_pipe import diffit
    from lightning.pytorch.callbacks import ModelCheckpoint

    class Net(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.register_buffer("counter", torch.zeros(1))
            self.net = renamed(diffit.Diffit(**MODEL, image_size=8, num_classes=2))
            self.ema = copy.deepcopy(self.net).requires_grad_(False)

        def training_step(self, batch, index):
            images, labels = batch
            sigma = torch.exp(-1.2 + 1.2 * torch.randn(len(images)))
            return diffit.loss(self.net, images, sigma, torch.randn_like(images), labels)

        def on_train_batch_end(self, *_):
            for ema, now in zip(self.ema.parameters(), self.net.parameters()):
                ema.data.lerp_(now.data, 0.1)

        def configure_optimizers(self):
            parameters = self.parameters() if all_parameters else self.net.parameters()
            return torch.optim.AdamW(parameters, 1e-3, betas=BETAS, eps=EPS, weight_decay=DECAY)

    torch.manual_seed(3)
    data = torch.utils.data.TensorDataset(torch.rand(16, 3, 8, 8) * 2 - 1, torch.arange(16) % 2)
    module = Net()
    keep = ModelCheckpoint(dirpath=folder, filename="theirs")
    trainer = lightning.Trainer(
        max_epochs=2, accelerator="cpu", logger=False, callbacks=[keep],
        enable_progress_bar=False, enable_model_summary=False)
    trainer.fit(module, torch.utils.data.DataLoader(data, 8))
    return folder / "theirs.ckpt", module


@pytest.fixture(scope="module", params=[True, False], ids=["all_parameters", "those_of_the_net"])
def imported(request, tmp_path_factory):
    needs("torch", "lightning")
    if "PIPE_TEST_PROGRAM" not in os.environ:
        pytest.skip("PIPE_TEST_PROGRAM is not set")
    folder = tmp_path_factory.mktemp("project")
    _, module = train(folder, request.param)
    (folder / "map.yaml").write_text(MAPPING)
    said = pipe(folder, "ckpt", "import", "theirs.ckpt", "--map", "map.yaml", "-o", "model.ckpt",
                "--image-size", "8", "--classes", "circle,square")
    assert "weights, EMA weights, the optimizer's state; epoch 2, step 4" in said, said
    return folder, module


def ours(module, tensors):
    """Tensors by the names of the Lightning module's, under the names of `pipe`."""
    import torch

    joined: dict = {}
    for name, tensor in tensors.items():
        name = name.replace(".transformer.", ".block.").replace(".attention.", ".attn.")
        name = name.replace(".time.weight", ".qkv_t.weight").replace(".out.", ".proj.")
        name = name.replace("clock.", "time.", 1) if name.startswith("clock.") else name
        for part in "qkv":
            name = name.replace(f".images.{part}.", ".qkv_s.")
        joined.setdefault(name, []).append(tensor)
    return {name: torch.cat(parts) if len(parts) > 1 else parts[0]
            for name, parts in joined.items()}


def optimizer_state(module):
    """(exp_avg, exp_avg_sq, step) of each parameter of the network, as Lightning kept it."""
    optimizer = module.optimizers().optimizer
    return {name: optimizer.state[parameter] for name, parameter in module.net.named_parameters()}


def test_weights_averages_moments_and_position_are_theirs(imported):
    import torch
    from burn_pipe import diffit, load

    folder, module = imported
    checkpoint = load(folder / "model.ckpt")
    assert (checkpoint["epoch"], checkpoint["global_step"]) == (2, 4)
    for side, net in [("state_dict", module.net), ("ema_state_dict", module.ema)]:
        expected = ours(module, dict(net.named_parameters()))
        assert set(checkpoint[side]) == set(expected)
        for name, tensor in expected.items():
            assert torch.equal(checkpoint[side][name], tensor), name
    states = optimizer_state(module)
    assert all(state["step"] == 4 for state in states.values())
    found = checkpoint["optimizer_state_dict"]
    for moment in ["exp_avg", "exp_avg_sq"]:
        expected = ours(module, {name: state[moment] for name, state in states.items()})
        assert set(found) == set(expected)
        for name, tensor in expected.items():
            assert torch.equal(found[name][moment], tensor), (name, moment)
            assert int(found[name]["step"]) == 4
    # And what is computed with them.
    images = torch.sin(0.37 * torch.arange(2 * 3 * 8 * 8, dtype=torch.float64))
    images = images.float().view(2, 3, 8, 8)
    for side, net in [("state_dict", module.net), ("ema_state_dict", module.ema)]:
        with torch.no_grad():
            outputs = diffit.denoise(net.eval(), images, torch.tensor([0.5, 1.0]))
        probes = json.loads(pipe(folder, "ckpt", "probe", "model.ckpt", "--prefix", f"{side}."))
        assert outputs.flatten()[:8].tolist() == pytest.approx(probes["first"], abs=1e-5)


def test_the_next_step_is_torchs_own(imported):
    """One step here, whose gradient follows from the first moments: torch's optimizer, which goes
    on from its own state with that gradient, comes to the same weights and second moments."""
    import torch
    from burn_pipe import load

    folder, module = imported
    (folder / "p.yaml").write_text(PIPELINE)
    pipe(folder, "run", "p.yaml")
    before, after = load(folder / "model.ckpt"), load(folder / RUN / "checkpoints/last.ckpt")
    assert (after["epoch"], after["global_step"]) == (3, 5)
    parameters, moved = {}, 0
    for name, weight in before["state_dict"].items():
        then, now = before["optimizer_state_dict"][name], after["optimizer_state_dict"][name]
        assert int(now["step"]) == 5
        parameter = torch.nn.Parameter(weight.double())
        m_then, m_now = then["exp_avg"].double(), now["exp_avg"].double()
        parameter.grad = (m_now - BETAS[0] * m_then) / (1 - BETAS[0])
        parameters[name] = parameter
    optimizer = torch.optim.AdamW(
        parameters.values(), RATE, betas=BETAS, eps=EPS, weight_decay=DECAY)
    for name, parameter in parameters.items():
        then = before["optimizer_state_dict"][name]
        optimizer.state[parameter] = {
            "step": torch.tensor(4.0),
            "exp_avg": then["exp_avg"].double(),
            "exp_avg_sq": then["exp_avg_sq"].double(),
        }
    optimizer.step()
    for name, parameter in parameters.items():
        now, was = after["state_dict"][name].double(), before["state_dict"][name].double()
        moved += int((now - was).abs().max() > RATE / 4)
        assert torch.allclose(parameter.data, now, rtol=1e-5, atol=2e-6), name
        square = after["optimizer_state_dict"][name]["exp_avg_sq"].double()
        assert torch.allclose(optimizer.state[parameter]["exp_avg_sq"], square, rtol=1e-4), name
    assert moved > len(parameters) / 2, "a step of that size changes weights"


def test_what_does_not_fit_is_told_at_once(imported):
    import torch

    folder, _ = imported

    def refused(mapping: str, file: str = "theirs.ckpt") -> str:
        (folder / "other.yaml").write_text(mapping)
        done = subprocess.run(
            [os.environ["PIPE_TEST_PROGRAM"], "ckpt", "import", file, "--map", "other.yaml", "-o",
             "no.ckpt", "--image-size", "8"], cwd=folder, capture_output=True, text=True)
        assert done.returncode == 1 and not (folder / "no.ckpt").exists(), done
        return done.stderr

    said = refused(MAPPING.replace("ignore: [counter]", "").replace('"time.{x*}"', '"clock.{x*}"'))
    assert "unexpected: counter" in said, said
    said = refused(MAPPING.replace('"time.{x*}"', '"clock.{x*}"'))
    for line in ["missing: time.fc1.weight", "unexpected: clock.fc1.weight",
                 "EMA weights: missing: time.fc1.weight", "unexpected: clock.label.weight"]:
        assert line in said, said
    checkpoint = torch.load(folder / "theirs.ckpt", weights_only=False)
    state = checkpoint["optimizer_states"][0]["state"]
    first, last = min(state), max(state)
    state[first], state[last] = state[last], state[first]
    torch.save(checkpoint, folder / "order.ckpt")
    said = refused(MAPPING, "order.ckpt")
    assert "its parameters are in another order" in said and "optimizer: false" in said, said
    state[first]["max_exp_avg_sq"] = state[first]["exp_avg_sq"]
    torch.save(checkpoint, folder / "amsgrad.ckpt")
    assert "its optimizer keeps exp_avg, exp_avg_sq, max_exp_avg_sq" in refused(
        MAPPING, "amsgrad.ckpt")
    del state[first]["max_exp_avg_sq"], state[last]
    torch.save(checkpoint, folder / "less.ckpt")
    assert "the optimizer has no state of" in refused(MAPPING, "less.ckpt")
    (folder / "without.yaml").write_text(MAPPING + "optimizer: false\n")
    said = pipe(folder, "ckpt", "import", "less.ckpt", "--map", "without.yaml", "-o",
                "weights.ckpt", "--image-size", "8")
    assert "weights, EMA weights; epoch 2, step 4" in said
