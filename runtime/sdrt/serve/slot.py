"""A place for a worker."""

from __future__ import annotations

import asyncio

from sdrt.serve.job import Job
from sdrt.serve.workers import Worker

__all__ = ["Slot"]


class Slot:
    """A place for a worker, and the jobs that it makes now.

    Attributes:
        place: its number.
        worker: the worker. None before the first start, and when no more are started.
        jobs: the jobs of its run.
        number: the number of its run.
        is_ready: whether it takes runs.
        deaths: how many workers in a row ended here before they were ready.
        next_start: the start of another worker, if it is still to come.
        is_given_up: whether no more are started.
        provider: the provider of the worker that was ready last.
    """

    def __init__(self, place: int) -> None:
        self.place = place
        self.worker: Worker | None = None
        self.jobs: list[Job] = []
        self.number = 0
        self.is_ready = False
        self.deaths = 0
        self.next_start: asyncio.TimerHandle | None = None
        self.is_given_up = False
        self.provider: str | None = None

    @property
    def is_idle(self) -> bool:
        """Whether it can take a run."""
        return self.is_ready and not self.jobs
