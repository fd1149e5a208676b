"""Giving freed memory back to the system, which allocators keep for later."""

from __future__ import annotations

import ctypes
import sys

__all__ = ["trim"]


def trim() -> None:
    """Give back what is free. glibc keeps blocks of less than 32 MB, of which a model's weights are mostly made.

    Nothing where the system's allocator has no such call: musl's, macOS's and Windows' give memory back by themselves.
    """
    if sys.platform != "linux":
        return
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)
