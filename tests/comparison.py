"""How far one array is from another."""

from __future__ import annotations

import numpy as np

__all__ = ["relative_error"]


def relative_error(got: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference over the largest magnitude; infinite for another shape and for what is not finite."""
    if got.shape != expected.shape or not np.isfinite(got).all():
        return np.inf
    return float(np.abs(got.astype(np.float64) - expected).max() / np.abs(expected).max())
