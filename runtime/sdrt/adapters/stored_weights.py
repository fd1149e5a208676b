"""The weights of an exported graph, and the tensors of a checkpoint that they are made of, which adapters change.

The manifest says how a graph stores its weights (`Arrangement`). Only weights that change are read and held: ONNX
Runtime maps the others, as it does without adapters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdrt.adapters.adaptation import Adaptation, not_finite
from sdrt.adapters.arrangement import Arrangement, AsItIs, Transposed, arrangement_of
from sdrt.adapters.change import Array, Shape
from sdrt.adapters.workspace import Workspace
from sdrt.common.finite import is_finite
from sdrt.errors import IntegrityError
from sdrt.onnx.graph_file import ElsewhereWeight, GraphFile, read_graph

__all__ = ["StoredWeights"]

# ONNX's numbers of the types in which exports store weights.
_NUMPY: Mapping[int, Any] = {1: np.float32, 10: np.float16}
_MOST_PARTS = 8
_THREADS = 2


@dataclass(frozen=True, kw_only=True)
class _Made:
    """How one weight is made: of which tensors, and how they are arranged."""

    sources: tuple[str, ...]
    arrangement: Arrangement
    shape: Shape


@dataclass(frozen=True, kw_only=True)
class StoredWeights:
    """The weights of an exported component.

    Attributes:
        path: the graph.
        component: the component's name.
        transposed: the names of the weights that are stored transposed.
        arranged: how others are made, as the manifest says.
    """

    path: Path
    component: str
    transposed: frozenset[str]
    arranged: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @cached_property
    def graph(self) -> GraphFile:
        """The graph. Raises `IntegrityError` or `OSError`."""
        return read_graph(self.path)

    @cached_property
    def shapes(self) -> dict[str, Shape]:
        """The checkpoint's tensors of which the weights are made, with their shapes."""
        return {source: made.shape for made in self._made.values() for source in made.sources}

    @cached_property
    def _made(self) -> dict[str, _Made]:
        return {
            name: self._how(name, weight.shape)
            for name, weight in self.graph.weights.items()
            # A parameter is named after its module. Constants of the graph have no dot in their names.
            if weight.dtype in _NUMPY and ("." in name or name in self.arranged)
        }

    def _how(self, name: str, shape: Shape) -> _Made:
        entry = self.arranged.get(name)
        sources: tuple[str, ...] = (name,)
        arrangement: Arrangement = Transposed() if name in self.transposed else AsItIs()
        if entry is not None:
            try:
                sources, arrangement = tuple(entry["of"]), arrangement_of(entry)
            except (KeyError, TypeError, ValueError):
                raise self._damaged(name) from None
        known = 1 <= len(sources) <= _MOST_PARTS and all(isinstance(one, str) for one in sources)
        split = arrangement.split_shape(shape, len(sources)) if known else None
        if split is None:
            raise self._damaged(name)
        return _Made(sources=sources, arrangement=arrangement, shape=split)

    def changed(self, adaptation: Adaptation, graph: GraphFile | None = None) -> dict[str, Array]:
        """The weights that `adaptation` changes, as the graph stores them. Each is rounded once.

        `graph` is another graph with the same weights.

        Raises:
            IntegrityError: the weights are not where the graph says.
            UnsupportedModelError: a weight becomes infinite, or not a number.
        """
        stored, names = (graph or self.graph).weights, adaptation.changes(self.component).keys()
        wanted = [
            name for name, made in self._made.items() if name in stored and not names.isdisjoint(made.sources)
        ]

        def change(part: Sequence[str]) -> dict[str, Array]:
            workspace = Workspace((stored[name].shape, _NUMPY[stored[name].dtype]) for name in part)
            return {
                name: self._changed(name, self._made[name], stored[name], adaptation, workspace)
                for name in part
            }

        # Most of the time goes into reading files and getting memory, which two threads do twice as fast.
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="sdrt-weights") as pool:
            parts = list(pool.map(change, [wanted[start::_THREADS] for start in range(_THREADS)]))
        return {name: value for part in parts for name, value in part.items()}

    def _changed(
        self,
        name: str,
        made: _Made,
        stored: ElsewhereWeight,
        adaptation: Adaptation,
        workspace: Workspace,
    ) -> Array:
        added = self._as_product(name, made, stored, adaptation, workspace)
        if added is not None:
            return added
        parts = made.arrangement.split(self._array(name, stored), len(made.sources))
        wide = [
            adaptation.changed(self.component, source, part)
            for source, part in zip(made.sources, parts, strict=True)
        ]
        rounded = workspace.empty(stored.shape, _NUMPY[stored.dtype])
        with np.errstate(over="ignore"):
            np.copyto(rounded, made.arrangement(wide), casting="same_kind")
        if not is_finite(rounded):
            raise not_finite(adaptation.key(self.component)[-1][0].name, self.component, name)
        return rounded

    def _as_product(
        self,
        name: str,
        made: _Made,
        stored: ElsewhereWeight,
        adaptation: Adaptation,
        workspace: Workspace,
    ) -> Array | None:
        """The weight with one product added in the graph's own layout. None if the changes are no products.

        None as well if the result is not finite: the other way says which adapter is at fault.
        """
        if len(stored.shape) < 2:
            return None
        found = [adaptation.factors(self.component, source, made.shape) for source in made.sources]
        parts = [one for one in found if one is not None]
        if len(parts) < len(found):
            return None
        weight = workspace.empty(stored.shape, _NUMPY[stored.dtype])
        wide = weight if weight.dtype == np.float32 else workspace.scratch(stored.shape)
        self._read(name, stored, wide)
        workspace.add(wide, made.arrangement.factors(parts))
        if wide is not weight:
            with np.errstate(over="ignore", invalid="ignore"):
                np.copyto(weight, wide, casting="same_kind")
        return weight if is_finite(weight) else None

    def _read(self, name: str, stored: ElsewhereWeight, to: NDArray[np.float32]) -> None:
        """Read a weight into `to`, widened. Reading takes a third of the time of mapping."""
        if _NUMPY[stored.dtype] is not np.float32:
            np.copyto(to, self._array(name, stored))
            return
        view, done = to.data.cast("B"), 0
        with self._file(stored).open("rb", buffering=0) as file:
            file.seek(stored.offset)
            while done < len(view) and (count := file.readinto(view[done:])):
                done += count
        if done < len(view):
            raise self._damaged(name)

    def _array(self, name: str, stored: ElsewhereWeight) -> Array:
        """A weight, mapped from its file."""
        try:
            mapped: Array = np.memmap(
                self._file(stored),
                np.dtype(_NUMPY[stored.dtype]),
                "r",
                offset=stored.offset,
                shape=stored.shape,
            )
        except ValueError:
            raise self._damaged(name) from None
        return mapped

    def _file(self, stored: ElsewhereWeight) -> Path:
        """The file of a weight."""
        folders = (self.path.parent, self.path.resolve().parent)
        files = [folder / stored.location for folder in folders]
        file = next((one for one in files if one.is_file()), None)
        if file is None or Path(stored.location).name != stored.location:
            raise IntegrityError.advised(
                f"there is no file of weights {files[0]}",
                "copy or export the model again",
                path=files[0],
                component=self.component,
            )
        return file

    def _damaged(self, name: str) -> IntegrityError:
        return IntegrityError.advised(
            f"{self.path}: sdrt.json and the graph disagree about the weight {name}",
            "copy or export the model again",
            path=self.path,
            component=self.component,
        )
