"""The methods of a pipeline for IP-Adapter. Their names and meanings are those of diffusers."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdrt.common.messages import refused, wrong_value
from sdrt.errors import RequestError
from sdrt.foreign.arguments import IP_ADAPTER
from sdrt.foreign.checked import explains_arguments
from sdrt.model_folder.exporter import load_exporter
from sdrt.model_folder.folder import exists, expand
from sdrt.model_folder.model import Model
from sdrt.onnx.providers import PROVIDERS
from sdrt.request.block_scales import BlockScales
from sdrt.request.checks import numbers, real
from sdrt.request.image_prompt_settings import MAX_IMAGE_PROMPTS, MAX_IP_ADAPTERS
from sdrt.request.image_prompts import flat_scales
from sdrt.request.request import Request
from sdrt.run.memory import ComponentCache

__all__ = ["ImagePromptMethods", "ImagePromptState"]

Place = str | Path
Scale = float | Mapping[str, Any]


@dataclass
class ImagePromptState:
    """The scales of calls that give none."""

    scale: tuple[float | BlockScales | tuple[float, ...], ...] | None = None


class ImagePromptMethods:
    """IP-Adapters. A subclass sets `model`, `_cache` and `_image_prompts`."""

    __slots__ = ()
    model: Model
    _cache: ComponentCache
    _image_prompts: ImagePromptState

    @explains_arguments("StableDiffusionPipeline.load_ip_adapter", IP_ADAPTER)
    def load_ip_adapter(
        self,
        path: Place | Sequence[Place],
        subfolder: str | Sequence[str] = "",
        weight_name: str | Sequence[str] | None = None,
        *,
        image_encoder: Place | None = None,
        token: str | bool | None = None,
        cache_dir: Place | None = None,
    ) -> None:
        """Load one IP-Adapter, or several, in place of those that the model has. Calls then take `ip_adapter_image`.

        Args:
            path: a `.safetensors` file, or where it is on the hub. With `weight_name`, a folder or a hub id.
            subfolder: the folder inside of `path`.
            weight_name: the file's name. A list loads several files.
            image_encoder: CLIP's vision encoder, a folder of transformers or a file. By default the model's own, or the
                folder image_encoder beside the adapter.
            token, cache_dir: huggingface_hub's.

        Raises:
            ModelError: a file is missing, damaged, or for another model. The pipeline keeps what it had.
            RequestError: the provider or the model cannot have IP-Adapters.
        """
        provider = self._cache.config.name
        if not PROVIDERS[provider].takes_memory:
            raise RequestError.advised(
                f"provider {provider} runs only what is exported, so it cannot load an IP-Adapter",
                "export the checkpoint with sdrt export --ip-adapter",
                argument="ip_adapter",
            )
        files = _files(path, subfolder, weight_name)
        made = load_exporter("IP-Adapters that are loaded later").add_ip_adapters(
            self.model, files, image_encoder, token=token, cache_dir=cache_dir
        )
        # Read what can be wrong before anything changes.
        _ = made.capabilities
        self._use(made)

    def set_ip_adapter_scale(self, scale: Scale | Sequence[Scale | Sequence[float]]) -> None:
        """Set how much image prompts count in calls without `ip_adapter_scale`.

        Args:
            scale: one number, or one for each IP-Adapter. With masks, an entry may be a list with one number
                for each image. A dict in place of a number has scales for single blocks of the U-Net, and 0 for all
                others: {"down": {"block_2": [0, 1]}, "up": {"block_0": [0, 1, 0]}} (InstantStyle).

        Raises:
            RequestError: it is no number, or there are not as many IP-Adapters.
        """
        count = len(self.model.ip_adapters)
        if not count:
            raise refused("scale", "has no effect without an IP-Adapter", "load_ip_adapter before it")
        given = list(scale) if isinstance(scale, (list, tuple)) else [scale]
        if len(given) not in (1, count):
            adapters = f"{count} IP-Adapter{'s' * (count != 1)}"
            raise refused("scale", f"has {len(given)} entries for {adapters}", "one, or one for each")
        checked = tuple(_scale(one) for one in given)
        for one in checked:
            if isinstance(one, BlockScales):
                one.check_fits("scale", self.model.capabilities.cross_attentions)
        self._image_prompts.scale = checked * (count if len(checked) == 1 else 1)

    def unload_ip_adapter(self) -> None:
        """Forget every IP-Adapter. The model is as it was before, bit for bit."""
        self._use(self.model.without_ip_adapters())

    def _use(self, model: Model) -> None:
        self._cache.use_model(model)
        self.model = model  # type: ignore[misc]  # the subclass has the slot
        self._image_prompts.scale = None

    def _with_image_scale(self, request: Request) -> Request:
        """The request with the scale of `set_ip_adapter_scale`, if it gives none."""
        scale, images = self._image_prompts.scale, request.ip_adapter_image
        if request.ip_adapter_image_embeds is not None:
            images = tuple((None,) * one.shape[1] for one in request.ip_adapter_image_embeds)
        if scale is None or images is None or request.ip_adapter_scale is not None:
            return request
        made = object.__new__(Request)
        flat = flat_scales(scale, images)
        made.__dict__.update(vars(request) | {"ip_adapter_scale": flat})
        return made


def _scale(given: Any) -> float | BlockScales | tuple[float, ...]:
    if isinstance(given, Mapping):
        return BlockScales.of("scale", given)
    if isinstance(given, (list, tuple)):
        return numbers("scale", given, MAX_IMAGE_PROMPTS, real, -100.0, 100.0)
    return real("scale", given, -100.0, 100.0)


def _files(path: Any, subfolder: Any, weight_name: Any) -> list[Place]:
    """The places of the adapters. As in diffusers, each argument may be a list, and single ones count for all."""
    lists = [list(one) if isinstance(one, (list, tuple)) else [one] for one in (path, subfolder, weight_name)]
    count = max(map(len, lists))
    if any(len(one) not in (1, count) for one in lists) or not 1 <= count <= MAX_IP_ADAPTERS:
        raise refused(
            "path",
            f"has {len(lists[0])} entries, subfolder {len(lists[1])} and weight_name {len(lists[2])}",
            f"as many of each, at most {MAX_IP_ADAPTERS}",
        )
    columns = [one * (count if len(one) == 1 else 1) for one in lists]
    return [_file(*row) for row in zip(*columns, strict=True)]


def _file(path: Any, subfolder: Any, name: Any) -> Place:
    if not isinstance(path, (str, os.PathLike)) or not str(path):
        raise wrong_value("path", path, "a .safetensors file, or a folder or hub id with weight_name")
    if name is None and not subfolder:
        return path  # type: ignore[return-value]  # a path
    if not isinstance(name, str) or not isinstance(subfolder, str):
        raise wrong_value("weight_name", name, "the name of a file in the folder")
    local = expand(Path(path), "path", "a folder or hub id")
    if exists(local):
        return local / subfolder / name
    return "/".join(part for part in (str(path), subfolder, name) if part)
