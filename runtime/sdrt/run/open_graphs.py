"""The graphs of a model that are in memory. Each is opened when it is first used."""

from __future__ import annotations

import threading
import weakref
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from sdrt.common.allocator import trim
from sdrt.common.cancelling import held
from sdrt.common.notices import Notices
from sdrt.common.program_end import at_work
from sdrt.model_folder.folder import TAESD_DECODER
from sdrt.model_folder.manifest import missing
from sdrt.model_folder.model import WHOLE_GRAPH, WIDE, GraphSource, Model
from sdrt.onnx.engine_cache import Weights
from sdrt.onnx.float32_retry import Float32Retry
from sdrt.onnx.memory_graph import MemoryGraph
from sdrt.onnx.providers import SessionConfig
from sdrt.onnx.session import Component

__all__ = ["OpenGraphs"]

T = TypeVar("T")

# This stays in memory with low_vram, because it is small and runs between two steps of the denoiser.
_SMALL = frozenset({TAESD_DECODER})


class OpenGraphs:
    """Opens graphs, and keeps them in memory. With `low_vram`, opening one frees the others.

    What it keeps must not refer to it: such a cycle would keep gigabytes in memory until Python's garbage collector
    runs, which does not know how large sessions are.

    Args:
        model: the model.
        config: the settings of the sessions.
        notices: receives messages for the user.
        float32_retries: counts the runs of each component that were repeated in float32.
    """

    def __init__(
        self, model: Model, config: SessionConfig, notices: Notices, float32_retries: Counter[str]
    ) -> None:
        self._model, self.config, self.notices = model, config, notices
        self._float32_retries = float32_retries
        self._kept: dict[str, Any] = {}
        # Graphs that were freed, but that a run still uses. Other runs use them too, so none is loaded twice.
        self._in_use: WeakValueDictionary[str, Any] = WeakValueDictionary()
        self._opened: list[weakref.ref[Component]] = []
        self._lock = threading.Lock()

    @property
    def current(self) -> tuple[Component, ...]:
        """The graphs in memory, in the order in which they were loaded."""
        found = [reference() for reference in list(self._opened)]
        return tuple(component for component in found if component is not None)

    def get(self, name: str, load: Callable[[], T]) -> T:
        """Return what `load` made for this name. `load` is called if nothing is in memory under this name."""
        with at_work(), held(self._lock):
            if name not in self._kept:
                if self.config.low_vram and name not in _SMALL:
                    self._kept = {name: one for name, one in self._kept.items() if name in _SMALL}
                    trim()
                # Only now, because the lines above may have freed it.
                in_use = self._in_use.get(name)
                self._kept[name] = self._in_use[name] = load() if in_use is None else in_use
            kept: T = self._kept[name]
            return kept

    def open(self, name: str, kind: str = WHOLE_GRAPH, memory: MemoryGraph | None = None) -> Component:
        """Open a graph of the component `name`, by default the whole one.

        `memory` is the graph if it differs from the model's.
        """
        model, weights = self._model, self._model.weights(name)
        source = _source(model, name, kind)
        if memory is None and source.build is not None:
            memory = source.build()
        component = _component(
            name,
            source.path,
            self.config,
            self.notices,
            weights,
            self._opened,
            repeats=self._repeats(name),
            memory=memory,
        )
        wide = model.graph(name, WIDE[kind])
        if wide is not None:
            # A function without `self`: see the class's docstring.
            again = partial(
                _float32,
                wide,
                name,
                self.config,
                self.notices,
                # The provider must not compute it in float16.
                replace(weights, dtype="float32"),
                self._opened,
                repeats=self._repeats(name),
            )
            component.float32_retry = Float32Retry(name, again, self.notices, self._float32_retries)
        return component

    def close(self) -> None:
        """Free every graph. Those that a run still uses are freed when it ends."""
        with self._lock:
            self._kept.clear()
        trim()

    def _repeats(self, name: str) -> bool:
        return name in (self._model.family.denoiser.component, *self._model.controlnets)


def _source(model: Model, name: str, kind: str) -> GraphSource:
    """A graph of the model. Raises `IntegrityError` if it is missing."""
    source = model.graph(name, kind)
    if source is None:
        raise missing(model.path / name / kind, name)
    return source


def _float32(source: GraphSource, name: str, *arguments: Any, repeats: bool) -> Component:
    """Open a component's graph in float32."""
    memory = None if source.build is None else source.build()
    return _component(name, source.path, *arguments, repeats=repeats, memory=memory)


def _component(
    name: str,
    path: Path,
    config: SessionConfig,
    notices: Notices,
    weights: Weights,
    opened: list[weakref.ref[Component]],
    *,
    repeats: bool,
    memory: MemoryGraph | None = None,
) -> Component:
    component = Component(name, path, config, notices, weights, repeats=repeats, memory=memory)
    opened.append(weakref.ref(component, opened.remove))
    return component
