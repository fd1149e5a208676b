"""Many normal numbers from a seed, equal to those that torch's CPU generator draws, up to rounding."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from sdrt.common.rng import Generator

__all__ = ["normals"]

# torch makes 16 values at a time, from 8 radii and 8 angles; shorter draws take another path.
_BLOCK = 16
# The number of values made at a time, so that temporary arrays stay in the processor's cache.
_AT_ONCE = 1 << 16
_STEP = np.float32(2.0**-24)
_MASK = np.uint32(2**24 - 1)

Floats = NDArray[np.float32]


def normals(seed: int, size: int, mean: float, std: float) -> Floats:
    """Like ``torch.empty(size).normal_(mean, std)`` after `manual_seed`, within 1e-6 of it in standard deviations.

    The generator of `sdrt.common.rng` computes in float64, for noise that images depend on. This one, for a billion
    numbers, computes in float32 and is five times as fast.
    """
    if size < _BLOCK:
        few: Floats = Generator(seed).randn(size) * np.float32(std) + np.float32(mean)
        return few
    words = np.random.RandomState(seed % 2**32)
    made = np.empty(size, np.float32)
    whole = size - size % _BLOCK
    for start in range(0, whole, _AT_ONCE):
        end = min(start + _AT_ONCE, whole)
        _fill(made[start:end], _uniforms(words, end - start))
    if whole != size:
        # The words of the incomplete block are drawn too, but the last 16 values are made of new ones.
        _uniforms(words, size - whole)
        _fill(made[-_BLOCK:], _uniforms(words, _BLOCK))
    made *= np.float32(std)
    made += np.float32(mean)
    return made


def _uniforms(words: np.random.RandomState, size: int) -> Floats:
    """24-bit uniforms in [0, 1)."""
    bits = words.randint(0, 2**32, size=size, dtype=np.uint32)
    bits &= _MASK
    uniforms = bits.astype(np.float32)
    uniforms *= _STEP
    return uniforms


def _fill(made: Floats, uniforms: Floats) -> None:
    """Box–Muller in blocks of 16: the first 8 uniforms give the radii, the last 8 the angles."""
    half = _BLOCK // 2
    first, second = (part.reshape(-1, half) for part in np.split(uniforms.reshape(-1, 2, half), 2, axis=1))
    radius = np.subtract(np.float32(1), first)
    np.log(radius, out=radius)
    radius *= np.float32(-2)
    np.sqrt(radius, out=radius)
    angle = np.multiply(second, np.float32(2 * math.pi))
    pairs = made.reshape(-1, 2, half)
    np.multiply(np.cos(angle), radius, out=pairs[:, 0])
    np.multiply(np.sin(angle), radius, out=pairs[:, 1])
