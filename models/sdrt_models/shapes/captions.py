"""Captions that people would write for a scene: a small grammar with synonyms, word orders and omissions.

:func:`caption` chooses one of a scene's captions at random. With ``complete=True``, it names every size and fill, so
that an image can be compared with everything in the prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sdrt_models.shapes.scenes import OPPOSITES, Background, Scene, Thing

__all__ = ["caption"]

_COLOURS: Mapping[str, Sequence[str]] = {"purple": ("purple", "violet"), "cyan": ("cyan", "turquoise")}
_SHAPES: Mapping[str, Sequence[str]] = {
    "circle": ("circle", "disc"),
    "ring": ("ring", "donut"),
    "cross": ("cross", "plus sign"),
}
_SIZES: Mapping[str, Sequence[str]] = {
    "small": ("small", "little", "tiny"),
    "large": ("large", "big", "huge"),
}
_FILLS: Mapping[str, Sequence[str]] = {
    "solid": ("solid", "plain"),
    "striped": ("striped",),
    "dotted": ("dotted", "spotted"),
}
_FILLS_AFTER: Mapping[str, Sequence[str]] = {
    "striped": ("with stripes",),
    "dotted": ("with dots", "with spots"),
}
_SHADES: Mapping[str, Sequence[str]] = {"gray": ("gray", "grey")}
_RELATIONS: Mapping[str, Sequence[str]] = {
    "left of": ("left of", "to the left of", "on the left of"),
    "right of": ("right of", "to the right of", "on the right of"),
    "above": ("above", "over", "on top of"),
    "below": ("below", "under", "beneath"),
}
_SIDES = {
    "left of": ("on the left", "on the right"),
    "right of": ("on the right", "on the left"),
    "above": ("at the top", "at the bottom"),
    "below": ("at the bottom", "at the top"),
}
_FRAMES = ("{}", "{}", "{}", "a picture of {}", "a drawing of {}", "an image of {}")


def caption(scene: Scene, rng: np.random.Generator, *, complete: bool = False) -> str:
    """A random caption of ``scene``. With ``complete``, it leaves nothing out."""
    if not scene.things:
        return _one(rng, _FRAMES).format(_background(scene.background, rng))
    text = _one(rng, _FRAMES).format(_things(scene, rng, complete))
    if complete or rng.random() < 0.45:
        text += f" on {_background(scene.background, rng)}"
    return text


def _things(scene: Scene, rng: np.random.Generator, complete: bool) -> str:
    if scene.relation is None:
        return _noun_phrase(scene.things[0], rng, complete)
    relation, (first, second) = scene.relation, scene.things
    if rng.random() < 0.5:
        relation, first, second = OPPOSITES[relation], second, first
    one, other = _noun_phrase(first, rng, complete), _noun_phrase(second, rng, complete)
    if rng.random() < 0.25:
        side, opposite = _SIDES[relation]
        return f"{one} {side} and {other} {opposite}"
    if not complete and rng.random() < 0.12:
        return f"{one} and {other}"
    return f"{one} {_one(rng, _RELATIONS[relation])} {other}"


def _noun_phrase(thing: Thing, rng: np.random.Generator, complete: bool) -> str:
    before = [_word(rng, _COLOURS, thing.colour)]
    after = []
    # Most captions do not mention that a thing is solid.
    if thing.fill != "solid" and (complete or rng.random() < 0.85):
        if rng.random() < 0.3:
            after.append(_one(rng, _FILLS_AFTER[thing.fill]))
        else:
            before.insert(0, _one(rng, _FILLS[thing.fill]))
    elif thing.fill == "solid" and rng.random() < 0.15:
        before.insert(0, _one(rng, _FILLS["solid"]))
    if complete or rng.random() < 0.5:
        before.insert(0, _one(rng, _SIZES[thing.size]))
    words = " ".join([*before, _word(rng, _SHAPES, thing.shape), *after])
    article = "an" if words[0] in "aeiou" else "a"
    return words if not complete and rng.random() < 0.1 else f"{article} {words}"


def _background(background: Background, rng: np.random.Generator) -> str:
    shades = [_word(rng, _SHADES, shade) for shade in background.shades]
    if len(shades) == 1:
        return f"a {shades[0]} background"
    if rng.random() < 0.5:
        shades.reverse()
    return f"a {shades[0]} and {shades[1]} background"


def _word(rng: np.random.Generator, synonyms: Mapping[str, Sequence[str]], word: str) -> str:
    """``word`` in most cases, otherwise one of its synonyms."""
    return word if rng.random() < 0.7 else _one(rng, synonyms.get(word, (word,)))


def _one(rng: np.random.Generator, choices: Sequence[str]) -> str:
    return choices[int(rng.integers(len(choices)))]
