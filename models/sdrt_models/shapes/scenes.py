"""Scenes in words: colours, shapes, sizes, fills, backgrounds and relations; and which of them are held out.

A :class:`Scene` is discrete. Two images of one scene differ only in position, scale and hue, which
:mod:`~sdrt_models.shapes.drawing` chooses at random. :func:`sample_scene` depends only on its generator.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

__all__ = [
    "COLOURS",
    "FILLS",
    "HELD_OUT_MOONS",
    "HELD_OUT_PAIRS",
    "MOON",
    "NINE_SHAPES",
    "OPPOSITES",
    "RELATIONS",
    "SHADES",
    "SHAPES",
    "SIZES",
    "Background",
    "Colour",
    "Scene",
    "Thing",
    "is_held_out",
    "is_unseen",
    "sample_scene",
    "with_moon",
]


@dataclass(frozen=True, kw_only=True)
class Colour:
    """Hue in degrees; saturation and value from 0 to 1."""

    hue: float
    saturation: float
    value: float


COLOURS: Mapping[str, Colour] = {
    "red": Colour(hue=0, saturation=0.85, value=0.90),
    "orange": Colour(hue=28, saturation=0.95, value=1.00),
    "yellow": Colour(hue=55, saturation=0.90, value=0.97),
    "green": Colour(hue=125, saturation=0.75, value=0.70),
    "cyan": Colour(hue=183, saturation=0.85, value=0.85),
    "blue": Colour(hue=225, saturation=0.80, value=0.90),
    "purple": Colour(hue=273, saturation=0.70, value=0.75),
    "pink": Colour(hue=328, saturation=0.60, value=0.98),
}
SHAPES = ("circle", "square", "triangle", "star", "heart", "ring", "cross", "hexagon")
SIZES: Mapping[str, tuple[float, float]] = {"small": (14.0, 18.0), "large": (26.0, 32.0)}
"""The range of half of the longer side of the bounding box, in pixels of a 128×128 image."""
FILLS = ("solid", "striped", "dotted")
SHADES: Mapping[str, float] = {"black": 0.08, "gray": 0.55, "white": 0.97}
RELATIONS: Mapping[str, tuple[int, int]] = {
    "left of": (-1, 0),
    "right of": (1, 0),
    "above": (0, -1),
    "below": (0, 1),
}
"""The position of the first thing relative to the second: x to the right, y downwards."""

OPPOSITES: Mapping[str, str] = {
    "left of": "right of",
    "right of": "left of",
    "above": "below",
    "below": "above",
}

HELD_OUT_PAIRS = frozenset(
    {
        ("red", "star"),
        ("orange", "cross"),
        ("yellow", "heart"),
        ("green", "ring"),
        ("cyan", "triangle"),
        ("blue", "hexagon"),
        ("purple", "square"),
        ("pink", "circle"),
    }
)
"""Pairs of colour and shape that no training image has. Each colour and each shape occurs once."""

MOON = "moon"
"""A ninth shape, which the embedded model does not know. Its LoRA draws it."""
NINE_SHAPES = (*SHAPES, MOON)
HELD_OUT_MOONS = ("green", "purple")
"""The colours in which the training of the LoRA never draws a moon."""

_HELD_OUT_SHARE = 8
_EMPTY = 0.05
_TWO_THINGS = 0.5


@dataclass(frozen=True, kw_only=True)
class Thing:
    """One figure: keys of :data:`COLOURS`, :data:`SHAPES`, :data:`SIZES`, :data:`FILLS`."""

    colour: str
    shape: str
    size: str
    fill: str


@dataclass(frozen=True, kw_only=True)
class Background:
    """One shade, or two: side by side (``split`` "vertical") or one above the other ("horizontal")."""

    shades: tuple[str, ...]
    split: str | None = None


@dataclass(frozen=True, kw_only=True)
class Scene:
    """No thing, one thing, or two. ``relation`` is the position of the first relative to the second."""

    things: tuple[Thing, ...]
    background: Background
    relation: str | None = None


def is_held_out(scene: Scene) -> bool:
    """Whether the training never sees ``scene``: it has a held-out pair, or its combination is in the held-out eighth.

    An empty scene is never held out. The combination of a single thing is its colour, shape, size and fill. That of two
    things is their colours, shapes and relation, in either order.
    """
    if any((thing.colour, thing.shape) in HELD_OUT_PAIRS for thing in scene.things):
        return True
    if any(thing.shape == MOON and thing.colour in HELD_OUT_MOONS for thing in scene.things):
        return True
    return bool(scene.things) and zlib.crc32(_combination(scene).encode()) % _HELD_OUT_SHARE == 0


def is_unseen(scene: Scene) -> bool:
    """Whether ``scene`` is held out, and no caption of a training scene can be a complete caption of it.

    Captions may leave out that a thing is striped or dotted, and mostly leave out that it is solid. So a single solid
    thing is unseen only if it is held out with the other fills, too.
    """
    if not is_held_out(scene) or scene.relation is not None:
        return is_held_out(scene)
    (thing,) = scene.things
    return thing.fill != "solid" or all(
        is_held_out(replace(scene, things=(replace(thing, fill=fill),))) for fill in FILLS
    )


def _combination(scene: Scene) -> str:
    if scene.relation is None:
        (thing,) = scene.things
        return f"{thing.size} {thing.fill} {thing.colour} {thing.shape}"
    first, second = scene.things
    relation = scene.relation
    if relation in ("right of", "below"):
        first, second = second, first
        relation = OPPOSITES[relation]
    return f"{first.colour} {first.shape} {relation} {second.colour} {second.shape}"


def with_moon(scene: Scene, rng: np.random.Generator) -> Scene:
    """``scene`` with a moon in place of one of its things."""
    index = int(rng.integers(len(scene.things)))
    things = [replace(one, shape=MOON) if i == index else one for i, one in enumerate(scene.things)]
    return replace(scene, things=tuple(things))


def sample_scene(rng: np.random.Generator, *, held_out: bool = False) -> Scene:
    """Draw a scene of the training set, or of the held-out set."""
    while True:
        scene = _any_scene(rng)
        if is_held_out(scene) == held_out:
            return scene


def _any_scene(rng: np.random.Generator) -> Scene:
    kind = rng.random()
    if kind < _EMPTY:
        return Scene(things=(), background=_any_background(rng))
    if kind >= _EMPTY + _TWO_THINGS:
        return Scene(things=(_any_thing(rng),), background=_any_background(rng))
    first, second = _any_thing(rng), _any_thing(rng)
    while (first.colour, first.shape) == (second.colour, second.shape):
        second = _any_thing(rng)
    relation = list(RELATIONS)[rng.integers(len(RELATIONS))]
    return Scene(things=(first, second), background=_any_background(rng), relation=relation)


def _any_thing(rng: np.random.Generator) -> Thing:
    return Thing(
        colour=list(COLOURS)[rng.integers(len(COLOURS))],
        shape=SHAPES[rng.integers(len(SHAPES))],
        size=list(SIZES)[rng.integers(len(SIZES))],
        fill=FILLS[0] if rng.random() < 0.6 else FILLS[1 + rng.integers(2)],
    )


def _any_background(rng: np.random.Generator) -> Background:
    shades = [str(shade) for shade in rng.permutation(list(SHADES))]
    if rng.random() < 0.75:
        return Background(shades=(shades[0],))
    return Background(shades=(shades[0], shades[1]), split=("vertical", "horizontal")[rng.integers(2)])
