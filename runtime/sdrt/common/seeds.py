"""The seeds of images: which there are, and how they count up. They are those of torch's CPU generator."""

from __future__ import annotations

import operator
import secrets

from sdrt.common.messages import wrong_value

__all__ = ["MAX_SEED", "plain_seed", "random_seed", "read_seed", "seeds_from", "settled_seed"]

MAX_SEED = 2**64 - 1

_SEEDS = MAX_SEED + 1
_RANDOM = -1
"""Stands for a random seed, as in A1111."""


def plain_seed(name: str, seed: object) -> int:
    """Return the seed from 0 to 2**64 - 1 that means the same as `seed`: for a negative one, 2**64 more, as in torch.

    Raises:
        RequestError: the argument `name` is not an integer from -2**63 to 2**64 - 1.
    """
    try:
        value = operator.index(seed)  # type: ignore[arg-type]
    except TypeError:
        value = None
    if value is None or isinstance(seed, bool) or not -(_SEEDS // 2) <= value <= MAX_SEED:
        raise wrong_value(name, seed, "a whole number from -2**63 to 2**64 - 1")
    return value % _SEEDS


def random_seed() -> int:
    """Draw a seed, below 2**32 so that people can copy it."""
    return secrets.randbelow(2**32)


def seeds_from(first: int, count: int) -> tuple[int, ...]:
    """Return `count` seeds that count up from `first`. After the largest seed comes 0."""
    return tuple((first + number) % _SEEDS for number in range(count))


def settled_seed(name: str, seed: object) -> int:
    """Return the seed from 0 to 2**64 - 1 that is meant. None and -1 stand for a random one.

    Raises:
        RequestError: the argument `name` is not a seed.
    """
    if seed is None:
        return random_seed()
    plain = plain_seed(name, seed)
    return random_seed() if seed == _RANDOM else plain


def read_seed(text: str) -> int:
    """Read the seed in an image's metadata, as A1111 writes it.

    Raises:
        ValueError: the text is not a seed, or is -1, which does not say which seed was drawn.
    """
    seed = int(text)
    if seed == _RANDOM or not -(_SEEDS // 2) <= seed <= MAX_SEED:
        raise ValueError(text)
    return seed % _SEEDS
