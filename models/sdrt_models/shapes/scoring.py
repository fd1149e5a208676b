"""Scores how well images show their scenes, by attribute, with confidence intervals."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from math import sqrt

from PIL import Image

from sdrt_models.shapes.recognise import Seen, SeenThing, recognise, relation_between
from sdrt_models.shapes.scenes import HELD_OUT_PAIRS, SHAPES, Scene

__all__ = ["ATTRIBUTES", "Difference", "Rate", "all_right", "answers", "rates", "table"]

ATTRIBUTES = ("count", "colour", "shape", "size", "fill", "background", "relation", "everything")
"""The attributes: ``colour`` to ``fill`` once per thing, the others once per image (``relation`` for two things)."""

_PER_THING = ("colour", "shape", "size", "fill")


class _Interval(ABC):
    """A measured share with its 95 % interval."""

    @property
    def low(self) -> float:
        """The interval's lower end."""
        return self._bound(-1)

    @property
    def high(self) -> float:
        """The interval's upper end."""
        return self._bound(1)

    @abstractmethod
    def _bound(self, sign: int) -> float:
        """One end of the interval."""


@dataclass(frozen=True, kw_only=True)
class Rate(_Interval):
    """``right`` of ``total``; :attr:`low` and :attr:`high` bound the true rate with 95 % confidence (Wilson)."""

    right: int
    total: int

    @property
    def share(self) -> float:
        """The measured rate, 0 to 1."""
        return self.right / self.total if self.total else 0.0

    def _bound(self, sign: int) -> float:
        """One end of Wilson's score interval (J. Am. Stat. Assoc. 22, 1927), which is valid near 0 and 1 too."""
        if not self.total:
            return 0.0 if sign < 0 else 1.0
        z, n, p = 1.959964, self.total, self.share
        centre = p + z * z / (2 * n)
        spread = z * sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return min(1.0, max(0.0, (centre + sign * spread) / (1 + z * z / n)))


@dataclass(frozen=True, kw_only=True)
class Difference(_Interval):
    """What a change does to images of the same prompts and seeds.

    Of ``total`` images, it puts ``lost`` wrong that were right, and ``gained`` right that were wrong. :attr:`low` and
    :attr:`high` bound the true difference of the two rates with 95 % confidence.
    """

    lost: int
    gained: int
    total: int

    @classmethod
    def of(cls, before: Sequence[bool], after: Sequence[bool]) -> Difference:
        """Compare what was right before the change and after it, image by image."""
        pairs = list(zip(before, after, strict=True))
        return cls(lost=pairs.count((True, False)), gained=pairs.count((False, True)), total=len(pairs))

    def __str__(self) -> str:
        return (
            f"{self.share:+.1%} (95 % interval {self.low:+.1%} to {self.high:+.1%}): "
            f"{self.lost} lost, {self.gained} gained of {self.total}"
        )

    @property
    def share(self) -> float:
        """The measured difference, -1 to 1. Below 0, the change does harm."""
        return (self.gained - self.lost) / self.total

    def _bound(self, sign: int) -> float:
        """One end of the adjusted Wald interval for pairs (Agresti and Min, Stat. Med. 24, 2005).

        Half an image more in each of the four cells makes it valid where few pairs differ.
        """
        z, n = 1.959964, self.total + 2
        differ, change = self.lost + self.gained + 1, self.gained - self.lost
        return max(-1.0, min(1.0, (change + sign * z * sqrt(differ - change * change / n)) / n))


def rates(pairs: Iterable[tuple[Scene, Image.Image]], shapes: Sequence[str] = SHAPES) -> dict[str, Rate]:
    """The rate of every attribute, and of unseen pairs, over images and the scenes that they should show.

    The recogniser takes each thing for one of ``shapes``.
    """
    found: dict[str, list[bool]] = {name: [] for name in (*ATTRIBUTES, "unseen pairs")}
    for scene, image in pairs:
        judged = answers(scene, recognise(image, shapes))
        for name, values in judged.items():
            found[name] += values
        unseen = [(thing.colour, thing.shape) in HELD_OUT_PAIRS for thing in scene.things]
        both = zip(judged["colour"], judged["shape"], strict=True)
        found["unseen pairs"] += [all(pair) for pair, new in zip(both, unseen, strict=True) if new]
    return {name: Rate(right=sum(values), total=len(values)) for name, values in found.items()}


def all_right(pairs: Iterable[tuple[Scene, Image.Image]]) -> list[bool]:
    """Whether everything is right, for each scene and the image that should show it."""
    return [all(answers(scene, recognise(image))["everything"]) for scene, image in pairs]


def table(found: Mapping[str, Rate]) -> str:
    """A table of rates and their intervals, one per line."""
    lines = [f"{'':14}{'right':>11}{'share':>8}   95 % interval"]
    lines += [
        f"{name:14}{f'{rate.right}/{rate.total}':>11}{rate.share:8.1%}   {rate.low:.1%} to {rate.high:.1%}"
        for name, rate in found.items()
    ]
    return "\n".join(lines)


def answers(scene: Scene, seen: Seen) -> Mapping[str, list[bool]]:
    """For each attribute, whether each thing (or the image) is as ``scene`` says.

    The largest seen things are matched with the scene's things, in the order with the most equal colours and shapes.
    A missing thing is wrong in every attribute. A relation is right only between things that can be told apart: each
    equals the scene's thing in colour or shape, and fewer would be equal in the other order.
    """
    things = _matched(scene, seen)
    judged = {
        name: [
            there is not None and getattr(there, name) == getattr(asked, name)
            for asked, there in zip(scene.things, things, strict=True)
        ]
        for name in _PER_THING
    }
    judged["count"] = [len(seen.things) == len(scene.things)]
    judged["background"] = [set(seen.shades) == set(scene.background.shades)]
    judged["relation"] = [] if scene.relation is None else [_related(scene, things)]
    judged["everything"] = [all(all(values) for values in judged.values())]
    return judged


Things = tuple[SeenThing | None, ...]


def _matched(scene: Scene, seen: Seen) -> Things:
    largest: list[SeenThing | None] = list(seen.things[: len(scene.things)])
    largest += [None] * (len(scene.things) - len(largest))
    return max(permutations(largest), key=lambda order: sum(_agreement(scene, order)))


def _agreement(scene: Scene, things: Things) -> list[int]:
    """For each thing, one point for an equal colour and one for an equal shape."""
    return [
        0 if there is None else (asked.colour == there.colour) + (asked.shape == there.shape)
        for asked, there in zip(scene.things, things, strict=True)
    ]


def _related(scene: Scene, things: Things) -> bool:
    first, second = things
    if first is None or second is None:
        return False
    agreement = _agreement(scene, things)
    told_apart = min(agreement) > 0 and sum(agreement) > sum(_agreement(scene, things[::-1]))
    return told_apart and relation_between(first, second) == scene.relation
