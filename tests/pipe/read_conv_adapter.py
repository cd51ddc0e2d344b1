"""Reads an adapter with factors beside convolutions as PEFT does, and writes one of its own.

    python3 read_conv_adapter.py checkpoints/lora/run_001 merged.ckpt conv1,conv2 OUT

Prints, as one line of JSON, how many convolutions PEFT adapted, the largest difference of its folded weights from those in
merged.ckpt, and that of a convolution with its factors beside it from the folded one. In OUT: an adapter of PEFT's own for
the convolutions of those names, in `adapter`, and the weights that PEFT makes of it and the base, `merged.safetensors`.
"""
import json
import sys

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import safe_open
from safetensors.torch import save_file

run, merged, names, out = sys.argv[1:]
prefix = "ema_state_dict."


class Layers(torch.nn.Module):
    """The weights of a checkpoint as layers under their names; computes nothing."""

    def __init__(self, tensors):
        super().__init__()
        for name, value in tensors.items():
            *path, last, field = name.split(".")
            if field != "weight" or value.ndim not in (2, 4):
                continue
            module = self
            for part in path:
                if not hasattr(module, part):
                    module.add_module(part, torch.nn.Module())
                module = getattr(module, part)
            if value.ndim == 2:
                layer = torch.nn.Linear(*reversed(value.shape), bias=False)
            else:
                outputs, inputs, side, _ = value.shape
                # The factors must follow the stride of their convolution: DiffiT's halve the image.
                stride = 2 if path == ["down"] else 1
                layer = torch.nn.Conv2d(inputs, outputs, side, stride, side // 2, bias=False)
            layer.weight.data = value.clone()
            module.add_module(last, layer)

    def forward(self, x):
        return x


def weights(path):
    with safe_open(path, "pt") as file:
        return {name[len(prefix):]: file.get_tensor(name) for name in file.keys() if name.startswith(prefix)}


def convolutions(model):
    adapted = {name.removesuffix(".lora_A.default") for name, _ in model.named_modules() if name.endswith(".lora_A.default")}
    found = [(name, layer) for name, layer in model.named_modules() if name in adapted]
    return [(name, layer) for name, layer in found if layer.get_base_layer().weight.shape[-1] == 3 and layer.weight.ndim == 4]


torch.manual_seed(0)
base, expected = weights(f"{run}/base_model.ckpt"), weights(merged)
model = PeftModel.from_pretrained(Layers(base), f"{run}/adapter")
beside = {name: (layer, x := torch.randn(2, layer.get_base_layer().in_channels, 8, 8), layer(x)) for name, layer in convolutions(model)}
found = model.merge_and_unload()
modules = {f"base_model.model.{name}": layer for name, layer in found.named_modules()}
apart = max((modules[name](x) - y).abs().max().item() for name, (_, x, y) in beside.items())
state = found.state_dict()
difference = max((state[name] - expected[name]).abs().max().item() for name in state)

config = LoraConfig(r=3, lora_alpha=6, target_modules=names.split(","), init_lora_weights=False)
own = get_peft_model(Layers(base), config)
own.save_pretrained(f"{out}/adapter")
save_file({name: value.contiguous() for name, value in own.merge_and_unload().state_dict().items()}, f"{out}/merged.safetensors")
print(json.dumps({"adapted": len(beside), "difference": difference, "beside": apart}))
