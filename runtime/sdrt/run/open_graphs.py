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

from sdrt.adapters.adaptation import Adaptation
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


class _Kept:
    """What is in memory, by name, with the adapters that changed it. `OpenGraphs` of one model share it."""

    def __init__(self) -> None:
        # The component, what changed it, and what was made.
        self.by_name: dict[str, tuple[str, Any, Any]] = {}
        # Graphs that were freed, but that a run still uses. Other runs use them too, so none is loaded twice.
        self.in_use: WeakValueDictionary[tuple[str, Any], Any] = WeakValueDictionary()
        self.opened: list[weakref.ref[Component]] = []
        self.lock = threading.Lock()


class OpenGraphs:
    """Opens graphs, and keeps them in memory. With `low_vram`, opening one frees the others.

    Opening a component with other adapters frees all of its graphs.

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
        self._kept = _Kept()

    def adapted(self, adaptation: Adaptation) -> OpenGraphs:
        """The graphs with the changes of `adaptation`. Those that it does not change are shared."""
        made = OpenGraphs(self._model.adapted(adaptation), self.config, self.notices, self._float32_retries)
        made._kept = self._kept
        return made

    @property
    def current(self) -> tuple[Component, ...]:
        """The graphs in memory, in the order in which they were loaded."""
        found = [reference() for reference in list(self._kept.opened)]
        return tuple(component for component in found if component is not None)

    def get(self, name: str, load: Callable[[], T], component: str = "") -> T:
        """Return what `load` made for this name. `load` is called if nothing is in memory under this name.

        The adapters count that change the `component`, which has the same name by default.
        """
        component = component or name
        kept, key = self._kept, self._model.adaptation.key(component)
        with at_work(), held(kept.lock):
            found = kept.by_name.get(name)
            if found is None or found[1] != key:
                del found
                self._make_room(name, component)
                # Only now, because the line above may have freed it.
                in_use = kept.in_use.get((name, key))
                made = load() if in_use is None else in_use
                kept.by_name[name] = (component, key, made)
                kept.in_use[name, key] = made
            wanted: T = kept.by_name[name][2]
            return wanted

    def _make_room(self, name: str, component: str) -> None:
        """Free what must not be in memory together with `name`, a graph of `component`."""
        kept, key = self._kept.by_name, self._model.adaptation.key(component)
        old = [one for one, (own, own_key, _) in kept.items() if own == component and own_key != key]
        drop = old + [one for one in kept if self._frees_others(name) and one not in (*_SMALL, *old)]
        for one in drop:
            del kept[one]
        if drop:
            trim()

    def _frees_others(self, name: str) -> bool:
        return bool(self.config.low_vram) and name not in _SMALL

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
            self._kept.opened,
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
                self._kept.opened,
                repeats=self._repeats(name),
            )
            component.float32_retry = Float32Retry(name, again, self.notices, self._float32_retries)
        return component

    def close(self) -> None:
        """Free every graph. Those that a run still uses are freed when it ends."""
        with self._kept.lock:
            self._kept.by_name.clear()
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
