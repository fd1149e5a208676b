"""Streams on which nothing happens for a while, for lack of a worker."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import Request
from starlette.types import Message

from sdrt.serve import waiting
from sdrt.serve.job import Job
from sdrt.serve.routes import jobs as routes
from sdrt.serve.service import Service
from sdrt.serve.task import Failure, ImageTask, Made, MadeImage, Progress
from tests.serve.core.test_kept import service

DONE = Made(images=(MadeImage(data=b"", seed=1, width=8, height=8, text=""),), settings={}, seconds=1.0)


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "SILENCE", 0.2)
    monkeypatch.setattr(routes, "_LOOK", 0.05)


def submitted(keeper: Service, seed: int) -> Job:
    return keeper.submit(ImageTask(model="shapes", settings={"seed": seed}), "me")


def connected() -> Request:
    """A request of a client that stays."""

    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    return Request({"type": "http", "state": {}}, receive)


def read(event: str) -> tuple[str, Any]:
    if event.startswith(":"):
        return event, None
    name, data = event.removesuffix("\n\n").split("\n")
    return name.removeprefix("event: "), json.loads(data.removeprefix("data: "))


async def after_comments(events: AsyncIterator[str]) -> tuple[str, Any]:
    async for event in events:
        if not event.startswith(":"):
            return read(event)
    raise AssertionError


def test_the_events_of_a_job_tell_its_new_place() -> None:
    async def test() -> None:
        keeper = service()
        first, second, job = (submitted(keeper, seed) for seed in range(3))
        events = routes._events(keeper, job)
        assert read(await anext(events))[1]["position"] == 2
        assert await anext(events) == waiting.SILENT
        keeper.cancel(first)
        name, data = await after_comments(events)
        assert (name, data["status"], data["position"]) == ("status", "queued", 1)
        keeper.cancel(second)
        assert (await after_comments(events))[1]["position"] == 0
        keeper.queue.remove(job)
        job.start()
        name, data = await after_comments(events)
        assert (name, data["status"], data["position"]) == ("status", "running", None)
        job.step(Progress(step=1, num_steps=2))
        assert (await after_comments(events))[0] == "step"
        assert await anext(events) == waiting.SILENT
        job.finish(DONE)
        assert [read(event)[0] async for event in events] == ["done"]

    asyncio.run(test())


def test_steps_that_come_at_once_are_all_told_and_nothing_between() -> None:
    async def test() -> None:
        keeper = service()
        job = submitted(keeper, 1)
        events = routes._events(keeper, job)
        await anext(events)
        coming = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        job.start()
        for step in (1, 2, 3):
            job.step(Progress(step=step, num_steps=3))
        job.finish(DONE)
        told = [read(await coming), *[read(event) async for event in events]]
        assert [(name, data.get("step")) for name, data in told] == [
            ("step", 1),
            ("step", 2),
            ("step", 3),
            ("done", 3),
        ]

    asyncio.run(test())


def test_a_stream_begins_after_a_silence_and_goes_on_with_every_step() -> None:
    async def test() -> None:
        keeper = service()
        job = submitted(keeper, 1)
        steps = await waiting.begun(connected(), keeper, job)
        assert await anext(steps) is None
        assert await anext(steps) is None
        job.start()
        told = [Progress(step=step, num_steps=2) for step in (1, 2)]
        for step in told:
            job.step(step)
        job.finish(DONE)
        assert [step async for step in steps if step is not None] == told

    asyncio.run(test())


def test_a_job_that_fails_before_is_still_an_answer_of_its_own() -> None:
    async def test() -> None:
        keeper = service()
        job = submitted(keeper, 1)
        failure = Failure(kind="RequestError", message="wrong", argument="seed", is_request=True)
        asyncio.get_running_loop().call_soon(job.fail, failure)
        with pytest.raises(waiting.ServeError, match="wrong"):
            await waiting.begun(connected(), keeper, job)

    asyncio.run(test())
