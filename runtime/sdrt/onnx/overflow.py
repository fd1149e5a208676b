"""What tells of float16 that overflowed."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["failed", "overflowed"]


def failed(array: NDArray[Any]) -> bool:
    """Whether an output tells of an overflow: NaN, infinity, or the same number everywhere.

    Of latents and pictures [N, C, H, W], everywhere in each of their planes: a picture of one colour is as flat.
    """
    if array.size < 2 or not np.issubdtype(array.dtype, np.floating):
        return False
    if overflowed(array):
        return True
    planes = (2, 3) if array.ndim == 4 and array.shape[2] * array.shape[3] > 1 else None
    least, most = array.min(axis=planes), array.max(axis=planes)
    return bool((least == most).all())


def overflowed(array: NDArray[Any]) -> bool:
    """Whether an output is not finite. A tile of a picture may be flat for good."""
    return not np.isfinite(array).all()
