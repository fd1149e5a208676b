"""The changes that LoRA files make to parameters, at any weight."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sdrt.adapters.change import Array, Change, Factors, Shape, no_change
from sdrt.adapters.lora.products import Product
from sdrt.adapters.lora.tensor import Tensor

__all__ = ["Added", "Decomposed", "FirstChannels", "Scaled"]

Floats = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Added:
    """weight · scale · product: every kind that does not depend on the base.

    Attributes:
        shape: the parameter's.
        product: what is added.
        scale: alpha / rank, or what the file says instead.
    """

    shape: Shape
    product: Product
    scale: float = 1.0

    def delta(self, base: Array, weight: float) -> Floats:
        """See `Change`."""
        if weight == 0:
            return no_change(self.shape)
        made: Floats = self.product.product(self.shape) * np.float32(self.scale * weight)
        return made

    def as_factors(self, weight: float) -> Factors | None:
        """See `Change`."""
        found = self.product.factors()
        if found is None:
            return None
        return Factors(found.rows * np.float32(self.scale * weight), found.columns)


@dataclass(frozen=True, kw_only=True)
class Decomposed:
    """DoRA (Liu et al. 2024, arXiv:2402.09353): m · V / ‖V‖, where V is the base plus the scaled product.

    At a weight between 0 and 1 the parameter is on the straight line from the base to that: weight 0 is the base, and
    weight 1 is what was trained. A1111, Forge and ComfyUI do the same. (LyCORIS leaves the product in at weight 0.)

    Attributes:
        shape, product, scale: as in `Added`.
        magnitude: m, one for each row (output), or for each column (input).
        by_rows: which of both.
    """

    shape: Shape
    product: Product
    scale: float
    magnitude: Tensor
    by_rows: bool

    def delta(self, base: Array, weight: float) -> Floats:
        """See `Change`."""
        if weight == 0:
            return no_change(self.shape)
        made: Floats = self.product.product(self.shape) * np.float32(self.scale)
        made += base
        axes = tuple(axis for axis in range(made.ndim) if axis != (0 if self.by_rows else 1))
        # LyCORIS adds this, so that a row of zeros stays one.
        norm: Floats = np.sqrt(np.square(made).sum(axes, keepdims=True)) + np.finfo(np.float32).eps
        made *= self.magnitude.array().reshape(norm.shape) / norm
        made -= base
        made *= np.float32(weight)
        return made

    def as_factors(self, weight: float) -> Factors | None:
        """See `Change`."""
        return None


@dataclass(frozen=True, kw_only=True)
class Scaled:
    """IA³ (Liu et al. 2022, arXiv:2205.05638) in LyCORIS's form: the base times 1 + weight · factors.

    Attributes:
        shape: the parameter's.
        factors: one for each row (output), or for each column (input).
        by_rows: which of both.
    """

    shape: Shape
    factors: Tensor
    by_rows: bool

    def delta(self, base: Array, weight: float) -> Floats:
        """See `Change`."""
        if weight == 0:
            return no_change(self.shape)
        axis = 0 if self.by_rows else 1
        factors = self.factors.array().reshape([-1 if one == axis else 1 for one in range(len(self.shape))])
        made: Floats = base.astype(np.float32) * (factors * np.float32(weight))
        return made

    def as_factors(self, weight: float) -> Factors | None:
        """See `Change`."""
        return None


@dataclass(frozen=True, kw_only=True)
class FirstChannels:
    """A change of the latents' channels of a first convolution that also sees a mask and an image.

    So a file that was trained on a model for text to image fits the model for inpainting, as in A1111.

    Attributes:
        shape: the parameter's.
        change: of the first channels.
    """

    shape: Shape
    change: Change

    def delta(self, base: Array, weight: float) -> Floats:
        """See `Change`."""
        made = no_change(self.shape)
        if weight != 0:
            channels = self.change.shape[1]
            made[:, :channels] = self.change.delta(base[:, :channels], weight)
        return made

    def as_factors(self, weight: float) -> Factors | None:
        """See `Change`."""
        return None


def is_by_rows(tensor: Tensor, shape: Shape) -> bool:
    """Tell whether a tensor has a number for each row of a parameter of `shape`; otherwise it has one for each column.

    Raises:
        UnsupportedModelError: it has neither.
    """
    own = tensor.shape
    count = math.prod(own)
    has_row_axis = len(own) < 2 or own[0] != 1
    if count == shape[0] and has_row_axis and own[0] == count:
        return True
    if len(shape) > 1 and count == shape[1] and len(own) > 1 and own[0] == 1 and own[1] == count:
        return False
    raise tensor.refused(
        f"is of shape {list(own)}",
        f"a number for each row or column of the model's weight, which is {list(shape)}",
    )
