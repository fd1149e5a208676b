"""A process that watches the command where `ulimit` limits its memory.

When memory runs out, some libraries end the process themselves: C++ with an abort, OpenBLAS with exit code 1. Only
another process can then tell the user what happened, and exit with the code for it.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
from contextlib import suppress

from sdrt.common.limits import MemoryLimit, memory_limit

__all__ = ["supervise"]

OUT_OF_MEMORY = 5
_OF_MEMORY = (signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS) if os.name == "posix" else ()
# Constants of Linux's prctl and glibc's mallopt.
_SET_PDEATHSIG, _M_ARENA_MAX = 1, -8


def supervise() -> None:
    """Return in a child process if there is a limit. This process then waits for it, and ends with its exit code.

    Without a limit, this does nothing.
    """
    limit = memory_limit()
    if limit is None:
        return
    seen, told = os.pipe()
    parent = os.getpid()
    try:
        child = os.fork()
    except OSError:
        return
    if child:
        os.close(told)
        _wait(child, seen, limit)
    os.close(seen)
    _end_with(parent)
    _share_heap()
    # Python calls this when it ends by itself. A library that ends the process does not.
    atexit.register(_tell, told)


def _tell(told: int) -> None:
    with suppress(OSError):
        os.write(told, b".")


def _end_with(parent: int) -> None:
    """End this process when its parent is killed."""
    with suppress(ImportError, OSError, AttributeError):  # no ctypes, no C library, no such function
        import ctypes

        ctypes.CDLL(None).prctl(_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _share_heap() -> None:
    """Let all threads share one heap. By default, glibc reserves 64 MB or more for each thread, which counts."""
    os.environ.setdefault("MALLOC_ARENA_MAX", "1")  # for processes that this one starts
    # If this fails, the limit is only reached earlier. The variable may not be a number, and ctypes has its own errors.
    with suppress(Exception):
        import ctypes

        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, int(os.environ["MALLOC_ARENA_MAX"]))


def _wait(child: int, seen: int, limit: MemoryLimit) -> None:
    """Wait for the child, and end as it ended. Signals go on to it."""
    for sent in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(sent) is not signal.SIG_IGN:
            signal.signal(sent, lambda number, _: os.kill(child, number))
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    ended_itself = bool(os.read(seen, 1))
    if not ended_itself and (-code in _OF_MEMORY or code > 0):
        with suppress(OSError):
            print(
                f"error: out of memory, where a library ended the program: raise {limit}; `sdrt doctor` says what fits",
                file=sys.stderr,
                flush=True,
            )
        os._exit(OUT_OF_MEMORY)
    if code < 0:
        with suppress(OSError):  # some cannot be handled anyway
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)
