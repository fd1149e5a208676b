"""T2I-Adapters as users have them: single files in TencentARC's or diffusers' names. `controlnet` reads folders."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from sdrt.errors import UnsupportedModelError
from sdrt.model_folder.model import CONTROLNET
from sdrt_export.architectures.t2i_adapter import FULL, LIGHT, XL, T2IAdapterConfig
from sdrt_export.architectures.unet import feature_places
from sdrt_export.architectures.unet_config import UNetConfig
from sdrt_export.checkpoints.defaults import completed
from sdrt_export.checkpoints.derived.shapes import Shapes
from sdrt_export.checkpoints.keys.row import Row
from sdrt_export.checkpoints.left_over import check_all_known
from sdrt_export.checkpoints.parts import Part, Section
from sdrt_export.tensors.lazy import MappedFile

__all__ = ["T2I_ADAPTER", "check_adapter_fits", "is_t2i_adapter", "t2i_adapter_part"]

T2I_ADAPTER = "T2IAdapter"
"""The class in diffusers."""
_LAYER = re.compile(r"(adapter\.)?body\.\d+\.((resnets|body)\.\d+\.)?(block1|block2|in_conv)\.weight")
# In TencentARC's names, a full adapter numbers the layers of all levels together. Each level that it published has two.
_LAYERS = 2
# SDXL's adapters see squares of 16 pixels, the others of 8: 256 or 768 numbers for a pixel, or 64 or 192.
_SIDES = (16, 8)
_FAMILIES = {16: " for SDXL", 8: " for Stable Diffusion 1 or 2"}


def is_t2i_adapter(names: Iterable[str]) -> bool:
    """Whether a file's tensors are those of a T2I-Adapter."""
    return any(_LAYER.fullmatch(name) for name in names)


def t2i_adapter_part(file: MappedFile) -> Part:
    """A T2I-Adapter from a single file, whose shapes tell its config.

    Raises:
        UnsupportedModelError: a tensor is missing or left over, or no config can describe the shapes.
    """
    section = Section.of(file, CONTROLNET, ("adapter.", ""))
    assert section is not None  # one of its names is there
    check_all_known(file, section.names, "a T2I-Adapter")
    shapes = section.shapes
    names = _Names.of(shapes)
    shapes.of(f"{names.layer(0, 0)}.block1.weight", 4)
    levels = next(index for index in count() if f"{names.layer(index, 0)}.block1.weight" not in shapes)
    is_light = "body.0.out_conv.weight" in shapes
    # In diffusers, a light adapter has one level more than its config has numbers.
    ends = [
        f"{names.level(index)}.out_conv" if is_light else f"{names.layer(index, 0)}.block1"
        for index in range(levels - is_light)
    ]
    config = {
        **_condition(shapes, "body.0.in_conv.weight" if is_light else "conv_in.weight", is_light=is_light),
        "channels": [shapes.of(f"{name}.weight", 4)[0] for name in ends],
        "num_res_blocks": names.layers,
    }
    T2IAdapterConfig.of(config)
    tensors = section.taken_by(names.rows(levels)).tensors
    return Part(config=completed(T2I_ADAPTER, config), tensors=tensors, place=str(file.header.path))


@dataclass(frozen=True)
class _Names:
    """How a file names the layers: in a list `inner` of each level, or if it is empty, all in one list."""

    inner: str
    layers: int

    @classmethod
    def of(cls, shapes: Shapes) -> _Names:
        for inner in ("resnets", "body"):
            # A layer may lack one of its two.
            blocks = (f"body.0.{inner}.{{}}.{one}.weight" for one in ("block1", "block2"))
            if layers := max(map(shapes.counted, blocks)):
                return cls(inner, layers)
        return cls("", _LAYERS)

    def level(self, index: int) -> str:
        return f"body.{index}" if self.inner else f"body.{_LAYERS * index}"

    def layer(self, index: int, number: int) -> str:
        return f"body.{index}.{self.inner}.{number}" if self.inner else f"body.{_LAYERS * index + number}"

    def rows(self, levels: int) -> list[Row]:
        """The table of names."""
        rows = [Row("adapter.conv_in", "conv_in")]
        for index in range(levels):
            to = f"adapter.body.{index}"
            rows += [Row(f"{to}.{one}_conv", f"{self.level(index)}.{one}_conv") for one in ("in", "out")]
            for number in range(self.layers):
                own, layer = f"{to}.resnets.{number}", self.layer(index, number)
                rows += [Row(f"{own}.{one}", f"{layer}.{one}") for one in ("block1", "block2")]
        return rows


def _condition(shapes: Shapes, first: str, *, is_light: bool) -> dict[str, Any]:
    """The config's keys for the control image, which the `first` convolution sees in squares."""
    numbers = shapes.of(first, 4)[1]
    for side in _SIDES:
        channels, rest = divmod(numbers, side**2)
        if not rest:
            kind = LIGHT if is_light else XL if side == _SIDES[0] else FULL
            return {"adapter_type": kind, "in_channels": channels, "downscale_factor": side}
    raise shapes.refused(f"sees {numbers} numbers for a pixel", "64, 192, 256 or 768")


def check_adapter_fits(part: Part, unet: Mapping[str, Any], model: str, *, factor: int) -> None:
    """Check that a T2I-Adapter is for the U-Net with the config `unet` of `model`.

    `factor` is how many pixels of the image make one latent.

    Raises:
        UnsupportedModelError: it is for another model.
    """
    found, shape = T2IAdapterConfig.of(part.config).features, UNetConfig.of(unet)
    places = [(channels, factor << halvings) for channels, halvings in feature_places(shape)]
    outer = places[: len(shape.down)]
    if found in (places, outer):
        return
    # Only SDXL's adapters have a feature for the middle.
    usual = places if places[0][1] == _SIDES[0] else outer
    raise UnsupportedModelError.expected(
        f"{part.place} is a T2I-Adapter{_described(found)}",
        f"one{_described(usual)}, as {model} takes them",
        component=CONTROLNET,
    )


def _described(features: Sequence[tuple[int, int]]) -> str:
    listed = ", ".join(f"{channels} channels for {side}x{side} pixels" for channels, side in features)
    return f"{_FAMILIES.get(features[0][1], '')} with features of {listed}"
