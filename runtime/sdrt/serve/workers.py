"""What the dispatcher needs to know of workers: processes of this machine, or replicas on a cluster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from sdrt.serve.task import ImageTask

__all__ = ["Heard", "Worker", "Workers"]


class Worker(Protocol):
    """Makes images, one run at a time. All methods belong to the thread of the event loop.

    Attributes:
        open_models: the models that it has open, by name.
    """

    open_models: tuple[str, ...]

    @property
    def name(self) -> str:
        """What the log calls it."""

    @property
    def pid(self) -> int | None:
        """The id of its process, if it is one of this machine."""

    @property
    def end(self) -> str:
        """How it ended."""

    def run(self, tasks: Sequence[ImageTask]) -> int:
        """Send a run, and return its number."""

    def cancel(self) -> None:
        """Stop the newest run."""

    def stop(self) -> None:
        """Let it end after its run."""

    def kill(self) -> None:
        """End it now."""


Heard = Callable[[Any, Any], object]
"""Called in the event loop with a worker and each message from it, and with None when it has ended."""


class Workers(AbstractContextManager[Any], Protocol):
    """The workers of a server, each in a place of its own.

    Entering may begin what takes long. Leaving ends what is left, in a bounded time.
    """

    @property
    def places(self) -> int:
        """How many workers there are at most."""

    @property
    def running(self) -> Sequence[tuple[str, ...]] | None:
        """For each worker that runs, the models that it has open. None if there is one for each place."""

    def start(self, place: int, heard: Heard) -> Worker:
        """Start the worker of a place, or another one after it has ended."""
