"""How many tasks to make at once: as many as measured fastest on this machine."""

from __future__ import annotations

import statistics
from collections import Counter, OrderedDict, deque

from sdrt.serve.task import ImageTask

__all__ = ["BatchSizes"]

_GAIN = 0.95
"""A larger number must take at most this share of the seconds for each image."""
_ENOUGH = 3
"""Runs after which a number is judged. A single one may have met a busy machine."""
_KEPT = 5
"""Runs of each number that count, the latest."""
_AHEAD = 2
"""How many larger numbers are tried. Two may be no faster than one where four are."""
_AGAIN = 50
"""After so many runs, a neighbour of the best number is measured again."""
_MOST_KINDS = 256


class BatchSizes:
    """Learns from finished runs. Tasks that can share a run are of one kind, which begins with a single task.

    The number doubles as long as that may be faster. So memory grows only where a larger number is faster,
    or while one is tried.

    Args:
        most: the largest number.
    """

    def __init__(self, most: int) -> None:
        self._numbers = _doubled(most)
        self._kinds: OrderedDict[str, _Kind | None] = OrderedDict()

    def size_for(self, task: ImageTask) -> int:
        """How many tasks like this one to make in the next run, if as many wait."""
        kind = self._kinds.get(task.kind) if self._learns_of(task) else None
        return 1 if kind is None else kind.next()

    def note(self, task: ImageTask, number: int, seconds: float) -> None:
        """A run of `number` tasks took this long."""
        if not self._learns_of(task):
            return
        if task.kind not in self._kinds:
            self._kinds[task.kind] = None  # the first run also opens the model
            if len(self._kinds) > _MOST_KINDS:
                self._kinds.popitem(last=False)
            return
        self._kind(task).note(number, seconds)

    def failed(self, task: ImageTask, number: int) -> None:
        """A run of `number` tasks failed, which one of them alone may not."""
        if number > 1 and self._learns_of(task):
            self._kind(task).failed(number)

    def _kind(self, task: ImageTask) -> _Kind:
        kind = self._kinds.get(task.kind) or _Kind(self._numbers)
        self._kinds[task.kind] = kind
        self._kinds.move_to_end(task.kind)
        return kind

    def _learns_of(self, task: ImageTask) -> bool:
        return len(self._numbers) > 1 and task.is_alone


class _Kind:
    """What is known of tasks that take equally long."""

    def __init__(self, numbers: tuple[int, ...]) -> None:
        self._numbers = numbers
        # Seconds for an image, of the latest runs of each number.
        self._seconds: dict[int, deque[float]] = {number: deque(maxlen=_KEPT) for number in numbers}
        self._runs = 0
        self._failures: Counter[int] = Counter()

    def note(self, number: int, seconds: float) -> None:
        """A run of `number` tasks took this long."""
        # If eight were wanted and only five waited, the run counts for four.
        fits = [one for one in self._numbers if one <= number]
        if fits:
            self._seconds[fits[-1]].append(seconds / number)
            self._failures.pop(number, None)
            self._runs += 1

    def failed(self, number: int) -> None:
        """A run of so many failed. The second time, they and more are too many. The first may have another cause."""
        self._failures[number] += 1
        if self._failures[number] >= 2:
            self._numbers = tuple(one for one in self._numbers if one < number)

    def next(self) -> int:
        """The number for the next run."""
        place = self._numbers.index(self._best())
        ahead = self._numbers[place + 1 : place + 1 + _AHEAD]
        for number in ahead:
            if len(self._seconds[number]) < _ENOUGH:
                return number
        if self._runs % _AGAIN == 0:
            return self._neighbour(place)
        return self._numbers[place]

    def _best(self) -> int:
        """The number that is fastest. A larger one must be faster by a margin, since measurements differ."""
        best, least = 1, float("inf")
        for number in self._numbers:
            if (known := self._seconds[number]) and (seconds := statistics.median(known)) < _GAIN * least:
                best, least = number, seconds
        return best

    def _neighbour(self, place: int) -> int:
        """The next larger number, and the next time the next smaller one."""
        is_up = self._runs // _AGAIN % 2 == 0
        wanted = place + (1 if is_up else -1)
        return self._numbers[min(max(wanted, 0), len(self._numbers) - 1)]


def _doubled(most: int) -> tuple[int, ...]:
    """1, 2, 4 and so on, and at last `most`."""
    numbers = [1]
    while numbers[-1] < most:
        numbers.append(min(2 * numbers[-1], most))
    return tuple(numbers)
