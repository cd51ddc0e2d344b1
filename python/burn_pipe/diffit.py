"""DiffiT in image space, the network that `pipe` trains, in PyTorch.

After Hatamizadeh et al., "DiffiT: Diffusion Vision Transformers for Image Generation", ECCV 2024
(arXiv 2312.02139), with preconditioning and loss of Karras et al. 2022 (EDM, arXiv 2206.00364).
Names and layouts of the parameters are those of a `.ckpt`.

    net = diffit.load("checkpoints/base_training/run_001/checkpoints/best.ckpt")
    image = diffit.denoise(net, noisy, sigma)
"""

from __future__ import annotations

import math
import os
from typing import Any, Sequence, Union

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ._checkpoint import load as _load

SIGMA_DATA = 0.5
"""The standard deviation of images in [-1, 1], as EDM assumes it."""


class TimeEmbedding(nn.Module):
    """Noise level [B], and a class [B] where there are classes -> time token [B, time_dim].

    Class number `num_classes` is "no class", as classifier-free guidance needs it.
    """

    def __init__(
        self, dim: int, time_dim: int, num_classes: int, augment_labels: int = 0
    ) -> None:
        super().__init__()
        self.dim = dim
        self.fc1 = nn.Linear(dim, time_dim)
        self.fc2 = nn.Linear(time_dim, time_dim)
        self.label = nn.Embedding(num_classes + 1, time_dim) if num_classes else None
        # What an augmentation did to images of the training: nothing, to those that are sampled.
        table = torch.zeros(augment_labels, time_dim)
        self.augment = nn.Parameter(table) if augment_labels else None

    def forward(self, c_noise: Tensor, label: Tensor | None = None) -> Tensor:
        half = self.dim // 2
        steps = torch.arange(half, dtype=torch.float32, device=c_noise.device)
        angles = c_noise[:, None] * 1000.0 * torch.exp(-math.log(10000.0) * steps / half)
        waves = torch.cat([angles.cos(), angles.sin()], dim=1)
        token = self.fc2(F.silu(self.fc1(waves)))
        if self.label is not None:
            if label is None:
                none = self.label.num_embeddings - 1
                label = torch.full_like(c_noise, none, dtype=torch.long)
            token = token + self.label(label)
        return token


class Tmsa(nn.Module):
    """Time-dependent self-attention within windows: q = x Wqs + t Wqt, k and v alike.

    Images [B, H, W, C] and tokens [B, time_dim] -> [B, H, W, C]; H and W are multiples of `window`.
    """

    def __init__(self, dim: int, time_dim: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.window = window
        self.qkv_s = nn.Linear(dim, 3 * dim, bias=False)
        self.qkv_t = nn.Linear(time_dim, 3 * dim, bias=False)
        self.proj = nn.Linear(dim, dim)
        self.bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))

    def position_bias(self) -> Tensor:
        """[heads, N, N] for the N = window^2 places of a window, by their distance in y and x."""
        side = torch.arange(self.window, device=self.bias_table.device)
        places = torch.stack(torch.meshgrid(side, side, indexing="ij")).flatten(1)
        dy, dx = places[:, :, None] - places[:, None, :] + (self.window - 1)
        return self.bias_table[dy * (2 * self.window - 1) + dx].permute(2, 0, 1)

    def forward(self, x: Tensor, token: Tensor) -> Tensor:
        batch, height, width, dim = x.shape
        side, places = self.window, self.window**2
        rows, columns = height // side, width // side
        windows = x.view(batch, rows, side, columns, side, dim).transpose(2, 3)
        windows = windows.reshape(-1, places, dim)
        of_time = self.qkv_t(token).repeat_interleave(rows * columns, dim=0)
        qkv = self.qkv_s(windows) + of_time[:, None]
        qkv = qkv.view(-1, places, 3, self.heads, dim // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        scores = q @ k.transpose(-2, -1) / math.sqrt(dim // self.heads) + self.position_bias()
        mixed = (scores.softmax(-1) @ v).transpose(1, 2).reshape(-1, places, dim)
        mixed = self.proj(mixed).view(batch, rows, columns, side, side, dim)
        return mixed.transpose(2, 3).reshape(batch, height, width, dim)


class DiffitBlock(nn.Module):
    """Attention and a feed-forward network, each behind a LayerNorm and with a residual."""

    def __init__(self, dim: int, time_dim: int, heads: int, window: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = Tmsa(dim, time_dim, heads, window)
        self.norm2 = nn.LayerNorm(dim)
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.fc2 = nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor, token: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x), token)
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class ResBlock(nn.Module):
    """x [B, C, H, W] -> x + DiffitBlock(Conv3x3(SiLU(GroupNorm(x)))), with the time token."""

    def __init__(self, dim: int, time_dim: int, heads: int, window: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(dim // 16, dim)
        self.conv = nn.Conv2d(dim, dim, 3, padding=1)
        self.block = DiffitBlock(dim, time_dim, heads, window)

    def forward(self, x: Tensor, token: Tensor) -> Tensor:
        hidden = self.conv(F.silu(self.norm(x))).permute(0, 2, 3, 1)
        return x + self.block(hidden, token).permute(0, 3, 1, 2)


class Diffit(nn.Module):
    """The U-shaped network: images [B, channels, S, S], noise level [B] -> [B, channels, S, S].

    `mults` and `depths` have an entry for each resolution: its channels as a multiple of `dim` (a
    multiple of 16), and its number of blocks. The arguments are a checkpoint's `model_config`.
    """

    def __init__(
        self,
        dim: int,
        mults: Sequence[int],
        depths: Sequence[int],
        heads: int,
        window: int,
        image_size: int = 32,
        channels: int = 3,
        num_classes: int = 0,
        augment_labels: int = 0,
    ) -> None:
        super().__init__()
        time_dim = 4 * dim
        dims = [dim * mult for mult in mults]
        last = len(dims) - 1

        def blocks(level: int) -> nn.ModuleList:
            side = min(window, image_size >> level)
            shape = (dims[level], time_dim, heads, side)
            return nn.ModuleList(ResBlock(*shape) for _ in range(depths[level]))

        self.time = TimeEmbedding(dim, time_dim, num_classes, augment_labels)
        self.tokenizer = nn.Conv2d(channels, dims[0], 3, padding=1)
        self.encoder = nn.ModuleList(blocks(i) for i in range(last))
        self.down = nn.ModuleList(
            nn.Conv2d(dims[i], dims[i + 1], 3, stride=2, padding=1) for i in range(last)
        )
        self.middle = blocks(last)
        self.up = nn.ModuleList(
            nn.Conv2d(dims[i + 1], dims[i], 3, padding=1) for i in range(last)
        )
        self.merge = nn.ModuleList(nn.Conv2d(2 * dims[i], dims[i], 1) for i in range(last))
        self.decoder = nn.ModuleList(blocks(i) for i in range(last))
        self.head_norm = nn.GroupNorm(dims[0] // 16, dims[0])
        self.head = nn.Conv2d(dims[0], channels, 3, padding=1)

    def forward(self, x: Tensor, c_noise: Tensor, label: Tensor | None = None) -> Tensor:
        token = self.time(c_noise, label)
        x = self.tokenizer(x)
        skips: list[Tensor] = []
        for blocks, down in zip(self.encoder, self.down):
            x = _through(blocks, x, token)
            skips.append(x)
            x = down(x)
        x = _through(self.middle, x, token)
        for level in reversed(range(len(self.up))):
            x = self.up[level](F.interpolate(x, scale_factor=2, mode="nearest"))
            x = self.merge[level](torch.cat([x, skips[level]], dim=1))
            x = _through(self.decoder[level], x, token)
        return self.head(F.silu(self.head_norm(x)))


def _through(blocks: Any, x: Tensor, token: Tensor) -> Tensor:
    for block in blocks:
        x = block(x, token)
    return x


def denoise(net: nn.Module, noisy: Tensor, sigma: Tensor, label: Tensor | None = None) -> Tensor:
    """EDM's denoiser: images [B, C, S, S] with noise of standard deviation sigma [B] -> images."""
    s = sigma[:, None, None, None]
    variance = s**2 + SIGMA_DATA**2
    c_skip = SIGMA_DATA**2 / variance
    c_out = s * SIGMA_DATA / variance.sqrt()
    c_in = 1 / variance.sqrt()
    return c_skip * noisy + c_out * net(c_in * noisy, sigma.log() / 4, label)


def loss(
    net: nn.Module, image: Tensor, sigma: Tensor, noise: Tensor, label: Tensor | None = None
) -> Tensor:
    """EDM's weighted denoising loss, a mean: images [B, C, S, S] in [-1, 1], noise of variance 1.

    sigma [B] is drawn as exp(-1.2 + 1.2 z), z of the normal distribution.
    """
    weight = (sigma**2 + SIGMA_DATA**2) / (sigma * SIGMA_DATA) ** 2
    noisy = image + sigma[:, None, None, None] * noise
    error = denoise(net, noisy, sigma, label) - image
    return (weight[:, None, None, None] * error**2).mean()


def load(path: Union["os.PathLike[str]", str], weights: str = "ema_state_dict") -> Diffit:
    """The network of a `.ckpt` of `pipe`, or of the best of a run's folder, in evaluation mode.

    `weights` is "ema_state_dict", what `pipe sample` uses, or "state_dict", what trains on. Raises
    `ValueError` where the checkpoint is of another network, was trained for another objective than
    EDM's, or has no such weights.
    """
    checkpoint = _load(path, "torch")
    config = checkpoint.get("model_config")
    if config is None or "arch" in config:
        raise ValueError(f"{path} is no checkpoint of a DiffiT: {config or 'no model_config'}")
    if "objective" in checkpoint:
        objective = checkpoint["objective"]
        raise ValueError(f"{path} was trained for {objective}: `denoise` here is EDM's")
    if weights not in checkpoint:
        raise ValueError(f"{path} has no {weights}")
    net = Diffit(**config)
    net.load_state_dict(checkpoint[weights])
    net.eval()
    return net
