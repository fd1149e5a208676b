"""Makes images on a Ray cluster. Ray runs in another process, which may end without a word when the cluster does."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from sdrt.batch.place import Answer, Group, Lost
from sdrt.batch.ray_driver import Answered, Begun, Ended, RaySetup, Round, Stop, Told, main
from sdrt.common.interrupt import stop_if_asked
from sdrt.errors import SdrtError
from sdrt.serve.errors import error_of
from sdrt.serve.task import Failure, ImageTask

__all__ = ["RayPlace"]

_CONTEXT = multiprocessing.get_context("spawn")
_INTERVAL = 0.5
_GRACE = 15.0
"""Seconds that Ray gets to end a cluster of this machine."""
_PATIENCE = 120.0
"""Seconds in which a cluster should answer. Ray itself goes on trying."""


class RayPlace:
    """A cluster, or this machine as one.

    Args:
        setup: which cluster, and what its actors need to know.
    """

    def __init__(self, setup: RaySetup) -> None:
        self._setup = setup

    def __enter__(self) -> RayPlace:
        self._connection, theirs = _CONTEXT.Pipe()
        # No daemon: Ray's own processes would outlive one that is killed.
        self._process = _CONTEXT.Process(target=main, args=(theirs, self._setup), name="sdrt-ray")
        self._process.start()
        theirs.close()
        try:
            self._connected()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._connection.send(Stop())
        self._process.join(_GRACE)
        self._process.kill()
        self._process.join()
        self._connection.close()

    def answers(self, groups: Sequence[Group]) -> Iterator[tuple[Group, Answer]]:
        """See `Place`."""
        asked: list[list[ImageTask]] = []
        numbered: list[Group] = []
        for group in groups:
            tasks = group.tasks()
            if isinstance(tasks, Failure):
                yield group, tasks
            else:
                asked.append(tasks)
                numbered.append(group)
        if not asked:
            return
        self._send(asked)
        left = dict(enumerate(numbered))
        for number, answer in self._heard():
            yield left.pop(number), answer
        for group in left.values():
            yield group, Lost("on the cluster")

    def _send(self, asked: list[list[ImageTask]]) -> None:
        try:
            self._connection.send(Round(asked))
        except OSError:
            raise self._lost() from None

    def _connected(self) -> None:
        """Wait until the cluster answers."""
        end = time.monotonic() + _PATIENCE
        while not isinstance(self._next(), Begun):
            if time.monotonic() > end:
                raise SdrtError.advised(
                    f"the cluster {self._setup.cluster.address} does not answer",
                    f"check the address, and its token in RAY_AUTH_TOKEN; {self._setup.cluster.log} says more",
                )

    def _heard(self) -> Iterator[tuple[int, Answer]]:
        """The answers of a round, with the numbers of their groups."""
        while not isinstance(message := self._next(), Ended):
            if isinstance(message, Answered):
                yield message.number, message.answer

    def _next(self) -> Any:
        """What the driver says, or None if it says nothing for a while."""
        stop_if_asked()
        try:
            message = self._connection.recv() if self._connection.poll(_INTERVAL) else None
        except (EOFError, OSError):
            raise self._lost() from None
        if isinstance(message, Told):
            raise error_of(message.failure)
        return message

    def _lost(self) -> SdrtError:
        self._process.join(_GRACE)
        return SdrtError.advised(
            f"the cluster {self._setup.cluster.address} is gone (Ray ended with exit code {self._process.exitcode}, "
            f"and {self._setup.cluster.log} says more)",
            "what is made is in the index: run the same command again when the cluster is back",
        )
