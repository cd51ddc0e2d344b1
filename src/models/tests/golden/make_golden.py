"""Writes the reference's answers that the tests of an architecture compare with.

    python3 make_golden.py path/to/diffit_torch.py > model.json
    python3 make_golden.py path/to/unet_torch.py > unet.json

Weights and inputs are formulas over integers, so that both sides make the same numbers without sharing a file.
Needs: torch, numpy.
"""
import importlib, json, math, os, sys
import numpy as np, torch


def pattern(count, stream):
    """Numbers in [-1, 1) that look random: an integer hash of (index, stream) modulo 2^32."""
    i = np.arange(count, dtype=np.uint64)
    h = (i * 747796405 + stream * 2891336453 + 1) & 0xFFFFFFFF
    h ^= h >> 16
    h = (h * 0x45D9F3B) & 0xFFFFFFFF
    h ^= h >> 16
    return h.astype(np.float64) / 2**31 - 1


def fill(net):
    """Gives every parameter the pattern of its place in the order of names, scaled by its kind."""
    with torch.no_grad():
        for stream, (name, p) in enumerate(sorted(net.named_parameters())):
            u = pattern(p.numel(), stream)
            if p.dim() >= 2:
                u = u / math.sqrt(math.prod(p.shape[1:]))
            else:
                u = 0.1 * u + (1.0 if name.endswith("weight") else 0.0)
            p.copy_(torch.from_numpy(u.astype(np.float32)).view(p.shape))


def main(path):
    folder, file = os.path.split(os.path.abspath(path))
    sys.path.insert(0, folder)
    model = importlib.import_module(file.removesuffix(".py"))
    ref = importlib.import_module("diffit_torch")       # EDM and the fixed inputs are there
    # The U-Net's attention stands at 8 pixels: a training with 16 has it.
    network, tiny, size = (model.Unet, "unet_tiny", 16) if hasattr(model, "Unet") else (model.Diffit, "diffit_tiny", 32)
    golden = {"probes": {}, "parameters": {}}

    for name, preset in model.PRESETS.items():
        net = network(**preset, image_size=32)
        golden["parameters"][name] = sum(p.numel() for p in net.parameters())
        fill(net)
        x, sigma = ref.fixed_inputs(32)
        with torch.no_grad():
            d = ref.denoise(net, x, sigma)
        golden["probes"][name] = dict(mean=d.mean().item(), std=d.std().item(), first=d.flatten()[:8].tolist())

    net = network(**model.PRESETS[tiny], image_size=size, num_classes=10)
    fill(net)
    batch, count = 4, 4 * 3 * size * size
    image, noise = (torch.from_numpy(pattern(count, s).astype(np.float32)).view(batch, 3, size, size) for s in (1000, 1001))
    sigma, label = torch.tensor([0.05, 0.3, 1.0, 4.0]), torch.tensor([0, 3, 10, 9])
    loss = ref.loss(net, image, sigma, noise, label)
    loss.backward()
    golden["training"] = dict(
        loss=loss.item(),
        grads={name: dict(norm=p.grad.norm().item(), first=p.grad.flatten()[0].item())
               for name, p in sorted(net.named_parameters())},
    )
    print(json.dumps(golden, indent=1))


if __name__ == "__main__":
    main(sys.argv[1])
