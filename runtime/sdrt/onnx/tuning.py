"""Creates sessions of tuned graphs, and tunes graphs that are not tuned yet."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdrt.common.file_identity import check_same, identity_of
from sdrt.common.notices import Notices
from sdrt.errors import OutOfMemoryError, RunCancelledError, SdrtError
from sdrt.onnx.create_session import Place
from sdrt.onnx.engine import FAILURES
from sdrt.onnx.error_messages import Subject
from sdrt.onnx.graph_file import GraphFile, read_graph, read_graph_bytes
from sdrt.onnx.memory_graph import MemoryGraph
from sdrt.onnx.tensor_spec import TensorSpec, read_tensor_specs
from sdrt.onnx.tuned import NOT_TUNED, TunedGraph, make_room
from sdrt.onnx.tuned_weights import TunedWeight, tuned_weights, weights_reader

__all__ = ["tuned_session"]

Create = Callable[[Place], Any]
Untuned = Callable[[], tuple[Any, MemoryGraph | None]]

# ONNX Runtime keeps matrices twice: as they are and packed.
_GROWTH = 1.5
_SIDE, _TOKENS = 8, 77
# Control images are eight times as large as latents.
_CONTROL_SIDE = 8 * _SIDE
_SAME = ("Cast", "Div", "Identity", "Mul")
# What ONNX Runtime says on a full disk.
_UNWRITTEN = "Failed to write"
_FAILURES: tuple[type[BaseException], ...] = (OSError, SdrtError, *FAILURES)


def tuned_session(
    tuned: TunedGraph,
    subject: Subject,
    create: Create,
    untuned: Untuned,
    notices: Notices,
    *,
    memory: MemoryGraph | None,
    adapted: bool,
    write: bool,
) -> tuple[Any, MemoryGraph | None]:
    """A session of a graph: of the tuned one if it is there, else of the graph itself.

    Returns also the graph in memory that was loaded, if any. Its `uncopied` values must exist as long as the session.

    Args:
        tuned: the place of the tuned graph.
        subject: the component.
        create: creates a session.
        untuned: creates a session of the graph itself. Returns also the graph in memory that was loaded, if any.
        notices: receives messages for the user.
        memory: the graph if it is not in a file.
        adapted: whether adapters have changed values of `memory`.
        write: whether to tune the graph if it is not tuned yet. One that adapters have changed is not tuned.

    Raises:
        SdrtError: the graph itself cannot be loaded.
    """
    if tuned.is_whole() and (found := _loaded(tuned, subject, create, notices, memory if adapted else None)):
        return found
    if write and not adapted:
        return _written(tuned, subject, create, untuned, notices, memory)
    return untuned()


def _loaded(
    tuned: TunedGraph, subject: Subject, create: Create, notices: Notices, changes: MemoryGraph | None
) -> tuple[Any, MemoryGraph | None] | None:
    """A session of the tuned graph, with the weights of `changes`. None if that is impossible.

    A damaged graph is removed.
    """
    try:
        changed = None if changes is None else tuned.changed({**changes.values, **changes.inside})
        if changes is not None and changed is None:
            return None
        session = create(Place(tuned=tuned.graph, changed=changed))
    except (OutOfMemoryError, RunCancelledError):
        raise
    except (SdrtError, OSError):
        _discard(tuned, subject, notices)
        return None
    tuned.used()
    return session, changed


def _discard(tuned: TunedGraph, subject: Subject, notices: Notices) -> None:
    """Remove a damaged graph, and say so. Say nothing if another process has removed it meanwhile."""
    if not tuned.is_whole():
        return
    tuned.remove()
    told = "cannot be loaded, so it was removed; `sdrt tune` makes it again"
    if tuned.is_whole():
        told = "cannot be loaded, and it cannot be removed; remove that folder"
    notices.warn(f"{subject.name}: the tuned graph in {tuned.folder} {told}")


def _written(
    tuned: TunedGraph,
    subject: Subject,
    create: Create,
    untuned: Untuned,
    notices: Notices,
    memory: MemoryGraph | None,
) -> tuple[Any, MemoryGraph | None]:
    """Tune a graph, and return a session of it. If that is impossible, say why, and load the graph itself."""
    started = time.perf_counter()
    try:
        reason = make_room(_size(subject.path, memory)) or _kept(tuned, subject, create, memory)
    except RunCancelledError:
        raise
    except _FAILURES as error:
        reason = _reason(error, tuned)
    if reason:
        notices.warn(f"{subject.name}: {NOT_TUNED}: {reason}")
        return untuned()
    seconds, size = time.perf_counter() - started, f"{tuned.size / 1e6:,.0f} MB"
    notices.inform(f"{subject.name}: tuned for this machine in {seconds:.0f} s, {size}")
    return _loaded(tuned, subject, create, notices, None) or untuned()


def _reason(error: BaseException, tuned: TunedGraph) -> str:
    """Why a graph is not tuned, in one line."""
    if _UNWRITTEN in str(error):
        folder = tuned.folder.parent
        return f"ONNX Runtime cannot write to {folder}: make room there, or choose another folder with SDRT_CACHE"
    return str(error).partition("\n")[0] or type(error).__name__


def _kept(tuned: TunedGraph, subject: Subject, create: Create, memory: MemoryGraph | None) -> str:
    """Write a tuned graph and keep it. Returns why it does not count, or nothing. Whatever happens, no part stays."""
    sources = {file: identity_of(file.stat()) for file in _sources(subject.path, memory)}
    partial = tuned.begin()
    try:
        written = partial / tuned.graph.name
        reference = create(Place(written=written))
        feeds = _Feeds(_graph(subject.path, memory))
        if not _gives_the_same(reference, create(Place(tuned=written, is_trial=True)), feeds):
            return "the tuned graph gives other numbers"
        weights = _weights(subject.path, memory, written)
        for file, identity in sources.items():
            # The place is for the files that were there at first.
            check_same(file, identity)
        tuned.finish(partial, weights)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return ""


def _sources(path: Path, memory: MemoryGraph | None) -> set[Path]:
    """The files that a graph and its weights are read from."""
    folder, files = (path.parent, ()) if memory is None else (memory.folder, memory.files)
    every = {path, *files, *(folder / name for name in _graph(path, memory).external)}
    # Weights in memory have a name there, but no file.
    return {file for file in every if file.is_file()}


def _weights(path: Path, memory: MemoryGraph | None, written: Path) -> dict[str, TunedWeight]:
    """How the written graph stores the weights of its graph."""
    before, tuned = _graph(path, memory), read_graph(written)
    folder = path.parent if memory is None else memory.folder
    return tuned_weights(
        before, weights_reader(before, folder, memory), tuned, weights_reader(tuned, written.parent)
    )


def _graph(path: Path, memory: MemoryGraph | None) -> GraphFile:
    return read_graph(path) if memory is None else read_graph_bytes(memory.content, path)


def _size(path: Path, memory: MemoryGraph | None) -> int:
    """About how many bytes a tuned graph takes. Raises `IntegrityError`, `OSError`."""
    shapes = _graph(path, memory).constants.values()
    return int(4 * _GROWTH * sum(math.prod(shape) for shape in shapes))


def _gives_the_same(one: Any, other: Any, feeds: _Feeds) -> bool:
    """Whether two sessions of a graph give the same bits for random inputs.

    Outputs that differ from run to run, because the graph draws noise itself, do not count. One at least must count.
    """
    given = {name: feeds.drawn(spec) for name, spec in read_tensor_specs(one.get_inputs()).items()}
    results = [session.run(None, given) for session in (one, one, other)]
    repeated = [
        (first, third) for first, second, third in zip(*results, strict=True) if _equal(first, second)
    ]
    return bool(repeated) and all(_equal(*pair) for pair in repeated)


def _equal(one: NDArray[Any], other: NDArray[Any]) -> bool:
    return np.array_equal(one, other, equal_nan=True)


class _Feeds:
    """Random inputs of a graph, small in every free dimension."""

    def __init__(self, graph: GraphFile) -> None:
        self._graph = graph
        # What a value is made of, by a step that keeps its shape.
        self._before = {
            output: node.inputs[0] for node in graph.nodes if node.op in _SAME for output in node.outputs
        }

    def drawn(self, spec: TensorSpec) -> NDArray[Any]:
        """An input."""
        shape = [
            axis if isinstance(axis, int) else self._length(spec.name, axis, place)
            for place, axis in enumerate(spec.shape)
        ]
        source = np.random.default_rng(0)
        if spec.dtype.kind == "f":
            return np.asarray(source.standard_normal(shape), spec.dtype)
        return np.ones(shape, spec.dtype)

    def _length(self, name: str, axis: str, place: int) -> int:
        if "residual" in axis:
            # What ControlNets add on each level of a U-Net. A single value is added everywhere.
            return 1
        if "height" in axis or "width" in axis:
            return _CONTROL_SIDE if "condition" in axis else _SIDE
        if "sequence" in axis:
            return _TOKENS
        return self._channels(name) if "channels" in axis and place == 1 else 1

    def _channels(self, name: str) -> int:
        """How many channels the first convolution reads. diffusers' first converter leaves them free."""
        for node in self._graph.nodes:
            if node.op == "Conv" and self._source(node.inputs[0]) == name:
                kernel = self._graph.constants.get(self._source(node.inputs[1]), (1, 1))
                return kernel[1]
        return 1

    def _source(self, value: str) -> str:
        while value in self._before:
            value = self._before[value]
        return value
