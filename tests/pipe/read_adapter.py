"""Reads a LoRA run's adapter as its users would: PEFT puts it on a module with the base model's projections, and folds it in.

    python3 read_adapter.py checkpoints/lora/run_001 merged.ckpt docs/python.md

Prints, as one line of JSON, how many projections it adapted, how many parameters it replaced as a whole, and the largest
difference from the weights in merged.ckpt.
"""
import json
import sys

import torch
from peft import LoraModel
from safetensors import safe_open

run, merged, docs = sys.argv[1:]
prefix = "ema_state_dict."


class Projections(torch.nn.Module):
    """The projections and the label table of a checkpoint under their names; computes nothing."""

    def __init__(self, tensors):
        super().__init__()
        for name, value in tensors.items():
            if not name.endswith(".weight") or value.ndim != 2:
                continue
            *path, last, _ = name.split(".")
            module = self
            for part in path:
                if not hasattr(module, part):
                    module.add_module(part, torch.nn.Module())
                module = getattr(module, part)
            table = name == "time.label.weight"
            layer = torch.nn.Embedding(*value.shape) if table else torch.nn.Linear(*reversed(value.shape), bias=False)
            layer.weight.data = value
            module.add_module(last, layer)

    def forward(self, x):
        return x


def weights(path):
    with safe_open(path, "pt") as file:
        return {name[len(prefix):]: file.get_tensor(name) for name in file.keys() if name.startswith(prefix)}


expected = weights(merged)
base = weights(f"{run}/base_model.ckpt")
model = Projections(base)
assert model.time.label.num_embeddings != len(expected["time.label.weight"]), "other classes, another size"
adapted = 0
original = LoraModel.merge_and_unload


def counted(self, *arguments, **settings):
    global adapted
    adapted = sum(name.endswith("lora_A.default") for name, _ in self.named_modules())
    return original(self, *arguments, **settings)


LoraModel.merge_and_unload = counted
# As docs/python.md has it, in the folder of the run.
blocks = open(docs).read().split("```python\n")
block = next(block.split("```")[0] for block in blocks if "from peft import" in block)
names = {"net": model}
exec(block.replace("checkpoints/lora/run_001", run), names)
found = names["net"].state_dict()
difference = max((found[name] - expected[name]).abs().max().item() for name in found)
print(json.dumps({"adapted": adapted, "difference": difference, "compared": len(found)}))
