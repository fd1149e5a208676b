"""Work on images that needs no model, such as enlarging one. It does not wait in the queue of jobs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from sdrt.serve.errors import ServeError

__all__ = ["SideWork"]

P = ParamSpec("P")
T = TypeVar("T")
_RECENT = 0.2  # how much the newest piece counts in the mean


class SideWork:
    """One thread that does one piece of work after another, in the order in which they come.

    All methods belong to the thread of the event loop.

    Args:
        bound: how many pieces may wait at once, with the one in work.
    """

    def __init__(self, bound: int) -> None:
        self._bound, self._count, self._mean = bound, 0, 1.0
        self._thread = ThreadPoolExecutor(1, "sdrt-side-work")

    def __len__(self) -> int:
        return self._count

    async def do(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do `work`, and return what it returns. It is not done if the caller is cancelled before its turn.

        Raises:
            ServeError: too many pieces wait.
        """
        if self._count >= self._bound:
            raise self._busy()
        self._count += 1
        try:
            loop = asyncio.get_running_loop()
            made, seconds = await loop.run_in_executor(self._thread, _timed, lambda: work(*args, **kwargs))
            self._mean += _RECENT * (seconds - self._mean)
            return made
        finally:
            self._count -= 1

    def _busy(self) -> ServeError:
        seconds = max(1, min(600, round(self._mean)))
        return ServeError(
            429,
            f"{self._count} images wait to be enlarged or read, and no more may wait: try again in {seconds} s",
            code="busy",
            headers={"Retry-After": str(seconds)},
        )


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    started = time.perf_counter()
    return work(), time.perf_counter() - started
