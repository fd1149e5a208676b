"""The server's state: the models that it offers, the queue, the workers, and the jobs that are kept."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

from sdrt.serve.counts import JobCounts
from sdrt.serve.dispatcher import Dispatcher
from sdrt.serve.errors import ServeError, of_failure, queue_full
from sdrt.serve.job import Job
from sdrt.serve.job_queue import JobQueue, QueueFullError
from sdrt.serve.options import ServeOptions
from sdrt.serve.side_work import SideWork
from sdrt.serve.task import ImageTask
from sdrt.serve.uploads import Uploads
from sdrt.serve.worker import LocalWorkers
from sdrt.serve.workers import Workers

__all__ = ["Service"]

_MOST_JOBS = 10_000
"""How many jobs are kept, also of those that made nothing."""
_DECODING = 2
"""Requests whose images are looked at at once. Each image may have as many pixels as the limits allow."""


class Service:
    """Accepts tasks and keeps their results for a while. All methods belong to the thread of the event loop."""

    def __init__(
        self, options: ServeOptions, workers: Workers | None = None, uploads: Uploads | None = None
    ) -> None:
        self.options, self.limits = options, options.limits
        self.uploads = uploads or Uploads(options.limits.uploads)
        self.queue = JobQueue(options.limits.queue, options.keys.names)
        self.decoding = asyncio.Semaphore(_DECODING)
        self.side_work = SideWork(options.limits.side_work)
        self.dispatcher = Dispatcher(
            self.queue,
            workers or LocalWorkers(options.setups()),
            max_batch=options.max_batch,
            timeout=options.limits.timeout,
        )
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        # Those that are over, the one that ended first at the front, with the bytes of their results.
        self._over: OrderedDict[str, int] = OrderedDict()
        self._kept_bytes = 0
        self._seconds_per_job = 1.0
        self.counts = JobCounts()
        self._watchers: set[asyncio.Task[None]] = set()
        self.default_model = options.models[0].name
        self.started = time.time()
        self.secret = secrets.token_bytes(32)
        self.is_stopping = False

    @property
    def model_names(self) -> tuple[str, ...]:
        """The models that requests can name, the default one first."""
        return tuple(model.name for model in self.options.models)

    @property
    def lora_dir(self) -> Path | None:
        """The folder in which names of LoRAs are looked up."""
        return self.options.lora_dir

    def submit(self, task: ImageTask, client: str, priority: int = 0) -> Job:
        """Accept a task.

        Raises:
            ServeError: the server is shutting down, the client may not go first, or too many jobs or bytes wait.
        """
        if self.is_stopping:
            raise ServeError(503, "the server is shutting down", code="shutting_down")
        if (failure := self.dispatcher.failure) is not None and self.dispatcher.is_lost:
            raise of_failure(failure)
        if priority > 0 and not self.options.keys.may_go_first(client):
            raise _not_first(priority)
        job = Job(task=task, client=client, priority=priority)
        files = task.files
        self.uploads.hold(files)
        try:
            self.queue.put(job)
        except QueueFullError:
            self.uploads.let_go(files)
            raise self._full() from None
        self._forget_old()
        self._jobs[job.id] = job
        watcher = asyncio.ensure_future(self._note(job, files))
        self._watchers.add(watcher)
        watcher.add_done_callback(self._watchers.discard)
        self.dispatcher.wake()
        return job

    def check_room(self) -> None:
        """Raise `ServeError` if no job has a place, before a client's images are looked at."""
        if len(self.queue) >= self.queue.bound:
            raise self._full()

    def _full(self) -> ServeError:
        self.counts.refused += 1
        return queue_full(len(self.queue), self._retry_after())

    async def stop(self) -> None:
        """Accept nothing more, refuse what waits, and let what runs finish as long as the limits say."""
        if not self.is_stopping:
            self.is_stopping = True
            await self.dispatcher.stop(self.limits.grace)

    def cancel(self, job: Job) -> None:
        """Stop a job, wherever it is. Its place is free as soon as its worker has stopped."""
        self.dispatcher.cancel(job)
        self.dispatcher.wake()

    def job(self, id: str, client: str) -> Job:
        """A job of a client.

        Raises:
            ServeError: there is none, or it is another's.
        """
        self._forget_old()
        job = self._jobs.get(id)
        if job is None or job.client != client:
            raise ServeError(404, f"there is no job {id[:64]!r}, or no longer", code="job_not_found")
        return job

    def signed_job(self, id: str) -> Job | None:
        """A job by its id alone, for those who show that this server gave it to them with `secret`."""
        self._forget_old()
        return self._jobs.get(id)

    def jobs(self, client: str) -> Iterator[Job]:
        """The jobs of a client, the newest first."""
        return (job for job in reversed(self._jobs.values()) if job.client == client)

    def forget(self, job: Job) -> None:
        """Keep nothing of a job that is over."""
        if job.status.is_final:
            self._drop(job)

    def position(self, job: Job) -> int | None:
        """How many jobs are before a waiting one. None if it does not wait."""
        return next((place for place, one in enumerate(self.queue) if one is job), None)

    async def _note(self, job: Job, files: list[bytes]) -> None:
        """After a job, let go of its images, count it, make room for its result, and learn how long one takes."""
        await job.over()
        self.uploads.let_go(files)
        self.counts.add(job)
        if job.id in self._jobs:
            self._over[job.id] = job.num_bytes
            self._kept_bytes += job.num_bytes
        self._forget_old()
        if job.started is not None and job.finished is not None:
            self._seconds_per_job += 0.2 * (job.finished - job.started - self._seconds_per_job)

    def _retry_after(self) -> int:
        """Seconds until a worker probably takes the next job."""
        workers = max(1, len(self.dispatcher.open_models))
        return max(1, min(600, round(self._seconds_per_job / workers)))

    def _forget_old(self) -> None:
        """Forget the results that were kept longest, so that memory is bounded. The newest stays, however large."""
        while self._over:
            job = self._jobs[next(iter(self._over))]
            is_old = time.time() - (job.finished or 0.0) > self.limits.kept_seconds
            fits = self._kept_bytes <= self.limits.kept_bytes and len(self._jobs) < _MOST_JOBS
            if not is_old and (fits or len(self._over) == 1):
                return
            self._drop(job)

    def _drop(self, job: Job) -> None:
        if self._jobs.pop(job.id, None) is not None:
            self._kept_bytes -= self._over.pop(job.id, 0)


def _not_first(priority: int) -> ServeError:
    return ServeError(
        403,
        f"priority is {priority}, and jobs of this key may not go before others: expected at most 0",
        field="priority",
        code="priority_not_allowed",
    )
