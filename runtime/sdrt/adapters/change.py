"""The interface between adapters' files and the weights of a model."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["Adapter", "Array", "Change", "Factors", "Shape", "no_change"]

Array = NDArray[Any]
Shape = tuple[int, ...]


class Factors(NamedTuple):
    """A change as a product: `rows` [out, rank] times `columns` [rank, in, …], in float32."""

    rows: NDArray[np.float32]
    columns: NDArray[np.float32]


class Change(Protocol):
    """What an adapter does to one parameter, a weight or a bias, in the checkpoint's own layout."""

    @property
    def shape(self) -> Shape:
        """The shape of the parameter that it fits."""

    def delta(self, base: Array, weight: float) -> NDArray[np.float32]:
        """What to add to `base`, of its shape. It is exactly zero at weight 0.

        Raises:
            UnsupportedModelError: the file changed since it was opened.
        """

    def as_factors(self, weight: float) -> Factors | None:
        """What to add as a product of two small arrays. None if it is none, or depends on the base.

        Raises:
            UnsupportedModelError: the file changed since it was opened.
        """


def no_change(shape: Shape) -> NDArray[np.float32]:
    """The change at weight 0. It is made of -0.0, because adding 0.0 would turn a -0.0 of the base into 0.0."""
    return np.full(shape, -0.0, np.float32)


@dataclass(frozen=True, kw_only=True, eq=False)
class Adapter:
    """An adapter's file, read for one model.

    Attributes:
        name: how users call it.
        path: its file.
        changes: what it changes: component, then the name of the parameter in diffusers or transformers.
        left_over: the keys of the file that match nothing in the model.
        notes: what the user should know about how the file was read, a sentence each.
    """

    name: str
    path: Path
    changes: Mapping[str, Mapping[str, Change]]
    left_over: Sequence[str] = field(default=())
    notes: Sequence[str] = field(default=())

    @cached_property
    def sha256(self) -> str:
        """The SHA-256 of the file, in hex."""
        digest = hashlib.sha256()
        with self.path.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
        return digest.hexdigest()
