"""The adapters of a pipeline: those that it has loaded, which of them are active, and those that a call names."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sdrt.adapters.adaptation import NO_ADAPTATION, Adaptation, Weighted
from sdrt.common.messages import brief, refused, wrong_value
from sdrt.common.notices import Notices
from sdrt.errors import RequestError
from sdrt.request.loras import MOST_WEIGHT
from sdrt.request.request import Request
from sdrt.run.call_adapters import CallAdapters
from sdrt.run.lora_texts import LoraTexts
from sdrt.run.memory import ComponentCache

__all__ = ["Adapters", "weights_of"]


@dataclass(frozen=True)
class _State:
    """The loaded adapters by name, with the weights that each had last, and the names of the active ones."""

    loaded: Mapping[str, Weighted] = field(default_factory=dict)
    active: tuple[str, ...] = ()
    enabled: bool = True

    @property
    def adaptation(self) -> Adaptation:
        if not (self.enabled and self.active):
            return NO_ADAPTATION
        return Adaptation(tuple(self.loaded[name] for name in self.active))


class Adapters:
    """The adapters of a pipeline. Safe to use from several threads: each change replaces the state as a whole.

    An error leaves everything as it was. Sessions with other weights are made when the next run needs them.
    """

    def __init__(self, cache: ComponentCache, notices: Notices) -> None:
        self._cache, self._notices = cache, notices
        self._state = _State()
        self._calls = CallAdapters(cache.model, notices)
        self._refining: CallAdapters | None = None
        self._lock = threading.RLock()

    # --- loaded adapters --------------------------------------------------------------------------------------

    def load(self, path: Path, name: str | None) -> str:
        """Load an adapter, and make it the only active one, as diffusers does. Return its name."""
        with self._lock:
            state = self._state
            name = name or f"default_{len(state.loaded)}"
            if name in state.loaded:
                raise refused(
                    "adapter_name",
                    f"is {brief(name)}, which is loaded already",
                    "another name, or delete_adapters first",
                )
            made = Weighted(adapter=self._calls.open(path, name))
            self._set(_State({**state.loaded, name: made}, (name,), state.enabled))
            return name

    def activate(self, names: Sequence[str], weights: Sequence[Mapping[str, float]]) -> None:
        """Make these adapters the active ones, each with a weight for each component."""
        with self._lock:
            loaded = dict(self._state.loaded)
            for name, own in zip(names, weights, strict=True):
                self._check_name(name)
                loaded[name] = Weighted(adapter=loaded[name].adapter, weights=own)
            self._set(_State(loaded, tuple(dict.fromkeys(names)), self._state.enabled))

    def delete(self, names: Sequence[str]) -> None:
        """Forget these adapters. If none of the active ones remains, the first of the others becomes active."""
        with self._lock:
            for name in names:
                self._check_name(name)
            state = self._state
            loaded = {name: one for name, one in state.loaded.items() if name not in names}
            active = tuple(name for name in state.active if name in loaded)
            self._set(_State(loaded, active or tuple(loaded)[:1], state.enabled))

    def unload(self) -> None:
        """Forget every adapter."""
        with self._lock:
            self._set(_State())

    def enable(self, enabled: bool) -> None:
        """Use the active adapters, or none."""
        with self._lock:
            self._set(_State(self._state.loaded, self._state.active, enabled))

    @property
    def active(self) -> list[str]:
        """The names of the active adapters."""
        return list(self._state.active)

    @property
    def by_component(self) -> dict[str, list[str]]:
        """The names of the adapters that change each component."""
        found: dict[str, list[str]] = {}
        for name, one in self._state.loaded.items():
            for component, changes in one.adapter.changes.items():
                if changes:
                    found.setdefault(component, []).append(name)
        return found

    @property
    def components(self) -> tuple[str, ...]:
        """The components that adapters can change."""
        return self._calls.components

    def _check_name(self, name: str) -> None:
        if name not in self._state.loaded:
            known = ", ".join(map(brief, self._state.loaded)) or "an adapter of load_lora_weights"
            raise RequestError.expected(
                f"adapter_names has {brief(name)}, which is not loaded", known, argument="adapter_names"
            )

    def _set(self, state: _State) -> None:
        self._state = state
        self._cache.adaptation = state.adaptation

    # --- those of a call --------------------------------------------------------------------------------------

    def of(self, request: Request) -> Adaptation:
        """The active adapters, and those that a call names, with their weights.

        Raises:
            RequestError, ModelError: a file is not found, or is none for this model.
        """
        return _together((*self._cache.adaptation.parts, *self._calls.of(request)), self._calls, request)

    def of_refiner(self, request: Request, refiner: ComponentCache) -> Adaptation:
        """What changes a refiner in a call: its own active adapters, and those that the call names if they fit it.

        Raises:
            RequestError, ModelError: as in `of`.
        """
        if refiner is self._cache:
            return self.of(request)
        with self._lock:
            if self._refining is None or self._refining.model is not refiner.model:
                self._refining = CallAdapters(refiner.model, self._notices, refines=True)
            calls = self._refining
        return _together((*refiner.adaptation.parts, *calls.of(request)), calls, request)

    def texts(self, request: Request, adaptation: Adaptation) -> LoraTexts:
        """What the metadata of a call say of its adapters."""
        unet = self._cache.model.family.denoiser.component
        return LoraTexts.of(request, adaptation, self._calls.text_encoders, unet)


def _together(parts: Sequence[Weighted], calls: CallAdapters, request: Request) -> Adaptation:
    """Adapters with their weights times the setting `lora_scale`."""
    scaled = [
        replace(part, weights={one: part.weight(one) * request.lora_scale for one in calls.components})
        for part in parts
    ]
    return Adaptation(tuple(scaled)) if scaled else NO_ADAPTATION


def weights_of(given: Any, components: Sequence[str], name: str) -> dict[str, float]:
    """The weight of an adapter in each component: a number for all, or a dict. None is 1.

    Raises:
        RequestError: it is something else.
    """
    if isinstance(given, Mapping):
        if unknown := [key for key in given if key not in components]:
            raise refused(
                "adapter_weights", f"names {brief(unknown[0])}", f"the components {', '.join(components)}"
            )
        return {one: _weight(given.get(one), name) for one in components}
    return dict.fromkeys(components, _weight(given, name))


def _weight(given: Any, name: str) -> float:
    if given is None:
        return 1.0
    if isinstance(given, bool) or not isinstance(given, (int, float)) or not abs(given) <= MOST_WEIGHT:
        fits = f"a number from {-MOST_WEIGHT:g} to {MOST_WEIGHT:g} for {brief(name)}"
        raise wrong_value("adapter_weights", given, fits)
    return float(given)
