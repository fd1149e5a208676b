"""Spectrum: outputs as Chebyshev polynomials of time, fitted to all past calls (Han et al. 2026, arXiv:2603.01623)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.polynomial.chebyshev import chebvander

from sdrt.schedulers.skipping.base import Past, Weights, is_called, line

__all__ = ["Spectrum"]

_LINE = 2


@dataclass(frozen=True, kw_only=True)
class Spectrum:
    """After a warm-up, one call in a window of evaluations, which grows with each call.

    The output is a mean of two: that of a polynomial with ridge regression, which all calls determine, and that of the
    line through the last two. The decision depends on the numbers of the evaluations alone, not on what is in an image.
    So an image of a batch is the same as alone.

    The paper's regression is of features inside the network, with a penalty of 0.1. For outputs, 0.01 measured better.

    Attributes:
        warm_up: the number of calls before any is skipped.
        window: one of so many evaluations is called, at first.
        growth: by how much the window grows with each call.
        degree: the degree of the polynomial.
        ridge: the weight of the regression's penalty.
        share: the share of the polynomial in the mean. The paper's w.
    """

    warm_up: int
    window: float
    growth: float
    degree: int = 3
    ridge: float = 0.01
    share: float = 0.5

    @property
    def adds_estimates(self) -> bool:
        """See `Rule`."""
        return False

    def __call__(self, past: Past) -> Weights | None:
        """See `Rule`."""
        if is_called(past, warm_up=self.warm_up, window=self.window, growth=self.growth):
            return None
        # Two calls make no more than a line.
        share = self.share if len(past.calls) > _LINE else 0.0
        return share * self._polynomial(past) + (1 - share) * line(past)

    def _polynomial(self, past: Past) -> Weights:
        """With the basis X [calls, degree + 1] and x at this time: X (XᵀX + ridge)⁻¹ x."""
        basis = chebvander([2 * call.time - 1 for call in past.calls], self.degree)
        here = chebvander([2 * past.time - 1], self.degree)[0]
        gram = basis.T @ basis + self.ridge * np.eye(self.degree + 1)
        return basis @ np.linalg.solve(gram, here)
