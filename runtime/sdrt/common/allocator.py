"""Return freed memory to the system."""

from __future__ import annotations

import ctypes
import sys

__all__ = ["trim"]


def trim() -> None:
    """Return freed memory to the system.

    glibc keeps freed blocks below 32 MB, and most of a model's weights are smaller than that. This does nothing on
    musl, macOS and Windows, whose allocators return memory by themselves.
    """
    if sys.platform != "linux":
        return
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)
