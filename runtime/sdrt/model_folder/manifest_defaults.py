"""The defaults that a manifest may record, and the values that they may have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise

__all__ = ["DEFAULT_CHECKS"]

_LARGEST = 10_000
_MOST_STEPS, _MOST_TIMESTEPS = 1000, 100_000


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= _LARGEST


def _is_whole(value: object, low: int, high: int) -> bool:
    return type(value) is int and low <= value <= high


def _are_timesteps(value: object) -> bool:
    return (
        isinstance(value, list)
        and 1 <= len(value) <= _MOST_STEPS
        and all(_is_whole(one, 0, _MOST_TIMESTEPS) for one in value)
        and all(after < before for before, after in pairwise(value))
    )


DEFAULT_CHECKS: Mapping[str, tuple[Callable[[object], bool], str]] = {
    "guidance_scale": (_is_number, f"a number from {-_LARGEST} to {_LARGEST}"),
    "num_inference_steps": (
        lambda value: _is_whole(value, 1, _MOST_STEPS),
        f"a whole number from 1 to {_MOST_STEPS}",
    ),
    "timesteps": (_are_timesteps, "a list of whole numbers in falling order"),
    "origin": (lambda value: isinstance(value, str) and len(value) <= _MOST_STEPS, "a short text"),
}
"""For each default, the check of its value, and words for what passes."""
