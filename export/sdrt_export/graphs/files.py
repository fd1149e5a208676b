"""Writes a component's graphs, which share one file of weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from sdrt_export.graphs.graph import FLOAT, HALF, Graph, Place
from sdrt_export.graphs.weights import Array, Weight

__all__ = ["stored_type", "write_graphs"]

_NUMPY: Mapping[int, Any] = {FLOAT: np.float32, HALF: np.float16}
_HALF_MAX = float(np.finfo(np.float16).max)
# Large weights begin at a page, so that they can be mapped.
_PAGE, _LARGE, _SMALL = 4096, 1 << 20, 64


def write_graphs(
    folder: Path, graphs: Mapping[str, Graph], tensors: Mapping[str, Array], *, narrow: bool = False
) -> None:
    """Write `graphs`, by file name, with the weights beside the first one, in a file with the suffix `_data`.

    Args:
        folder: where the files go.
        graphs: the graph that decides how weights are stored, then others with the same weights.
        tensors: the checkpoint's tensors by name, in any floating type.
        narrow: whether to store matrices in float16 though the graph computes in float32.

    Each weight is converted and written on its own, so that no second copy of the model is in memory.
    """
    first, *_ = graphs
    data = f"{first}_data"
    weights = {
        name: weight for graph in reversed(list(graphs.values())) for name, weight in graph.weights.items()
    }
    weights |= graphs[first].weights
    types = dict.fromkeys(weights, graphs[first].compute)
    places = {}
    with (folder / data).open("xb") as file:
        for name, weight in weights.items():
            value = weight.value(tensors)
            types[name] = stored_type(weight, value, graphs[first].compute, narrow=narrow)
            places[name] = _append(file, value.astype(_NUMPY[types[name]], copy=False), data)
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


def _append(file: BinaryIO, array: Array, location: str) -> Place:
    step = _PAGE if array.nbytes >= _LARGE else _SMALL
    file.write(bytes(-file.tell() % step))
    offset = file.tell()
    file.write(np.ascontiguousarray(array).data)
    return Place(location=location, offset=offset, length=array.nbytes)
