"""Writes what other programs say of pictures and features, for the test that compares with it.

    python3 reference.py golden.json [weights.pth]

Weights, pictures and features are formulas over integers, so that both sides make the same numbers without sharing a
file. The network, the resizing and the distances are those of pytorch-fid and clean-fid; precision and recall
follow the paper (Kynkaanniemi et al. 2019, arXiv 1904.06991) pair by pair. With a second name the weights
are written as PyTorch writes them.
Needs: torch, torchvision, numpy, scipy, pillow, pytorch-fid, clean-fid.
"""
import json, math, sys
import numpy as np, torch
import pytorch_fid.inception as inception
from cleanfid.fid import frechet_distance, kernel_distance
from cleanfid.resize import build_resizer
from pytorch_fid.fid_score import calculate_frechet_distance
from torch.nn import functional as F

SIZES = [(32, 32), (61, 47), (350, 310)]        # width, height
NEIGHBOURS = 3


def pattern(count, stream):
    """Numbers in [-1, 1) that look random: an integer hash of (index, stream) modulo 2^32."""
    i = np.arange(count, dtype=np.uint64)
    h = (i * 747796405 + stream * 2891336453 + 1) & 0xFFFFFFFF
    h ^= h >> 16
    h = (h * 0x45D9F3B) & 0xFFFFFFFF
    h ^= h >> 16
    return h.astype(np.float64) / 2**31 - 1


def weights(net):
    """The pattern of each tensor's place in the order of names, scaled so that signals keep their size."""
    state = {}
    names = sorted(n for n in net.state_dict() if ".bn." in n or n.endswith(".conv.weight"))
    names = [n for n in names if not n.endswith("num_batches_tracked") and not n.startswith("AuxLogits")]
    for stream, name in enumerate(names):
        shape = net.state_dict()[name].shape
        u = pattern(math.prod(shape), stream)
        if len(shape) == 4:
            u = u * math.sqrt(6 / math.prod(shape[1:]))
        elif name.endswith("running_var"):
            u = 1 + 0.5 * u
        else:
            u = 0.1 * u + (1.0 if name.endswith("bn.weight") else 0.0)
        state[name] = torch.from_numpy(u.astype(np.float32)).view(shape)
    state["fc.weight"], state["fc.bias"] = torch.zeros(1008, 2048), torch.zeros(1008)
    return state


def picture(index, width, height):
    """Noise over a slope: neither smooth nor without shapes."""
    noise = pattern(3 * width * height, 1000 + index).reshape(height, width, 3)
    slope = np.add.outer(np.arange(height), 2 * np.arange(width)) % 97 / 97
    return np.floor(64 * (noise + 1) + 127 * slope[:, :, None]).astype(np.uint8)


def features(count, width, stream, shift):
    """A few directions stand out, as they do in features of pictures."""
    u = pattern(count * width, stream).reshape(count, width)
    return (u * 0.9 ** np.arange(width) + shift).astype(np.float32)


def some(values, step):
    values = np.asarray(values, dtype=np.float64).ravel()
    return dict(norm=float(np.linalg.norm(values)), sum=float(values.sum()), some=values[::step].tolist())


def squared(a, b):
    return ((a[:, None, :].astype(np.float64) - b[None].astype(np.float64)) ** 2).sum(-1)


def near(of, around):
    """The share of rows that lie within a ball around some row of the other set."""
    radii = np.sort(squared(around, around), axis=1)[:, NEIGHBOURS]     # the first is the row itself
    return float((squared(of, around) <= radii[None]).any(1).mean())


def distances(name, a, b):
    stats = [(x.astype(np.float64).mean(0), np.cov(x.astype(np.float64), rowvar=False)) for x in (a, b)]
    fid = calculate_frechet_distance(*stats[0], *stats[1])
    assert np.isclose(fid, frechet_distance(*stats[0], *stats[1]), rtol=1e-12)
    m = min(len(a), len(b))
    return dict(
        name=name, fid=float(fid),
        kid=float(kernel_distance(b[:m].astype(np.float64), a[:m].astype(np.float64), 1, m)),
        precision=near(b, a), recall=near(a, b),
    )


def network():
    """pytorch-fid's network with the weights of the formula, and those."""
    state = weights(inception._inception_v3(num_classes=1008, aux_logits=False, weights=None))
    inception.load_state_dict_from_url = lambda *args, **kwargs: state
    # pytorch-fid's network complains of nothing else that is missing.
    load = torch.nn.Module.load_state_dict
    torch.nn.Module.load_state_dict = lambda net, given, *args, **kwargs: load(net, given, strict=False)
    net = inception.InceptionV3([3], resize_input=False, normalize_input=False).eval()
    torch.nn.Module.load_state_dict = load
    return net, state


def resized(pixels, way):
    """`[height, width, 3]` of 8 bits as clean-fid or pytorch-fid give it to the network."""
    if way == "clean":
        return (torch.from_numpy(build_resizer("clean")(pixels).transpose(2, 0, 1).copy()) - 128) / 128
    unit = torch.from_numpy(pixels.transpose(2, 0, 1).copy()).float() / 255
    return 2 * F.interpolate(unit[None], size=(299, 299), mode="bilinear", align_corners=False)[0] - 1


def main(out, pth=None):
    net, state = network()
    if pth:
        torch.save(state, pth)
    pictures = []
    for index, (width, height) in enumerate(SIZES):
        pixels = picture(index, width, height)
        for way in ("clean", "legacy"):
            given = resized(pixels, way)
            with torch.no_grad():
                found = net(given[None])[0]
            pictures.append(dict(
                width=width, height=height, way=way,
                resized=some(given, 4999), features=some(found, 64),
            ))
    sets = [
        distances("many", features(200, 48, 5000, 0.0), features(150, 48, 5001, 0.1)),
        distances("few", features(30, 48, 5002, 0.0), features(40, 48, 5003, 0.05)),
    ]
    with open(out, "w") as file:
        json.dump(dict(pictures=pictures, sets=sets), file, indent=1)
        file.write("\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
