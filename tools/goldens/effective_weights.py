"""The weights that a torch layer computes with, whatever is attached to it, read off its outputs."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["effective"]

Arrays = dict[str, NDArray[np.float32]]
Shape = tuple[int, ...]


@torch.no_grad()
def effective(attached: torch.nn.Module, shape: Shape) -> Arrays:
    """The weight and bias that a layer computes with, by its outputs."""
    if len(shape) == 1:
        return norm(attached, shape[0])
    if len(shape) == 2:
        bias = attached(torch.zeros(1, shape[1]))
        return {"weight": (attached(torch.eye(shape[1])) - bias).T.numpy(), "bias": bias[0].numpy()}
    size = 2 * shape[2] - 1
    zeros = torch.zeros(1, shape[1], size, size)
    bias = attached(zeros)[0, :, shape[2] - 1, shape[2] - 1]
    impulses = torch.zeros(shape[1], shape[1], size, size)
    impulses[range(shape[1]), range(shape[1]), shape[2] - 1, shape[2] - 1] = 1
    seen = (attached(impulses) - bias[None, :, None, None]).flip(2, 3).transpose(0, 1)
    margin = shape[2] // 2
    return {
        "weight": seen[:, :, margin : size - margin, margin : size - margin].numpy(),
        "bias": bias.numpy(),
    }


def norm(attached: torch.nn.Module, channels: int) -> Arrays:
    """A group norm is affine in its normalised input, which is ±1 here, up to its epsilon."""
    x = torch.ones(1, channels, 2, 1)
    x[:, :, 1] = -1
    x *= 1e4
    y = attached(x)[0, :, :, 0]
    return {"weight": ((y[:, 0] - y[:, 1]) / 2).numpy(), "bias": ((y[:, 0] + y[:, 1]) / 2).numpy()}
