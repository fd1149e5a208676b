"""The layers of a U-Net that look at texts and images, as diffusers names and counts them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["MIDDLE", "cross_attentions"]

MIDDLE = "mid"
_DOWN = ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D")
_UP = ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D")
_MID = "UNetMidBlock2DCrossAttn"
_ATTENDS = "CrossAttn"


def cross_attentions(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The place of each layer, such as "down.block_1.0", "up.block_0.2" and "mid", in the order of the graph's scales.

    The last number counts the transformers of a block. Each may have several layers, which have the same place.
    `config` is diffusers' config of a U-Net, which has been checked.
    """
    down, up = config.get("down_block_types", _DOWN), config.get("up_block_types", _UP)
    layers = _each(config.get("layers_per_block", 2), len(down))
    given = _each(config.get("transformer_layers_per_block", 1), len(down))
    upward = config.get("reverse_transformer_layers_per_block") or list(reversed(given))
    depths = _depths(given, layers)
    found = _places("down", down, depths)
    found += _places("up", up, _depths(upward, [count + 1 for count in reversed(layers)]))
    if config.get("mid_block_type", _MID) == _MID:
        found += [MIDDLE] * depths[-1][0]
    return tuple(found)


def _each(value: Any, count: int) -> Sequence[Any]:
    return value if isinstance(value, (list, tuple)) else [value] * count


def _depths(given: Sequence[Any], counts: Sequence[int]) -> list[Sequence[int]]:
    """For each block, how many layers each of its transformers has."""
    return [_each(one, count) for one, count in zip(given, counts, strict=True)]


def _places(way: str, kinds: Sequence[str], depths: Sequence[Sequence[int]]) -> list[str]:
    return [
        f"{way}.block_{block}.{index}"
        for block, (kind, own) in enumerate(zip(kinds, depths, strict=True))
        if _ATTENDS in kind
        for index, depth in enumerate(own)
        for _ in range(depth)
    ]
