"""Limits on the memory of this process, as `ulimit -v` sets them."""

from __future__ import annotations

import _thread
import errno
import sys
from dataclasses import dataclass

__all__ = ["MemoryLimit", "advice_on_limits", "can_start_thread", "is_of_memory", "memory_limit"]

# Of libraries that are loaded late, and of threads.
_OF_MEMORY = (
    "failed to map segment",
    "cannot allocate memory",
    "can't start new thread",
    "can't allocate lock",
)


@dataclass(frozen=True, kw_only=True)
class MemoryLimit:
    """The most memory that this process may reserve, used or not.

    Attributes:
        amount: the limit in bytes.
        option: the option of the shell's `ulimit` that sets it.
        row: the row of Linux's /proc/PID/status that counts against it.
    """

    amount: int
    option: str
    row: str

    def __str__(self) -> str:
        return f"the limit of {self.amount / 1e6:.0f} MB (ulimit {self.option})"


def memory_limit() -> MemoryLimit | None:
    """The tightest limit of this process. None without one, and on systems that do not enforce it."""
    if sys.platform != "linux":
        return None
    import resource

    found = [
        MemoryLimit(amount=amount, option=option, row=row)
        for kind, option, row in (
            (resource.RLIMIT_AS, "-v", "VmSize"),
            (resource.RLIMIT_DATA, "-d", "VmData"),
        )
        if (amount := resource.getrlimit(kind)[0]) != resource.RLIM_INFINITY
    ]
    return min(found, key=lambda limit: limit.amount, default=None)


def is_of_memory(error: BaseException) -> bool:
    """Tell whether memory has run out: also for an import, for a thread, and for mapping a file."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    kinds = (ImportError, OSError, RuntimeError)
    return isinstance(error, kinds) and any(mark in str(error).lower() for mark in _OF_MEMORY)


def advice_on_limits() -> str:
    """What helps if nothing can be made smaller."""
    limit = memory_limit()
    return f"raise {limit}" if limit else "close other programs, or use a smaller model"


def can_start_thread() -> bool:
    """Tell whether this process can start another thread."""
    try:
        _thread.start_new_thread(lambda: None, ())
    except RuntimeError:
        return False
    return True
