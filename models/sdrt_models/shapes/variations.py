"""Images that show the same in other colours and in other places."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

__all__ = ["in_other_colours", "moved", "repainted"]

_MOVED, _STRETCHED, _TURNED = 0.2, 0.12, 0.15


def in_other_colours(pixels: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """The images (n, 3, height, width), each with its channels mixed at random."""
    return _mixed(pixels, rng.dirichlet((0.5, 0.5, 0.5), (len(pixels), 3)))


def repainted(pixels: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """The images, each with its channels in another order, or mixed at random."""
    orders = np.stack([np.eye(3)[rng.permutation(3)] for _ in range(len(pixels))])
    mixes = rng.dirichlet((0.5, 0.5, 0.5), (len(pixels), 3))
    return _mixed(pixels, np.where(rng.random((len(pixels), 1, 1)) < 0.5, orders, mixes))


def _mixed(pixels: torch.Tensor, mixes: np.ndarray) -> torch.Tensor:
    """The images with other channels, each a sum of theirs. ``mixes`` has the shares, (n, 3, 3)."""
    shares = torch.from_numpy(mixes.astype(np.float32)).to(pixels.device)
    mixed: torch.Tensor = torch.einsum("nij,njhw->nihw", shares, pixels)
    return mixed


def moved(pixels: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """The images, each moved, stretched and turned a little, and mirrored at random. Edges go on as they end."""
    count = len(pixels)
    angle = rng.uniform(-_TURNED, _TURNED, count)
    x, y = 1 + rng.uniform(-_STRETCHED, _STRETCHED, (2, count))
    x *= rng.choice((-1, 1), count)
    shift = rng.uniform(-_MOVED, _MOVED, (count, 2))
    rows = np.stack([x * np.cos(angle), -y * np.sin(angle), x * np.sin(angle), y * np.cos(angle)], axis=1)
    placed = np.concatenate([rows.reshape(count, 2, 2), shift[:, :, None]], axis=2).astype(np.float32)
    grid = nn.functional.affine_grid(
        torch.from_numpy(placed).to(pixels.device), list(pixels.shape), align_corners=False
    )
    made: torch.Tensor = nn.functional.grid_sample(
        pixels, grid, mode="bicubic", padding_mode="border", align_corners=False
    )
    return made
