"""The tensors of an architecture, from its configs alone. The builders name them; no graph is written."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from sdrt_export.architectures.clip_text import ClipTextConfig, clip_text
from sdrt_export.architectures.unet import unet
from sdrt_export.architectures.unet_config import UNetConfig
from sdrt_export.architectures.vae import VaeConfig, vae_decoder, vae_encoder
from sdrt_export.graphs.graph import Graph
from sdrt_export.graphs.layers import Layers
from sdrt_export.graphs.weights import Shape

__all__ = ["PARTS", "num_parameters", "tensors_of_part"]

Config = Mapping[str, Any]


class _Outline(Graph):
    """A graph that keeps only the names of weights, not the nodes, so that it is made in milliseconds."""

    def ops(
        self, kind: str, *inputs: str | None, domain: str = "", count: int = 1, **attributes: Any
    ) -> tuple[str, ...]:
        return (kind,) * count

    def constant(self, value: Any, dtype: Any = None) -> str:
        return "constant"

    def input(self, name: str, dims: Any, dtype: int = 0, default: Any = None) -> str:
        return name

    def output(self, name: str, value: str, dims: Any) -> None:
        pass


def _vae(config: Config, layers: Layers) -> None:
    vae_encoder(VaeConfig.of(config), layers)
    vae_decoder(VaeConfig.of(config), layers)


_BUILD: Mapping[str, Callable[[Config, Layers], None]] = {
    "text_encoder": lambda config, layers: clip_text(ClipTextConfig.of(config), layers),
    "text_encoder_2": lambda config, layers: clip_text(
        ClipTextConfig.of(config, "text_encoder_2", projected=True), layers
    ),
    "unet": lambda config, layers: unet(UNetConfig.of(config), layers),
    "vae": _vae,
}

PARTS = tuple(_BUILD)
"""The parts of a checkpoint that have tensors."""


def tensors_of_part(part: str, config: Config) -> dict[str, Shape]:
    """The names and shapes of the tensors that the part `part` of a checkpoint has with this config."""
    outline = _Outline(part)
    _BUILD[part](config, Layers(outline))
    return {name: shape for weight in outline.weights.values() for name, shape in weight.sources.items()}


def num_parameters(configs: Mapping[str, Config]) -> dict[str, int]:
    """The number of parameters of each part of an architecture."""
    return {part: _count(part, json.dumps(configs[part])) for part in PARTS if part in configs}


@functools.cache
def _count(part: str, config: str) -> int:
    """Architectures share parts, so each is counted once."""
    return sum(math.prod(shape) for shape in tensors_of_part(part, json.loads(config)).values())
