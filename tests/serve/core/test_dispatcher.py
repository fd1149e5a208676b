"""Which jobs the dispatcher gives to which worker, and what becomes of those whose worker ends. No process runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from sdrt.serve import dispatcher as dispatching
from sdrt.serve.batch_sizes import BatchSizes
from sdrt.serve.dispatcher import Dispatcher
from sdrt.serve.job import Job, Status
from sdrt.serve.job_queue import JobQueue
from sdrt.serve.task import Failure, ImageTask, Made
from sdrt.serve.worker_process import Done, Failed, Lost, Ready


class Most:
    """Shares runs as far as may be, whatever was measured."""

    def __init__(self, most: int) -> None:
        self.most, self.failures = most, 0

    def size_for(self, task: ImageTask) -> int:
        return self.most

    def note(self, task: ImageTask, number: int, seconds: float) -> None:
        pass

    def failed(self, task: ImageTask, number: int) -> None:
        self.failures += 1


class FakeWorker:
    """A worker that does nothing by itself. `tell` is what it would say."""

    name, pid, end = "worker 1", 1, "ended with code -9"

    def __init__(self, heard: Callable[[FakeWorker, Any], object]) -> None:
        self._heard = heard
        self.open_models: tuple[str, ...] = ()
        self.runs: list[Sequence[ImageTask]] = []
        self.cancels, self.is_killed = 0, False

    def tell(self, message: Any) -> None:
        self._heard(self, message)

    def run(self, tasks: Sequence[ImageTask]) -> int:
        self.runs.append(tasks)
        return len(self.runs)

    def cancel(self) -> None:
        self.cancels += 1

    def stop(self) -> None:
        pass

    def kill(self) -> None:
        self.is_killed = True


class FakeWorkers:
    """Workers that do nothing by themselves."""

    running = None

    def __init__(self, places: int) -> None:
        self.places = places

    def start(self, place: int, heard: Callable[[FakeWorker, Any], object]) -> FakeWorker:
        return FakeWorker(heard)

    def __enter__(self) -> FakeWorkers:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def job(seed: int, model: str = "shapes", client: str = "me") -> Job:
    return Job(task=ImageTask(model=model, settings={"prompt": "a red circle", "seed": seed}), client=client)


def workers_of(made: Dispatcher) -> list[FakeWorker]:
    return [slot.worker for slot in made.slots]  # type: ignore[misc]


def started(count: int = 1, **options: Any) -> Dispatcher:
    """A dispatcher whose workers are ready."""
    made = Dispatcher(JobQueue(64), FakeWorkers(count), **options)
    made.start()
    for worker in workers_of(made):
        worker.tell(Ready("cpu"))
    return made


def put(made: Dispatcher, *jobs: Job) -> None:
    """Add jobs before any of them is given away."""
    for one in jobs:
        made.queue.put(one)
    made.wake()


def seeds(tasks: Sequence[ImageTask]) -> list[int]:
    return [task.settings["seed"] for task in tasks]


MADE = Made(images=(), settings={}, seconds=1.0)
FAILED = Failed(1, Failure(kind="RequestError", message="wrong", is_request=True), ())


@pytest.fixture(autouse=True)
def shares_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatching, "BatchSizes", Most)


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(test())


def test_a_job_whose_worker_dies_while_the_server_ends_is_told() -> None:
    async def test() -> None:
        made, one = started(), job(0)
        put(made, one)
        stopping = asyncio.ensure_future(made.stop(grace=5))
        await asyncio.sleep(0)
        workers_of(made)[0].tell(None)
        await stopping
        assert one.failure is not None
        assert one.failure.kind == "ShutdownError"

    run(test)


def test_jobs_of_a_run_that_fails_while_the_server_ends_are_told() -> None:
    async def test() -> None:
        made, jobs = started(max_batch=2), [job(0), job(1)]
        put(made, *jobs)
        stopping = asyncio.ensure_future(made.stop(grace=5))
        await asyncio.sleep(0)
        workers_of(made)[0].tell(FAILED)
        await stopping
        assert [one.status for one in jobs] == [Status.FAILED] * 2

    run(test)


def test_a_stop_that_is_cut_short_ends_what_runs() -> None:
    async def test() -> None:
        made, one = started(), job(0)
        put(made, one)
        stopping = asyncio.ensure_future(made.stop(grace=1000))
        await asyncio.sleep(0)
        stopping.cancel()
        await asyncio.wait((stopping,))
        assert one.status is Status.FAILED
        assert workers_of(made)[0].is_killed

    run(test)


def test_jobs_whose_worker_dies_run_alone_afterwards() -> None:
    """One of them may have killed it, and would kill it again."""

    async def test() -> None:
        made = started(max_batch=3)
        put(made, job(0), job(1), job(2))
        workers_of(made)[0].tell(None)
        workers_of(made)[0].tell(Ready("cpu"))
        assert [seeds(tasks) for tasks in workers_of(made)[0].runs] == [[0]]

    run(test)


def test_jobs_of_a_run_that_fails_run_again_in_their_order() -> None:
    async def test() -> None:
        made = started(max_batch=3)
        put(made, job(0), job(1), job(2))
        (worker,) = workers_of(made)
        worker.tell(FAILED)
        for number in (2, 3):
            worker.tell(Failed(number, FAILED.failure, ()))
        assert [seeds(tasks) for tasks in worker.runs] == [[0, 1, 2], [0], [1], [2]]

    run(test)


def test_a_wrong_request_does_not_keep_others_from_sharing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatching, "BatchSizes", BatchSizes)

    async def test() -> None:
        made = started(max_batch=2)
        (worker,) = workers_of(made)
        for number in (1, 2):
            put(made, job(number))
            worker.tell(Done(number, (MADE,), ()))
        put(made, job(3))  # what runs while the next ones come
        for one in (job(4), job(5)):
            put(made, one)
        worker.tell(Done(3, (MADE,), ()))
        for number in (4, 5, 6):
            worker.tell(Failed(number, FAILED.failure, ()))
        put(made, job(7))
        for one in (job(8), job(9)):
            put(made, one)
        worker.tell(Done(7, (MADE,), ()))
        assert [seeds(tasks) for tasks in worker.runs[3:]] == [[4, 5], [4], [5], [7], [8, 9]]

    run(test)


def test_every_job_of_a_run_that_takes_too_long_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        made, jobs = started(max_batch=2, timeout=0.0), [job(0), job(1)]
        put(made, *jobs)
        for one in jobs:
            await one.over()
        assert [one.status for one in jobs] == [Status.FAILED] * 2
        assert {one.failure.kind for one in jobs if one.failure} == {"TimeoutError"}
        assert workers_of(made)[0].cancels == 1

    run(test)


def test_a_worker_that_does_not_stop_a_run_in_time_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatching, "_PATIENCE", 0.0)

    async def test() -> None:
        made, one = started(timeout=0.0), job(0)
        put(made, one)
        await one.over()
        await asyncio.sleep(0.01)
        assert workers_of(made)[0].is_killed

    run(test)


def test_a_worker_that_stops_in_time_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatching, "_PATIENCE", 0.0)

    async def test() -> None:
        made, one = started(timeout=0.0), job(0)
        put(made, one)
        await one.over()
        (worker,) = workers_of(made)
        worker.tell(Done(1, (MADE,), ()))
        await asyncio.sleep(0.01)
        assert not worker.is_killed
        assert one.status is Status.FAILED

    run(test)


def test_a_worker_takes_what_a_better_one_is_too_busy_for() -> None:
    async def test() -> None:
        made = started(2)
        first, second = workers_of(made)
        second.open_models = ("large",)
        put(made, job(0, "large"), job(1, "large"))
        assert ([*map(seeds, first.runs)], [*map(seeds, second.runs)]) == ([[1]], [[0]])

    run(test)


def test_a_worker_that_cannot_open_its_model_is_told_although_another_can(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def test() -> None:
        made = Dispatcher(JobQueue(1), FakeWorkers(2))
        made.start()
        first, second = workers_of(made)
        first.tell(Ready("cpu"))
        second.tell(Ready(None, Failure(kind="ProviderError", message="no such device")))
        with caplog.at_level(logging.ERROR):
            second.tell(None)
        assert made.is_ready
        assert "no such device" in caplog.text

    run(test)


def test_a_worker_that_cannot_be_started_again_is_tried_later(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(dispatching, "_PAUSES", (0.0, 0.01, 0.01))

    async def test() -> None:
        made, one = started(), job(0)

        def start(*_: object) -> FakeWorker:
            raise BlockingIOError(11, "Resource temporarily unavailable")

        with monkeypatch.context() as patch:
            patch.setattr(FakeWorkers, "start", start)
            workers_of(made)[0].tell(None)
        assert "no worker can be started: [Errno 11]" in caplog.text
        made.queue.put(one)
        before = made.slots[0].worker
        while made.slots[0].worker is before:
            await asyncio.sleep(0.005)
        workers_of(made)[0].tell(Ready("cpu"))
        assert seeds(workers_of(made)[0].runs[0]) == [0]

    run(test)


def test_workers_that_die_before_they_are_ready_are_given_up_and_waiting_jobs_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dispatching, "_PAUSES", (0.0, 0.01, 0.01))

    async def test() -> None:
        made, one = started(), job(0)
        workers_of(made)[0].tell(None)
        made.queue.put(one)
        for _ in range(2):
            before = workers_of(made)[0]
            before.tell(None)
            assert not made.is_lost
            while made.slots[0].worker is before:
                await asyncio.sleep(0.005)
        workers_of(made)[0].tell(None)
        await asyncio.wait_for(made.lost(), 5)
        assert one.failure is not None
        assert one.failure.message == "workers end as soon as they start (4 in a row)"

    run(test)


def test_a_number_of_images_whose_worker_died_counts_as_failed() -> None:
    async def test() -> None:
        made = started(max_batch=3)
        put(made, job(0), job(1))
        workers_of(made)[0].tell(None)
        assert made._sizes.failures == 1  # type: ignore[attr-defined]

    run(test)


def test_when_all_workers_are_lost_every_job_is_told() -> None:
    async def test() -> None:
        made, jobs = started(2), [job(seed) for seed in range(4)]
        put(made, *jobs)
        failure = Failure(kind="WorkerError", message="the cluster is gone")
        for worker in workers_of(made):
            worker.tell(Lost(failure))
        assert [one.failure for one in jobs] == [failure] * 4
        await made.lost()
        assert not made.is_ready

    run(test)


def test_a_cancelled_run_that_goes_on_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatching, "_PATIENCE", 0.01)

    async def test() -> None:
        made, one = started(), job(0)
        put(made, one)
        made.cancel(one)
        assert workers_of(made)[0].cancels == 1
        while not workers_of(made)[0].is_killed:
            await asyncio.sleep(0.005)

    run(test)


def test_a_shared_run_that_failed_is_no_death() -> None:
    async def test() -> None:
        made, jobs = started(max_batch=2), [job(0), job(1)]
        put(made, *jobs)
        workers_of(made)[0].tell(FAILED)
        for deaths in range(1, 4):
            assert jobs[0].status is Status.RUNNING
            workers_of(made)[0].tell(None)
            assert jobs[0].deaths == deaths
            workers_of(made)[0].tell(Ready("cpu"))
        assert jobs[0].failure is not None
        assert "3 times in a row" in jobs[0].failure.message

    run(test)
