"""The graphs of a model that are in memory. Each is opened when it is first used."""

from __future__ import annotations

import threading
import weakref
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
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
from sdrt.model_folder.graph_kind import NO_MORE, WHOLE_GRAPH, GraphKind, MoreInputs
from sdrt.model_folder.manifest import missing
from sdrt.model_folder.model import IMAGE_ENCODER, IP_ADAPTER, GraphSource, Model
from sdrt.onnx.engine_cache import Weights
from sdrt.onnx.float32_retry import Float32Retry
from sdrt.onnx.memory_graph import MemoryGraph
from sdrt.onnx.placement import check_takes_masks
from sdrt.onnx.providers import SessionConfig
from sdrt.onnx.session import Component
from sdrt.run.ahead import Ahead

__all__ = ["OpenGraphs"]

T = TypeVar("T")

# This stays in memory with low_vram, because it is small and runs between two steps of the denoiser.
_SMALL = frozenset({TAESD_DECODER})


_Key = tuple[str, MoreInputs]


def _is_of_images(key: _Key) -> bool:
    """Whether what is kept belongs to IP-Adapters."""
    name, inputs = key
    return name.startswith((IMAGE_ENCODER, IP_ADAPTER)) or bool(inputs.images)


class _Kept:
    """What is in memory, by name, with the adapters that changed it. `OpenGraphs` of one model share it."""

    def __init__(self) -> None:
        # What changed a component, and what was made, by its name and its further inputs.
        self.made: dict[_Key, tuple[Any, Any]] = {}
        # Graphs that were freed, but that a run still uses. Other runs use them too, so none is loaded twice.
        self.in_use: WeakValueDictionary[tuple[_Key, Any], Any] = WeakValueDictionary()
        # What is loaded ahead of its first use, with what changes it.
        self.ahead: dict[tuple[_Key, Any], Ahead] = {}
        self.opened: list[weakref.ref[Component]] = []
        self.lock = threading.Lock()

    def without_images(self) -> _Kept:
        """A table of its own with the same graphs, but those of IP-Adapters."""
        made = _Kept()
        with held(self.lock):
            made.made = {key: one for key, one in self.made.items() if not _is_of_images(key)}
            for used, one in self.in_use.items():
                if not _is_of_images(used[0]):
                    made.in_use[used] = one
            made.ahead = {used: one for used, one in self.ahead.items() if not _is_of_images(used[0])}
        made.opened = self.opened
        return made


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

    def of_model(self, model: Model) -> OpenGraphs:
        """The graphs of the same model with other IP-Adapters. Those for image prompts are made anew.

        A run that goes on with the others still has theirs.
        """
        made = OpenGraphs(model, self.config, self.notices, self._float32_retries)
        made._kept = self._kept.without_images()
        return made

    @property
    def current(self) -> tuple[Component, ...]:
        """The graphs in memory, in the order in which they were loaded."""
        found = [reference() for reference in list(self._kept.opened)]
        return tuple(component for component in found if component is not None)

    def get(self, name: str, load: Callable[[], T], inputs: MoreInputs = NO_MORE) -> T:
        """Return what `load` made for the component `name` with these further inputs.

        `load` is called if nothing is in memory for them.
        """
        kept, key, changes = self._kept, (name, inputs), self._model.adaptation.key(name)
        with at_work(), held(kept.lock):
            found = kept.made.get(key)
            if found is None or found[0] != changes:
                del found
                self._make_room(name, inputs)
                # Only now, because the line above may have freed it.
                in_use = kept.in_use.get((key, changes))
                made = self._loaded(key, changes, load) if in_use is None else in_use
                kept.made[key] = (changes, made)
                kept.in_use[key, changes] = made
            wanted: T = kept.made[key][1]
            return wanted

    def load_ahead(self, name: str, load: Callable[[], Any], inputs: MoreInputs = NO_MORE) -> None:
        """Begin to `load` the component `name` in another thread, if no graph of it is in memory. `get` waits for it.

        This is done on the CPU only: other providers load in a thread of their own, or not beside other work. It is not
        done with `low_vram`, which keeps one component in memory, nor while graphs are tuned, one after another.
        """
        kept, key, config = self._kept, (name, inputs), self.config
        if config.low_vram or config.tune or config.name != "cpu":
            return
        with held(kept.lock), suppress(RuntimeError):
            keys = [*kept.made, *(used for used, _ in (*kept.in_use, *kept.ahead))]
            if name not in (one for one, _ in keys):
                kept.ahead[key, self._model.adaptation.key(name)] = Ahead(load)

    def _loaded(self, key: _Key, changes: Any, load: Callable[[], Any]) -> Any:
        """What was loaded ahead, else what `load` makes."""
        ahead = self._kept.ahead.get((key, changes))
        if ahead is None:
            self._drop_ahead(key[0])
            return load()
        made = ahead.result()
        # It is not given up: the graphs of other IP-Adapters may have it too.
        del self._kept.ahead[key, changes]
        return load() if made is None else made

    def _drop_ahead(self, name: str) -> None:
        """Forget what is loaded ahead of the component `name`."""
        ahead = self._kept.ahead
        for one in [used for used in ahead if used[0][0] == name]:
            ahead.pop(one).give_up()

    def _make_room(self, name: str, wanted: MoreInputs) -> None:
        """Free what must not be in memory together with the component `name` with the further inputs `wanted`.

        Only one graph of a component sees images, because there are as many of them as ways to combine images.
        """
        kept, changes = self._kept.made, self._model.adaptation.key(name)
        frees = self._frees_others(name)
        drop = [
            (one, inputs)
            for (one, inputs), (own, _) in kept.items()
            if (one == name and (own != changes or (wanted.images and inputs.images)))
            or (frees and one not in _SMALL)
        ]
        for one in drop:
            del kept[one]
        if drop:
            trim()

    def _frees_others(self, name: str) -> bool:
        return bool(self.config.low_vram) and name not in _SMALL

    def open(self, name: str, kind: GraphKind = WHOLE_GRAPH, memory: MemoryGraph | None = None) -> Component:
        """Open a graph of the component `name`, by default the whole one.

        `memory` is the graph if it differs from the model's.
        """
        model, weights = self._model, self._model.weights(name)
        source = _source(model, name, kind)
        if memory is None and source.build is not None:
            if kind.inputs.images:
                check_takes_masks(self.config)
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
        wide = model.graph(name, kind.widened)
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
            for one in {name for (name, _), _ in self._kept.ahead}:
                self._drop_ahead(one)
            self._kept.made.clear()
        trim()

    def _repeats(self, name: str) -> bool:
        return name in (self._model.family.denoiser.component, *self._model.controlnets)


def _source(model: Model, name: str, kind: GraphKind) -> GraphSource:
    """A graph of the model. Raises `IntegrityError` if it is missing."""
    source = model.graph(name, kind)
    if source is None:
        raise missing(model.path / name / kind.file, name)
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
