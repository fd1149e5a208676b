"""How far images are from others that show the same: what leaving out calls of the U-Net changes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

__all__ = ["Distance", "psnr"]

_PEAK = 255
_EQUAL = 99.0


@dataclass(frozen=True, kw_only=True)
class Distance:
    """What leaving out calls saves, and how far its images are from those with all calls.

    Attributes:
        calls: how many times each image's U-Net was called, with the whole batch.
        evaluations: how many calls there are without leaving any out.
        psnr: for each image, the peak signal-to-noise ratio in dB. 99 stands for equal images.
    """

    calls: float
    evaluations: float
    psnr: Sequence[float]

    def __str__(self) -> str:
        return (
            f"{self.calls:g} of {self.evaluations:g} calls; PSNR to all calls: mean {self.mean:.1f} dB, "
            f"median {self.below(0.5):.1f} dB, 5 % below {self.below(0.05):.1f} dB"
        )

    @property
    def mean(self) -> float:
        """The mean PSNR in dB."""
        return sum(self.psnr) / len(self.psnr)

    def below(self, share: float) -> float:
        """The PSNR in dB that a share of the images is below."""
        return sorted(self.psnr)[int(share * len(self.psnr))]


def psnr(image: Image.Image, other: Image.Image) -> float:
    """The peak signal-to-noise ratio of two images of 8 bits, in dB."""
    difference = np.asarray(image, np.float64) - np.asarray(other, np.float64)
    error = float((difference**2).mean())
    return min(_EQUAL, 10 * math.log10(_PEAK**2 / error)) if error else _EQUAL
