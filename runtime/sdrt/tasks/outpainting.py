"""Outpainting: how far an image grows on each side, and what fills the new part at first."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdrt.common.messages import brief, refused, wrong_value
from sdrt.errors import RequestError

__all__ = ["Growth", "grown", "parse_growth", "passes"]

Image8 = NDArray[np.uint8]
_MOST = 2**15
_SIDES = ("left", "top", "right", "bottom")
_SIZE = re.compile(r"(?P<width>\d{1,5})x(?P<height>\d{1,5})(?:@(?P<anchor>[a-z-]+))?")
# The position of the image on the larger canvas, as the shares of the growth on its left and its top.
_ANCHORS: Mapping[str, tuple[float, float]] = {
    "center": (0.5, 0.5),
    "left": (0.0, 0.5),
    "right": (1.0, 0.5),
    "top": (0.5, 0.0),
    "bottom": (0.5, 1.0),
    "top-left": (0.0, 0.0),
    "top-right": (1.0, 0.0),
    "bottom-left": (0.0, 1.0),
    "bottom-right": (1.0, 1.0),
}


@dataclass(frozen=True, kw_only=True)
class Growth:
    """Pixels that an image gains on each side."""

    left: int = 0
    top: int = 0
    right: int = 0
    bottom: int = 0
    text: str | None = field(default=None, compare=False, repr=False)
    """The text that the user gave, if it was a text."""

    def __str__(self) -> str:
        """The growth as a text that `parse_growth` reads."""
        sides = {side: getattr(self, side) for side in _SIDES}
        return self.text or ",".join(f"{side}={pixels}" for side, pixels in sides.items() if pixels)

    @property
    def empty(self) -> bool:
        """Whether the image does not grow."""
        return not (self.left or self.top or self.right or self.bottom)

    def of(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of an image of this size after it has grown."""
        return width + self.left + self.right, height + self.top + self.bottom


def parse_growth(value: object, width: int, height: int) -> Growth:
    """The growth that `value` describes, for an image of `width` by `height` pixels.

    `value` is a mapping of sides to pixels, a text such as ``left=64,top=32``, or the size to grow to. A size may be
    followed by the position of the image, as in ``768x512@left``. By default that is the center.

    Raises:
        RequestError: `value` is none of these, or the image would not grow.
    """
    if isinstance(value, Growth):
        growth = value
    elif isinstance(value, Mapping):
        growth = _of_sides(dict(value), value)
    elif isinstance(value, str) and (found := _SIZE.fullmatch(value.strip())):
        growth = _to_size(
            int(found["width"]), int(found["height"]), found["anchor"] or "center", width, height
        )
    elif isinstance(value, str):
        fields = [field.partition("=") for field in value.split(",")]
        growth = _of_sides({side.strip(): pixels.strip() for side, _, pixels in fields}, value)
    else:
        raise _refused(value)
    if growth.empty:
        raise refused(
            "outpaint", f"is {brief(value)}, but the image has {width}x{height} pixels already", "more"
        )
    return replace(growth, text=value) if isinstance(value, str) else growth


def _of_sides(sides: Mapping[object, object], value: object) -> Growth:
    pixels: dict[str, Any] = {}
    for side, given in sides.items():
        text = str(given)
        if side not in _SIDES or not re.fullmatch(r"\d{1,5}", text) or int(text) > _MOST:
            raise _refused(value)
        pixels[str(side)] = int(text)
    return Growth(**pixels)


def _to_size(wide: int, tall: int, anchor: str, width: int, height: int) -> Growth:
    if anchor not in _ANCHORS:
        raise refused("outpaint", f"has no anchor {brief(anchor)}", f"one of {', '.join(_ANCHORS)}")
    if wide < width or tall < height or max(wide, tall) > _MOST:
        fits = f"at least the image's {width}x{height} and at most {_MOST} a side"
        raise refused("outpaint", f"to {wide}x{tall}", fits)
    across, down = _ANCHORS[anchor]
    left, top = round((wide - width) * across), round((tall - height) * down)
    return Growth(left=left, top=top, right=wide - width - left, bottom=tall - height - top)


def _refused(value: object) -> RequestError:
    return wrong_value(
        "outpaint", value, "pixels for sides, as in left=64,top=32, or a size, as in 768x512@left"
    )


def passes(growth: Growth, width: int, height: int) -> list[Growth]:
    """The growth in parts, from the inside out. Each adds at most half of the size to a side."""
    left = growth
    parts: list[Growth] = []
    while not left.empty:
        across, down = max(8, width // 2), max(8, height // 2)
        part = Growth(
            left=min(left.left, across),
            top=min(left.top, down),
            right=min(left.right, across),
            bottom=min(left.bottom, down),
        )
        left = Growth(**{side: getattr(left, side) - getattr(part, side) for side in _SIDES})
        width, height = part.of(width, height)
        parts.append(part)
    return parts


def grown(image: Image8, growth: Growth) -> tuple[Image8, Image8]:
    """The canvas, filled by repeating the image's edge, and the mask of the new part."""
    rows, columns = (growth.top, growth.bottom), (growth.left, growth.right)
    canvas = np.pad(image, (rows, columns, (0, 0)), mode="edge")
    mask = np.pad(np.zeros(image.shape[:2], np.uint8), (rows, columns), constant_values=255)
    return canvas, mask
