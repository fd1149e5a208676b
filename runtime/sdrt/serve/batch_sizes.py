"""How many tasks to make at once: as many as measured fastest on this machine."""

from __future__ import annotations

import math
from collections import OrderedDict

from sdrt.serve.task import ImageTask

__all__ = ["BatchSizes"]

_GAIN = 0.95
"""A larger number must take at most this share of the seconds for each image."""
_MOST_KINDS = 256


class BatchSizes:
    """Learns from finished runs. Tasks that can share a run are of one kind, which begins with a single task.

    The number doubles as long as that is faster. So memory grows only where it brings something.

    Args:
        most: the largest number.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        # For each kind, seconds for an image by the number of tasks: the fewest that were measured.
        self._seconds: OrderedDict[str, dict[int, float]] = OrderedDict()

    def size_for(self, task: ImageTask) -> int:
        """How many tasks like this one to make in the next run, if as many wait."""
        seconds = self._seconds.get(task.kind) if self._learns_of(task) else None
        if not seconds:
            return 1
        best = self._best(seconds)
        larger = min(2 * best, self._most)
        return best if any(number > best for number in seconds) else larger

    def note(self, task: ImageTask, number: int, seconds: float) -> None:
        """A run of `number` tasks took this long."""
        if not self._learns_of(task):
            return
        known = self._seconds.get(task.kind)
        if known is None:
            # The first run also opens the model.
            self._seconds[task.kind] = {}
            if len(self._seconds) > _MOST_KINDS:
                self._seconds.popitem(last=False)
            return
        self._seconds.move_to_end(task.kind)
        known[number] = min(known.get(number, math.inf), seconds / number)

    def failed(self, task: ImageTask, number: int) -> None:
        """A run of `number` tasks failed, which one of them alone may not."""
        if number > 1 and self._learns_of(task):
            self._seconds.setdefault(task.kind, {}).setdefault(number, math.inf)

    def _learns_of(self, task: ImageTask) -> bool:
        return self._most > 1 and task.is_alone

    def _best(self, seconds: dict[int, float]) -> int:
        """The number that is fastest. A larger one must be faster by a margin, since measurements differ."""
        best = 0
        for number in sorted(seconds):
            if not best or seconds[number] < _GAIN * seconds[best]:
                best = number
        return best
