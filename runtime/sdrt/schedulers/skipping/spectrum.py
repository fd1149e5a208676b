"""Spectrum: outputs as Chebyshev polynomials of time, fitted to all past calls (Han et al. 2026, arXiv:2603.01623)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.polynomial.chebyshev import chebvander

from sdrt.schedulers.skipping.base import Past, Weights, Windows, line

__all__ = ["Spectrum"]

_LINE = 2


@dataclass(frozen=True, kw_only=True)
class Spectrum(Windows):
    """In place of a call, a mean of two outputs.

    One is that of a polynomial with ridge regression, which all calls determine, the other that of the line through the
    last two.

    The paper's regression is of features inside the network, with a penalty of 0.1. For outputs, 0.01 measured better.

    Attributes:
        degree: the degree of the polynomial.
        ridge: the weight of the regression's penalty.
        share: the share of the polynomial in the mean. The paper's w.
    """

    adds_estimates: ClassVar[bool] = False

    degree: int = 3
    ridge: float = 0.01
    share: float = 0.5

    def __call__(self, past: Past) -> Weights | None:
        """See `Rule`."""
        if self.calls(past):
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
