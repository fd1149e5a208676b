"""A checkpoint of an architecture with random weights, which needs no download."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sdrt.errors import RequestError
from sdrt.families import Family
from sdrt_export.architectures.published import PUBLISHED
from sdrt_export.checkpoints.defaults import completed
from sdrt_export.checkpoints.normals import normals
from sdrt_export.components import parts_of
from sdrt_export.components.outline import tensors_of
from sdrt_export.tensors.array import Array, Shape
from sdrt_export.tensors.lazy import LazyTensors

__all__ = ["RandomCheckpoint", "RandomTensors"]


@dataclass(frozen=True, kw_only=True)
class RandomCheckpoint:
    """A full-size architecture with random weights, for measuring a device without a download."""

    architecture: str
    seed: int

    def __post_init__(self) -> None:
        if self.architecture not in PUBLISHED:
            known = ", ".join(sorted(PUBLISHED))
            raise RequestError.expected(
                f"unknown architecture {self.architecture!r}", f"one of {known}", argument="architecture"
            )
        if not 0 <= self.seed < 2**32:
            raise RequestError.expected(
                f"--random-weights {self.seed}", f"a seed from 0 to {2**32 - 1}", argument="random_weights"
            )

    @property
    def name(self) -> str:
        """The source's name in the manifest."""
        return f"{self.architecture}-random-{self.seed}"

    @property
    def family(self) -> Family:
        """The architecture's."""
        return PUBLISHED[self.architecture].family

    @property
    def revision(self) -> str | None:
        """None, because nothing was downloaded."""
        return None

    @property
    def _configs(self) -> Mapping[str, Mapping[str, Any]]:
        return PUBLISHED[self.architecture].configs

    def config(self, part: str) -> dict[str, Any]:
        """See :class:`Checkpoint`."""
        return completed(parts_of(self.family)[part][0].class_name, self._configs[part])

    def tensors(self, part: str) -> RandomTensors:
        """See :class:`Checkpoint`. The builder decides their names and shapes."""
        return RandomTensors(tensors_of(parts_of(self.family)[part], self.config(part)), self.seed)

    def place(self, part: str) -> str:
        """See :class:`Checkpoint`."""
        return f"{part} of {self.name}"

    def errors_of(self, part: str) -> AbstractContextManager[None]:
        """See `Checkpoint`."""
        return nullcontext()

    def scheduler_config(self) -> dict[str, Any]:
        """See :class:`Checkpoint`."""
        return dict(self._configs["scheduler"])

    def low_res_scheduler_config(self) -> dict[str, Any] | None:
        """See :class:`Checkpoint`."""
        low_res = self._configs.get("low_res_scheduler")
        return dict(low_res) if low_res else None

    def index(self) -> dict[str, Any]:
        """See :class:`Checkpoint`."""
        return dict(self._configs.get("model_index", {}))

    def checker(self) -> None:
        """None: a safety checker with random weights would mean nothing."""

    def names(self) -> tuple[str, ...]:
        """See :class:`Checkpoint`."""
        return (self.name,)

    def tokenizer_folders(self) -> dict[str, Path]:
        """Empty. Random weights belong to no vocabulary, so the exporter writes byte-level tokenizers."""
        return {}

    def size(self) -> int:
        """See :class:`Checkpoint`."""
        return 4 * sum(self.tensors(part).size for part in parts_of(self.family))


class RandomTensors(LazyTensors):
    """Tensors of the given shapes, drawn when they are asked for. Each has its own seed, so their order is free."""

    def __init__(self, shapes: Mapping[str, Shape], seed: int) -> None:
        self._shapes, self._seed = shapes, seed

    def __getitem__(self, name: str) -> Array:
        shape = self._shapes[name]
        mean, std = _spread(name, shape)
        seed = self._seed ^ zlib.crc32(name.encode())
        return normals(seed, math.prod(shape), mean, std).reshape(shape)

    def shape(self, name: str) -> Shape:
        """See `LazyTensors`."""
        return self._shapes[name]

    @cached_property
    def size(self) -> int:
        """The number of weights."""
        return sum(math.prod(shape) for shape in self._shapes.values())

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)

    def __contains__(self, name: Any) -> bool:
        return name in self._shapes


def _spread(name: str, shape: Shape) -> tuple[float, float]:
    """Mean and standard deviation: norms around 1, biases around 0, matrices by fan-in, which keeps a signal's size."""
    if len(shape) == 1:
        return float("norm" in name and name.endswith("weight")), 0.02
    if "embedding" in name and "linear" not in name and len(shape) == 2:
        return 0.0, 0.5  # a row for each token
    return 0.0, math.prod(shape[1:]) ** -0.5
