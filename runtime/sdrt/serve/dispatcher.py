"""Gives the jobs that wait to the workers, and starts another worker when one dies."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from sdrt.serve.batch_sizes import BatchSizes
from sdrt.serve.job import Job
from sdrt.serve.job_queue import JobQueue
from sdrt.serve.slot import Slot
from sdrt.serve.task import Failure
from sdrt.serve.worker_process import Cancelled, Done, Failed, Lost, Ready, Stepped
from sdrt.serve.workers import Worker, Workers

__all__ = ["Dispatcher"]

log = logging.getLogger("sdrt.serve")

_MOST_ATTEMPTS = 3
"""A job that was in a worker's hands when it died runs again, as it may not be why. This often, at most."""
_PAUSES = (0.0, 0.0, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds before another worker takes the place of one that died before it was ready, by how many in a row did so. A
lack of memory may pass. After the last pause, no more are started."""
_PATIENCE = 60.0
"""Seconds in which a worker should stop a run that took too long. One that does not is ended."""


class Dispatcher:
    """Gives jobs to workers. All methods belong to the thread of the event loop.

    Args:
        queue: the jobs that wait.
        workers: the workers.
        max_batch: how many jobs may share a run, where that is faster.
        timeout: seconds that a run may take. None for any time.
    """

    def __init__(
        self,
        queue: JobQueue,
        workers: Workers,
        *,
        max_batch: int = 1,
        timeout: float | None = None,
    ) -> None:
        self.queue, self._workers = queue, workers
        self.slots = [Slot(place) for place in range(workers.places)]
        self._sizes, self._timeout = BatchSizes(max_batch), timeout
        self._lost = asyncio.Event()
        self._timers: dict[Job, asyncio.TimerHandle] = {}
        self._is_stopping = False
        self.failure: Failure | None = None
        self.worker_restarts = 0

    def start(self) -> None:
        """Start the workers."""
        for slot in self.slots:
            self._start(slot)

    async def lost(self) -> None:
        """Wait until there are no workers, and will be none. `failure` then says why."""
        await self._lost.wait()

    @property
    def is_lost(self) -> bool:
        """Whether there are no workers, and will be none."""
        return all(slot.is_given_up for slot in self.slots)

    @property
    def is_ready(self) -> bool:
        """Whether a worker takes runs."""
        return any(slot.is_ready for slot in self.slots) and not self._is_stopping

    @property
    def open_models(self) -> list[tuple[str, ...]]:
        """For each worker that runs, the models that it has open."""
        if (running := self._workers.running) is not None:
            return list(running)
        return [slot.worker.open_models for slot in self.slots if slot.worker is not None and slot.is_ready]

    @property
    def running(self) -> list[Job]:
        """The jobs that are made now."""
        return [job for slot in self.slots for job in slot.jobs if not job.status.is_final]

    def wake(self) -> None:
        """Give jobs to the workers that have none."""
        # Again after each run that began: a worker may have left a job to one that is busy now.
        while not self._is_stopping and any(self._feed(slot) for slot in self.slots):
            pass

    def _feed(self, slot: Slot) -> bool:
        """Give jobs to a worker that has none. Tells whether there were any for it."""
        if not slot.is_idle or (first := self._next_for(slot)) is None:
            return False
        self._begin(slot, [first, *self.queue.take_like(first, self._sizes.size_for(first.task) - 1)])
        return True

    def cancel(self, job: Job) -> None:
        """Stop a job, wherever it is."""
        if job.status.is_final:
            return
        # The others in its run may go on. Its own images are then thrown away.
        if self.queue.remove(job) or not self._stops_run_of(job):
            job.cancelled()

    def _stops_run_of(self, job: Job) -> bool:
        """Make nothing more for a job that runs. Tells whether its run stops, which others may share."""
        job.is_cancelling = True
        for slot in self.slots:
            if job in slot.jobs and slot.worker is not None:
                stops = all(one.is_cancelling for one in slot.jobs)
                if stops:
                    slot.worker.cancel()
                    loop = asyncio.get_running_loop()
                    loop.call_later(_PATIENCE, self._end_if_stuck, slot, slot.worker, slot.number)
                return stops
        return True

    async def stop(self, grace: float) -> None:
        """Refuse what waits, let what runs finish within `grace` seconds, or until cancelled, and end the workers."""
        self._is_stopping = True
        while (job := self.queue.take()) is not None:
            job.fail(_stopping())
        overs = [asyncio.ensure_future(job.over()) for job in self.running]
        try:
            if overs:
                await asyncio.wait(overs, timeout=grace)
        finally:
            for job in self.running:
                job.fail(_stopping())
            self._end_workers()

    def _end_workers(self) -> None:
        for slot in self.slots:
            if slot.next_start is not None:
                slot.next_start.cancel()
            if slot.worker is not None:
                end = slot.worker.kill if slot.jobs else slot.worker.stop
                end()

    def _next_for(self, slot: Slot) -> Job | None:
        """The next job: that whose turn it is, unless an idle worker has its model open and this one does not."""
        others = [one for one in self.slots if one is not slot and one.is_idle and one.worker is not None]

        def fits(job: Job) -> bool:
            model = job.task.model
            if slot.worker is None or model in slot.worker.open_models:
                return True
            return not any(one.worker is not None and model in one.worker.open_models for one in others)

        return self.queue.take(fits)

    def _begin(self, slot: Slot, jobs: list[Job]) -> None:
        assert slot.worker is not None
        for job in jobs:
            job.start()
            if self._timeout is not None:
                loop = asyncio.get_running_loop()
                self._timers[job] = loop.call_later(self._timeout, self._time_out, slot, job)
        slot.jobs = jobs
        slot.number = slot.worker.run([job.task for job in jobs])

    def _time_out(self, slot: Slot, job: Job) -> None:
        self._stops_run_of(job)
        job.fail(
            Failure(
                kind="TimeoutError",
                message=f"the images took longer than the {self._timeout:g} seconds that this server allows",
            )
        )

    def _end_if_stuck(self, slot: Slot, worker: Worker | None, number: int) -> None:
        """End a worker that still does a run which it was to stop. Another one takes its place."""
        if worker is not None and slot.worker is worker and slot.number == number and slot.jobs:
            log.error("%s does not stop a run, and is ended", worker.name)
            worker.kill()

    def _start(self, slot: Slot) -> None:
        slot.is_ready, slot.jobs, slot.next_start = False, [], None
        try:
            slot.worker = self._workers.start(
                slot.place, lambda worker, message: self._heard(slot, worker, message)
            )
        except OSError as error:  # the machine has no memory or no place for another process
            log.error("no worker can be started: %s", error)
            self._start_again(slot)

    def _heard(self, slot: Slot, worker: Worker, message: Any) -> None:
        if worker is not slot.worker:
            return
        if message is None:
            self._died(slot, worker)
        elif isinstance(message, Ready):
            self._is_up(slot, worker, message)
        elif isinstance(message, Lost):
            self._lose(message.failure)
        elif message.number == slot.number:
            self._answered(slot, worker, message)

    def _is_up(self, slot: Slot, worker: Worker, message: Ready) -> None:
        if message.failure is not None:
            self._could_not_open(slot, worker, message.failure)
            return
        slot.deaths = 0
        slot.is_ready, slot.provider = True, message.provider
        worker.open_models = message.open_models
        self.wake()

    def _could_not_open(self, slot: Slot, worker: Worker, failure: Failure) -> None:
        """A worker cannot open its first model. At the start that is final, and later it may be for lack of memory."""
        self.failure = failure
        worker.kill()  # heard when it has ended
        if slot.provider is None:
            slot.deaths = len(_PAUSES) + 1  # the server ends, and says why
        else:
            log.error("%s cannot open its first model: %s", worker.name, failure.message)

    def _answered(self, slot: Slot, worker: Worker, message: Any) -> None:
        if isinstance(message, Stepped):
            for job in slot.jobs:
                if not job.status.is_final:
                    job.step(message.progress)
            return
        worker.open_models = message.open_models
        jobs, slot.jobs = slot.jobs, []
        self._settle(jobs, message)
        self.wake()

    def _settle(self, jobs: list[Job], message: Done | Failed | Cancelled) -> None:
        self._learn(jobs, message)
        # The last first, as those that wait again go to the front.
        for index, job in reversed(list(enumerate(jobs))):
            self._stop_timer(job)
            if job.is_cancelling or isinstance(message, Cancelled):
                job.cancelled()
            elif isinstance(message, Done):
                job.finish(message.made[index])
            elif len(jobs) > 1:
                self._wait_again(job)
            else:
                job.fail(message.failure)
        if isinstance(message, Failed) and not message.failure.is_request:
            log.error("a run failed: %s\n%s", message.failure.message, message.trace)

    def _learn(self, jobs: list[Job], message: Done | Failed | Cancelled) -> None:
        """Note how long a run took, for the number of jobs in the next one like it."""
        if isinstance(message, Done):
            self._sizes.note(jobs[0].task, len(jobs), message.made[0].seconds)
        elif isinstance(message, Failed) and not message.failure.is_request:
            self._sizes.failed(jobs[0].task, len(jobs))

    def _stop_timer(self, job: Job) -> None:
        if timer := self._timers.pop(job, None):
            timer.cancel()

    def _wait_again(self, job: Job) -> None:
        """Put a job back. From now on it runs alone: one of its run may be wrong, and the others need not suffer."""
        if self._is_stopping:
            job.fail(_stopping())
            return
        job.shares = False
        job.wait_again()
        self.queue.put_back(job)

    def _died(self, slot: Slot, worker: Worker) -> None:
        jobs, slot.jobs, slot.is_ready = slot.jobs, [], False
        if jobs:
            # So many images at once may have taken more memory than there is.
            self._sizes.failed(jobs[0].task, len(jobs))
        for job in reversed(jobs):
            self._after_death(job)
        if self._is_stopping:
            return
        self.worker_restarts += 1
        if slot.deaths <= len(_PAUSES):
            log.error("%s %s", worker.name, worker.end)
        self._start_again(slot)

    def _start_again(self, slot: Slot) -> None:
        """Start another worker, after a while if several ended in a row."""
        slot.deaths += 1
        if slot.deaths > len(_PAUSES):
            self._give_up(slot)
        elif pause := _PAUSES[slot.deaths - 1]:
            slot.next_start = asyncio.get_running_loop().call_later(pause, self._start, slot)
        else:
            self._start(slot)

    def _after_death(self, job: Job) -> None:
        self._stop_timer(job)
        job.deaths += 1
        if job.is_cancelling:
            job.cancelled()
        elif job.deaths >= _MOST_ATTEMPTS:
            job.fail(_died(job.deaths))
        else:
            self._wait_again(job)

    def _give_up(self, slot: Slot) -> None:
        """Start no more workers here. Without any, nobody waits in vain."""
        slot.worker, slot.is_given_up = None, True
        message = f"workers end as soon as they start ({slot.deaths} in a row)"
        self.failure = self.failure or Failure(kind="WorkerError", message=message)
        if self.is_lost:
            self._lose(self.failure)
        else:
            log.error("a worker is given up, and others go on: %s", self.failure.message)

    def _lose(self, failure: Failure) -> None:
        """There are no workers any more: tell all who wait for one."""
        self.failure = failure
        for job in self.running:
            self._stop_timer(job)
            job.fail(failure)
        while (waiting := self.queue.take()) is not None:
            waiting.fail(failure)
        for slot in self.slots:
            slot.worker, slot.is_ready, slot.is_given_up = None, False, True
        self._lost.set()


def _stopping() -> Failure:
    return Failure(kind="ShutdownError", message="the server is shutting down")


def _died(deaths: int) -> Failure:
    return Failure(
        kind="WorkerError", message=f"the process that made the images ended, {deaths} times in a row"
    )
