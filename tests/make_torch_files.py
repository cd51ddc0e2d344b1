"""Makes lightning.ckpt, foreign.pt and hostile.pt in tests/data, and prints the first one's probe: needs torch and the reference diffit_torch.py.

    python3 make_torch_files.py path/to/diffit_torch.py
"""
import importlib.util
import json
import os
import pickle
import sys

import torch

spec = importlib.util.spec_from_file_location("diffit_torch", sys.argv[1])
ref = importlib.util.module_from_spec(spec); spec.loader.exec_module(ref)
here = os.path.join(os.path.dirname(os.path.abspath(__file__)), "data")
os.makedirs(here, exist_ok=True)

torch.manual_seed(7)
net = ref.Diffit(dim=16, mults=[1, 1], depths=[1, 1], heads=2, window=4, image_size=8, num_classes=2)
for name, value in net.named_parameters():
    if "bias_table" in name:
        torch.nn.init.normal_(value)
state = {f"model.{name}": value.half() for name, value in net.state_dict().items()}
# As Lightning writes it: more than weights, and the weights under a prefix.
torch.save({"epoch": 3, "global_step": 40, "pytorch-lightning_version": "2.5.0", "state_dict": state,
            "hyper_parameters": {"lr": 1e-3}, "optimizer_states": []}, os.path.join(here, "lightning.ckpt"))
foreign = {name[6:]: value for name, value in state.items() if name != "model.head.weight"}
torch.save({**foreign, "extra": torch.zeros(3)}, os.path.join(here, "foreign.pt"))

half = ref.Diffit(dim=16, mults=[1, 1], depths=[1, 1], heads=2, window=4, image_size=8, num_classes=2)
half.load_state_dict({name[6:]: value.float() for name, value in state.items()})
x, sigma = ref.fixed_inputs(8)
with torch.no_grad():
    d = ref.denoise(half, x, sigma)
print(json.dumps(dict(mean=d.mean().item(), std=d.std().item(), first=d.flatten()[:8].tolist())))


class Hostile:
    def __reduce__(self):
        return os.system, ("touch PWNED",)


with open(os.path.join(here, "hostile.pt"), "wb") as out:
    pickle.dump({"state_dict": Hostile()}, out, protocol=2)
