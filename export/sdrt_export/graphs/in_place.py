"""Graphs whose weights stay in place, in a checkpoint's own files, for a session of ONNX Runtime. Nothing is written.

The graph says at which byte of which file each weight begins. ONNX Runtime maps the files, as it does with those of an
exported model, and widens other number types once, when it makes the session. Weights that are joined, padded or
transposed are in no file, so it is given their values.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType

import numpy as np

from sdrt.common.arena import Arena
from sdrt.onnx.memory_graph import MemoryGraph, only_multiplied
from sdrt_export.graphs.blocks import block_size, in_blocks, kernels_for_blocks, use_blocks
from sdrt_export.graphs.graph import FLOAT, HALF, Graph, Place
from sdrt_export.graphs.memory import turn
from sdrt_export.graphs.weights import Weight
from sdrt_export.tensors.array import Array
from sdrt_export.tensors.stored import Stored, stored

__all__ = ["bind_in_place"]


def bind_in_place(
    graph: Graph,
    tensors: Mapping[str, Array],
    *,
    turned: bool,
    given: Mapping[str, Stored] = MappingProxyType({}),
    unchanged: Mapping[str, Array] | None = None,
) -> MemoryGraph:
    """Bind a graph's weights to a checkpoint's `tensors`.

    Args:
        graph: the graph, whose weights were checked against the tensors.
        tensors: those of the component.
        turned: whether products take a matrix as checkpoints store it, by ONNX Runtime's FusedMatMul.
        given: weights that are arranged already, by name, as another graph's files store them.
        unchanged: the tensors before adapters changed them, if they did.
    """
    as_stored = {
        name
        for name, weight in graph.weights.items()
        if turned and weight.is_transposed and name not in given
    }
    kept = {
        name: given[name]
        if name in given
        else _kept(weight, tensors, graph.compute, as_stored=name in as_stored)
        for name, weight in graph.weights.items()
    }
    sources = _sources(graph, tensors if unchanged is None else unchanged, given)
    bound = partial(
        _bound,
        graph,
        as_stored=as_stored,
        files=_files(sources),
        structure=_structure(graph, sources, as_stored),
    )
    return replace(bound(kept), on_cpu=partial(_in_blocks, graph, bound, kept, tensors))


def _in_blocks(
    graph: Graph,
    bound: Callable[..., MemoryGraph],
    kept: Mapping[str, Stored],
    tensors: Mapping[str, Array],
) -> MemoryGraph:
    """The graph with kernels as ONNX Runtime's CPU provider reads them."""
    size = block_size()
    kernels = kernels_for_blocks(graph, size) if size else {}
    memory = Arena((kept[name].array.shape, np.float32) for name in kernels)

    def blocked(name: str) -> Stored:
        array = kept[name].array if kept[name].array.dtype.kind == "f" else tensors[name]
        return Stored(array=in_blocks(array, size, memory.empty(array.shape)), dtype=FLOAT)

    return bound({**kept, **{name: blocked(name) for name in kernels}}, kernels=kernels)


def _bound(
    graph: Graph,
    kept: Mapping[str, Stored],
    *,
    as_stored: Collection[str],
    files: tuple[Path, ...],
    structure: str,
    kernels: Mapping[str, int] = MappingProxyType({}),
) -> MemoryGraph:
    """The graph with its weights as they are `kept`, of which `kernels` are in blocks."""
    folder = _common_folder(one.file for one in kept.values() if one.file is not None)
    places = {name: _place(one, folder) for name, one in kept.items()}
    loose = {name: one for name, one in kept.items() if places[name] == _IN_NO_FILE}
    uncopied = _uncopied(graph, loose) | kernels.keys()
    if beside := next((place for place in places.values() if place != _IN_NO_FILE), None):
        places |= dict.fromkeys(uncopied, replace(beside, length=_UNREADABLE))
    model = graph.model(places, {name: one.dtype for name, one in kept.items()})
    turn(model, as_stored)
    use_blocks(model, kernels)
    return MemoryGraph(
        content=model.SerializeToString(),
        folder=folder,
        remedy=_REMEDY,
        values={name: np.ascontiguousarray(one.array) for name, one in loose.items()},
        types={name: one.dtype for name, one in loose.items() if one.array.dtype.kind == "u"},
        uncopied=uncopied if beside else frozenset(),
        files=files,
        structure=structure,
    )


_IN_NO_FILE = Place(location="memory")
# No float32 weight has this length. ONNX Runtime refuses to read it.
_UNREADABLE = 1
# An export reads every weight, and names one that is not finite. A session only computes with them.
_REMEDY = "download it again; sdrt export says which weight is damaged"


def _kept(weight: Weight, tensors: Mapping[str, Array], compute: int, *, as_stored: bool) -> Stored:
    """A weight as the session gets it."""
    parts = [stored(tensors, name) for name in weight.sources]
    dtype = parts[0].dtype
    if any(one.dtype != dtype for one in parts):
        array, dtype = weight.value(tensors).astype(np.float32), FLOAT
    elif as_stored or weight.is_plain:
        if parts[0].file is not None:
            return parts[0]
        array = parts[0].array
    else:
        array = weight.arrange([one.array for one in parts])
    if dtype == FLOAT and compute == HALF and not weight.exact:
        # Rounded here, because ONNX Runtime would keep the weight in both types. Where float16 is too narrow, the run
        # overflows, and is repeated in float32.
        with np.errstate(over="ignore"):
            return Stored(array=array.astype(np.float16), dtype=HALF)
    return Stored(array=array, dtype=dtype)


def _sources(
    graph: Graph, tensors: Mapping[str, Array], given: Mapping[str, Stored]
) -> dict[str, list[Stored]]:
    """What each weight is made of."""
    return {
        name: [given[name]] if name in given else [stored(tensors, source) for source in weight.sources]
        for name, weight in graph.weights.items()
    }


def _files(sources: Mapping[str, Sequence[Stored]]) -> tuple[Path, ...]:
    """The files that all weights come from. Empty if one comes from elsewhere."""
    found = {one.file for parts in sources.values() for one in parts}
    return () if None in found else tuple(sorted(one for one in found if one is not None))


def _structure(graph: Graph, sources: Mapping[str, Sequence[Stored]], as_stored: Collection[str]) -> str:
    """A text that differs for graphs that make other weights of the same files, as two adapters in turn do."""
    made = [
        (name, str(weight.arrange), name in as_stored, [(str(one.file), one.offset) for one in sources[name]])
        for name, weight in graph.weights.items()
    ]
    return f"{graph.digest()} {hashlib.sha256(repr(made).encode()).hexdigest()}"


def _uncopied(graph: Graph, loose: Mapping[str, Stored]) -> frozenset[str]:
    """Those of the weights without a file that ONNX Runtime need not copy."""
    multiplied = only_multiplied(graph.reads())
    return frozenset(name for name, one in loose.items() if one.dtype == FLOAT and name in multiplied)


def _common_folder(files: Iterable[Path]) -> Path:
    """The folder that contains all files. On Windows, files on another drive are read into memory instead."""
    folders = {file.parent for file in files}
    first = min(folders, default=Path.cwd())
    return Path(os.path.commonpath([one for one in folders if one.drive == first.drive] or [first]))


def _place(one: Stored, folder: Path) -> Place:
    if one.file is None or one.file.drive != folder.drive or not one.array.nbytes:
        return _IN_NO_FILE
    location = one.file.relative_to(folder).as_posix()
    return Place(location=location, offset=one.offset, length=one.array.nbytes)
