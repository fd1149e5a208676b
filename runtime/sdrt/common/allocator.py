"""What the C library does with freed memory."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

__all__ = ["reusing_freed_memory", "trim"]

# The options of glibc's `mallopt`, as `malloc.h` numbers them.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -2, -3, -4

_REUSE = {_MMAP_MAX: 0, _TRIM_THRESHOLD: -1, _TOP_PAD: 64 << 20}
"""Take all blocks from the heap, and keep what is freed. The heap grows by 64 MB at a time."""

_USUAL = {_MMAP_MAX: 1 << 16, _TRIM_THRESHOLD: 64 << 20, _TOP_PAD: 128 << 10, _MMAP_THRESHOLD: 32 << 20}
"""glibc's defaults. Both thresholds are those that it reaches by itself once a block of 32 MB was freed."""

_VARIABLES = ("MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_")

_lock = threading.Lock()
_inside = 0


def trim() -> None:
    """Return freed memory to the system.

    glibc keeps freed blocks below 32 MB, and most of a model's weights are smaller than that. This does nothing on
    musl, macOS and Windows, whose allocators return memory by themselves.
    """
    malloc_trim = _function("malloc_trim")
    if malloc_trim is not None:
        malloc_trim(0)


@contextmanager
def reusing_freed_memory() -> Iterator[None]:
    """Within this, memory that is freed serves the next blocks. Afterwards, all that is free returns to the system.

    While ONNX Runtime loads a graph, it copies every weight several times and frees the copies. glibc returns large
    blocks to the system at once, so that the system has to provide zeroed pages for each copy. Most of the time of a
    load went into that.

    All threads share these settings of the process, as they share its allocator. If the user has set any of them in
    the environment, they stay as they are. On other systems than Linux with glibc, this does nothing.
    """
    _enter(1)
    try:
        yield
    finally:
        _enter(-1)
        trim()


def _enter(more: int) -> None:
    """Count the loads at work. The first and the last of them change the settings."""
    global _inside
    with _lock:
        before, _inside = _inside, _inside + more
        if (mallopt := _function("mallopt")) is None or bool(before) == bool(_inside) or _is_set_by_user():
            return
        for option, value in (_REUSE if _inside else _USUAL).items():
            mallopt(option, value)


def _is_set_by_user() -> bool:
    return any(name in os.environ for name in _VARIABLES) or "glibc.malloc" in os.environ.get(
        "GLIBC_TUNABLES", ""
    )


@lru_cache
def _function(name: str) -> Any:
    """A function of the C library that only glibc has. None without it."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
