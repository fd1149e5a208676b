"""Signs of a float16 overflow in outputs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["failed", "overflowed"]


def failed(array: NDArray[Any]) -> bool:
    """Whether an output shows an overflow: it contains NaN or infinity, or one number everywhere.

    Latents and images [N, C, H, W] fail if every plane [H, W] is flat, as in an image of one colour.
    """
    if array.size < 2 or not np.issubdtype(array.dtype, np.floating):
        return False
    if overflowed(array):
        return True
    planes = (2, 3) if array.ndim == 4 and array.shape[2] * array.shape[3] > 1 else None
    least, most = array.min(axis=planes), array.max(axis=planes)
    return bool((least == most).all())


def overflowed(array: NDArray[Any]) -> bool:
    """Whether an output is not finite. For tiles, because a tile of an image may be flat without any overflow."""
    return not np.isfinite(array).all()
