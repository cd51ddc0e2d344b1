"""Fine-tunes the base model of train.py on other pictures: LoRA by PEFT."""

import lightning as L
import torch
from burn_pipe import job
from peft import LoraConfig, get_peft_model
from train import Denoiser, fit

L.seed_everything(job.seed)
settings = dict(job.settings)
config = LoraConfig(r=settings.pop("r", 4), lora_alpha=8, target_modules=["qkv_s", "qkv_t", "proj"])
model = Denoiser(**settings)
if job.init:
    model.load_state_dict(torch.load(job.init, weights_only=True)["state_dict"])
model.net = get_peft_model(model.net, config)
fit(model, "data/ellipses")
