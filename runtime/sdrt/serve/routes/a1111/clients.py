"""What the server remembers of each client of A1111's API: the options that it set, and its runs."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass, field

from fastapi import Request

from sdrt.serve.job import Job, Status
from sdrt.serve.routes.common import client_of

__all__ = ["Client", "Clients", "Run", "client_state"]

_MOST_CLIENTS = 1000


@dataclass(eq=False, kw_only=True)
class Run:
    """A request for images, which is one job for each of its `n_iter` batches.

    Attributes:
        jobs: the jobs, in order.
        task_id: the client's own name for it.
        began: seconds of `time.time()`.
        is_interrupted: whether the client has asked to stop it.
        is_skipped: whether the client has asked to skip a batch.
    """

    jobs: list[Job]
    task_id: str | None = None
    began: float = field(default_factory=time.time)
    is_interrupted: bool = False
    is_skipped: bool = False

    @property
    def current(self) -> Job | None:
        """The first job that is not over: one that runs, else one that waits."""
        left = [job for job in self.jobs if not job.status.is_final]
        running = [job for job in left if job.status is Status.RUNNING]
        return next(iter(running or left), None)

    @property
    def is_running(self) -> bool:
        """Whether a worker makes one of its batches."""
        return any(job.status is Status.RUNNING for job in self.jobs)

    @property
    def share(self) -> float:
        """How much of it is done, from 0 to 1."""
        return sum(map(_share, self.jobs)) / len(self.jobs)


def _share(job: Job) -> float:
    if job.status.is_final:
        return 1.0
    step = job.progress
    return step.step / step.num_steps if step is not None and step.num_steps else 0.0


@dataclass(eq=False)
class Client:
    """One client.

    Attributes:
        model: the model that it chose. None for the server's default.
        clip_skip: `CLIP_stop_at_last_layers` as it chose it.
        runs: what it waits for, the oldest first.
    """

    model: str | None = None
    clip_skip: int = 1
    runs: list[Run] = field(default_factory=list)

    @property
    def current(self) -> Run | None:
        """The oldest run that a worker makes, else the oldest."""
        return next((run for run in self.runs if run.is_running), next(iter(self.runs), None))


class Clients:
    """The clients by their names. Those that were idle longest are forgotten."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Client] = OrderedDict()

    def of(self, request: Request) -> Client:
        """The client that sent a request."""
        name = client_of(request)
        found = self._known.setdefault(name, Client())
        self._known.move_to_end(name)
        idle = [one for one, client in self._known.items() if not client.runs and client is not found]
        for one in idle[: max(0, len(self._known) - _MOST_CLIENTS)]:
            del self._known[one]
        return found


def client_state(request: Request) -> Client:
    """What the server remembers of the client of a request."""
    clients: Clients = request.app.state.a1111_clients
    return clients.of(request)
