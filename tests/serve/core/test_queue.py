"""Whose jobs may wait, and in which order they run."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from sdrt.serve.job import Job
from sdrt.serve.job_queue import JobQueue, QueueFullError
from sdrt.serve.task import ImageTask


def filled(bound: int, clients: Sequence[str], known: Sequence[str]) -> tuple[JobQueue, list[bool]]:
    """A queue, and which of the jobs of these clients it took."""

    async def fill() -> tuple[JobQueue, list[bool]]:
        queue, taken = JobQueue(bound, known), []
        for client in clients:
            try:
                queue.put(Job(task=ImageTask(model="shapes", settings={}), client=client))
                taken.append(True)
            except QueueFullError:
                taken.append(False)
        return queue, taken

    return asyncio.run(fill())


def test_a_key_has_a_place_however_much_another_asks_for() -> None:
    clients = [*["greedy"] * 20, "calm", "calm", "quiet"]
    _, taken = filled(8, clients, known=["greedy", "calm", "quiet"])
    assert taken == [*[True] * 6, *[False] * 14, True, False, True]


def test_many_unused_keys_keep_a_quarter_of_the_places() -> None:
    _, taken = filled(8, ["one"] * 10, known=[f"key-{number}" for number in range(100)])
    assert taken.count(True) == 6


@pytest.mark.parametrize("known", [[], ["one"]])
def test_a_client_alone_has_all_places(known: list[str]) -> None:
    _, taken = filled(8, ["one"] * 10, known)
    assert taken.count(True) == 8


def test_clients_take_turns() -> None:
    queue, _ = filled(8, ["one", "one", "one", "two", "three"], known=[])
    order = [job.client for job in iter(queue.take, None) if job]
    assert order == ["one", "two", "three", "one", "one"]
