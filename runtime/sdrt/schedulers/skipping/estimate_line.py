"""A part of the line through the last two estimates of the clean latents.

TaylorSeer (Liu et al. 2025, arXiv:2503.06923) continues what the network gave as a line. DPM-Solver++(2M) (Lu et al.
2022, arXiv:2211.01095) continues the estimate of the clean latents, by half of its last difference in a step from call
to call. This rule does the same between two calls.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sdrt.schedulers.skipping.base import Past, Weights, Windows, line

__all__ = ["EstimateLine"]


@dataclass(frozen=True, kw_only=True)
class EstimateLine(Windows):
    """In place of a call, a part of the line through the estimates of the last two calls.

    Attributes:
        share: how far to follow the line. 0 keeps the last estimate.
    """

    adds_estimates: ClassVar[bool] = True

    share: float = 0.5

    def __call__(self, past: Past) -> Weights | None:
        """See `Rule`."""
        if self.calls(past):
            return None
        weights = self.share * line(past)
        weights[-1] += 1 - self.share
        return weights
