"""Writes model.json, the reference's answers that the model's tests compare with.

    python3 make_golden.py path/to/diffit_torch.py > model.json

Weights and inputs are formulas over integers, so that both sides make the same numbers without sharing a file.
Needs: torch, numpy.
"""
import importlib.util, json, math, sys
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
    spec = importlib.util.spec_from_file_location("reference", path)
    ref = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(ref)
    golden = {"probes": {}}

    for name, preset in ref.PRESETS.items():
        net = ref.Diffit(**preset, image_size=32)
        fill(net)
        x, sigma = ref.fixed_inputs(32)
        with torch.no_grad():
            d = ref.denoise(net, x, sigma)
        golden["probes"][name] = dict(mean=d.mean().item(), std=d.std().item(), first=d.flatten()[:8].tolist())

    net = ref.Diffit(**ref.PRESETS["diffit_tiny"], image_size=32, num_classes=10)
    fill(net)
    batch, count = 4, 4 * 3 * 32 * 32
    image, noise = (torch.from_numpy(pattern(count, s).astype(np.float32)).view(batch, 3, 32, 32) for s in (1000, 1001))
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
