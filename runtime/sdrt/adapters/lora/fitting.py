"""Checks whether a file's tensors have the shapes and the rank that a parameter needs, before anything is read."""

from __future__ import annotations

import math

from sdrt.adapters.change import Shape
from sdrt.adapters.lora.tensor import Tensor
from sdrt.errors import UnsupportedModelError

__all__ = ["check_axes", "check_same", "check_shape", "misfit", "rank_of"]

# Merged LoRAs have the sum of their ranks. Without a limit, a file could ask for any amount of memory.
_MORE_THAN_FULL = 1024


def rank_of(tensor: Tensor, axis: int, shape: Shape) -> int:
    """The rank, which is the length of an axis and is bounded by the parameter's `shape`.

    Raises:
        UnsupportedModelError: the tensor is no matrix, or the rank is out of bounds.
    """
    check_axes(tensor, 2)
    if len(shape) < 2:
        raise misfit(tensor, shape, shape)
    rank, most = tensor.shape[axis], max(shape[0], math.prod(shape[1:])) + _MORE_THAN_FULL
    if not 1 <= rank <= most:
        raise tensor.refused(f"has rank {rank}", f"1 to {most} in this layer")
    return rank


def check_same(first: int | None, second: int | None, tensor: Tensor) -> int | None:
    """The rank of both halves. Raises `UnsupportedModelError` if they differ."""
    if first != second:
        raise tensor.refused(f"has rank {second}", f"{first}, as the other half has")
    return first


def check_axes(tensor: Tensor, least: int) -> None:
    """Raise `UnsupportedModelError` if a tensor has fewer axes than `least`."""
    if len(tensor.shape) < least:
        raise tensor.refused(f"is of shape {list(tensor.shape)}", "a matrix")


def check_shape(tensor: Tensor, expected: Shape, parameter: Shape) -> None:
    """Check a shape, in which a 1x1 kernel may be missing or added, and a kernel may be joined with the channels.

    Raises:
        UnsupportedModelError: it is another one than `expected`.
    """
    shape = _without_ones(tensor.shape)
    joined = (*expected[:1], math.prod(expected[1:]))
    if 0 in tensor.shape or shape not in (_without_ones(expected), _without_ones(joined)):
        raise misfit(tensor, parameter, expected)


def _without_ones(shape: Shape) -> Shape:
    """`shape` without the ones at its end. The first axis stays."""
    while len(shape) > 1 and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def misfit(tensor: Tensor, parameter: Shape, expected: Shape | None = None) -> UnsupportedModelError:
    """The error for a tensor that does not fit the shape of its `parameter`."""
    fits = list(expected) if expected else "a factor of it"
    return tensor.refused(
        f"is of shape {list(tensor.shape)}, and the model's weight is {list(parameter)}",
        f"{fits}: choose a LoRA for this model",
    )
