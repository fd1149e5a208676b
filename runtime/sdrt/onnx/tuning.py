"""Creates sessions of tuned graphs, and tunes graphs that are not tuned yet."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdrt.common.notices import Notices
from sdrt.errors import OutOfMemoryError, SdrtError
from sdrt.onnx.create_session import UNTUNED, Place
from sdrt.onnx.engine import FAILURES
from sdrt.onnx.error_messages import Subject
from sdrt.onnx.graph_file import GraphFile, read_graph, read_graph_bytes
from sdrt.onnx.memory_graph import MemoryGraph
from sdrt.onnx.tensor_spec import TensorSpec, read_tensor_specs
from sdrt.onnx.tuned import TunedGraph, make_room

__all__ = ["tuned_session"]

Create = Callable[[Place], Any]

# ONNX Runtime keeps matrices twice: as they are and packed.
_GROWTH = 1.5
_SIDE, _TOKENS = 8, 77
_FAILURES: tuple[type[BaseException], ...] = (OSError, SdrtError, *FAILURES)


def tuned_session(
    tuned: TunedGraph,
    subject: Subject,
    create: Create,
    notices: Notices,
    *,
    memory: MemoryGraph | None,
    write: bool,
) -> Any:
    """A session of a graph: of the tuned one if it is there, else of the graph itself.

    Args:
        tuned: the place of the tuned graph.
        subject: the component.
        create: creates a session.
        notices: receives messages for the user.
        memory: the graph if it is not in a file.
        write: whether to tune the graph if it is not tuned yet.

    Raises:
        SdrtError: the graph itself cannot be loaded.
    """
    if tuned.is_whole():
        try:
            session = create(Place(tuned=tuned.graph))
        except OutOfMemoryError:
            raise
        except SdrtError:
            notices.warn(
                f"{subject.name}: the tuned graph in {tuned.folder} cannot be loaded, so it was removed; `sdrt tune` "
                "makes it again"
            )
            tuned.remove()
        else:
            tuned.used()
            return session
    return _written(tuned, subject, create, notices, memory) if write else create(UNTUNED)


def _written(
    tuned: TunedGraph, subject: Subject, create: Create, notices: Notices, memory: MemoryGraph | None
) -> Any:
    """Tune a graph. If that is impossible, say why, and return a session of the graph itself."""
    started, partial = time.perf_counter(), None
    try:
        if reason := make_room(_size(subject.path, memory)):
            return _untuned(subject, create, notices, reason)
        partial = tuned.begin()
        place = Place(written=partial / tuned.graph.name)
        reference = create(place)
        if not _gives_the_same(reference, create(Place(tuned=place.written))):
            return _untuned(subject, create, notices, "the tuned graph gives other numbers")
        tuned.finish(partial)
    except _FAILURES as error:
        return _untuned(subject, create, notices, str(error))
    finally:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)
    seconds, size = time.perf_counter() - started, f"{tuned.size / 1e6:,.0f} MB"
    notices.inform(f"{subject.name}: tuned for this machine in {seconds:.0f} s, {size}")
    return create(Place(tuned=tuned.graph))


def _untuned(subject: Subject, create: Create, notices: Notices, reason: str) -> Any:
    notices.warn(f"{subject.name}: not tuned for this machine: {reason}")
    return create(UNTUNED)


def _size(path: Path, memory: MemoryGraph | None) -> int:
    """About how many bytes a tuned graph takes. Raises `IntegrityError`, `OSError`."""
    graph = read_graph(path) if memory is None else read_graph_bytes(memory.content, path)
    return int(4 * _GROWTH * _num_elements(graph))


def _num_elements(graph: GraphFile) -> int:
    return sum(int(np.prod(shape, dtype=np.int64)) for shape in graph.constants.values())


def _gives_the_same(one: Any, other: Any) -> bool:
    """Whether two sessions of a graph give the same bits for random inputs."""
    feeds = {name: _drawn(spec) for name, spec in read_tensor_specs(one.get_inputs()).items()}
    results = [session.run(None, feeds) for session in (one, other)]
    return all(np.array_equal(first, second, equal_nan=True) for first, second in zip(*results, strict=True))


def _drawn(spec: TensorSpec) -> NDArray[Any]:
    shape = [axis if isinstance(axis, int) else _length(axis) for axis in spec.shape]
    source = np.random.default_rng(0)
    if spec.dtype.kind == "f":
        return np.asarray(source.standard_normal(shape), spec.dtype)
    return np.ones(shape, spec.dtype)


def _length(axis: str) -> int:
    """A small number for a free dimension."""
    if "height" in axis or "width" in axis:
        return _SIDE
    return _TOKENS if "sequence" in axis else 1
