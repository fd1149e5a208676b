"""Reads what an image shows, without a network: connected components, mean hue, correlation with drawn figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from sdrt_models.shapes.drawing import SIZE, Place, figure_mask
from sdrt_models.shapes.scenes import COLOURS, RELATIONS, SHADES, SHAPES

__all__ = ["Seen", "SeenThing", "coloured", "recognise", "relation_between"]

# Backgrounds are gray. A pixel whose channels differ by more than this belongs to a thing.
_CHROMA = 45
_LEAST_AREA = 80
_GRID = 32
_FINER = 4
_EDGE = 0.3
_REACH = 2.3
_BLURS = (0.0, 0.07, 0.14, 0.2)
# Large things are at least 47 pixels wide (squares), and small things at most 36.
_LARGE_FROM = 41.5
_SOLID_TO = 0.13
_STRIPED_FROM = 0.5
_SHADE_SHARE = 0.12

Array = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class SeenThing:
    """A figure in an image: words of :mod:`~sdrt_models.shapes.scenes`, its centre and its area in pixels."""

    colour: str
    shape: str
    size: str
    fill: str
    x: float
    y: float
    area: int


@dataclass(frozen=True, kw_only=True)
class Seen:
    """The figures in an image, largest first, and the shades of the background, most common first."""

    things: tuple[SeenThing, ...]
    shades: tuple[str, ...]


def recognise(image: Image.Image, shapes: Sequence[str] = SHAPES) -> Seen:
    """Find the things in ``image``, each of which has one of ``shapes``.

    The image is scaled to 128×128 first if it has another size.
    """
    levels, chroma = _levels(image)
    labels, count = ndimage.label(chroma > _CHROMA, structure=np.ones((3, 3)))
    masks = [labels == label for label in range(1, count + 1)]
    things = [_thing(levels, chroma, mask, shapes) for mask in masks if mask.sum() >= _LEAST_AREA]
    things.sort(key=lambda thing: -thing.area)
    return Seen(things=tuple(things), shades=_shades(levels, chroma))


def coloured(image: Image.Image) -> Mask:
    """The pixels (128, 128) that belong to things."""
    return np.asarray(_levels(image)[1] > _CHROMA)


def _levels(image: Image.Image) -> tuple[Array, Array]:
    """The levels (128, 128, 3) of an image, and how much the channels of each pixel differ."""
    if image.size != (SIZE, SIZE):
        image = image.resize((SIZE, SIZE), Image.Resampling.BOX)
    levels = np.asarray(image.convert("RGB"), dtype=np.float32)
    return levels, levels.max(-1) - levels.min(-1)


def relation_between(first: SeenThing, second: SeenThing) -> str:
    """The position of ``first`` relative to ``second``, along the axis with the larger distance."""
    dx, dy = first.x - second.x, first.y - second.y
    direction = (int(np.sign(dx)), 0) if abs(dx) > abs(dy) else (0, int(np.sign(dy)))
    return next((name for name, step in RELATIONS.items() if step == direction), "on")


def _thing(levels: Array, chroma: Array, mask: Mask, shapes: Sequence[str]) -> SeenThing:
    rows, columns = np.nonzero(mask)
    height, width = int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1
    return SeenThing(
        colour=_colour(levels[mask]),
        shape=_shape(chroma, mask, shapes),
        size="large" if max(height, width) > _LARGE_FROM else "small",
        fill=_fill(levels, mask),
        x=float(columns.mean()),
        y=float(rows.mean()),
        area=int(mask.sum()),
    )


def _colour(pixels: Array) -> str:
    """The colour with the nearest hue to the mean hue, measured as a direction on the colour circle."""
    red, green, blue = pixels.sum(0)
    hue = np.degrees(np.arctan2(np.sqrt(3) * (green - blue), 2 * red - green - blue))
    distances = {name: abs((hue - colour.hue + 180) % 360 - 180) for name, colour in COLOURS.items()}
    return min(distances, key=distances.__getitem__)


def _shape(chroma: Array, mask: Mask, shapes: Sequence[str]) -> str:
    """The figure that correlates best, with both scaled to the same square.

    A pixel with some of the colour's chroma belongs to the figure. So does the dark half of a pattern, which has half.
    """
    reach = ndimage.binary_dilation(mask, iterations=2)
    rows, columns = np.nonzero(reach)
    inside = (slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1))
    faded = Image.fromarray((chroma * reach)[inside])
    larger = faded.resize((faded.width * _FINER, faded.height * _FINER), Image.Resampling.BICUBIC)
    grid = _normalised(np.asarray(larger) > _EDGE * np.percentile(chroma[mask], 90))
    scores = {shape: max(float((grid * one).mean()) for one in _templates(shape)) for shape in shapes}
    return max(scores, key=scores.__getitem__)


@cache
def _templates(shape: str) -> list[Array]:
    """The sharp figure, and versions with rounded corners, from a blur before the threshold."""
    mask = figure_mask(shape, Place(x=SIZE / 2, y=SIZE / 2, radius=50))
    return [_normalised(ndimage.gaussian_filter(mask, 50 * blur) > _EDGE) for blur in _BLURS]


def _normalised(figure: Mask) -> Array:
    """``figure`` on a grid, centred on its centre of mass and scaled by its spread, with mean 0 and deviation 1.

    The spread is the root of the second moment. It hardly depends on the tips of a star, which blur first.
    """
    rows, columns = np.nonzero(figure)
    x, y = columns.mean() + 0.5, rows.mean() + 0.5
    half = _REACH * float(np.sqrt(((columns + 0.5 - x) ** 2 + (rows + 0.5 - y) ** 2).mean()))
    margin = int(2 * half)
    image = Image.fromarray(np.pad(figure, margin).astype(np.uint8) * 255)
    box = (x - half + margin, y - half + margin, x + half + margin, y + half + margin)
    grid = np.asarray(image.resize((_GRID, _GRID), Image.Resampling.BILINEAR, box=box), dtype=np.float32)
    centred: Array = grid - grid.mean()
    return centred / (float(centred.std()) + 1e-6)


def _fill(levels: Array, mask: Mask) -> str:
    """The fill, from the variation of brightness inside: none, mostly between columns, or in all directions."""
    inner = ndimage.binary_erosion(mask, iterations=2)
    inner = inner if inner.sum() >= _LEAST_AREA // 2 else mask
    value = levels.max(-1)
    inside = value[inner]
    if inside.std() / (inside.mean() + 1e-6) < _SOLID_TO:
        return "solid"
    counts = np.maximum(inner.sum(0), 1)
    columns = (value * inner).sum(0) / counts
    between = float((counts * inner.any(0) * (columns - inside.mean()) ** 2).sum() / inner.sum())
    return "striped" if between / float(inside.var()) > _STRIPED_FROM else "dotted"


def _shades(levels: Array, chroma: Array) -> tuple[str, ...]:
    outside = ~ndimage.binary_dilation(chroma > _CHROMA / 2, iterations=3)
    if not outside.any():
        return ()
    value = levels.mean(-1)[outside] / 255
    names, shades = list(SHADES), np.array(list(SHADES.values()), dtype=np.float32)
    nearest = np.abs(value[:, None] - shades).argmin(1)
    share = np.bincount(nearest, minlength=len(names)) / len(nearest)
    return tuple(names[index] for index in np.argsort(-share) if share[index] > _SHADE_SHARE)
