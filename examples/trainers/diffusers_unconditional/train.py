"""Unconditional image generation as in diffusers' examples: a small UNet2DModel with Accelerate."""

from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from burn_pipe.accelerate import epochs, job, report, resume, save
from diffusers import DDPMScheduler, UNet2DModel
from PIL import Image
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader

torch.manual_seed(job.seed)
accelerator = Accelerator()
files = sorted(Path("data/rectangles").glob("*.png"))
pixels = np.stack([np.asarray(Image.open(file)) for file in files])
images = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 127.5 - 1

net = UNet2DModel(
    sample_size=16,
    block_out_channels=(16, 32),
    down_block_types=("DownBlock2D", "AttnDownBlock2D"),
    up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    layers_per_block=1,
    norm_num_groups=8,
)
schedule = DDPMScheduler(num_train_timesteps=1000)
optimizer = torch.optim.AdamW(net.parameters(), job.settings.get("learning_rate", 1e-3))
loader = DataLoader(images, batch_size=8, shuffle=True)
net, optimizer, loader = accelerator.prepare(net, optimizer, loader)

resume(accelerator)
for epoch in epochs(accelerator, 3):
    losses = []
    for batch in loader:
        with accelerator.accumulate(net):
            noise = torch.randn_like(batch)
            times = torch.randint(0, 1000, (len(batch),), device=batch.device)
            loss = mse_loss(net(schedule.add_noise(batch, noise, times), times).sample, noise)
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
        losses.append(loss.item())
        report(accelerator, loss=losses[-1])
    save(accelerator, {"train_loss": sum(losses) / len(losses)})
