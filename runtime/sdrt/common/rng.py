"""Normal noise equal to that of torch's CPU generator, so that a seed gives the same image as in diffusers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sdrt.common.seeds import plain_seed

__all__ = ["Generator"]

_WORD = 2**32

# torch fills 16 values at a time, from 8 radii and 8 angles. Shorter draws use its scalar path.
_BLOCK = 16


class Generator:
    """A stream of standard normal noise, equal to the draws of `torch.Generator("cpu").manual_seed(seed)`.

    Args:
        seed: an integer from -2**63 to 2**64 - 1. A negative one means the same as in torch, also -1.

    Raises:
        RequestError: the seed is not an integer, or is outside that range.
    """

    def __init__(self, seed: int) -> None:
        self.seed = plain_seed("seed", seed)
        # Like torch's, the Mersenne Twister takes the low 32 bits of a seed.
        self._words = np.random.RandomState(self.seed % _WORD)
        # The scalar path makes two normals at a time and keeps the second for the next scalar draw.
        self._spare: float | None = None

    def randn(self, shape: int | Sequence[int]) -> npt.NDArray[np.float32]:
        """Draw standard normal float32 noise of the given shape, within 5e-7 of `torch.randn`."""
        dimensions = (shape,) if isinstance(shape, int) else tuple(shape)
        size = math.prod(dimensions)
        values = self._blocks(size) if size >= _BLOCK else self._scalars(size)
        return values.astype(np.float32).reshape(dimensions)

    def _blocks(self, size: int) -> npt.NDArray[np.float64]:
        """Box–Muller in blocks of 16. If `size` is not a multiple of 16, the last 16 values are drawn again."""
        uniforms = self._uniforms(size)
        whole = size - size % _BLOCK
        values = np.empty(size)
        values[:whole] = _box_muller_blocks(uniforms[:whole])
        if whole != size:
            values[-_BLOCK:] = _box_muller_blocks(self._uniforms(_BLOCK))
        return values

    def _scalars(self, size: int) -> npt.NDArray[np.float64]:
        """Pairs of normals from pairs of 53-bit uniforms, after the spare value of the last odd draw."""
        kept = [] if self._spare is None or size == 0 else [self._spare]
        pairs = (size - len(kept) + 1) // 2
        words = self._draw(4 * pairs).astype(np.uint64)
        bits = (words[0::2] << np.uint64(32) | words[1::2]) & np.uint64(2**53 - 1)
        uniforms = bits.astype(np.float64) * 2.0**-53
        angle, radius = 2 * math.pi * uniforms[0::2], np.sqrt(-2 * np.log1p(-uniforms[1::2]))
        fresh = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).ravel()
        values = np.concatenate([np.array(kept, dtype=np.float64), fresh])
        if size:
            self._spare = float(values[size]) if len(values) > size else None
        return values[:size]

    def _uniforms(self, size: int) -> npt.NDArray[np.float64]:
        """24-bit uniforms in [0, 1)."""
        bits = self._draw(size) & np.uint32(2**24 - 1)
        return np.asarray(bits * 2.0**-24, dtype=np.float64)

    def _draw(self, size: int) -> npt.NDArray[np.uint32]:
        # With the full range of uint32, NumPy returns the Mersenne Twister's words unchanged.
        return self._words.randint(0, 2**32, size=size, dtype=np.uint32)


def _box_muller_blocks(uniforms: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Normals from uniforms [16 k]: the first 8 of each block give the radii, the last 8 the angles."""
    halves = uniforms.reshape(-1, 2, _BLOCK // 2)
    radius = np.sqrt(-2 * np.log(1 - halves[:, 0]))
    # Angles reach 6.28, so torch's rounding to float32 matters here, and only here.
    angle = (halves[:, 1].astype(np.float32) * np.float32(2 * math.pi)).astype(np.float64)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).ravel()
