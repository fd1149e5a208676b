"""Images that show the same in other colours and in other places."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

__all__ = ["faded", "in_other_colours", "moved", "repainted"]

_MOVED, _STRETCHED, _TURNED = 0.2, 0.12, 0.15
_FADED = (-0.4, 0.6)


def in_other_colours(pixels: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """The images (n, 3, height, width), each with its channels mixed at random."""
    return _mixed(pixels, rng.dirichlet((0.5, 0.5, 0.5), (len(pixels), 3)))


def repainted(pixels: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """The images, each with its channels in another order, or mixed at random."""
    orders = np.stack([np.eye(3)[rng.permutation(3)] for _ in range(len(pixels))])
    mixes = rng.dirichlet((0.5, 0.5, 0.5), (len(pixels), 3))
    return _mixed(pixels, np.where(rng.random((len(pixels), 1, 1)) < 0.5, orders, mixes))


def faded(pixels: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """The images, most of them with paler colours: each channel has a share of the same one. Grays stay as they are."""
    share = np.maximum(rng.uniform(*_FADED, len(pixels)), 0)[:, None, None]
    same = np.eye(3)[rng.integers(3, size=len(pixels))][:, None, :]
    return _mixed(pixels, (1 - share) * np.eye(3) + share * same)


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
