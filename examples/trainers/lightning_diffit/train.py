"""Trains a small DiffiT on a folder of pictures with Lightning."""

from pathlib import Path

import lightning as L
import numpy as np
import torch
from burn_pipe import diffit, job
from burn_pipe.lightning import EpochSampler, PipeCallback
from PIL import Image
from torch.utils.data import DataLoader


class Pictures(L.LightningDataModule):
    def __init__(self, folder: str, batch_size: int = 8):
        super().__init__()
        self.folder, self.batch_size = folder, batch_size

    def setup(self, stage: str) -> None:
        files = sorted(Path(self.folder).glob("*.png"))
        pixels = np.stack([np.asarray(Image.open(file)) for file in files])
        self.images = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 127.5 - 1

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.images, self.batch_size, sampler=EpochSampler(self.images))


class Denoiser(L.LightningModule):
    def __init__(self, learning_rate: float = 1e-3):
        super().__init__()
        self.learning_rate = learning_rate
        self.net = diffit.Diffit(16, mults=[1, 2], depths=[1, 1], heads=2, window=4, image_size=16)

    def training_step(self, images: torch.Tensor, index: int) -> torch.Tensor:
        sigma = (1.2 * torch.randn(len(images), device=self.device) - 1.2).exp()
        loss = diffit.loss(self.net, images, sigma, torch.randn_like(images))
        self.log("train_loss", loss, on_step=False, on_epoch=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        trained = [p for p in self.parameters() if p.requires_grad]
        return torch.optim.AdamW(trained, self.learning_rate)


def fit(model: L.LightningModule, folder: str) -> None:
    trainer = L.Trainer(max_epochs=3, callbacks=[PipeCallback()], logger=False)
    trainer.fit(model, Pictures(folder), ckpt_path=job.start)


if __name__ == "__main__":
    L.seed_everything(job.seed)
    fit(Denoiser(**job.settings), "data/rectangles")
