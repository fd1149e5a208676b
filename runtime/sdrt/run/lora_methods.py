"""The methods of a pipeline for LoRA. Their names and meanings are those of diffusers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sdrt.common.messages import refused, wrong_value
from sdrt.run.adapters import Adapters, weights_of
from sdrt.run.lora_sources import file_of

__all__ = ["LoraMethods"]

Weights = float | Mapping[str, float] | None


class LoraMethods:
    """LoRAs and other adapters that change weights. A subclass sets `_adapters`.

    Each method only notes what to use. The next run makes the sessions of changed components anew, once.
    """

    __slots__ = ()
    _adapters: Adapters

    def load_lora_weights(
        self,
        path: str | Path,
        adapter_name: str | None = None,
        *,
        weight_name: str | None = None,
        revision: str | None = None,
        token: str | bool | None = None,
    ) -> None:
        """Load a LoRA, and make it the only active one. `set_adapters` combines several.

        Args:
            path: a `.safetensors` file, a folder with one, or the id of a model on the hub.
            adapter_name: how to call it. By default default_0, default_1 and so on.
            weight_name: the file in the folder or model `path`.
            revision, token: the revision of the model on the hub, and a token for it.

        Raises:
            ModelNotFoundError, UnsupportedModelError, RequestError.
        """
        if adapter_name is not None and not (isinstance(adapter_name, str) and adapter_name):
            raise wrong_value("adapter_name", adapter_name, "a name, or None")
        self._adapters.load(file_of(path, weight_name, revision=revision, token=token), adapter_name)

    def set_adapters(
        self, adapter_names: str | Sequence[str], adapter_weights: Weights | Sequence[Weights] = None
    ) -> None:
        """Make these adapters the active ones.

        Args:
            adapter_names: one name, or several.
            adapter_weights: a number for all, a list with one for each, or dicts with a number for each component:
                {"unet": 0.8, "text_encoder": 0.5}. None is 1. An adapter of weight 0 changes nothing.

        Raises:
            RequestError: an adapter is not loaded, or a weight is not a number.
        """
        names = _names(adapter_names)
        many = isinstance(adapter_weights, (list, tuple))
        weights: Sequence[Any] = adapter_weights if many else [adapter_weights] * len(names)  # type: ignore[assignment]
        if len(weights) != len(names):
            raise refused(
                "adapter_weights", f"has {len(weights)} weights", f"{len(names)}, one for each name"
            )
        components = self._adapters.components
        own = [weights_of(one, components, name) for name, one in zip(names, weights, strict=True)]
        self._adapters.activate(names, own)

    def unload_lora_weights(self) -> None:
        """Forget every adapter. The model is as it was before, bit for bit."""
        self._adapters.unload()

    def delete_adapters(self, adapter_names: str | Sequence[str]) -> None:
        """Forget these adapters. Raises `RequestError` if one is not loaded."""
        self._adapters.delete(_names(adapter_names))

    def disable_lora(self) -> None:
        """Use no adapter until `enable_lora`."""
        self._adapters.enable(False)

    def enable_lora(self) -> None:
        """Use the active adapters again."""
        self._adapters.enable(True)

    def get_active_adapters(self) -> list[str]:
        """The names of the active adapters."""
        return self._adapters.active

    def get_list_adapters(self) -> dict[str, list[str]]:
        """The names of the adapters that change each component."""
        return self._adapters.by_component


def _names(given: str | Sequence[str]) -> list[str]:
    listed = [given] if isinstance(given, str) else given
    if not isinstance(listed, (list, tuple)) or not all(isinstance(one, str) for one in listed):
        raise wrong_value("adapter_names", given, "a name, or a list of names")
    return list(listed)
