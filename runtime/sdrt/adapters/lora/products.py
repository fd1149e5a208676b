"""What the kinds of LoRA and LyCORIS multiply to get a change of a weight, in float32.

Each kind is a class of its tensors. `fit` checks their shapes against the parameter's, before anything is read, and
returns the rank by which an alpha is divided. `product` makes the change, at a scale of 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sdrt.adapters.change import Factors, Shape
from sdrt.adapters.lora.fitting import check_axes, check_same, check_shape, misfit, rank_of
from sdrt.adapters.lora.tensor import Tensor

__all__ = ["Embedding", "Hadamard", "Kronecker", "LowRank", "Product", "Tucker", "TuckerHadamard", "Whole"]

Floats = NDArray[np.float32]


class Product(Protocol):
    """The change of one parameter, as a product of tensors."""

    @property
    def tensors(self) -> Sequence[Tensor]:
        """The tensors that it reads."""

    def fit(self, shape: Shape) -> int | None:
        """Check the shapes for a parameter of `shape`, and return the rank. None if there is no alpha to divide.

        Raises:
            UnsupportedModelError: a shape does not fit.
        """

    def product(self, shape: Shape) -> Floats:
        """The change of a parameter of `shape`."""

    def factors(self) -> Factors | None:
        """The change as two factors, if it is the product of two matrices."""


@dataclass(frozen=True)
class Whole:
    """The change itself, as LyCORIS's `full` and norms have it, and all biases."""

    diff: Tensor

    @property
    def tensors(self) -> Sequence[Tensor]:
        """See `Product`."""
        return (self.diff,)

    def fit(self, shape: Shape) -> int | None:
        """See `Product`."""
        check_shape(self.diff, shape, shape)
        return None

    def product(self, shape: Shape) -> Floats:
        """See `Product`."""
        return self.diff.array().reshape(shape)

    def factors(self) -> Factors | None:
        """See `Product`."""
        return None


@dataclass(frozen=True)
class LowRank:
    """LoRA (Hu et al. 2021, arXiv:2106.09685) and LoCon: up · down.

    A convolution's `down` has its kernel, and `up` is of 1x1.
    """

    up: Tensor
    down: Tensor

    @property
    def tensors(self) -> Sequence[Tensor]:
        """See `Product`."""
        return (self.up, self.down)

    def fit(self, shape: Shape) -> int | None:
        """See `Product`."""
        rank = rank_of(self.down, 0, shape)
        check_shape(self.up, (shape[0], rank), shape)
        check_shape(self.down, (rank, *shape[1:]), shape)
        return rank

    def product(self, shape: Shape) -> Floats:
        """See `Product`."""
        made: Floats = _matrix(self.up) @ _matrix(self.down)
        return made.reshape(shape)

    def factors(self) -> Factors | None:
        """See `Product`."""
        return Factors(_matrix(self.up), self.down.array())


@dataclass(frozen=True)
class Embedding:
    """PEFT's LoRA of an embedding: (up · down)ᵀ, where `down` has a column for each token."""

    up: Tensor
    down: Tensor

    @property
    def tensors(self) -> Sequence[Tensor]:
        """See `Product`."""
        return (self.up, self.down)

    def fit(self, shape: Shape) -> int | None:
        """See `Product`."""
        rank = rank_of(self.down, 0, shape)
        check_shape(self.up, (shape[1], rank), shape)
        check_shape(self.down, (rank, shape[0]), shape)
        return rank

    def product(self, shape: Shape) -> Floats:
        """See `Product`."""
        made: Floats = self.down.array().T @ self.up.array().T
        return made

    def factors(self) -> Factors | None:
        """See `Product`."""
        return Factors(self.down.array().T, self.up.array().T)


@dataclass(frozen=True)
class Tucker:
    """LoCon of a convolution with the kernel in a core tensor `mid` of (rank, rank, height, width)."""

    up: Tensor
    down: Tensor
    mid: Tensor

    @property
    def tensors(self) -> Sequence[Tensor]:
        """See `Product`."""
        return (self.up, self.down, self.mid)

    def fit(self, shape: Shape) -> int | None:
        """See `Product`."""
        rank = rank_of(self.down, 0, shape)
        check_shape(self.up, (shape[0], rank), shape)
        check_shape(self.down, (rank, shape[1]), shape)
        check_shape(self.mid, (rank, rank, *shape[2:]), shape)
        return rank

    def product(self, shape: Shape) -> Floats:
        """See `Product`."""
        return _tucker(self.mid.array(), _matrix(self.up), _matrix(self.down))

    def factors(self) -> Factors | None:
        """See `Product`."""
        return Factors(_matrix(self.up), _columns(self.mid.array(), _matrix(self.down)))


@dataclass(frozen=True)
class Hadamard:
    """LoHa (Hyeon-Woo et al. 2021, arXiv:2108.06098): (w1_a · w1_b) ∘ (w2_a · w2_b)."""

    w1_a: Tensor
    w1_b: Tensor
    w2_a: Tensor
    w2_b: Tensor

    @property
    def tensors(self) -> Sequence[Tensor]:
        """See `Product`."""
        return (self.w1_a, self.w1_b, self.w2_a, self.w2_b)

    def fit(self, shape: Shape) -> int | None:
        """See `Product`."""
        rank = LowRank(self.w1_a, self.w1_b).fit(shape)
        second = LowRank(self.w2_a, self.w2_b).fit(shape)
        return check_same(rank, second, self.w2_b)

    def product(self, shape: Shape) -> Floats:
        """See `Product`."""
        made = LowRank(self.w1_a, self.w1_b).product(shape)
        made *= LowRank(self.w2_a, self.w2_b).product(shape)
        return made

    def factors(self) -> Factors | None:
        """See `Product`."""
        return None


@dataclass(frozen=True)
class TuckerHadamard:
    """LoHa of a convolution with core tensors `t1` and `t2`. Each `w_a` is (rank, out), unlike LoHa's own."""

    w1_a: Tensor
    w1_b: Tensor
    w2_a: Tensor
    w2_b: Tensor
    t1: Tensor
    t2: Tensor

    @property
    def tensors(self) -> Sequence[Tensor]:
        """See `Product`."""
        return (self.w1_a, self.w1_b, self.w2_a, self.w2_b, self.t1, self.t2)

    def fit(self, shape: Shape) -> int | None:
        """See `Product`."""
        rank = rank_of(self.w1_b, 0, shape)
        for a, b, core in ((self.w1_a, self.w1_b, self.t1), (self.w2_a, self.w2_b, self.t2)):
            check_shape(a, (rank, shape[0]), shape)
            check_shape(b, (rank, shape[1]), shape)
            check_shape(core, (rank, rank, *shape[2:]), shape)
        return rank

    def product(self, shape: Shape) -> Floats:
        """See `Product`."""
        made = _tucker(self.t1.array(), self.w1_a.array().T, self.w1_b.array())
        made *= _tucker(self.t2.array(), self.w2_a.array().T, self.w2_b.array())
        return made

    def factors(self) -> Factors | None:
        """See `Product`."""
        return None


@dataclass(frozen=True)
class Kronecker:
    """LoKr (Yeh et al. 2023, arXiv:2309.14859): kron(w1, w2). Each half is whole, or a product, w2 also Tucker's.

    Attributes:
        w1, w2: the factors of each half: one tensor, or a and b; for `w2` also a core tensor.
    """

    w1: tuple[Tensor, ...]
    w2: tuple[Tensor, ...]

    @property
    def tensors(self) -> Sequence[Tensor]:
        """See `Product`."""
        return (*self.w1, *self.w2)

    def fit(self, shape: Shape) -> int | None:
        """See `Product`. LyCORIS and A1111 ignore the alpha if both halves are whole."""
        first, last = self.w1[0], self.w1[-1]
        check_axes(first, 2)
        check_axes(last, 2)
        rows, columns = first.shape[0], last.shape[1]
        if not rows or not columns or shape[0] % rows or len(shape) < 2 or shape[1] % columns:
            raise misfit(first, shape)
        half = (shape[0] // rows, shape[1] // columns, *shape[2:])
        ranks = [rank for rank in (_half(self.w1, (rows, columns)), _half(self.w2, half)) if rank is not None]
        return check_same(ranks[0], ranks[-1], self.w2[0]) if ranks else None

    def product(self, shape: Shape) -> Floats:
        """See `Product`."""
        w1 = _made(self.w1)
        w2 = _made(self.w2).reshape(shape[0] // len(w1), shape[1] // w1.shape[1], -1)
        made: Floats = w1[:, None, :, None, None] * w2[None, :, None]
        return made.reshape(shape)

    def factors(self) -> Factors | None:
        """See `Product`."""
        return None


def _half(factors: tuple[Tensor, ...], shape: Shape) -> int | None:
    """Check a half of a Kronecker product, and return its rank."""
    if len(factors) == 1:
        return Whole(factors[0]).fit(shape)
    a, b, *core = factors
    if not core:
        return LowRank(a, b).fit(shape)
    rank = rank_of(b, 0, shape)
    check_shape(a, (rank, shape[0]), shape)
    check_shape(b, (rank, shape[1]), shape)
    check_shape(core[0], (rank, rank, *shape[2:]), shape)
    return rank


def _made(factors: tuple[Tensor, ...]) -> Floats:
    """A half of a Kronecker product, as (rows, columns, …)."""
    if len(factors) == 1:
        return factors[0].array()
    a, b, *core = factors
    if core:
        return _tucker(core[0].array(), a.array().T, b.array())
    made: Floats = _matrix(a) @ _matrix(b)
    return made


def _tucker(core: Floats, rows: Floats, columns: Floats) -> Floats:
    """(out, in, height, width) of a core (i, j, height, width), `rows` (out, i) and `columns` (j, in)."""
    i, j, *kernel = core.shape
    half = (rows @ core.reshape(i, -1)).reshape(len(rows), j, -1)
    made: Floats = np.matmul(columns.T[None], half)
    return made.reshape(len(rows), columns.shape[1], *kernel)


def _columns(core: Floats, columns: Floats) -> Floats:
    """(i, in, height, width) of a core (i, j, height, width) and `columns` (j, in)."""
    i, j, *kernel = core.shape
    made: Floats = np.matmul(columns.T[None], core.reshape(i, j, -1))
    return made.reshape(i, columns.shape[1], *kernel)


def _matrix(tensor: Tensor) -> Floats:
    array = tensor.array()
    return array.reshape(array.shape[0], -1)
