"""A training step of a reference network in PyTorch, in one of the ways that make it fast on a CPU.

    peer_step.py REFERENCE WAY --preset diffit_tiny --batch 16 --image-size 32 --steps 10

WAY is words of WAYS, joined by "+". REFERENCE is a Python file with PRESETS, a class Diffit or Unet, and loss(network, image, sigma, noise); unet_torch.py has the last
from diffit_torch.py beside it.
Prints JSON: the median step and its processor time in seconds, and the peak of resident memory in MiB.
"""
import argparse, importlib, json, pathlib, resource, statistics, sys, time
import torch

WAYS = {
    "eager": "as written: f32, AdamW as it is by default",
    "channels_last": "a pixel's channels side by side in images and weights",
    "fused": "AdamW in one pass over the weights",
    "compile": "torch.compile of forward, loss and backward; needs a C++ compiler",
    "bf16": "autocast to bfloat16",
}
WARM_UP = 3


def main():
    p = argparse.ArgumentParser(epilog="ways: " + "; ".join(f"{way}: {text}" for way, text in WAYS.items()))
    p.add_argument("reference", type=pathlib.Path)
    p.add_argument("way", type=lambda way: set(way.split("+")))
    p.add_argument("--preset", default="diffit_tiny")
    p.add_argument("--batch", type=int, default=16)
    p.add_argument("--image-size", type=int, default=32)
    p.add_argument("--steps", type=int, default=10)
    a = p.parse_args()
    if unknown := a.way - WAYS.keys():
        p.error(f"unknown way {', '.join(sorted(unknown))}: expected {', '.join(WAYS)}")
    sys.path.insert(0, str(a.reference.resolve().parent))
    reference = importlib.import_module(a.reference.stem)

    torch.manual_seed(0)
    network = getattr(reference, "Unet", None) or reference.Diffit
    layout = torch.channels_last if "channels_last" in a.way else torch.contiguous_format
    net = network(**reference.PRESETS[a.preset], image_size=a.image_size).to(memory_format=layout)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, fused="fused" in a.way or None)
    loss = getattr(reference, "loss", None) or reference.diffit_torch.loss
    loss = torch.compile(loss) if "compile" in a.way else loss
    walls, busy = [], []
    for _ in range(WARM_UP + a.steps):
        wall, used = time.perf_counter(), time.process_time()
        image = torch.randn(a.batch, 3, a.image_size, a.image_size).to(memory_format=layout)
        sigma, noise = (torch.randn(a.batch) * 1.2 - 1.2).exp(), torch.randn_like(image)
        with torch.autocast("cpu", torch.bfloat16, enabled="bf16" in a.way):
            value = loss(net, image, sigma, noise)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        value.item()
        walls.append(time.perf_counter() - wall)
        busy.append(time.process_time() - used)
    median = {"median_step_s": walls, "median_cpu_s": busy}
    median = {name: statistics.median(seconds[WARM_UP:]) for name, seconds in median.items()}
    print(json.dumps({**median, "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}))


if __name__ == "__main__":
    main()
