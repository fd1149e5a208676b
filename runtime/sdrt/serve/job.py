"""A job: a task from the moment it is accepted until its result is fetched."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from enum import Enum

from sdrt.serve.task import Failure, ImageTask, Made, Progress

__all__ = ["Job", "Status"]


class Status(str, Enum):
    """What has become of a job."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether the job is over."""
        return self in (Status.DONE, Status.FAILED, Status.CANCELLED)


@dataclass(eq=False, kw_only=True)
class Job:
    """A task and what has become of it. All methods belong to the thread of the event loop.

    Attributes:
        task: what to make. When the job is over, it has no images of the user any more.
        client: who asked: the name of a key, or an address.
        priority: jobs with a higher number run first.
        deaths: how many workers ended while they made it.
        created, started, finished: seconds of `time.time()`.
        progress: the latest step.
        preview: the latest preview, a PNG file.
        made: the result.
        failure: why there is none.
        is_cancelling: whether it is to be stopped.
        shares: whether it may share a run with others.
    """

    task: ImageTask
    client: str
    priority: int = 0
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    status: Status = Status.QUEUED
    deaths: int = 0
    created: float = field(default_factory=time.time)
    started: float | None = None
    finished: float | None = None
    progress: Progress | None = None
    preview: bytes | None = field(default=None, repr=False)
    made: Made | None = field(default=None, repr=False)
    failure: Failure | None = None
    is_cancelling: bool = False
    shares: bool = True
    _listeners: set[asyncio.Queue[Progress | None]] = field(default_factory=set, repr=False)
    _over: asyncio.Event = field(default_factory=asyncio.Event, repr=False)

    def start(self) -> None:
        """A worker has begun the job."""
        self.status, self.started = Status.RUNNING, time.time()

    def wait_again(self) -> None:
        """The job's worker has died, so it waits for another."""
        self.status, self.started, self.progress = Status.QUEUED, None, None

    def step(self, progress: Progress) -> None:
        """A step is done."""
        self.progress = progress
        self.preview = progress.preview or self.preview
        for listener in self._listeners:
            listener.put_nowait(progress)

    def finish(self, made: Made) -> None:
        """The images are there."""
        self.made = made
        self._end(Status.DONE)

    def fail(self, failure: Failure) -> None:
        """There will be no images."""
        self.failure = failure
        self._end(Status.FAILED)

    def cancelled(self) -> None:
        """The job has been stopped."""
        self._end(Status.CANCELLED)

    def _end(self, status: Status) -> None:
        if self.status.is_final:
            return
        self.status, self.finished = status, time.time()
        self.task = self.task.without_files()
        self._over.set()
        for listener in self._listeners:
            listener.put_nowait(None)

    async def over(self) -> None:
        """Wait until the job is done, has failed, or is cancelled."""
        await self._over.wait()

    async def steps(self) -> AsyncIterator[Progress]:
        """Yield the progress from now on until the job is over."""
        listener: asyncio.Queue[Progress | None] = asyncio.Queue()
        self._listeners.add(listener)
        try:
            while not self.status.is_final or not listener.empty():
                progress = await listener.get()
                if progress is None:
                    return
                yield progress
        finally:
            self._listeners.discard(listener)

    @property
    def num_bytes(self) -> int:
        """The bytes of its images and preview, for bounding what is kept."""
        images = self.made.images if self.made else ()
        return len(self.preview or b"") + sum(len(image.data) for image in images)
