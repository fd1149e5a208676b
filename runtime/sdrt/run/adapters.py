"""The adapters of a pipeline: those that it has loaded, which of them are active, and those that a call names."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sdrt.adapters.adaptation import NO_ADAPTATION, Adaptation, Weighted
from sdrt.adapters.change import Adapter, Shape
from sdrt.adapters.lora.reader import listed, open_adapter
from sdrt.adapters.lora_folder import LoraFolder
from sdrt.common.messages import brief, refused, wrong_value
from sdrt.common.notices import Notices
from sdrt.errors import ModelNotFoundError, RequestError
from sdrt.request.loras import MOST_WEIGHT, LoraFile, lora_tags
from sdrt.request.request import Request
from sdrt.run.lora_texts import LoraTexts
from sdrt.run.memory import ComponentCache

__all__ = ["Adapters", "weights_of"]

_MOST_FILES = 16


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
        self._shapes: dict[str, Mapping[str, Shape]] = {}
        self._files: OrderedDict[tuple[Path, int, int], Adapter] = OrderedDict()
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
            made = Weighted(adapter=self._open(path, name))
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
        family = self._cache.model.family
        names = (family.denoiser.component, *(spec.component for spec in family.text_encoders))
        return tuple(name for name in names if self._cache.model.has(name))

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
        parts = list(self._cache.adaptation.parts)
        parts += [self._weighted(one, one.path.stem) for one in request.lora or ()]
        if tags := lora_tags(request):
            assert request.lora_dir is not None
            folder = LoraFolder(request.lora_dir)
            for tag in tags:
                file = LoraFile(folder.find(tag.name), tag.text_encoder_multiplier, tag.unet_multiplier)
                part = self._weighted(file, tag.name)
                seconds = dict.fromkeys(self._text_encoders[1:], tag.second_text_encoder_multiplier)
                parts.append(replace(part, weights={**part.weights, **seconds}))
        if not parts:
            return NO_ADAPTATION
        return Adaptation(tuple(self._scaled(part, request.lora_scale) for part in parts))

    def _weighted(self, file: LoraFile, name: str) -> Weighted:
        with self._lock:
            adapter = self._known(file.path, name)
        weights = {
            one: file.text_encoder if one in self._text_encoders else file.unet for one in self.components
        }
        return Weighted(adapter=adapter, weights=weights, called=name)

    def _scaled(self, part: Weighted, scale: float) -> Weighted:
        weights = {one: part.weight(one) * scale for one in self.components}
        return replace(part, weights=weights)

    def texts(self, request: Request, adaptation: Adaptation) -> LoraTexts:
        """What the metadata of a call say of its adapters."""
        unet = self._cache.model.family.denoiser.component
        return LoraTexts.of(request, adaptation, self._text_encoders, unet)

    @property
    def _text_encoders(self) -> tuple[str, ...]:
        return tuple(spec.component for spec in self._cache.model.family.text_encoders)

    def _known(self, path: Path, name: str) -> Adapter:
        """The adapter in a file, which is opened again only if the file changed."""
        try:
            state = path.stat()
        except OSError:
            raise _no_file(path) from None
        key = (path.resolve(), state.st_size, state.st_mtime_ns)
        if key not in self._files:
            self._files[key] = self._open(path, name)
        self._files.move_to_end(key)
        while len(self._files) > _MOST_FILES:
            self._files.popitem(last=False)
        return self._files[key]

    def _open(self, path: Path, name: str) -> Adapter:
        model = self._cache.model
        if not self._shapes:
            self._shapes = {one: model.parameters(one) for one in self.components}
        adapter = open_adapter(path, family=model.family, shapes=self._shapes, name=name)
        if left := list(adapter.left_over):
            self._notices.warn(f"{path}: {len(left)} keys match nothing in {model.name}: {listed(left)}")
        for note in adapter.notes:
            self._notices.inform(note)
        return adapter


def _no_file(path: Path) -> ModelNotFoundError:
    return ModelNotFoundError.expected(
        f"there is no LoRA file {path}", "the path of a .safetensors file", argument="lora", path=path
    )


def weights_of(given: Any, components: Sequence[str], name: str) -> dict[str, float]:
    """The weight of an adapter in each component: a number for all, or a dict. None is 1.

    Raises:
        RequestError: it is something else.
    """
    if isinstance(given, Mapping):
        if unknown := [key for key in given if key not in components]:
            raise refused(
                "adapter_weights", f"has {brief(unknown[0])}", f"the components {', '.join(components)}"
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
