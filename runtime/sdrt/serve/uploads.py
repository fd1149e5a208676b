"""What clients have sent and the server still holds in memory, bounded for all of them together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from sdrt.serve.errors import ServeError

__all__ = ["Uploads"]

_PAUSE = 5
"""Seconds after which a client may try again."""


class Uploads:
    """Counts the bytes of bodies, and of the images of jobs that wait or run.

    All methods belong to the thread of the event loop.

    Args:
        most: how many bytes there may be.
    """

    def __init__(self, most: int) -> None:
        self._most, self.total = most, 0
        # Jobs of one request share their images.
        self._uses: Counter[int] = Counter()

    def check(self, size: int) -> None:
        """Raises `ServeError` if there is no room for `size` bytes more."""
        if self.total + size > self._most:
            raise ServeError(
                429,
                f"the server holds {self.total} of at most {self._most} bytes that clients sent, so {size} more do not "
                f"fit: try again in {_PAUSE} s",
                code="too_many_bytes",
                headers={"Retry-After": str(_PAUSE)},
            )

    def add(self, size: int) -> None:
        """Count `size` bytes more. Raises `ServeError` if there is no room for them."""
        self.check(size)
        self.total += size

    def remove(self, size: int) -> None:
        """Count `size` bytes less."""
        self.total -= size

    def hold(self, files: Iterable[bytes]) -> None:
        """Count files until `let_go`. A file that is counted already takes no more room.

        Raises:
            ServeError: there is no room for them. None is counted then.
        """
        listed = list(files)
        new = {id(data): len(data) for data in listed if not self._uses[id(data)]}
        self.add(sum(new.values()))
        self._uses.update(map(id, listed))

    def let_go(self, files: Iterable[bytes]) -> None:
        """Count files no more, unless others hold them too."""
        for data in files:
            self._uses[id(data)] -= 1
            if not self._uses[id(data)]:
                del self._uses[id(data)]
                self.remove(len(data))
