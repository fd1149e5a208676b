"""A part of the line through the last two estimates of the clean latents.

TaylorSeer (Liu et al. 2025, arXiv:2503.06923) continues what the network gave as a line. DPM-Solver++(2M) (Lu et al.
2022, arXiv:2211.01095) continues the estimate of the clean latents, by half of its last difference in a step from call
to call. This rule does the same between two calls.
"""

from __future__ import annotations

from dataclasses import dataclass

from sdrt.schedulers.skipping.base import Past, Weights, is_called, line

__all__ = ["EstimateLine"]


@dataclass(frozen=True, kw_only=True)
class EstimateLine:
    """After a warm-up, one call in a window of evaluations, which grows with each call.

    The decision depends on the numbers of the evaluations alone, as with `Spectrum`.

    Attributes:
        warm_up: the number of calls before any is skipped.
        window: one of so many evaluations is called, at first.
        growth: by how much the window grows with each call.
        share: how far to follow the line. 0 keeps the last estimate.
    """

    warm_up: int
    window: float
    growth: float
    share: float = 0.5

    @property
    def adds_estimates(self) -> bool:
        """See `Rule`."""
        return True

    def __call__(self, past: Past) -> Weights | None:
        """See `Rule`."""
        if is_called(past, warm_up=self.warm_up, window=self.window, growth=self.growth):
            return None
        weights = self.share * line(past)
        weights[-1] += 1 - self.share
        return weights
