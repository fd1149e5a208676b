"""Draws a scene: anti-aliased, 128×128, with random position, scale and hue."""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import cos, pi, sin

import numpy as np
from PIL import Image, ImageDraw

from sdrt_models.shapes.scenes import COLOURS, MOON, RELATIONS, SHADES, SIZES, Background, Scene, Thing

__all__ = ["FIGURES", "SIZE", "Place", "draw_edges", "draw_scene", "figure_mask", "place_things"]

SIZE = 128
_SUPERSAMPLING = 4
_MARGIN = 3.0
_GAP = 6.0
_HUE_JITTER = 5.0
_DARK = 0.5

Point = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Place:
    """Centre of the bounding box and half of its longer side, in pixels."""

    x: float
    y: float
    radius: float


def draw_scene(scene: Scene, rng: np.random.Generator) -> Image.Image:
    """Draw ``scene`` as a 128×128 RGB image. The same ``rng`` state gives the same image."""
    canvas = _paint_background(scene.background, *_plan_background(scene.background, rng))
    for thing, place in zip(scene.things, _places(scene, rng), strict=True):
        _draw_thing(canvas, thing, place, rng)
    return canvas.resize((SIZE, SIZE), Image.Resampling.BOX)


def draw_edges(scene: Scene, rng: np.random.Generator) -> Image.Image:
    """The edges of what :func:`draw_scene` draws with a generator in the same state: white lines on black.

    Lines are 1 pixel wide. Things and halves of the background have edges, patterns have none.
    """
    levels, meet = _plan_background(scene.background, rng)
    background = _paint_background(scene.background, levels, meet).resize(
        (SIZE, SIZE), Image.Resampling.NEAREST
    )
    areas = np.asarray(background.convert("L"), dtype=np.int32)
    for thing, place in zip(scene.things, _places(scene, rng), strict=True):
        areas = np.where(figure_mask(thing.shape, place) > 0.5, -1, areas)
    edges = np.zeros(areas.shape, np.uint8)
    edges[:, :-1][areas[:, 1:] != areas[:, :-1]] = 255
    edges[:-1][areas[1:] != areas[:-1]] = 255
    return Image.fromarray(edges).convert("RGB")


def place_things(scene: Scene, rng: np.random.Generator) -> list[Place]:
    """The places where :func:`draw_scene` puts the things of a scene, with a generator in the same state."""
    _plan_background(scene.background, rng)
    return _places(scene, rng)


# --- where things are ----------------------------------------------------------------------------------------


def _places(scene: Scene, rng: np.random.Generator) -> list[Place]:
    radii = [float(rng.uniform(*SIZES[thing.size])) for thing in scene.things]
    if scene.relation is None:
        return [Place(x=_inside(radius, rng), y=_inside(radius, rng), radius=radius) for radius in radii]
    # Two of the largest things side by side would not fit on the canvas.
    radii = [min(radius, 28.5) for radius in radii]
    direction = RELATIONS[scene.relation]
    along = _ordered(radii, rng)
    if max(direction) > 0:
        along = _ordered(radii[::-1], rng)[::-1]
    middle = _inside(max(radii), rng)
    across = [_clip(middle + float(rng.uniform(-8, 8)), radius) for radius in radii]
    pairs = zip(along, across, strict=True) if direction[0] else zip(across, along, strict=True)
    return [Place(x=x, y=y, radius=radius) for (x, y), radius in zip(pairs, radii, strict=True)]


def _inside(radius: float, rng: np.random.Generator) -> float:
    return float(rng.uniform(radius + _MARGIN, SIZE - radius - _MARGIN))


def _clip(centre: float, radius: float) -> float:
    return min(max(centre, radius + _MARGIN), SIZE - radius - _MARGIN)


def _ordered(radii: list[float], rng: np.random.Generator) -> list[float]:
    """Centres along the axis of the relation, the first before the second, with a gap between them."""
    first, second = radii
    spare = SIZE - 2 * _MARGIN - _GAP - 2 * first - 2 * second
    before, between = np.sort(rng.uniform(0, spare, 2))
    return [
        _MARGIN + float(before) + first,
        _MARGIN + float(between) + 2 * first + _GAP + second,
    ]


# --- what they look like ------------------------------------------------------------------------------------


def _plan_background(background: Background, rng: np.random.Generator) -> tuple[list[float], float]:
    """The random part of a background: the brightness of each shade and where they meet, from 0 to 1."""
    levels = [SHADES[shade] + float(rng.uniform(-0.03, 0.03)) for shade in background.shades]
    return levels, float(rng.uniform(0.4, 0.6)) if background.split is not None else 1.0


def _paint_background(background: Background, levels: list[float], meet: float) -> Image.Image:
    side = SIZE * _SUPERSAMPLING
    canvas = Image.new("RGB", (side, side), _gray(levels[0]))
    if background.split is not None:
        edge = round(side * meet)
        box = (edge, 0, side, side) if background.split == "vertical" else (0, edge, side, side)
        canvas.paste(_gray(levels[1]), box)
    return canvas


def _gray(value: float) -> tuple[int, int, int]:
    level = round(255 * min(max(value, 0.0), 1.0))
    return (level, level, level)


def _draw_thing(canvas: Image.Image, thing: Thing, place: Place, rng: np.random.Generator) -> None:
    colour = COLOURS[thing.colour]
    hue = colour.hue + float(rng.uniform(-_HUE_JITTER, _HUE_JITTER))
    light = _rgb(hue, colour.saturation, colour.value)
    dark = _rgb(hue, colour.saturation, colour.value * _DARK)
    paint = Image.new("RGB", canvas.size, light)
    if thing.fill == "striped":
        _stripes(paint, dark, rng)
    elif thing.fill == "dotted":
        _dots(paint, dark, rng)
    canvas.paste(paint, mask=_mask(thing.shape, place, _SUPERSAMPLING))


def _rgb(hue: float, saturation: float, value: float) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(hue % 360 / 360, saturation, value)
    return (round(255 * red), round(255 * green), round(255 * blue))


def _stripes(paint: Image.Image, dark: tuple[int, int, int], rng: np.random.Generator) -> None:
    draw = ImageDraw.Draw(paint)
    period = 14 * _SUPERSAMPLING
    for left in range(int(rng.integers(period)) - period, paint.width, period):
        draw.rectangle((left, 0, left + period // 2 - 1, paint.height), fill=dark)


def _dots(paint: Image.Image, dark: tuple[int, int, int], rng: np.random.Generator) -> None:
    draw = ImageDraw.Draw(paint)
    step, radius = 12 * _SUPERSAMPLING, 3.6 * _SUPERSAMPLING
    x0, y0 = (int(value) for value in rng.integers(step, size=2))
    for row, y in enumerate(range(y0 - step, paint.height + step, step)):
        for x in range(x0 - step + row % 2 * step // 2, paint.width + step, step):
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=dark)


# --- figures ------------------------------------------------------------------------------------------------


def figure_mask(shape: str, place: Place) -> np.ndarray:
    """Coverage of ``shape`` at ``place`` as it is drawn: (128, 128) float32 from 0 to 1."""
    mask = _mask(shape, place, _SUPERSAMPLING).resize((SIZE, SIZE), Image.Resampling.BOX)
    return np.asarray(mask, dtype=np.float32) / 255


def _mask(shape: str, place: Place, scale: int) -> Image.Image:
    mask = Image.new("L", (SIZE * scale, SIZE * scale))
    draw = ImageDraw.Draw(mask)

    def at(points: list[Point]) -> list[Point]:
        return [
            ((place.x + place.radius * x) * scale, (place.y + place.radius * y) * scale) for x, y in points
        ]

    for points, level in FIGURES[shape]():
        draw.polygon(at(points), fill=level)
    return mask


Figure = Callable[[], list[tuple[list[Point], int]]]


def _round(radius: float = 1.0, x: float = 0.0) -> list[Point]:
    return [
        (x + radius * cos(angle), radius * sin(angle)) for angle in np.linspace(0, 2 * pi, 96, endpoint=False)
    ]


def _corners(angles: list[float], radii: list[float]) -> list[Point]:
    """Corners from polar coordinates (degrees, 0 is up), scaled so that the longer side of their box is -1 to 1."""
    return _fit([(r * sin(a * pi / 180), -r * cos(a * pi / 180)) for a, r in zip(angles, radii, strict=True)])


def _fit(points: list[Point]) -> list[Point]:
    xs, ys = zip(*points, strict=True)
    half = max(max(xs) - min(xs), max(ys) - min(ys)) / 2
    x0, y0 = (max(xs) + min(xs)) / 2, (max(ys) + min(ys)) / 2
    return [((x - x0) / half, (y - y0) / half) for x, y in points]


def _heart() -> list[Point]:
    angles = np.linspace(0, 2 * pi, 96, endpoint=False)
    return _fit(
        [(16 * sin(a) ** 3, -(13 * cos(a) - 5 * cos(2 * a) - 2 * cos(3 * a) - cos(4 * a))) for a in angles]
    )


def _cross(arm: float = 0.34) -> list[Point]:
    quarter = [(-arm, -1.0), (arm, -1.0), (arm, -arm)]
    corners = list(quarter)
    for _ in range(3):
        quarter = [(-y, x) for x, y in quarter]
        corners += quarter
    return corners


FIGURES: Mapping[str, Figure] = {
    "circle": lambda: [(_round(), 255)],
    "square": lambda: [([(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)], 255)],
    "triangle": lambda: [(_corners([0, 120, 240], [1, 1, 1]), 255)],
    "star": lambda: [(_corners([36 * k for k in range(10)], [1, 0.42] * 5), 255)],
    "heart": lambda: [(_heart(), 255)],
    "ring": lambda: [(_round(), 255), (_round(0.52), 0)],
    "cross": lambda: [(_cross(), 255)],
    "hexagon": lambda: [(_corners([30 + 60 * k for k in range(6)], [1] * 6), 255)],
    MOON: lambda: [(_round(x=0.24), 255), (_round(0.85, x=0.74), 0)],
}
"""Shape → polygons, painted in order: (corners, level of the mask), with x and y from -1 to 1."""
