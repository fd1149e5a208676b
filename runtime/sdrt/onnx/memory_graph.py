"""A graph that is in no file: its bytes, and where its weights are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

__all__ = ["MemoryGraph"]


@dataclass(frozen=True, kw_only=True)
class MemoryGraph:
    """A graph in memory.

    ONNX Runtime maps weights in files and reads them one by one. It copies all of `values` at the same time.

    Attributes:
        content: the bytes of the ONNX model.
        folder: the folder of the files with weights. The model contains their names and offsets.
        values: weights that are in no file, by name, contiguous.
        remedy: what to do if the weights turn out to be damaged.
        types: ONNX's number for the type of a value, by name, where NumPy has no such type. The value holds its bits.
    """

    content: bytes
    folder: Path
    remedy: str = ""
    values: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    types: Mapping[str, int] = field(default_factory=dict)
