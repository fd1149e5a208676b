"""AdaptiveDiffusion: calls are skipped where the latents change evenly (Ye et al. 2024, arXiv:2410.09873)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from sdrt.schedulers.skipping.base import Past, Weights

__all__ = ["AdaptiveDiffusion"]

_DIFFERENCES = 3


@dataclass(frozen=True, kw_only=True)
class AdaptiveDiffusion:
    """The last output is used again while the third difference of the latents is small beside their first.

    The images of a batch decide together: the differences are means over all of them. So an image of a batch may differ
    from the same image alone.

    Attributes:
        threshold: the largest third difference, as a share of the first. The paper's δ.
        most: how many evaluations in a row may be skipped.
        warm_up: the number of calls before any is skipped.
    """

    threshold: float
    most: int = 4
    warm_up: int = 4

    def __call__(self, past: Past) -> Weights | None:
        """See `Rule`."""
        enough = len(past.calls) >= self.warm_up and len(past.latents) > _DIFFERENCES
        if not enough or past.is_last or past.skipped >= self.most:
            return None
        first, second, third = (
            float(np.abs(after - before).mean()) for before, after in pairwise(past.latents)
        )
        if abs((first + third) / 2 - second) > self.threshold * second:
            return None
        weights: Weights = np.eye(len(past.calls))[-1]
        return weights
