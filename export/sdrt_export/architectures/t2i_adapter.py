"""T2I-Adapter (Mou et al. 2023, arXiv:2302.08453), as `T2IAdapter` has it.

It sees only a control image, and no latents, so it runs once for an image. Its features are added inside a U-Net's way
down, one to each block.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sdrt_export.architectures.config import Config
from sdrt_export.graphs.layers import Layers
from sdrt_export.graphs.values import Value

__all__ = ["FULL", "LIGHT", "XL", "T2IAdapterConfig", "t2i_adapter"]

FULL, XL, LIGHT = "full_adapter", "full_adapter_xl", "light_adapter"
_KEYS = frozenset({"adapter_type", "in_channels", "channels", "num_res_blocks", "downscale_factor"})


@dataclass(frozen=True, kw_only=True)
class T2IAdapterConfig:
    """The shape of a T2I-Adapter.

    Attributes:
        in_channels: the channels of the control image: 3, or 1 for shades of grey.
        factor: how many pixels of the image make one pixel of the first features, along each side.
        widths: the channels of each feature, one for each level.
        halves: for each level, whether it begins with half of the size.
        layers: the residual layers of each level.
        is_light: whether a level has few channels inside.
    """

    in_channels: int
    factor: int
    widths: tuple[int, ...]
    halves: tuple[bool, ...]
    layers: int
    is_light: bool

    @classmethod
    def of(cls, values: Mapping[str, Any], component: str = "controlnet") -> T2IAdapterConfig:
        """Read diffusers' config. Raises `UnsupportedModelError` for values that are not supported."""
        config = Config(component, values, remedy="")
        config.check_keys(_KEYS, {}, frozenset(), classes=("T2IAdapter",))
        kind, channels = config.get("adapter_type", FULL), config.get("in_channels", 3)
        if kind not in (FULL, XL, LIGHT):
            raise config.refused("adapter_type", f"{FULL}, {XL} or {LIGHT}")
        if isinstance(channels, bool) or channels not in (1, 3):
            raise config.refused("in_channels", "1 or 3")
        widths = config.wholes("channels", (320, 640, 1280, 1280), most=1 << 14)
        if kind == XL and any(width != widths[2] for width in widths[3:]):
            raise config.refused("channels", "as many from the third one on")
        if kind == LIGHT:
            if min(widths) < 4:
                raise config.refused("channels", "at least 4 each")
            # In diffusers, a light adapter has one level more than its config has numbers.
            widths = (*widths, widths[-1])
        return cls(
            in_channels=channels,
            factor=config.whole("downscale_factor", 8, most=64),
            widths=widths,
            # SDXL's U-Net has half of the size where the first feature is added, and the last is for its middle.
            halves=tuple(index == 2 if kind == XL else index > 0 for index in range(len(widths))),
            layers=config.whole("num_res_blocks", 2, most=64),
            is_light=kind == LIGHT,
        )

    @property
    def features(self) -> list[tuple[int, int]]:
        """For each feature, its channels, and how many pixels of the image make one of its own, along each side."""
        return [
            (width, self.factor << sum(self.halves[: index + 1])) for index, width in enumerate(self.widths)
        ]


def t2i_adapter(config: T2IAdapterConfig, g: Layers) -> None:
    """Write the graph.

    Input: `adapter_cond` [batch, channels, height, width] with the control image from 0 to 1. Its sizes are multiples
    of the config's factor.
    Outputs: `feature_0` to `…_n`, from the finest to the coarsest.
    """
    sizes = ("condition_height", "condition_width")
    x = g.unshuffled_input("adapter_cond", config.in_channels, config.factor, sizes)
    if not config.is_light:
        x = g.conv("adapter.conv_in", x, config.widths[0])
    features = []
    for index, (width, halves) in enumerate(zip(config.widths, config.halves, strict=True)):
        x = _level(config, g, f"adapter.body.{index}", g.halved(x) if halves else x, width)
        features.append(x)
    for index, x in enumerate(features):
        name = f"feature_{index}"
        g.image_output(name, x, (f"{name}_height", f"{name}_width"))


def _level(config: T2IAdapterConfig, g: Layers, path: str, x: Value, width: int) -> Value:
    inner = width // 4 if config.is_light else width
    if config.is_light or x.channels != width:
        x = g.conv(f"{path}.in_conv", x, inner, kernel=1)
    for index in range(config.layers):
        own = f"{path}.resnets.{index}"
        h = g.relu(g.conv(f"{own}.block1", x, inner))
        x = g.add(g.conv(f"{own}.block2", h, inner, kernel=3 if config.is_light else 1), x)
    return g.conv(f"{path}.out_conv", x, width, kernel=1) if config.is_light else x
