"""Writes a component's graphs, which share one file of weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np

from sdrt_export.graphs.graph import FLOAT, HALF, Graph, Place
from sdrt_export.graphs.weights import Weight
from sdrt_export.tensors.array import Array

__all__ = ["Sink", "append", "plain_file", "stored_type", "write_graphs"]

_NUMPY: Mapping[int, Any] = {FLOAT: np.float32, HALF: np.float16}
_HALF_MAX = float(np.finfo(np.float16).max)
# Large weights begin at a page, so that they can be mapped.
_PAGE, _LARGE, _SMALL = 4096, 1 << 20, 64
# Bytes that are written at a time. With 4 MB, Linux (ext4) takes twice as long. The squares fit into a core's cache.
_PIECE, _SQUARE = 1 << 20, 128


class Sink(Protocol):
    """A file to write to."""

    def write(self, array: Array) -> None:
        """Write the bytes of a contiguous array."""

    def tell(self) -> int:
        """The number of bytes written."""


class _Plain:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.tell = file.tell

    def write(self, array: Array) -> None:
        self._file.write(array.data)


@contextmanager
def plain_file(path: Path) -> Iterator[Sink]:
    """Create a file."""
    with path.open("xb") as file:
        yield _Plain(file)


def write_graphs(
    folder: Path,
    graphs: Mapping[str, Graph],
    tensors: Mapping[str, Array],
    *,
    narrow: bool = False,
    create: Callable[[Path], AbstractContextManager[Sink]] = plain_file,
) -> None:
    """Write `graphs`, by file name, with the weights beside the first one, in a file with the suffix `_data`.

    Args:
        folder: where the files go.
        graphs: the graph that decides how weights are stored, then others with the same weights.
        tensors: the checkpoint's tensors by name, in any floating type.
        narrow: whether to store matrices in float16 though the graph computes in float32.
        create: creates the file of the weights.

    Weights are converted and written piece by piece, so that no copy of the model is in memory.
    """
    first, *_ = graphs
    data = f"{first}_data"
    weights = {
        name: weight for graph in reversed(list(graphs.values())) for name, weight in graph.weights.items()
    }
    weights |= graphs[first].weights
    types = dict.fromkeys(weights, graphs[first].compute)
    places = {}
    with create(folder / data) as file:
        for name, weight in weights.items():
            value = weight.value(tensors)
            types[name] = stored_type(weight, value, graphs[first].compute, narrow=narrow)
            places[name] = append(file, value, _NUMPY[types[name]], data)
    for name, graph in graphs.items():
        (folder / name).write_bytes(graph.model(places, types).SerializeToString())


def stored_type(weight: Weight, value: Array, compute: int, *, narrow: bool) -> int:
    """The type in which a weight is stored.

    Vectors (biases, norms) stay in float32 if the graph computes in it, because they are a hundredth of the bytes and
    small scales lose the most. So do weights that exceed float16's range.
    """
    if weight.exact or (compute == FLOAT and not narrow):
        return FLOAT
    if compute == HALF:
        return HALF
    fits = len(weight.shape) > 1 and float(np.abs(value).max(initial=0)) <= _HALF_MAX
    return HALF if fits else FLOAT


def append(file: Sink, array: Array, dtype: Any, location: str) -> Place:
    """Write an array in `dtype` to a file, which graphs call `location`. Return where it is."""
    length = array.size * np.dtype(dtype).itemsize
    step = _PAGE if length >= _LARGE else _SMALL
    if gap := -file.tell() % step:
        file.write(np.zeros(gap, np.uint8))
    offset = file.tell()
    for piece in _pieces(array, dtype):
        file.write(piece)
    return Place(location=location, offset=offset, length=length)


def _pieces(array: Array, dtype: Any) -> Iterator[Array]:
    """The array in `dtype` as contiguous arrays that follow one another. Parts that need no change are views."""
    if array.flags.c_contiguous and array.dtype == dtype:
        flat, step = array.reshape(-1), _PIECE // array.itemsize
        yield from (flat[start : start + step] for start in range(0, flat.size, step))
        return
    rows = len(array) if array.ndim else 1
    step = max(_SQUARE, _PIECE * rows // max(1, array.size * np.dtype(dtype).itemsize))
    for start in range(0, rows, step):
        part = array[start : start + step] if array.ndim else array
        yield _transposed(part, dtype) if _is_transposed(array) else np.ascontiguousarray(part, dtype)


def _is_transposed(array: Array) -> bool:
    return array.ndim == 2 and array.flags.f_contiguous and not array.flags.c_contiguous


def _transposed(part: Array, dtype: Any) -> Array:
    """A contiguous copy of a matrix with contiguous columns. Copying by squares is three times as fast as NumPy."""
    made: Array = np.empty(part.shape, dtype)
    for row in range(0, part.shape[0], _SQUARE):
        for column in range(0, part.shape[1], _SQUARE):
            square = np.s_[row : row + _SQUARE, column : column + _SQUARE]
            made[square] = part[square]
    return made
