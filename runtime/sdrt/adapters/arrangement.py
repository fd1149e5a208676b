"""How graphs store weights: arranged from a checkpoint's tensors by moving numbers only.

The exporter stores weights so, and writes into the manifest how. A weight that adapters change is split into tensors of
the checkpoint again.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from sdrt.adapters.change import Array, Factors, Shape

__all__ = ["ARRANGEMENTS", "Arrangement", "AsItIs", "ByHead", "ChannelsLast", "Transposed", "arrangement_of"]


class Arrangement(ABC):
    """A way to make one weight from some tensors, and to get those tensors back."""

    name: ClassVar[str]

    @abstractmethod
    def __call__(self, arrays: Sequence[Array]) -> Array:
        """The weight that is made of these tensors. It may be a view."""

    @abstractmethod
    def split(self, weight: Array, count: int) -> list[Array]:
        """The `count` tensors that a weight is made of. They may be views."""

    @abstractmethod
    def split_shape(self, shape: Shape, count: int) -> Shape | None:
        """The shape of each of `count` tensors of which a weight of this shape is made. None if it cannot be."""

    @abstractmethod
    def factors(self, parts: Sequence[Factors]) -> Factors:
        """The factors of the weight, as a matrix, for those of its tensors. A tensor without a change has rank 0."""

    def entry(self) -> dict[str, Any]:
        """Its entry in a manifest."""
        return {"as": self.name, **vars(self)}


@dataclass(frozen=True)
class AsItIs(Arrangement):
    """One tensor, unchanged."""

    name: ClassVar[str] = "it is"

    def __call__(self, arrays: Sequence[Array]) -> Array:
        """See `Arrangement`."""
        return arrays[0]

    def split(self, weight: Array, count: int) -> list[Array]:
        """See `Arrangement`."""
        return [weight]

    def split_shape(self, shape: Shape, count: int) -> Shape | None:
        """See `Arrangement`."""
        return shape if count == 1 else None

    def factors(self, parts: Sequence[Factors]) -> Factors:
        """See `Arrangement`."""
        (rows, columns), *_ = parts
        return Factors(rows, columns.reshape(len(columns), -1))


@dataclass(frozen=True)
class Transposed(Arrangement):
    """A matrix `[in, out]`, as MatMul takes it."""

    name: ClassVar[str] = "transposed"

    def __call__(self, arrays: Sequence[Array]) -> Array:
        """See `Arrangement`."""
        matrix: Array = arrays[0].T
        return matrix

    def split(self, weight: Array, count: int) -> list[Array]:
        """See `Arrangement`."""
        return [weight.T]

    def split_shape(self, shape: Shape, count: int) -> Shape | None:
        """See `Arrangement`."""
        return shape[::-1] if count == 1 and len(shape) == 2 else None

    def factors(self, parts: Sequence[Factors]) -> Factors:
        """See `Arrangement`."""
        (rows, columns), *_ = parts
        return Factors(columns.T, rows.T)


@dataclass(frozen=True)
class ChannelsLast(Arrangement):
    """A convolution's weights as `[out, rows, columns, in]`, with `zeros` rows above and columns on the left."""

    zeros: int = 0
    name: ClassVar[str] = "channels last"

    def __call__(self, arrays: Sequence[Array]) -> Array:
        """See `Arrangement`."""
        more = (self.zeros, 0)
        padded = np.pad(arrays[0], ((0, 0), (0, 0), more, more)) if self.zeros else arrays[0]
        last: Array = padded.transpose(0, 2, 3, 1)
        return last

    def split(self, weight: Array, count: int) -> list[Array]:
        """See `Arrangement`."""
        return [weight[:, self.zeros :, self.zeros :].transpose(0, 3, 1, 2)]

    def split_shape(self, shape: Shape, count: int) -> Shape | None:
        """See `Arrangement`."""
        if count != 1 or len(shape) != 4 or min(shape[1:3]) <= self.zeros:
            return None
        out, rows, columns, channels = shape
        return (out, channels, rows - self.zeros, columns - self.zeros)

    def factors(self, parts: Sequence[Factors]) -> Factors:
        """See `Arrangement`."""
        (rows, columns), *_ = parts
        return Factors(rows, self([columns]).reshape(len(columns), -1))


@dataclass(frozen=True)
class ByHead(Arrangement):
    """Matrices `[out, in]`, or vectors, whose rows lie side by side for each of the `heads`. A matrix is transposed.

    The rows are `[heads, tensors, head_dim]`, as packed attention takes queries, keys and values.
    """

    heads: int
    name: ClassVar[str] = "by head"

    def __call__(self, arrays: Sequence[Array]) -> Array:
        """See `Arrangement`."""
        rows, *rest = arrays[0].shape
        split = [array.reshape(self.heads, rows // self.heads, *rest) for array in arrays]
        joined: Array = np.stack(split, axis=1).reshape(len(arrays) * rows, *rest)
        turned: Array = joined.T
        return turned

    def split(self, weight: Array, count: int) -> list[Array]:
        """See `Arrangement`."""
        rows, *rest = weight.T.shape
        apart = weight.T.reshape(self.heads, count, rows // count // self.heads, *rest)
        return [apart[:, place].reshape(rows // count, *rest) for place in range(count)]

    def split_shape(self, shape: Shape, count: int) -> Shape | None:
        """See `Arrangement`."""
        rows, *rest = shape[::-1] or (0,)
        fits = len(shape) in (1, 2) and count >= 1 and self.heads >= 1 and rows % (count * self.heads) == 0
        return (rows // count, *rest) if fits else None

    def factors(self, parts: Sequence[Factors]) -> Factors:
        """See `Arrangement`."""
        columns = np.concatenate([part.columns for part in parts])
        apart, at = [], 0
        for rows, own in parts:
            # Zeros, so that the ranks of one tensor change no other.
            wide = np.zeros((len(rows), len(columns)), np.float32)
            wide[:, at : at + len(own)] = rows
            apart.append(wide)
            at += len(own)
        return Factors(columns.T, self(apart))


ARRANGEMENTS: Mapping[str, type[Arrangement]] = {
    row.name: row for row in (AsItIs, Transposed, ChannelsLast, ByHead)
}
"""The arrangements that manifests name."""


def arrangement_of(entry: Mapping[str, Any]) -> Arrangement:
    """The arrangement of a manifest's entry. Raises `ValueError` for one that this version does not know."""
    numbers = {key: value for key, value in entry.items() if key not in ("as", "of")}
    kind = ARRANGEMENTS.get(str(entry.get("as")))
    if kind is None or not all(type(one) is int and 0 <= one <= 1 << 16 for one in numbers.values()):
        raise ValueError(entry)
    try:
        return kind(**numbers)
    except TypeError:
        raise ValueError(entry) from None
